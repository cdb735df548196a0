/* SPDX-License-Identifier: Apache-2.0 */
/* lm_head: logits [.., V] = x w^T, without bias. Tied to an embedding, its weight is the
 * embedding's and goes by the embedding's name. Saves, retains and needs nothing beyond its
 * input. The model axis cuts the vocabulary: a shard gives the logits of its own rows. */
#include "daemon/model/describe.h"

mr_status mr_describe_lm_head(const mr_describe_input *in, mr_layer_description *out) {
    const mr_layer_spec *spec = in->spec;
    bool tied = spec->tie[0] != '\0';
    MR_TRY(mr_describe_check_width(in, "dim", spec->dim));
    MR_TRY(mr_describe_add(in, out,
                           (mr_describe_parameter){tied ? "wte.weight" : "weight", spec->vocab,
                                                   spec->dim, MR_INIT_NORMAL, MR_MODEL_CUT_ROWS,
                                                   tied}));
    MR_TRY(mr_describe_output_cut(in, out, spec->vocab));
    MR_TRY(mr_describe_sum(in, out, spec->dim));
    mr_describe_add_product(in, out, mr_describe_share(in, spec->vocab), spec->dim);
    if (!in->input->needs_gradient)
        out->flops_backward_input = 0;
    return MR_OK;
}
