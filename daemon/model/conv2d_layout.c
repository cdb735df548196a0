/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/model/conv2d_layout.h"

#include "daemon/base/alloc.h"
#include "daemon/model/slices.h"

/* Elements of a group's columns: 4 MiB of floats, about what a core's caches hold. */
enum { GROUP_ELEMENTS = 1 << 20 };

mr_status mr_conv2d_layout_make(const mr_layer_spec *spec, const mr_shape *input,
                                mr_conv2d_layout *out_layout) {
    const mr_conv2d *conv = mr_conv2d_of(spec);
    char text[MR_SHAPE_TEXT_BYTES];
    mr_conv2d_layout l = {.dtype = mr_layer_spec_activation(spec), .O = conv->out};
    if (input->dim_count != 4)
        return MR_ERROR(INVALID_ARGUMENT, "the input is %s; it must be [N, C, H, W]",
                        mr_shape_text(input, text));
    if (input->dims[1] != conv->in)
        return MR_ERROR(INVALID_ARGUMENT, "in is %zu but the input is %s; it must be %zu", conv->in,
                        mr_shape_text(input, text), input->dims[1]);
    l.N = input->dims[0];
    MR_TRY(mr_describe_positions(input->dims[2], conv->kernel, conv->stride, conv->padding, &l.OH));
    MR_TRY(mr_describe_positions(input->dims[3], conv->kernel, conv->stride, conv->padding, &l.OW));
    size_t sample = 0;
    bool fits = mr_size_mul(l.OH, l.OW, &l.P) && mr_size_mul(conv->kernel, conv->kernel, &l.K) &&
                mr_size_mul(l.K, conv->in, &l.K) && mr_size_mul(l.P, l.K, &sample);
    if (!fits)
        return MR_ERROR(INVALID_ARGUMENT, "the columns of %s are more than can be counted",
                        mr_shape_text(input, text));
    l.group = sample < GROUP_ELEMENTS ? GROUP_ELEMENTS / sample : 1;
    l.group = l.group < l.N ? l.group : l.N;
    mr_slices slices = {0};
    size_t rows = 0;
    fits = mr_size_mul(l.group, l.P, &rows);
    l.columns = mr_slices_take(&slices, l.dtype, rows, l.K);
    l.rows = mr_slices_take(&slices, l.dtype, rows, l.O);
    l.scratch_bytes = slices.bytes;
    if (!fits || slices.overflowed)
        return MR_ERROR(INVALID_ARGUMENT, "the columns of %s are more than can be counted",
                        mr_shape_text(input, text));
    *out_layout = l;
    return MR_OK;
}
