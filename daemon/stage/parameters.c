/* SPDX-License-Identifier: Apache-2.0 */
/* How the objects of a stage's parameters hang together:
 *
 *   layers[i].parameters -> bound[layer_offset[i] + p]      views of item's compute tensor
 *   layers[i].gradients  -> accumulators[layer_offset[i] + p]
 *   item_of[layer_offset[i] + p] -> items[k]                the held parameter behind that use
 *   items[k].gradients   -> uses[...]                       its accumulators, in layer order
 *
 * Everything is counted first and allocated once; offsets within the device memories come from
 * mr_slices, so that every tensor is aligned. The states have a layout of their own, of which this
 * replica's share is in memory: offsets in it are those in the layout less the share's first. */
#include "daemon/stage/parameters.h"

#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/random.h"
#include "daemon/model/layer_check.h"
#include "daemon/model/shard.h"
#include "daemon/model/slices.h"
#include "daemon/plan/state_share.h"

struct mr_parameters {
    mr_parameters_options options;
    size_t layer_count;
    mr_layer *layers;
    size_t *layer_offset;    /* [layer_count + 1] into the flat arrays */
    mr_tensor *bound;        /* flat: compute tensor of each use */
    mr_tensor *accumulators; /* flat: gradient of each use */
    size_t *item_of;         /* flat: item of each use */
    mr_tensor *uses;         /* the accumulators again, grouped by item */
    mr_stage_parameter *items;
    size_t item_count;
    size_t owned_count;
    mr_device_memory weights;
    mr_device_memory compute; /* of the matrices, in another precision than f32 */
    mr_device_memory gradients;
    mr_device_memory states[MR_OPTIMIZER_STATES_MAX];
    size_t state_bytes; /* of the layout of the whole state */
    mr_device_memory sums;
};

static const mr_layer_description *parameters_description(const mr_parameters *p, size_t index) {
    return &p->options.descriptions[p->options.layer_first + index];
}

static const mr_layer_spec *parameters_spec(const mr_parameters *p, size_t index) {
    return &p->options.job->layers[p->options.layer_first + index];
}

/* Index of the parameter in a slot of the layer's tie; parameter_count where it has none. */
static size_t parameters_tied_index(const mr_layer_description *description, size_t slot) {
    size_t i = 0;
    while (i < description->parameter_count &&
           (!description->parameters[i].tied || description->parameters[i].tie_slot != slot))
        i++;
    return i;
}

/* First layer of the whole job that joins the tie and brings its parameter; job->layer_count where
 * there is none. */
static size_t parameters_tie_first(const mr_parameters_options *o, const char *key) {
    size_t i = 0;
    while (i < o->job->layer_count &&
           (strcmp(o->job->layers[i].tie, key) != 0 || o->descriptions[i].tied_count == 0))
        i++;
    return i;
}

/* The item of a tie's slot among those there are; item_count where it is not there yet. */
static size_t parameters_tie_item(const mr_parameters *p, const char *key, size_t slot) {
    size_t i = 0;
    while (i < p->item_count && (p->items[i].tie == NULL || p->items[i].tie_slot != slot ||
                                 strcmp(p->items[i].tie, key) != 0))
        i++;
    return i;
}

/* Appends an item for parameter number parameter of layer index. */
static mr_status parameters_add_item(mr_parameters *p, size_t index, size_t parameter) {
    const mr_layer_description *description = parameters_description(p, index);
    mr_stage_parameter *item = &p->items[p->item_count];
    size_t layer = p->options.layer_first + index;
    *item = (mr_stage_parameter){
        .layer = layer,
        .parameter = parameter,
        .description = &description->parameters[parameter],
        .init_layer = layer,
        .init_parameter = parameter,
        .owned = !description->parameters[parameter].frozen,
    };
    const char *key = parameters_spec(p, index)->tie;
    if (key[0] != '\0' && item->description->tied) {
        const mr_layer_description *all = p->options.descriptions;
        item->tie = key;
        item->tie_slot = item->description->tie_slot;
        item->init_layer = parameters_tie_first(&p->options, key);
        item->owned &= item->init_layer >= p->options.layer_first;
        MR_TRY(mr_layer_check_tie(p->options.job->layers, all, item->init_layer, layer));
        item->init_parameter = parameters_tied_index(&all[item->init_layer], item->tie_slot);
    }
    p->owned_count += item->owned;
    p->item_count++;
    return MR_OK;
}

