/* SPDX-License-Identifier: Apache-2.0 */
/* layernorm (arXiv:1607.06450) and rmsnorm (arXiv:1910.07467) as layers of their own, over the last
 * dimension. Memory: norm_layout.h. */
#include "daemon/model/describe.h"
#include "daemon/model/norm_layout.h"

mr_status mr_describe_norm(const mr_describe_input *in, mr_layer_description *out) {
    mr_norm_layout layout;
    size_t C = in->spec->dim;
    MR_TRY(mr_describe_check_width(in, "dim", C));
    MR_TRY(mr_norm_layout_make(in->spec, in->input, &layout));
    MR_TRY(mr_describe_add(
        in, out, (mr_describe_parameter){"weight", C, 0, MR_INIT_ONE, MR_MODEL_CUT_NONE, false}));
    if (in->spec->type == MR_LAYER_TYPE_LAYERNORM)
        MR_TRY(mr_describe_add(in, out,
                               (mr_describe_parameter){"bias", C, 0, MR_INIT_ZERO,
                                                       MR_MODEL_CUT_NONE, false}));
    MR_TRY(mr_describe_output(in, out, C));
    out->saved_bytes = layout.saved_bytes;
    out->flops_forward = (double)in->elements;
    out->flops_backward_input = in->input->needs_gradient ? (double)in->elements : 0;
    out->flops_backward_weight = (double)in->elements;
    return MR_OK;
}
