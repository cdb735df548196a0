/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/stage/profiler_layer.h"

#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/arena.h"
#include "daemon/base/half.h"
#include "daemon/base/random.h"

enum { FILL_CHUNK_BYTES = 1 << 20 };
#define FILL_WEIGHTS 0.02f

/* ---- numbers --------------------------------------------------------------------------------- */

static void fill_host(unsigned char *host, mr_dtype dtype, size_t count, float scale,
                      size_t bound) {
    mr_random_key key = mr_random_key_make(1, MR_RANDOM_SAMPLE, 0, 0, 0);
    for (size_t i = 0; i < count; i++) {
        uint32_t word = mr_random_word(&key, i);
        float number = scale * ((float)(int32_t)word * 0x1p-31f);
        if (dtype == MR_DTYPE_F32) {
            memcpy(host + i * sizeof(number), &number, sizeof(number));
        } else if (dtype == MR_DTYPE_BF16 || dtype == MR_DTYPE_F16) {
            uint16_t rounded = mr_half_round(dtype, number);
            memcpy(host + i * sizeof(rounded), &rounded, sizeof(rounded));
        } else {
            int32_t integer = (int32_t)(word % (bound == 0 ? 1 : bound));
            memcpy(host + i * sizeof(integer), &integer, sizeof(integer));
        }
    }
}

