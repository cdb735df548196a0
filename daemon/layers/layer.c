/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/layers/layer.h"

#include <assert.h>
#include <string.h>

#include "daemon/base/limits.h"
#include "daemon/layers/layer_gather.h"
#include "daemon/layers/layer_table.h"
#include "daemon/model/layer_type.h"

/* A row without functions is a type that can be described and planned but not computed. */
static const mr_layer_functions *const layer_table[MR_LAYER_TYPE_COUNT] = {
    [MR_LAYER_TYPE_EMBEDDING] = &mr_layer_embedding,
    [MR_LAYER_TYPE_TRANSFORMER_BLOCK] = &mr_layer_transformer_block,
    [MR_LAYER_TYPE_LAYERNORM] = &mr_layer_layernorm,
    [MR_LAYER_TYPE_LM_HEAD] = &mr_layer_lm_head,
    [MR_LAYER_TYPE_LINEAR] = &mr_layer_linear,
    [MR_LAYER_TYPE_CONV2D] = &mr_layer_conv2d,
    [MR_LAYER_TYPE_MAXPOOL2D] = &mr_layer_maxpool2d,
    [MR_LAYER_TYPE_FLATTEN] = &mr_layer_flatten,
    [MR_LAYER_TYPE_RELU] = &mr_layer_pointwise,
    [MR_LAYER_TYPE_GELU] = &mr_layer_pointwise,
    [MR_LAYER_TYPE_SILU] = &mr_layer_pointwise,
    [MR_LAYER_TYPE_DROPOUT] = &mr_layer_dropout,
    [MR_LAYER_TYPE_IDENTITY] = &mr_layer_identity,
    [MR_LAYER_TYPE_ADD] = &mr_layer_add,
};

/* Functions of users' types, by name. */
static struct {
    size_t count;
    size_t refused; /* registrations without room */
    struct {
        const char *type;
        const mr_layer_functions *functions;
    } rows[MR_LAYER_TYPES_MAX];
} registered;

void mr_layer_functions_register(const char *type, const mr_layer_functions *functions) {
    if (registered.count == MR_LAYER_TYPES_MAX) {
        registered.refused++;
        return;
    }
    registered.rows[registered.count].type = type;
    registered.rows[registered.count++].functions = functions;
}

/* The type's functions; NULL where nobody gave any. */
static const mr_layer_functions *layer_functions_of(mr_layer_type type) {
    if (type < MR_LAYER_TYPE_COUNT)
        return layer_table[type];
    const char *name = mr_layer_type_name(type);
    for (size_t i = 0; i < registered.count; i++)
        if (strcmp(registered.rows[i].type, name) == 0)
            return registered.rows[i].functions;
    return NULL;
}

/* What is wrong with a user's registration of this type. */
static mr_status layer_check_registered(const char *name) {
    const mr_layer_functions *found = NULL;
    for (size_t i = 0; i < registered.count; i++) {
        if (strcmp(registered.rows[i].type, name) != 0)
            continue;
        if (found != NULL)
            return MR_ERROR(FAILED_PRECONDITION,
                            "the functions of layer type %s are registered twice", name);
        found = registered.rows[i].functions;
    }
    if (found == NULL && registered.refused > 0)
        return MR_ERROR(FAILED_PRECONDITION, "functions of more than %d layer types are registered",
                        MR_LAYER_TYPES_MAX);
    if (found != NULL && (found->forward == NULL || found->backward_input == NULL ||
                          found->backward_weight == NULL))
        return MR_ERROR(FAILED_PRECONDITION,
                        "layer type %s must have forward, backward_input and backward_weight",
                        name);
    return MR_OK;
}