/* Finds the items behind all uses, in layer order, and counts the uses of each. */
static mr_status parameters_find_items(mr_parameters *p) {
    for (size_t i = 0; i < p->layer_count; i++) {
        const char *key = parameters_spec(p, i)->tie;
        const mr_layer_description *description = parameters_description(p, i);
        for (size_t j = 0; j < description->parameter_count; j++) {
            bool tied = key[0] != '\0' && description->parameters[j].tied;
            size_t slot = description->parameters[j].tie_slot;
            size_t item = tied ? parameters_tie_item(p, key, slot) : p->item_count;
            if (item == p->item_count)
                MR_TRY(parameters_add_item(p, i, j));
            p->items[item].use_count++;
            p->item_of[p->layer_offset[i] + j] = item;
        }
    }
    return MR_OK;
}

static mr_status parameters_allocate(mr_parameters *p) {
    size_t uses = 0;
    p->layer_offset = mr_alloc_array(p->layer_count + 1, sizeof *p->layer_offset);
    p->layers = mr_alloc_array(p->layer_count, sizeof *p->layers);
    if (p->layer_offset == NULL || p->layers == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu layers", p->layer_count);
    for (size_t i = 0; i < p->layer_count; i++) {
        p->layer_offset[i] = uses;
        uses += parameters_description(p, i)->parameter_count; /* each at most 16 */
    }
    p->layer_offset[p->layer_count] = uses;
    p->bound = mr_alloc_array(uses, sizeof *p->bound);
    p->accumulators = mr_alloc_array(uses, sizeof *p->accumulators);
    p->item_of = mr_alloc_array(uses, sizeof *p->item_of);
    p->uses = mr_alloc_array(uses, sizeof *p->uses);
    p->items = mr_alloc_array(uses, sizeof *p->items);
    if (p->bound == NULL || p->accumulators == NULL || p->item_of == NULL || p->uses == NULL ||
        p->items == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu parameters", uses);
    return MR_OK;
}

static size_t parameters_elements(const mr_shape *shape) {
    size_t elements = 0;
    MR_ASSERT(mr_shape_elements(shape, &elements)); /* the description was checked */
    return elements;
}

static mr_status parameters_memory(mr_device *device, const char *what, const mr_slices *slices,
                                   mr_device_memory *out_memory) {
    if (slices->overflowed)
        return MR_ERROR(RESOURCE_EXHAUSTED, "the stage's %s need more bytes than can be counted",
                        what);
    if (slices->bytes == 0)
        return MR_OK;
    mr_status status = device->ops->memory_create(device, slices->bytes, out_memory);
    return mr_status_is_ok(status) ? MR_OK : mr_status_prefix(status, "the stage's %s", what);
}

/* A tensor of a memory that may be absent (inference): then data is NULL. */
static mr_tensor parameters_tensor(const mr_device_memory *memory, size_t offset,
                                   const mr_shape *shape) {
    void *data = memory->base == NULL ? NULL : (unsigned char *)memory->base + offset;
    return (mr_tensor){.data = data, .shape = *shape};
}

/* Slices of the items that are trained, in order. */
static mr_slices parameters_trained_slices(mr_parameters *p) {
    mr_slices slices = {0};
    for (size_t k = 0; k < p->item_count; k++)
        if (!p->items[k].description->frozen)
            p->items[k].state_offset = mr_slices_take(
                &slices, MR_DTYPE_F32, parameters_elements(&p->items[k].description->shape), 1);
    return slices;
}

/* Weights: one slice per item; first those that are trained, so that their layout is the state's,
 * then the frozen ones. */
static mr_status parameters_bind_weights(mr_parameters *p) {
    mr_slices slices = parameters_trained_slices(p);
    mr_slices frozen = slices;
    for (size_t k = 0; k < p->item_count; k++)
        if (p->items[k].description->frozen)
            (void)mr_slices_take(&slices, MR_DTYPE_F32,
                                 parameters_elements(&p->items[k].description->shape), 1);
    MR_TRY(parameters_memory(p->options.device, "weights", &slices, &p->weights));
    for (size_t k = 0; k < p->item_count; k++) {
        mr_stage_parameter *item = &p->items[k];
        const mr_shape *shape = &item->description->shape;
        size_t offset = item->state_offset;
        if (item->description->frozen)
            offset = mr_slices_take(&frozen, MR_DTYPE_F32, parameters_elements(shape), 1);
        item->weight = parameters_tensor(&p->weights, offset, shape);
    }
    return MR_OK;
}

static mr_state_share parameters_share(const mr_parameters *p) {
    return mr_state_share_of(p->state_bytes, mr_parameters_state_width(p), p->options.state_index);
}

/* The item's state in memory i: all of it, or the part that the share has; no data without any. */
static mr_tensor parameters_state(const mr_parameters *p, const mr_stage_parameter *item,
                                  size_t i) {
    mr_shape shape = item->description->shape;
    size_t offset = item->state_offset + item->part.first * sizeof(float);
    if (item->part.count < parameters_elements(&shape))
        shape = (mr_shape){.dtype = MR_DTYPE_F32, .dim_count = 1, .dims = {item->part.count}};
    return item->part.count == 0 ? (mr_tensor){.shape = shape}
                                 : parameters_tensor(&p->states[i],
                                                     offset - parameters_share(p).first, &shape);
}

/* States: one slice per item that is trained in the layout, and the share of it in memory. */
static mr_status parameters_bind_states(mr_parameters *p) {
    mr_optimizer_states states = mr_parameters_states(p);
    mr_slices slices = parameters_trained_slices(p);
    if (slices.overflowed)
        return MR_ERROR(RESOURCE_EXHAUSTED, "the stage's optimizer state cannot be counted");
    p->state_bytes = slices.bytes;
    mr_state_share share = parameters_share(p);
    slices.bytes = share.end - share.first;
    for (size_t i = 0; i < states.count; i++)
        MR_TRY(parameters_memory(p->options.device, states.names[i], &slices, &p->states[i]));
    for (size_t k = 0; k < p->item_count; k++) {
        mr_stage_parameter *item = &p->items[k];
        item->part = mr_parameters_part(p, item, p->options.state_index);
        for (size_t i = 0; i < MR_OPTIMIZER_STATES_MAX; i++)
            item->states[i] = parameters_state(p, item, i);
    }
    return MR_OK;
}

static mr_shape parameters_compute_shape(const mr_parameters *p, const mr_stage_parameter *item) {
    mr_shape shape = item->description->shape;
    shape.dtype = mr_parameter_compute_dtype(item->description, p->options.job->precision);
    return shape;
}

/* Compute tensors: one slice for each item that is computed with in another type than f32. */
static mr_status parameters_bind_compute(mr_parameters *p) {
    mr_slices slices = {0};
    for (size_t k = 0; k < p->item_count; k++) {
        mr_shape shape = parameters_compute_shape(p, &p->items[k]);
        if (shape.dtype != MR_DTYPE_F32)
            (void)mr_slices_take(&slices, shape.dtype, parameters_elements(&shape), 1);
    }
    MR_TRY(parameters_memory(p->options.device, "compute copies", &slices, &p->compute));
    slices = (mr_slices){0};
    for (size_t k = 0; k < p->item_count; k++) {
        mr_stage_parameter *item = &p->items[k];
        mr_shape shape = parameters_compute_shape(p, item);
        item->compute = item->weight;
        if (shape.dtype == MR_DTYPE_F32)
            continue;
        size_t offset = mr_slices_take(&slices, shape.dtype, parameters_elements(&shape), 1);
        item->compute = parameters_tensor(&p->compute, offset, &shape);
    }
    return MR_OK;
}

/* Elements of the scrap tensor: the largest frozen vector of a layer that trains others. */
static size_t parameters_scrap_elements(const mr_parameters *p) {
    size_t largest = 0;
    for (size_t i = 0; i < p->layer_count; i++) {
        const mr_layer_description *description = parameters_description(p, i);
        for (size_t j = 0; j < description->parameter_count; j++) {
            const mr_parameter *parameter = &description->parameters[j];
            size_t elements = parameters_elements(&parameter->shape);
            if (mr_layer_description_trains(description) && parameter->frozen &&
                parameter->shape.dim_count < 2 && elements > largest)
                largest = elements;
        }
    }
    return largest;
}

/* One slice per trained use, ascending by layer; then the scrap. */
static mr_status parameters_allocate_gradients(mr_parameters *p, size_t *out_scrap) {
    mr_slices slices = {0};
    for (size_t u = 0; u < p->layer_offset[p->layer_count]; u++) {
        const mr_parameter *description = p->items[p->item_of[u]].description;
        if (!description->frozen)
            (void)mr_slices_take(&slices, MR_DTYPE_F32, parameters_elements(&description->shape),
                                 1);
    }
    *out_scrap = mr_slices_take(&slices, MR_DTYPE_F32, parameters_scrap_elements(p), 1);
    if (!p->options.training)
        return MR_OK;
    return parameters_memory(p->options.device, "gradients", &slices, &p->gradients);
}

/* The accumulator of a use: its own slice, the scrap, or nothing. */
static mr_tensor parameters_accumulator(const mr_parameters *p, const mr_parameter *description,
                                        size_t scrap, mr_slices *slices) {
    const mr_shape *shape = &description->shape;
    if (description->frozen && shape->dim_count >= 2)
        return (mr_tensor){.shape = *shape};
    size_t offset = scrap;
    if (!description->frozen)
        offset = mr_slices_take(slices, MR_DTYPE_F32, parameters_elements(shape), 1);
    return parameters_tensor(&p->gradients, offset, shape);
}

/* Gradients, and each item's list of its uses. */
static mr_status parameters_bind_gradients(mr_parameters *p) {
    size_t uses = p->layer_offset[p->layer_count];
    size_t scrap = 0;
    MR_TRY(parameters_allocate_gradients(p, &scrap));
    mr_slices slices = {0};
    size_t first = 0;
    for (size_t k = 0; k < p->item_count; k++) {
        p->items[k].gradients = &p->uses[first];
        first += p->items[k].use_count;
        p->items[k].use_count = 0; /* counted up again below, while the list is filled */
    }
    MR_ASSERT(first == uses);
    for (size_t u = 0; u < uses; u++) {
        mr_stage_parameter *item = &p->items[p->item_of[u]];
        p->bound[u] = item->compute;
        p->accumulators[u] = parameters_accumulator(p, item->description, scrap, &slices);
        item->gradients[item->use_count] = p->accumulators[u];
        if (item->description->frozen)
            item->gradients[item->use_count].data = NULL; /* the scrap is nobody's gradient */
        item->use_count++;
    }
    for (size_t k = 0; k < p->item_count; k++)
        p->items[k].gradient = p->items[k].gradients[0];
    return MR_OK;
}

static void parameters_bind_layers(mr_parameters *p) {
    const mr_parameters_options *o = &p->options;
    for (size_t i = 0; i < p->layer_count; i++) {
        size_t layer = o->layer_first + i;
        p->layers[i] = (mr_layer){
            .spec = &o->job->layers[layer],
            .description = &o->descriptions[layer],
            .index = layer,
            .input = layer == 0 ? mr_job_input_shape(o->job) : o->descriptions[layer - 1].output,
            .parameters = &p->bound[p->layer_offset[i]],
            .gradients = o->training ? &p->accumulators[p->layer_offset[i]] : NULL,
        };
    }
}

static bool parameters_optimizer_runs(const mr_device_ops *ops, mr_optimizer_kind kind) {
    switch (kind) {
    case MR_OPTIMIZER_ADAMW:
        return ops->adamw != NULL;
    case MR_OPTIMIZER_ADAM:
        return ops->adam != NULL;
    case MR_OPTIMIZER_SGD:
        return ops->sgd != NULL;
    case MR_OPTIMIZER_LION:
        return ops->lion != NULL;
    case MR_OPTIMIZER_KIND_COUNT:
        break;
    }
    return false;
}

static mr_status parameters_init(mr_parameters *p) {
    const mr_device_ops *ops = p->options.device->ops;
    mr_optimizer_kind optimizer = p->options.job->optimizer;
    if (p->options.training && !parameters_optimizer_runs(ops, optimizer))
        return MR_ERROR(UNIMPLEMENTED, "optimizer.type is %s, which a %s device does not compute",
                        mr_optimizer_name(optimizer), ops->name);
    if (p->options.job->model > 1 && ops->embedding_forward_share == NULL)
        return MR_ERROR(UNIMPLEMENTED,
                        "pipeline.topology.model is %zu; a %s device computes whole layers only, "
                        "so it must be 1",
                        p->options.job->model, ops->name);
    for (size_t i = 0; i < p->layer_count; i++) {
        mr_status status = mr_layer_check(parameters_spec(p, i));
        if (mr_status_is_ok(status))
            status = mr_layer_check_device(parameters_spec(p, i), p->options.device);
        if (!mr_status_is_ok(status))
            return mr_status_prefix(status, "layer %zu", p->options.layer_first + i);
    }
    MR_TRY(parameters_allocate(p));
    MR_TRY(parameters_find_items(p));
    MR_TRY(parameters_bind_weights(p));
    MR_TRY(parameters_bind_states(p));
    MR_TRY(parameters_bind_compute(p));
    MR_TRY(parameters_bind_gradients(p));
    mr_slices sums = {0};
    (void)mr_slices_take(&sums, MR_DTYPE_F32, p->owned_count, sizeof(double) / sizeof(float));
    if (p->options.training)
        MR_TRY(parameters_memory(p->options.device, "sums of squares", &sums, &p->sums));
    parameters_bind_layers(p);
    return MR_OK;
}

mr_status mr_parameters_create(const mr_parameters_options *options,
                               mr_parameters **out_parameters) {
    MR_ASSERT(options->layer_first < options->layer_end);
    MR_ASSERT(options->layer_end <= options->job->layer_count);
    MR_ASSERT(options->state_index == 0 || options->state_index < options->state_width);
    mr_parameters *p = mr_alloc(sizeof *p);
    if (p == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a stage's parameters");
    p->options = *options;
    p->layer_count = options->layer_end - options->layer_first;
    mr_status status = parameters_init(p);
    if (mr_status_is_ok(status))
        *out_parameters = p;
    else
        mr_parameters_destroy(p);
    return status;
}

static void parameters_memory_destroy(mr_device *device, mr_device_memory *memory) {
    if (memory->base != NULL)
        device->ops->memory_destroy(device, memory);
}

void mr_parameters_destroy(mr_parameters *parameters) {
    if (parameters == NULL)
        return;
    mr_device *device = parameters->options.device;
    parameters_memory_destroy(device, &parameters->sums);
    for (size_t i = MR_OPTIMIZER_STATES_MAX; i-- > 0;)
        parameters_memory_destroy(device, &parameters->states[i]);
    parameters_memory_destroy(device, &parameters->gradients);
    parameters_memory_destroy(device, &parameters->compute);
    parameters_memory_destroy(device, &parameters->weights);
    mr_free(parameters->items);
    mr_free(parameters->uses);
    mr_free(parameters->item_of);
    mr_free(parameters->accumulators);
    mr_free(parameters->bound);
    mr_free(parameters->layers);
    mr_free(parameters->layer_offset);
    mr_free(parameters);
}

/* ---- initial weights ----------------------------------------------------------------------- */

enum { PARAMETERS_DRAW_ELEMENTS = 1 << 16 }; /* drawn on the host at a time */

/* Where the initial weights of an item begin, and in which stream: its layer's own, or the model's
 * one stream, which goes through the layers in order; a tied one has its place at its first use. */
static mr_random_key parameters_init_key(const mr_parameters *p, const mr_stage_parameter *item,
                                         uint64_t *out_first) {
    const mr_job *job = p->options.job;
    size_t layer = item->init_layer;
    size_t parameter = item->init_parameter;
    *out_first = 0;
    if (job->seed_layers)
        return mr_random_key_make(mr_job_build_seed(job, layer), MR_RANDOM_INIT, layer, parameter,
                                  0);
    *out_first = mr_layer_drawn_before(p->options.descriptions, layer, parameter);
    /* No layer has this number, so no stream of a layer is met. */
    return mr_random_key_make(job->seed, MR_RANDOM_INIT, MR_LAYERS_MAX, 0, 0);
}

/* Where an item's numbers come from: the whole begins at first in the key's stream. */
typedef struct parameters_source {
    mr_random_key key;
    uint64_t first;
    float deviation;
    mr_shard shard;
    size_t run; /* of the shard, that the next element lies in */
} parameters_source;

/* The numbers that a shard has of a whole: elements [first, first + n) of the shard, by the places
 * that they have in the whole. */
static void parameters_draw_normal(parameters_source *source, size_t first, size_t n,
                                   float *host) {
    size_t done = 0;
    while (done < n) {
        mr_shard_run at = mr_shard_run_at(&source->shard, source->run);
        size_t skip = first + done - at.shard_first;
        size_t left = at.count - skip;
        size_t count = left < n - done ? left : n - done;
        mr_random_normal(&source->key, source->first + at.whole_first + skip, count,
                         source->deviation, host + done);
        done += count;
        source->run += count == left;
    }
}

static void parameters_draw_item(mr_parameters *p, const mr_stage_parameter *item, float *host) {
    mr_device *device = p->options.device;
    /* Every holder of a tied parameter draws what its tie's first layer says. */
    const mr_parameter *from =
        &p->options.descriptions[item->init_layer].parameters[item->init_parameter];
    bool constant = from->init == MR_INIT_ZERO || from->init == MR_INIT_ONE;
    parameters_source source = {.deviation = (float)from->init_deviation};
    source.key = parameters_init_key(p, item, &source.first);
    const mr_layer_spec *spec = &p->options.job->layers[item->layer];
    size_t width = mr_layer_spec_is_shard(spec) ? spec->model_width : 1;
    mr_status status = mr_shard_make(from, spec->model_rank, width, &source.shard);
    MR_ASSERT(mr_status_is_ok(status)); /* the description was made from it */
    size_t elements = parameters_elements(&item->weight.shape);
    size_t done = 0;
    while (done < elements) {
        size_t n = elements - done;
        n = n < PARAMETERS_DRAW_ELEMENTS ? n : PARAMETERS_DRAW_ELEMENTS;
        if (!constant)
            parameters_draw_normal(&source, done, n, host);
        for (size_t i = 0; constant && i < n; i++)
            host[i] = from->init == MR_INIT_ONE ? 1.0f : 0.0f;
        device->ops->copy_in(device, (float *)item->weight.data + done, host, n * sizeof *host);
        done += n;
    }
}

mr_status mr_parameters_draw(mr_parameters *parameters) {
    mr_parameters *p = parameters;
    mr_device *device = p->options.device;
    float *host = mr_alloc_array(PARAMETERS_DRAW_ELEMENTS, sizeof *host);
    if (host == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to draw initial weights");
    for (size_t k = 0; k < p->item_count; k++)
        parameters_draw_item(p, &p->items[k], host);
    for (size_t i = 0; i < MR_OPTIMIZER_STATES_MAX; i++)
        if (p->states[i].base != NULL)
            device->ops->zero(device, p->states[i].base, p->states[i].bytes);
    mr_free(host);
    mr_parameters_refresh(p);
    return MR_OK;
}

void mr_parameters_refresh(mr_parameters *parameters) {
    mr_device *device = parameters->options.device;
    for (size_t k = 0; k < parameters->item_count; k++) {
        mr_stage_parameter *item = &parameters->items[k];
        if (item->compute.data != item->weight.data)
            device->ops->cast(device, &item->weight, &item->compute);
    }
}

/* ---- access -------------------------------------------------------------------------------- */

size_t mr_parameters_layer_count(const mr_parameters *parameters) {
    return parameters->layer_count;
}

const mr_layer *mr_parameters_layer(const mr_parameters *parameters, size_t index) {
    MR_ASSERT(index < parameters->layer_count);
    return &parameters->layers[index];
}

size_t mr_parameters_count(const mr_parameters *parameters) {
    return parameters->item_count;
}

const mr_stage_parameter *mr_parameters_at(const mr_parameters *parameters, size_t index) {
    MR_ASSERT(index < parameters->item_count);
    return &parameters->items[index];
}

size_t mr_parameters_owned_count(const mr_parameters *parameters) {
    return parameters->owned_count;
}

const mr_stage_parameter *mr_parameters_of_layer(const mr_parameters *parameters, size_t index,
                                                 size_t parameter) {
    MR_ASSERT(index < parameters->layer_count);
    MR_ASSERT(parameter < parameters_description(parameters, index)->parameter_count);
    size_t use = parameters->layer_offset[index] + parameter;
    return &parameters->items[parameters->item_of[use]];
}

const mr_stage_parameter *mr_parameters_find_tie(const mr_parameters *parameters, const char *key,
                                                 size_t slot) {
    size_t item = parameters_tie_item(parameters, key, slot);
    return item < parameters->item_count ? &parameters->items[item] : NULL;
}

mr_optimizer_states mr_parameters_states(const mr_parameters *parameters) {
    const mr_job *job = parameters->options.job;
    if (!parameters->options.training)
        return (mr_optimizer_states){0};
    return mr_optimizer_states_of(job->optimizer, job->momentum);
}

size_t mr_parameters_state_width(const mr_parameters *parameters) {
    size_t width = parameters->options.state_width;
    return width == 0 ? 1 : width;
}

size_t mr_parameters_state_index(const mr_parameters *parameters) {
    return parameters->options.state_index;
}

mr_parameter_part mr_parameters_part(const mr_parameters *parameters,
                                     const mr_stage_parameter *parameter, size_t index) {
    mr_state_share share =
        mr_state_share_of(parameters->state_bytes, mr_parameters_state_width(parameters), index);
    size_t first = parameter->state_offset;
    size_t end = first + parameters_elements(&parameter->description->shape) * sizeof(float);
    size_t from = share.first > first ? share.first : first;
    size_t to = share.end < end ? share.end : end;
    if (parameter->description->frozen || from >= to)
        return (mr_parameter_part){0};
    return (mr_parameter_part){.first = (from - first) / sizeof(float),
                               .count = (to - from) / sizeof(float)};
}

unsigned char *mr_parameters_weights(const mr_parameters *parameters) {
    return parameters->weights.base;
}

/* What is trained comes first in the weights' memory and is laid out as the state is. */
size_t mr_parameters_weights_start(const mr_parameters *parameters, size_t index) {
    size_t width = mr_parameters_state_width(parameters);
    return index == width ? parameters->state_bytes
                          : mr_state_share_of(parameters->state_bytes, width, index).first;
}

mr_device *mr_parameters_device(const mr_parameters *parameters) {
    return parameters->options.device;
}

const mr_job *mr_parameters_job(const mr_parameters *parameters) {
    return parameters->options.job;
}

bool mr_parameters_training(const mr_parameters *parameters) {
    return parameters->options.training;
}

mr_parameters_bytes mr_parameters_bytes_held(const mr_parameters *parameters) {
    mr_parameters_bytes bytes = {
        .weights = parameters->weights.bytes + parameters->compute.bytes,
        .gradients = parameters->gradients.bytes,
    };
    for (size_t i = 0; i < MR_OPTIMIZER_STATES_MAX; i++)
        bytes.optimizer += parameters->states[i].bytes;
    return bytes;
}

/* ---- gradients ----------------------------------------------------------------------------- */

void mr_parameters_zero_gradients(mr_parameters *parameters) {
    mr_device *device = parameters->options.device;
    MR_ASSERT(parameters->options.training);
    if (parameters->gradients.base != NULL)
        device->ops->zero(device, parameters->gradients.base, parameters->gradients.bytes);
}

void mr_parameters_sum_uses(const mr_parameters *parameters, const mr_stage_parameter *parameter) {
    mr_device *device = parameters->options.device;
    MR_ASSERT(parameters->options.training);
    for (size_t i = 1; i < parameter->use_count; i++)
        device->ops->accumulate(device, &parameter->gradients[0], &parameter->gradients[i]);
}

double *mr_parameters_sums(const mr_parameters *parameters) {
    return parameters->sums.base;
}
