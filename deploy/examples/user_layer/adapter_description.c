/* SPDX-License-Identifier: Apache-2.0 */
/* The describing half: keys, parameters, memory, cost. Linked into millraced and into millrace. */
#include "daemon/model/layer_type.h"
#include "daemon/model/slices.h"
#include "deploy/examples/user_layer/adapter.h"

#define KEY(member) .offset = offsetof(adapter, member)

static const mr_field_choice activations[] = {
    {"relu", ADAPTER_RELU, false},
    {"gelu", ADAPTER_GELU, false},
    {"silu", ADAPTER_SILU, false},
    {NULL, 0, false},
};

/* Everything that the reader must know: it refuses other keys, wrong types and values out of bounds
 * with line, key and value. */
static const mr_field keys[] = {
    {.path = "dim",
     .kind = MR_FIELD_SIZE,
     .required = true,
     .minimum = 1,
     .maximum = MR_DIMENSION_MAX,
     KEY(dim),
     .help = "width of the stream"},
    {.path = "rank",
     .kind = MR_FIELD_SIZE,
     .fallback = "8",
     .minimum = 1,
     .maximum = MR_DIMENSION_MAX,
     KEY(rank),
     .help = "width of the detour; at most dim"},
    {.path = "activation",
     .kind = MR_FIELD_CHOICE,
     .fallback = "gelu",
     .choices = activations,
     KEY(activation),
     .help = "inside the detour"},
    {.path = "dropout",
     .kind = MR_FIELD_NUMBER,
     .fallback = "0",
     .low = 0,
     .high = 1,
     .high_open = true,
     KEY(dropout),
     .help = "probability of zero inside the detour"},
};

/* What must hold between keys. */
static mr_status adapter_check(const mr_layer_spec *spec) {
    const adapter *a = mr_layer_spec_own(spec);
    if (a->rank > a->dim)
        return MR_ERROR(INVALID_ARGUMENT, "rank is %zu; it must be at most dim, %zu", a->rank,
                        a->dim);
    return MR_OK;
}

mr_status adapter_layout_make(const mr_layer_spec *spec, const mr_shape *input,
                              adapter_layout *out_layout) {
    const adapter *a = mr_layer_spec_own(spec);
    mr_shape rows = *input;
    mr_slices saved = {0};
    mr_slices retained = {0};
    mr_slices scratch = {0};
    adapter_layout l = {.dtype = mr_layer_spec_activation(spec)};
    rows.dim_count--;
    bool fits = mr_shape_elements(&rows, &l.N);
    l.narrow = mr_slices_take(&saved, l.dtype, l.N, a->rank);
    l.activated = mr_slices_take(&saved, l.dtype, l.N, a->rank);
    l.d_narrow = mr_slices_take(&retained, l.dtype, l.N, a->rank);
    l.detour = mr_slices_take(&scratch, l.dtype, l.N, a->dim);
    if (!fits || saved.overflowed || retained.overflowed || scratch.overflowed)
        return MR_ERROR(INVALID_ARGUMENT, "an adapter of rank %zu is too large", a->rank);
    l.saved_bytes = saved.bytes;
    l.retained_bytes = retained.bytes;
    l.scratch_bytes = scratch.bytes;
    *out_layout = l;
    return MR_OK;
}

/* Called with a zeroed description. Parameters come before the output, which needs a gradient when
 * any of them is trained. */
static mr_status adapter_describe(const mr_describe_input *in, mr_layer_description *out) {
    const adapter *a = mr_layer_spec_own(in->spec);
    adapter_layout layout;
    MR_TRY(mr_describe_check_width(in, "dim", a->dim));
    MR_TRY(adapter_layout_make(in->spec, in->input, &layout));
    MR_TRY(mr_describe_add(in, out,
                           (mr_describe_parameter){.name = "down.weight",
                                                   .rows = a->rank,
                                                   .columns = a->dim,
                                                   .init = MR_INIT_NORMAL}));
    MR_TRY(mr_describe_add(in, out,
                           (mr_describe_parameter){.name = "up.weight",
                                                   .rows = a->dim,
                                                   .columns = a->rank,
                                                   .init = MR_INIT_NORMAL_RESIDUAL}));
    MR_TRY(mr_describe_output(in, out, a->dim));
    out->saved_bytes = layout.saved_bytes;
    out->retained_bytes = layout.retained_bytes;
    out->scratch_bytes = layout.scratch_bytes;
    mr_describe_add_product(in, out, a->rank, a->dim);
    mr_describe_add_product(in, out, a->dim, a->rank);
    return MR_OK;
}

static size_t adapter_width(const mr_layer_spec *spec) {
    const adapter *a = mr_layer_spec_own(spec);
    return a->dim;
}

static const mr_layer_type_row adapter_row = {
    .name = "adapter",
    .fields = keys,
    .field_count = sizeof(keys) / sizeof(keys[0]),
    .own_bytes = sizeof(adapter),
    .describe = adapter_describe,
    .check = adapter_check,
    .input_width = adapter_width,
};
MR_LAYER_TYPE_REGISTER(adapter_row)
