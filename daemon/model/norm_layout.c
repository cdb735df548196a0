/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/model/norm_layout.h"

#include "daemon/base/alloc.h"
#include "daemon/model/slices.h"

mr_status mr_norm_layout_make(const mr_layer_spec *spec, const mr_shape *input,
                              mr_norm_layout *out_layout) {
    MR_ASSERT(spec->type == MR_LAYER_TYPE_LAYERNORM || spec->type == MR_LAYER_TYPE_RMSNORM);
    MR_ASSERT(input->dim_count >= 1);
    mr_norm_layout layout = {.rows = 1, .columns = input->dims[input->dim_count - 1]};
    mr_slices slices = {0};
    for (size_t i = 0; i + 1 < input->dim_count; i++)
        slices.overflowed |= !mr_size_mul(layout.rows, input->dims[i], &layout.rows);
    layout.mean = mr_slices_take(&slices, MR_DTYPE_F32, layout.rows,
                                 spec->type == MR_LAYER_TYPE_LAYERNORM);
    layout.rstd = mr_slices_take(&slices, MR_DTYPE_F32, layout.rows, 1);
    layout.saved_bytes = slices.bytes;
    if (slices.overflowed)
        return MR_ERROR(INVALID_ARGUMENT,
                        "a %s over this input needs more bytes than can be counted",
                        mr_layer_type_name(spec->type));
    *out_layout = layout;
    return MR_OK;
}
