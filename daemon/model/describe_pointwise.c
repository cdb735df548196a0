/* SPDX-License-Identifier: Apache-2.0 */
/* relu, gelu (tanh form), silu, dropout and identity: the same shape out as in, no parameters,
 * nothing kept: backward uses the input, and dropout draws its mask again. */
#include "daemon/model/describe.h"

mr_status mr_describe_pointwise(const mr_describe_input *in, mr_layer_description *out) {
    MR_TRY(mr_describe_check_width(in, "the width", in->input->dims[in->input->dim_count - 1]));
    MR_TRY(mr_describe_output(in, out, in->input->dims[in->input->dim_count - 1]));
    out->output.cut_from = in->input->cut_from;
    out->flops_forward = (double)in->elements;
    out->flops_backward_input = in->input->needs_gradient ? (double)in->elements : 0;
    return MR_OK;
}
