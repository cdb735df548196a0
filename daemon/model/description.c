/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/model/description.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/model/layer_check.h"
#include "daemon/model/layer_type.h"
#include "daemon/model/shard.h"
#include "daemon/model/slices.h"

/* The deviation of initial weights (GPT-2's). */
static const double INIT_DEVIATION = 0.02;

static mr_status describe_sizes(mr_describe_input *in) {
    char text[MR_SHAPE_TEXT_BYTES];
    if (in->input->dim_count == 0 || in->input->dim_count > MR_TENSOR_DIMS_MAX)
        return MR_ERROR(INVALID_ARGUMENT, "the input has %zu dimensions; it must have 1 to %d",
                        in->input->dim_count, MR_TENSOR_DIMS_MAX);
    mr_shape rows = *in->input;
    rows.dim_count--;
    size_t bytes = 0;
    if (!mr_shape_elements(&rows, &in->rows) || !mr_shape_elements(in->input, &in->elements) ||
        !mr_shape_bytes(in->input, &bytes))
        return MR_ERROR(INVALID_ARGUMENT, "the input %s has more bytes than can be counted",
                        mr_shape_text(in->input, text));
    return MR_OK;
}

/* Room for the input in the layer's own type, where the feed gives it in f32. */
static mr_status describe_input_cast(const mr_describe_input *in, mr_layer_description *out) {
    char text[MR_SHAPE_TEXT_BYTES];
    mr_dtype activation = mr_layer_spec_activation(in->spec);
    mr_slices slices = {.bytes = out->saved_bytes};
    if (in->input->dtype != MR_DTYPE_F32 || activation == MR_DTYPE_F32)
        return MR_OK;
    out->casts_input = true;
    out->input_cast = mr_slices_take(&slices, activation, in->elements, 1);
    out->saved_bytes = slices.bytes;
    if (slices.overflowed)
        return MR_ERROR(INVALID_ARGUMENT, "the input %s has more bytes than can be counted",
                        mr_shape_text(in->input, text));
    return MR_OK;
}

mr_dtype mr_parameter_compute_dtype(const mr_parameter *parameter, mr_dtype activation) {
    bool matrix = parameter->shape.dim_count >= 2;
    return matrix ? activation : MR_DTYPE_F32;
}

/* Can the layer take one rank's share of its input? Elementwise layers take it as they take the
 * whole; of the others only a row-parallel linear, which sums over the ranks. */
static bool describe_takes_share(const mr_layer_spec *spec) {
    return spec->type == MR_LAYER_TYPE_RELU || spec->type == MR_LAYER_TYPE_GELU ||
           spec->type == MR_LAYER_TYPE_SILU || spec->type == MR_LAYER_TYPE_DROPOUT ||
           spec->type == MR_LAYER_TYPE_IDENTITY ||
           (spec->type == MR_LAYER_TYPE_LINEAR && spec->parallel == MR_PARALLEL_ROW);
}

/* Room for the whole input where only a share of it comes. */
static mr_status describe_gather(const mr_describe_input *in, mr_layer_description *out) {
    char text[MR_SHAPE_TEXT_BYTES];
    mr_slices saved = {.bytes = out->saved_bytes};
    mr_slices scratch = {.bytes = out->scratch_bytes};
    out->gathers_input = true;
    out->input_gathered = mr_slices_take(&saved, in->input->dtype, in->elements, 1);
    out->gather_scratch = mr_slices_take(&scratch, in->input->dtype, in->elements, 1);
    out->saved_bytes = saved.bytes;
    out->scratch_bytes = scratch.bytes;
    if (saved.overflowed || scratch.overflowed)
        return MR_ERROR(INVALID_ARGUMENT, "the input %s has more bytes than can be counted",
                        mr_shape_text(in->input, text));
    return MR_OK;
}

/* Parameters were described whole; here a shard's get their own shapes. */
static mr_status describe_shards(const mr_describe_input *in, mr_layer_description *out) {
    out->parameter_elements = 0;
    out->trainable_elements = 0;
    for (size_t i = 0; i < out->parameter_count; i++) {
        mr_shard shard;
        size_t elements = 0;
        MR_TRY(mr_shard_make(&out->parameters[i], in->model_rank, in->model_width, &shard));
        MR_ASSERT(mr_shape_elements(&shard.shape, &elements)); /* no more than the whole's */
        out->parameters[i].shape = shard.shape;
        out->parameter_elements += elements;
        out->trainable_elements += out->parameters[i].frozen ? 0 : elements;
    }
    return MR_OK;
}

const mr_parameter *mr_layer_description_tied(const mr_layer_description *description,
                                              size_t slot) {
    MR_ASSERT(slot < description->tied_count);
    size_t i = 0;
    while (!description->parameters[i].tied || description->parameters[i].tie_slot != slot)
        i++;
    return &description->parameters[i];
}