static mr_status layer_check_block(const mr_layer_spec *spec) {
    if (spec->norm != MR_NORM_LAYERNORM)
        return MR_ERROR(UNIMPLEMENTED, "transformer_block.norm must be layernorm in this build");
    if (spec->activation != MR_ACTIVATION_GELU_TANH)
        return MR_ERROR(UNIMPLEMENTED,
                        "transformer_block.activation must be gelu_tanh in this build");
    if (spec->position != MR_POSITION_NONE)
        return MR_ERROR(UNIMPLEMENTED, "transformer_block.position must be none in this build");
    if (spec->kv_heads != spec->heads)
        return MR_ERROR(UNIMPLEMENTED,
                        "transformer_block.kv_heads is %zu; it must be heads, %zu, in this build",
                        spec->kv_heads, spec->heads);
    return MR_OK;
}

mr_status mr_layer_check(const mr_layer_spec *spec) {
    const char *name = mr_layer_type_name(spec->type);
    if (spec->type >= MR_LAYER_TYPE_COUNT)
        MR_TRY(layer_check_registered(name));
    if (layer_functions_of(spec->type) == NULL)
        return MR_ERROR(UNIMPLEMENTED, "layer type %s cannot be computed by this build", name);
    if (spec->type == MR_LAYER_TYPE_TRANSFORMER_BLOCK)
        return layer_check_block(spec);
    return MR_OK;
}

mr_status mr_layer_check_device(const mr_layer_spec *spec, const mr_device *device) {
    const mr_layer_functions *functions = layer_functions_of(spec->type);
    MR_ASSERT(functions != NULL);
    const char *lacking = functions->lacks == NULL ? NULL : functions->lacks(device->ops);
    if (lacking != NULL)
        return MR_ERROR(UNIMPLEMENTED, "a %s needs %s, which a %s device does not compute",
                        mr_layer_type_name(spec->type), lacking, device->ops->name);
    return MR_OK;
}

static const mr_layer_functions *layer_functions(const mr_layer *layer) {
    const mr_layer_functions *functions = layer_functions_of(layer->spec->type);
    MR_ASSERT(functions != NULL);
    return functions;
}

/* What the layer's own functions see of its input: x, or what forward keeps of it among the saved
 * bytes: the copy of it in the layer's type, or the whole that it is a share of. */
static mr_tensor layer_input(const mr_layer *layer, const mr_layer_call *call, const mr_tensor *x) {
    mr_tensor input = *x;
    MR_ASSERT(!mr_layer_spec_is_shard(layer->spec) || call->model != NULL);
    if (layer->description->gathers_input)
        return mr_layer_gathered(layer, call->saved, layer->description->input_gathered);
    if (!layer->description->casts_input)
        return input;
    input.shape.dtype = mr_layer_spec_activation(layer->spec);
    input.data = (unsigned char *)call->saved + layer->description->input_cast;
    return input;
}

void mr_layer_forward(const mr_layer *layer, const mr_layer_call *call, const mr_tensor *x,
                      mr_tensor *y) {
    MR_ASSERT(mr_shape_equal(&x->shape, &layer->input));
    MR_ASSERT(mr_shape_equal(&y->shape, &layer->description->output));
    mr_tensor input = layer_input(layer, call, x);
    if (layer->description->gathers_input)
        mr_layer_gather(layer, call, x, &input);
    else if (input.data != x->data)
        call->device->ops->cast(call->device, x, &input);
    layer_functions(layer)->forward(layer, call, &input, y);
}

void mr_layer_backward_input(const mr_layer *layer, const mr_layer_call *call, const mr_tensor *x,
                             const mr_tensor *dy, mr_tensor *dx) {
    MR_ASSERT(mr_shape_equal(&dy->shape, &layer->description->output));
    MR_ASSERT(dx == NULL || mr_shape_equal(&dx->shape, &layer->input));
    MR_ASSERT(dx == NULL || dx->data != dy->data);
    MR_ASSERT(dx == NULL || !layer->description->casts_input);
    mr_tensor input = layer_input(layer, call, x);
    if (!layer->description->gathers_input || dx == NULL) {
        layer_functions(layer)->backward_input(layer, call, &input, dy, dx);
        return;
    }
    mr_tensor whole =
        mr_layer_gathered(layer, call->scratch, layer->description->gather_scratch);
    layer_functions(layer)->backward_input(layer, call, &input, dy, &whole);
    mr_layer_take_share(layer, call, &whole, dx);
}

