/* SPDX-License-Identifier: Apache-2.0 */
/* layer.h: the computing half of a layer: forward, backward-input and backward-weight, composed of
 * device operations and so the same for every device. The describing half is model/description.h;
 * both agree on saved, retained and scratch bytes.
 * Owner: stage. Thread: EXEC. No state: everything a call needs is handed in.
 * A shard of a layer computes what its rank of the model axis has of it and sums or gathers with
 * the others through call->model: inputs and outputs are whole and equal on all of them unless
 * their shape says that they are cut (arXiv:1909.08053).
 * Not here: memory (stage/parameters, stage/executor), the order of calls. */
#ifndef MR_LAYERS_LAYER_H
#define MR_LAYERS_LAYER_H

#include "daemon/device/device.h"
#include "daemon/layers/reducer.h"
#include "daemon/model/description.h"

/* One layer of a stage, built once. parameters and gradients: description->parameter_count tensors
 * in the description's order; gradients NULL for inference. parameters are what calls compute with:
 * in another precision than f32 matrices are rounded copies of the masters that the optimizer keeps
 * (mr_parameter_compute_dtype says which). gradients are f32 always; that of a frozen
 * matrix has no data. */
typedef struct mr_layer {
    const mr_layer_spec *spec;               /* borrowed from the job */
    const mr_layer_description *description; /* borrowed from the plan */
    size_t index;                            /* global */
    mr_shape input;
    mr_tensor *parameters;
    mr_tensor *gradients;
} mr_layer;

/* What identifies a call, for random numbers and memory, and who shares it. */
typedef struct mr_layer_call {
    mr_device *device;
    bool training; /* dropout acts only in training */
    uint64_t seed;        /* of the layer in this call (mr_job_forward_seed) */
    uint64_t step;        /* from 0 */
    uint64_t micro_batch; /* number in the whole step, over all replicas */
    void *saved;          /* description->saved_bytes, of this microbatch */
    void *retained;       /* description->retained_bytes */
    void *scratch;        /* description->scratch_bytes */
    mr_reducer *model;    /* of a shard (layer_spec.h): the ranks of the others; else not used */
    /* Of a layer with take: what the earlier layer put, of the input's shape; there until the
     * backward is over. backward_input adds its gradient to d_taken, NULL where none is needed. */
    const mr_tensor *taken;
    mr_tensor *d_taken;
    /* Of a layer with a side loss (model/side_loss.h). forward adds its unscaled sum over terms to
     * *side_sum, in device memory, as a device operation does; backward_input adds side_scale times
     * the sum's gradient to dx. */
    double *side_sum;
    float side_scale;
} mr_layer_call;

/* Can this build compute the layer? UNIMPLEMENTED names the type or field that it cannot;
 * FAILED_PRECONDITION: a user's type was registered wrongly. */
MR_MUST_CHECK mr_status mr_layer_check(const mr_layer_spec *spec);
/* Can this device? Only after mr_layer_check said OK. UNIMPLEMENTED names the type, the operation
 * and the device. */
MR_MUST_CHECK mr_status mr_layer_check_device(const mr_layer_spec *spec, const mr_device *device);

/* y = f(x); fills call->saved. y never overlaps x. */
void mr_layer_forward(const mr_layer *layer, const mr_layer_call *call, const mr_tensor *x,
                      mr_tensor *y);
/* dx = gradient of x from dy; fills call->retained with what backward-weight needs. dx NULL: the
 * input needs no gradient (tokens, or numbers of the feed), but retained is still filled. x, dy and
 * saved must stay until backward_weight. dx never overlaps dy. */
void mr_layer_backward_input(const mr_layer *layer, const mr_layer_call *call, const mr_tensor *x,
                             const mr_tensor *dy, mr_tensor *dx);
/* layer->gradients += gradients of the parameters that are trained; after backward_input of the
 * same microbatch. */
void mr_layer_backward_weight(const mr_layer *layer, const mr_layer_call *call, const mr_tensor *x,
                              const mr_tensor *dy);

#endif