uint64_t mr_layer_drawn_before(const mr_layer_description *descriptions, size_t layer,
                               size_t parameter) {
    uint64_t drawn = 0;
    for (size_t i = 0; i <= layer; i++) {
        size_t end = i < layer ? descriptions[i].parameter_count : parameter;
        for (size_t j = 0; j < end; j++) {
            const mr_parameter *one = &descriptions[i].parameters[j];
            size_t elements = 0;
            MR_ASSERT(mr_shape_elements(&one->whole, &elements)); /* it was described */
            if (one->init == MR_INIT_NORMAL || one->init == MR_INIT_NORMAL_RESIDUAL)
                drawn += elements; /* at most MR_PARAMETER_ELEMENTS_MAX in all */
        }
    }
    return drawn;
}

bool mr_layer_description_trains(const mr_layer_description *description) {
    return description->trainable_elements > 0;
}

/* Which parameters the layer's tie shares: those that the job names, in that order; else those that
 * the type marks; else all. */
static void describe_tie(const mr_layer_spec *spec, mr_layer_description *out) {
    size_t named = mr_parameter_names_count(spec->tie_names);
    bool marked = false;
    for (size_t i = 0; i < out->parameter_count; i++)
        marked |= out->parameters[i].tied;
    for (size_t i = 0; i < out->parameter_count; i++) {
        mr_parameter *parameter = &out->parameters[i];
        size_t at = mr_parameter_names_find(spec->tie_names, parameter->name);
        bool chosen = named > 0 ? at < named : parameter->tied || !marked;
        parameter->tied = spec->tie[0] != '\0' && chosen;
        if (parameter->tied)
            parameter->tie_slot = named > 0 ? at : out->tied_count;
        out->tied_count += parameter->tied;
    }
}

/* What no parameter waits for is not computed. */
static void describe_untrained(mr_layer_description *out) {
    if (!mr_layer_description_trains(out))
        out->flops_backward_weight = 0;
    if (!out->output.needs_gradient)
        out->flops_backward_input = 0;
}

mr_status mr_layer_describe(const mr_layer_spec *spec, const mr_shape *input, size_t block_count,
                            mr_layer_description *out_description) {
    mr_describe_input in = {
        .spec = spec,
        .input = input,
        .block_count = block_count > 0 ? block_count : 1,
        .model_rank = spec->model_rank,
        .model_width = mr_layer_spec_is_shard(spec) ? spec->model_width : 1,
    };
    mr_layer_description description;
    memset(&description, 0, sizeof(description));
    mr_shape whole = *input;
    bool gathers = input->cut_from > 0 && !describe_takes_share(spec);
    if (gathers) {
        MR_ASSERT(whole.dim_count > 0);
        whole.dims[whole.dim_count - 1] = input->cut_from;
        whole.cut_from = 0;
        in.input = &whole;
    }
    MR_TRY(describe_sizes(&in));
    MR_TRY(mr_layer_type_row_of(spec->type)->describe(&in, &description));
    if (in.model_width > 1)
        MR_TRY(describe_shards(&in, &description));
    if (gathers)
        MR_TRY(describe_gather(&in, &description));
    MR_TRY(describe_input_cast(&in, &description));
    description.puts = spec->put[0] != '\0';
    describe_tie(spec, &description);
    MR_TRY(mr_layer_check_names(spec, &description));
    describe_untrained(&description);
    *out_description = description;
    return MR_OK;
}

static double init_deviation(const mr_describe_input *in, mr_init init) {
    if (init == MR_INIT_NORMAL)
        return INIT_DEVIATION;
    if (init == MR_INIT_NORMAL_RESIDUAL)
        return INIT_DEVIATION / sqrt(2.0 * (double)in->block_count);
    return 0;
}

mr_status mr_describe_add(const mr_describe_input *in, mr_layer_description *out,
                          mr_describe_parameter from) {
    MR_ASSERT(out->parameter_count < MR_LAYER_PARAMETERS_MAX);
    size_t elements = from.rows;
    bool matrix = from.columns > 0;
    if (from.rows == 0)
        return MR_ERROR(INVALID_ARGUMENT, "%s would have no elements", from.name);
    if ((matrix && !mr_size_mul(from.rows, from.columns, &elements)) ||
        elements > MR_PARAMETER_ELEMENTS_MAX)
        return MR_ERROR(INVALID_ARGUMENT,
                        "%s of %zu x %zu elements is too large; a model may have at most %llu",
                        from.name, from.rows, from.columns, MR_PARAMETER_ELEMENTS_MAX);
    mr_parameter *parameter = &out->parameters[out->parameter_count++];
    (void)snprintf(parameter->name, sizeof(parameter->name), "%s", from.name);
    parameter->shape = (mr_shape){
        .dtype = MR_DTYPE_F32,
        .dim_count = matrix ? 2 : 1,
        .dims = {from.rows, from.columns},
    };
    parameter->whole = parameter->shape;
    parameter->init = from.init;
    parameter->decay = matrix;
    parameter->tied = from.tied; /* describe_tie has the last word */
    parameter->frozen = in->spec->frozen ||
                        mr_parameter_names_find(in->spec->frozen_names, from.name) <
                            mr_parameter_names_count(in->spec->frozen_names);
    parameter->shape.needs_gradient = !parameter->frozen;
    parameter->cut = from.cut;
    parameter->init_deviation = init_deviation(in, from.init);
    out->parameter_elements += elements; /* at most MR_LAYER_PARAMETERS_MAX of them: fits */
    out->trainable_elements += parameter->frozen ? 0 : elements;
    return MR_OK;
}

