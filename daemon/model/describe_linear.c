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
    if (spec->parallel == MR_PARALLEL_COLUMN)
        MR_TRY(mr_describe_check_divides(in, "out", spec->out));
    if (spec->parallel == MR_PARALLEL_ROW)
        MR_TRY(mr_describe_check_divides(in, "in", spec->in));
    if (in->input->cut_from > 0 && in->input->cut_from != spec->in)
        return MR_ERROR(INVALID_ARGUMENT, "in is %zu but the input is a share of %zu", spec->in,
                        in->input->cut_from);
    if (spec->parallel == MR_PARALLEL_ROW && in->model_width > 1 && in->input->cut_from == 0)
        return MR_ERROR(INVALID_ARGUMENT,
                        "parallel is row, which needs an input cut over pipeline.topology.model, "
                        "%zu, as a linear with parallel: column gives it",
                        in->model_width);
    size_t inputs =
        spec->parallel == MR_PARALLEL_ROW ? mr_describe_share(in, spec->in) : spec->in;
    MR_TRY(mr_describe_check_width(in, "in", inputs));
    MR_TRY(mr_describe_add(
        in, out,
        (mr_describe_parameter){"weight", spec->out, spec->in, MR_INIT_NORMAL, cut, false}));
    if (spec->bias)
        MR_TRY(mr_describe_add(in, out,
                               (mr_describe_parameter){
                                   "bias", spec->out, 0, MR_INIT_ZERO,
                                   cut == MR_MODEL_CUT_ROWS ? cut : MR_MODEL_CUT_NONE, false}));
    if (spec->parallel == MR_PARALLEL_COLUMN)
        MR_TRY(mr_describe_output_cut(in, out, spec->out));
    else
        MR_TRY(mr_describe_output(in, out, spec->out));
    if (spec->parallel != MR_PARALLEL_NONE)
        MR_TRY(mr_describe_sum(in, out,
                               spec->parallel == MR_PARALLEL_ROW ? spec->out : spec->in));
    mr_describe_add_product(in, out, out->output.dims[out->output.dim_count - 1], inputs);
    if (!in->input->needs_gradient)
        out->flops_backward_input = 0;
    return MR_OK;
}