void mr_layer_backward_weight(const mr_layer *layer, const mr_layer_call *call, const mr_tensor *x,
                              const mr_tensor *dy) {
    MR_ASSERT(layer->description->parameter_count == 0 || layer->gradients != NULL);
    MR_ASSERT(mr_shape_equal(&dy->shape, &layer->description->output));
    if (!mr_layer_description_trains(layer->description))
        return;
    mr_tensor input = layer_input(layer, call, x);
    layer_functions(layer)->backward_weight(layer, call, &input, dy);
}

void mr_layer_no_weight(const mr_layer *layer, const mr_layer_call *call, const mr_tensor *x,
                        const mr_tensor *dy) {
    (void)call;
    (void)x;
    (void)dy;
    MR_ASSERT(layer->description->parameter_count == 0);
}

/* A layer has a dozen parameters at most; finding one costs less than any operation on it. */
static size_t layer_parameter_index(const mr_layer *layer, const char *name) {
    size_t i = 0;
    while (i < layer->description->parameter_count &&
           strcmp(layer->description->parameters[i].name, name) != 0)
        i++;
    return i;
}

const mr_tensor *mr_layer_parameter(const mr_layer *layer, const char *name) {
    size_t i = layer_parameter_index(layer, name);
    return i < layer->description->parameter_count ? &layer->parameters[i] : NULL;
}

mr_tensor *mr_layer_gradient(const mr_layer *layer, const char *name) {
    size_t i = layer_parameter_index(layer, name);
    return layer->gradients != NULL && i < layer->description->parameter_count &&
                   layer->gradients[i].data != NULL
               ? &layer->gradients[i]
               : NULL;
}

mr_tensor mr_layer_rows(const mr_tensor *tensor) {
    MR_ASSERT(tensor->shape.dim_count >= 1);
    size_t last = tensor->shape.dim_count - 1;
    mr_tensor matrix = *tensor;
    matrix.shape.dim_count = 2;
    matrix.shape.dims[0] = 1;
    for (size_t i = 0; i < last; i++)
        matrix.shape.dims[0] *= tensor->shape.dims[i]; /* no more than its elements: no overflow */
    matrix.shape.dims[1] = tensor->shape.dims[last];
    return matrix;
}

mr_tensor mr_layer_slice(void *buffer, size_t offset, mr_dtype dtype, size_t rows, size_t columns) {
    return (mr_tensor){
        .data = (unsigned char *)buffer + offset,
        .shape = {.dtype = dtype,
                  .dim_count = columns == 0 ? 1 : 2,
                  .dims = {rows, columns}},
    };
}

/* Step and microbatch share one word of the key. */
enum { LAYER_MICRO_BATCH_BITS = 24 };
static_assert((uint64_t)MR_MICRO_BATCHES_MAX * MR_RANKS_MAX <= 1u << LAYER_MICRO_BATCH_BITS,
              "a microbatch's number in the whole step has room beside the step");

mr_dropout mr_layer_mask_with(const mr_layer *layer, const mr_layer_call *call, double probability,
                              unsigned site) {
    if (!call->training || probability <= 0)
        return (mr_dropout){.probability = 0};
    MR_ASSERT(call->micro_batch < (uint64_t)1 << LAYER_MICRO_BATCH_BITS);
    uint64_t when = (call->step << LAYER_MICRO_BATCH_BITS) | call->micro_batch;
    return (mr_dropout){
        .key = mr_random_key_make(call->seed, MR_RANDOM_DROPOUT, when, layer->index, site),
        .probability = (float)probability,
    };
}

mr_dropout mr_layer_mask(const mr_layer *layer, const mr_layer_call *call, mr_dropout_site site) {
    return mr_layer_mask_with(layer, call, layer->spec->dropout, (unsigned)site);
}