mr_status mr_describe_check_type(const mr_describe_input *in) {
    char text[MR_SHAPE_TEXT_BYTES];
    mr_dtype activation = mr_layer_spec_activation(in->spec);
    if (in->input->dtype != MR_DTYPE_F32 && in->input->dtype != activation)
        return MR_ERROR(INVALID_ARGUMENT, "the input is %s; a %s needs %s",
                        mr_shape_text(in->input, text), mr_layer_type_name(in->spec->type),
                        activation == MR_DTYPE_F32    ? "f32"
                        : activation == MR_DTYPE_BF16 ? "bf16, or f32 of a feed"
                                                      : "f16, or f32 of a feed");
    return MR_OK;
}

size_t mr_describe_share(const mr_describe_input *in, size_t n) {
    return mr_shard_range_of(n, in->model_rank, in->model_width).count;
}

mr_status mr_describe_check_divides(const mr_describe_input *in, const char *field, size_t size) {
    if (size % in->model_width != 0)
        return MR_ERROR(INVALID_ARGUMENT,
                        "%s is %zu; pipeline.topology.model, %zu, must divide it", field, size,
                        in->model_width);
    return MR_OK;
}

mr_status mr_describe_sum(const mr_describe_input *in, mr_layer_description *out, size_t width) {
    mr_slices slices = {0};
    bool wide = mr_layer_spec_activation(in->spec) == MR_DTYPE_F32;
    (void)mr_slices_take(&slices, MR_DTYPE_F32, in->model_width > 1 && !wide ? in->rows : 0, width);
    if (slices.overflowed)
        return MR_ERROR(INVALID_ARGUMENT, "%zu rows of %zu have more bytes than can be counted",
                        in->rows, width);
    out->scratch_bytes = slices.bytes;
    return MR_OK;
}

void mr_describe_parts(mr_layer_description *out, const mr_parameter_parts *parts) {
    MR_ASSERT(out->parameter_count > 0);
    out->parameters[out->parameter_count - 1].parts = *parts;
}

mr_status mr_describe_check_width(const mr_describe_input *in, const char *field, size_t width) {
    char text[MR_SHAPE_TEXT_BYTES];
    const mr_shape *input = in->input;
    MR_TRY(mr_describe_check_type(in));
    if (width == 0 || width != input->dims[input->dim_count - 1])
        return MR_ERROR(INVALID_ARGUMENT, "%s is %zu but the input is %s; it must be %zu", field,
                        width, mr_shape_text(input, text), input->dims[input->dim_count - 1]);
    return MR_OK;
}

mr_status mr_describe_output_shape(const mr_describe_input *in, mr_layer_description *out,
                                   const mr_shape *shape) {
    char text[MR_SHAPE_TEXT_BYTES];
    size_t bytes = 0;
    out->output = *shape;
    out->output.dtype = mr_layer_spec_activation(in->spec);
    out->output.cut_from = 0;
    out->output.needs_gradient = in->input->needs_gradient || out->trainable_elements > 0;
    if (!mr_shape_bytes(&out->output, &bytes))
        return MR_ERROR(INVALID_ARGUMENT, "the output %s has more bytes than can be counted",
                        mr_shape_text(&out->output, text));
    return MR_OK;
}

mr_status mr_describe_output(const mr_describe_input *in, mr_layer_description *out, size_t width) {
    mr_shape output = *in->input;
    output.dims[output.dim_count - 1] = width;
    return mr_describe_output_shape(in, out, &output);
}

mr_status mr_describe_output_cut(const mr_describe_input *in, mr_layer_description *out,
                                 size_t width) {
    MR_TRY(mr_describe_output(in, out, mr_describe_share(in, width)));
    if (in->model_width > 1)
        out->output.cut_from = width;
    return MR_OK;
}

void mr_describe_add_product(const mr_describe_input *in, mr_layer_description *out, size_t outputs,
                             size_t inputs) {
    double flops = 2.0 * (double)in->rows * (double)outputs * (double)inputs;
    out->flops_forward += flops;
    out->flops_backward_input += flops;
    out->flops_backward_weight += flops;
}
