/* SPDX-License-Identifier: Apache-2.0 */
/* profiler_layer.h: one layer of a job alone on a device, with everything that its calls need: its
 * parameters, and tensors of its own for input, output and gradients, filled with numbers that a
 * training step could have.
 * Owner: stage/profiler. Thread: EXEC. Internal to the profiler's files. */
#ifndef MR_STAGE_PROFILER_LAYER_H
#define MR_STAGE_PROFILER_LAYER_H

#include "daemon/stage/parameters.h"

typedef struct mr_profiler_layer {
    mr_device *device;
    const mr_layer_description *description;
    mr_parameters *parameters;
    mr_device_memory memory;
    mr_tensor x;
    mr_tensor y;
    mr_tensor dy;
    mr_tensor dx; /* data NULL: its input needs no gradient */
    mr_tensor taken;   /* of a layer that takes what another put aside; else not used */
    mr_tensor d_taken; /* likewise */
    void *spare;  /* as large as x or y */
    mr_layer_call call;
} mr_profiler_layer;

/* Builds layer index of the job. descriptions: of all layers. Errors of mr_parameters_create and of
 * memory. Deinit in either case. */
MR_MUST_CHECK mr_status mr_profiler_layer_init(mr_profiler_layer *layer, mr_device *device,
                                               const mr_job *job,
                                               const mr_layer_description *descriptions,
                                               size_t index);
void mr_profiler_layer_deinit(mr_profiler_layer *layer);

/* Reads what the layer before, or the one after, would just have written: x, or dy. */
void mr_profiler_layer_touch_input(mr_profiler_layer *layer);
void mr_profiler_layer_touch_gradient(mr_profiler_layer *layer);
/* One call each, as pass.c makes it. */
void mr_profiler_layer_forward(mr_profiler_layer *layer);
void mr_profiler_layer_backward_input(mr_profiler_layer *layer);
void mr_profiler_layer_backward_weight(mr_profiler_layer *layer);

/* Bytes from the start of the saved area to the last one that forward writes, found by two patterns
 * laid under it. RESOURCE_EXHAUSTED: no host memory. */
MR_MUST_CHECK mr_status mr_profiler_layer_saved(mr_profiler_layer *layer, uint64_t *out_bytes);

/* Fills a tensor: numbers of [-1, 1) times scale; integers of [0, bound). */
MR_MUST_CHECK mr_status mr_profiler_fill(mr_device *device, const mr_tensor *tensor, float scale,
                                         size_t bound);

#endif
