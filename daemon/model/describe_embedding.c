/* SPDX-License-Identifier: Apache-2.0 */
/* embedding: tokens i32 [B, T] to y [B, T, C] = wte[token] + wpe[t]. Saves, retains and needs
 * nothing beyond its input. Tokens have no gradient, so backward-input is nothing. The model axis
 * cuts the vocabulary: a shard has the rows of its own tokens, and y is the sum of all. */
#include "daemon/model/describe.h"

mr_status mr_describe_embedding(const mr_describe_input *in, mr_layer_description *out) {
    const mr_layer_spec *spec = in->spec;
    char text[MR_SHAPE_TEXT_BYTES];
    if (in->input->dtype != MR_DTYPE_I32 || in->input->dim_count != 2)
        return MR_ERROR(INVALID_ARGUMENT,
                        "the input is %s; an embedding needs tokens, i32 [B, T], so it is the "
                        "first layer",
                        mr_shape_text(in->input, text));
    if (spec->positions > 0 && spec->positions < in->input->dims[1])
        return MR_ERROR(INVALID_ARGUMENT,
                        "positions is %zu; it must be at least the sequence length, %zu",
                        spec->positions, in->input->dims[1]);
    if (spec->dim == 0)
        return MR_ERROR(INVALID_ARGUMENT, "dim is 0; it must be at least 1");
    MR_TRY(mr_describe_add(in, out,
                           (mr_describe_parameter){"wte.weight", spec->vocab, spec->dim,
                                                   MR_INIT_NORMAL, MR_MODEL_CUT_ROWS,
                                                   spec->tie[0] != '\0'}));
    if (spec->positions > 0)
        MR_TRY(mr_describe_add(in, out,
                               (mr_describe_parameter){"wpe.weight", spec->positions, spec->dim,
                                                       MR_INIT_NORMAL, MR_MODEL_CUT_NONE, false}));
    mr_describe_input tokens = *in;
    mr_shape with_width = *in->input;
    with_width.dim_count = 3;
    tokens.input = &with_width;
    MR_TRY(mr_describe_output(&tokens, out, spec->dim));
    tokens.rows = in->elements;
    MR_TRY(mr_describe_sum(&tokens, out, spec->dim));
    out->flops_forward = (double)in->elements * (double)spec->dim;
    out->flops_backward_weight = out->flops_forward;
    return MR_OK;
}
