/* SPDX-License-Identifier: Apache-2.0 */
/* linear: y [.., out] = x w^T + bias. Saves, retains and needs nothing beyond its input. Over the
 * model axis a column-parallel one cuts its outputs (rows of [out, in], and the bias with them), a
 * row-parallel one its inputs (arXiv:1909.08053). */
#include "daemon/model/describe.h"

mr_status mr_describe_linear(const mr_describe_input *in, mr_layer_description *out) {
    static const mr_model_cut weight_cuts[MR_PARALLEL_COUNT] = {
        [MR_PARALLEL_NONE] = MR_MODEL_CUT_NONE,
        [MR_PARALLEL_COLUMN] = MR_MODEL_CUT_ROWS,
        [MR_PARALLEL_ROW] = MR_MODEL_CUT_COLUMNS,
    };
    const mr_layer_spec *spec = in->spec;
    mr_model_cut cut = weight_cuts[spec->parallel];
    MR_TRY(mr_describe_check_width(in, "in", spec->in));
    MR_TRY(mr_describe_add(
        in, out,
        (mr_describe_parameter){"weight", spec->out, spec->in, MR_INIT_NORMAL, cut, false}));
    if (spec->bias)
        MR_TRY(mr_describe_add(in, out,
                               (mr_describe_parameter){
                                   "bias", spec->out, 0, MR_INIT_ZERO,
                                   cut == MR_MODEL_CUT_ROWS ? cut : MR_MODEL_CUT_NONE, false}));
    MR_TRY(mr_describe_output(in, out, spec->out));
    mr_describe_add_product(in, out, spec->out, spec->in);
    if (!in->input->needs_gradient)
        out->flops_backward_input = 0;
    return MR_OK;
}