/* The same chunk again and again: time does not depend on which numbers they are. */
mr_status mr_profiler_fill(mr_device *device, const mr_tensor *tensor, float scale, size_t bound) {
    size_t element = mr_dtype_bytes(tensor->shape.dtype);
    size_t elements = 0;
    MR_ASSERT(mr_shape_elements(&tensor->shape, &elements));
    size_t chunk = FILL_CHUNK_BYTES / element < elements ? FILL_CHUNK_BYTES / element : elements;
    unsigned char *host = mr_alloc_array(chunk, element);
    if (host == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu numbers", chunk);
    fill_host(host, tensor->shape.dtype, chunk, scale, bound);
    for (size_t done = 0; done < elements; done += chunk) {
        size_t count = elements - done < chunk ? elements - done : chunk;
        device->ops->copy_in(device, (unsigned char *)tensor->data + done * element, host,
                             count * element);
    }
    mr_status status = device->ops->check(device); /* the copies have left host */
    mr_free(host);
    return status;
}

/* ---- a layer --------------------------------------------------------------------------------- */

static mr_status layer_lay_out(mr_profiler_layer *layer, const mr_shape *input, bool gradient,
                               bool takes) {
    const mr_layer_description *description = layer->description;
    size_t input_bytes = 0;
    size_t output_bytes = 0;
    if (!mr_shape_bytes(input, &input_bytes) ||
        !mr_shape_bytes(&description->output, &output_bytes))
        return MR_ERROR(INVALID_ARGUMENT, "a layer's tensors are too large to be counted");
    const size_t bytes[] = {input_bytes,
                            output_bytes,
                            output_bytes,
                            gradient ? input_bytes : 0,
                            description->saved_bytes,
                            description->retained_bytes,
                            description->scratch_bytes,
                            input_bytes > output_bytes ? input_bytes : output_bytes,
                            takes ? input_bytes : 0,
                            takes ? input_bytes : 0,
                            sizeof(double)};
    enum { PLACES = sizeof(bytes) / sizeof(bytes[0]) };
    size_t at[PLACES + 1] = {0};
    for (size_t i = 0; i < PLACES; i++)
        if (!mr_size_add(at[i], mr_arena_rounded(bytes[i]), &at[i + 1]))
            return MR_ERROR(INVALID_ARGUMENT, "a layer's memory is too large to be counted");
    MR_TRY(layer->device->ops->memory_create(layer->device, at[PLACES], &layer->memory));
    unsigned char *base = layer->memory.base;
    layer->x = (mr_tensor){.data = base + at[0], .shape = *input};
    layer->y = (mr_tensor){.data = base + at[1], .shape = description->output};
    layer->dy = (mr_tensor){.data = base + at[2], .shape = description->output};
    layer->dx = (mr_tensor){.data = gradient ? base + at[3] : NULL, .shape = *input};
    layer->call.saved = base + at[4];
    layer->call.retained = base + at[5];
    layer->call.scratch = base + at[6];
    layer->spare = base + at[7];
    layer->taken = (mr_tensor){.data = base + at[8], .shape = *input};
    layer->d_taken = (mr_tensor){.data = base + at[9], .shape = *input};
    layer->call.side_sum = (double *)(void *)(base + at[10]);
    layer->call.side_scale = description->side.name[0] != '\0' ? 1 : 0;
    if (takes) {
        layer->call.taken = &layer->taken;
        layer->call.d_taken = &layer->d_taken;
    }
    return MR_OK;
}

static mr_status layer_fill(mr_profiler_layer *layer, size_t vocab) {
    MR_TRY(mr_profiler_fill(layer->device, &layer->x, 1.0f, vocab));
    MR_TRY(mr_profiler_fill(layer->device, &layer->dy, 1e-3f, vocab));
    if (layer->call.taken != NULL)
        MR_TRY(mr_profiler_fill(layer->device, &layer->taken, 1.0f, vocab));
    for (size_t i = 0; i < mr_parameters_count(layer->parameters); i++)
        MR_TRY(mr_profiler_fill(layer->device, &mr_parameters_at(layer->parameters, i)->weight,
                                FILL_WEIGHTS, 0));
    mr_parameters_refresh(layer->parameters);
    return MR_OK;
}

mr_status mr_profiler_layer_init(mr_profiler_layer *layer, mr_device *device, const mr_job *job,
                                 const mr_layer_description *descriptions, size_t index) {
    const mr_parameters_options options = {
        .device = device,
        .job = job,
        .descriptions = descriptions,
        .layer_first = index,
        .layer_end = index + 1,
        .training = true,
    };
    *layer = (mr_profiler_layer){
        .device = device,
        .description = &descriptions[index],
        .call = {.device = device, .training = true, .seed = job->seed},
    };
    mr_shape input = index == 0 ? mr_job_input_shape(job) : descriptions[index - 1].output;
    MR_TRY(mr_parameters_create(&options, &layer->parameters));
    MR_TRY(layer_lay_out(layer, &input, index > 0 && input.needs_gradient,
                         job->layers[index].take[0] != '\0'));
    return layer_fill(layer, job->layers[index].vocab);
}

void mr_profiler_layer_deinit(mr_profiler_layer *layer) {
    if (layer->memory.base != NULL)
        layer->device->ops->memory_destroy(layer->device, &layer->memory);
    mr_parameters_destroy(layer->parameters);
    *layer = (mr_profiler_layer){0};
}

static void layer_touch(mr_profiler_layer *layer, const mr_tensor *tensor) {
    size_t bytes = 0;
    MR_ASSERT(mr_shape_bytes(&tensor->shape, &bytes));
    layer->device->ops->copy(layer->device, layer->spare, tensor->data, bytes);
}

void mr_profiler_layer_touch_input(mr_profiler_layer *layer) {
    layer_touch(layer, &layer->x);
}

void mr_profiler_layer_touch_gradient(mr_profiler_layer *layer) {
    layer_touch(layer, &layer->dy);
}

void mr_profiler_layer_forward(mr_profiler_layer *layer) {
    mr_layer_forward(mr_parameters_layer(layer->parameters, 0), &layer->call, &layer->x, &layer->y);
}

void mr_profiler_layer_backward_input(mr_profiler_layer *layer) {
    if (!layer->description->output.needs_gradient)
        return; /* as in a pass: nothing up to here is trained */
    mr_layer_backward_input(mr_parameters_layer(layer->parameters, 0), &layer->call, &layer->x,
                            &layer->dy, layer->dx.data == NULL ? NULL : &layer->dx);
}

void mr_profiler_layer_backward_weight(mr_profiler_layer *layer) {
    if (!layer->description->output.needs_gradient)
        return;
    mr_layer_backward_weight(mr_parameters_layer(layer->parameters, 0), &layer->call, &layer->x,
                             &layer->dy);
}

/* ---- saved bytes ----------------------------------------------------------------------------- */

/* Lays pattern under the saved area, lets forward run and finds the last byte that differs. */
static mr_status saved_extent(mr_profiler_layer *layer, unsigned char pattern, unsigned char *host,
                              uint64_t *out_extent) {
    const mr_device_ops *ops = layer->device->ops;
    unsigned char *saved = layer->call.saved;
    size_t left = layer->description->saved_bytes;
    memset(host, pattern, FILL_CHUNK_BYTES);
    for (size_t at = 0; at < left; at += FILL_CHUNK_BYTES)
        ops->copy_in(layer->device, saved + at, host,
                     left - at < FILL_CHUNK_BYTES ? left - at : FILL_CHUNK_BYTES);
    MR_TRY(ops->check(layer->device));
    mr_profiler_layer_forward(layer);
    while (left > 0) {
        size_t count = (left - 1) % FILL_CHUNK_BYTES + 1;
        ops->copy_out(layer->device, host, saved + left - count, count);
        while (count > 0 && host[count - 1] == pattern) {
            count--;
            left--;
        }
        if (count > 0)
            break;
    }
    *out_extent = left;
    return MR_OK;
}

mr_status mr_profiler_layer_saved(mr_profiler_layer *layer, uint64_t *out_bytes) {
    unsigned char *host = mr_alloc(FILL_CHUNK_BYTES);
    uint64_t one = 0;
    uint64_t other = 0;
    if (host == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to look at saved bytes");
    mr_status status = saved_extent(layer, 0xa5, host, &one);
    if (mr_status_is_ok(status))
        status = saved_extent(layer, 0x5a, host, &other);
    *out_bytes = one > other ? one : other;
    mr_free(host);
    return status;
}
