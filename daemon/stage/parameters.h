/* SPDX-License-Identifier: Apache-2.0 */
/* parameters.h: the parameters that one stage holds, with their gradients and optimizer state, in
 * a few device memories that are sized from the layers' descriptions and made once; and the stage's
 * mr_layer objects with tensors bound to them.
 *
 * Master weights, gradients and optimizer state are f32 in every precision; checkpoints and sums
 * over ranks know nothing else. In bf16 each matrix has a rounded copy besides, its compute tensor,
 * which is all that layers see of it; whoever changes weights (draw and the optimizer step do it
 * themselves) ends with mr_parameters_refresh. Vectors (norm weights, biases) and everything in
 * fp32 are computed with as they are: there compute is the weight itself.
 *
 * A frozen parameter has a weight (and a compute tensor) only: no accumulator, no state, no part in
 * the norm, and the optimizer passes over it. Because a norm's backward gives both its vectors'
 * gradients at once, frozen vectors of a layer that trains others accumulate into one scrap tensor
 * of the stage that nobody reads.
 *
 * A tied parameter is held once per stage however many layers of the stage use it; each use has its
 * own gradient accumulator. It is *owned* by the stage that has the tie's first layer: only there
 * does it count towards the norm. A parameter without a tie is owned where it is held; a frozen one
 * is owned nowhere.
 *
 * With pipeline.zero_stage 1 each replica of the stage holds only its share of the optimizer's
 * state (plan/state_share.h), changes that part of the weights, and gets the rest from the others:
 * the weights' memory begins with what is trained, laid out as the state is, and each replica gives
 * one contiguous part of that.
 * Owner: stage. Thread: EXEC. No allocation after create.
 * Not here: sums over ranks (stage/executor, group/), the optimizer's arithmetic (optimizer.h),
 * checkpoint files (stage/executor, checkpoint/). */
#ifndef MR_STAGE_PARAMETERS_H
#define MR_STAGE_PARAMETERS_H

#include <stdbool.h>
#include <stddef.h>

#include "daemon/base/status.h"
#include "daemon/device/device.h"
#include "daemon/layers/layer.h"
#include "daemon/model/job.h"

typedef struct mr_parameters mr_parameters;

typedef struct mr_parameters_options {
    mr_device *device;                        /* borrowed until destroy */
    const mr_job *job;                        /* borrowed until destroy */
    const mr_layer_description *descriptions; /* of all layers of the job; borrowed until destroy */
    size_t layer_first;
    size_t layer_end;
    bool training; /* false: weights only; gradients and states are absent (data NULL) */
    size_t state_width; /* replicas that the optimizer's state is split over; 0 and 1: not split */
    size_t state_index; /* which of them this one is */
} mr_parameters_options;

/* Elements [first, first + count) of a parameter. */
typedef struct mr_parameter_part {
    size_t first;
    size_t count;
} mr_parameter_part;

/* One parameter that the stage holds. Tensors are of description->shape in device memory, and f32
 * but for compute. */
typedef struct mr_stage_parameter {
    size_t layer;                    /* global index of the first layer of the stage that uses it */
    size_t parameter;                /* its index in that layer's description */
    const mr_parameter *description; /* of that layer */
    const char *tie;                 /* key of its tie; NULL for none */
    size_t tie_slot;                 /* which of the tie's parameters it is */
    size_t init_layer;               /* the tie's first layer in the whole job; else layer */
    size_t init_parameter;           /* its index there */
    bool owned;                      /* counts towards the norm on this stage */
    size_t use_count;                /* layers of this stage that use it */
    mr_tensor *gradients; /* [use_count] accumulators, ascending by layer; those of a layer lie in
                             one memory in its parameters' order; no data where frozen */
    mr_tensor weight;  /* the master */
    mr_tensor compute; /* what layers read; the weight itself where no other type is asked for */
    mr_tensor gradient; /* what the optimizer reads: the first accumulator, which a sum over uses
                           and ranks overwrites */
    size_t state_offset;    /* of its slice in the layout of the whole state, in bytes */
    mr_parameter_part part; /* whose state is here, and which the optimizer changes */
    mr_tensor states[MR_OPTIMIZER_STATES_MAX]; /* in mr_parameters_states' order; of the parameter's
                                                  shape, or of [part.count] where it is split */
} mr_stage_parameter;

/* Makes the memories, all zero, and the layers. INVALID_ARGUMENT: a tied parameter of another shape
 * than its tie's first; UNIMPLEMENTED: a layer that this build cannot compute (mr_layer_check), or
 * an optimizer that the device lacks;
 * RESOURCE_EXHAUSTED: memory. Owner frees with mr_parameters_destroy. */
MR_MUST_CHECK mr_status mr_parameters_create(const mr_parameters_options *options,
                                             mr_parameters **out_parameters);
/* NULL is fine. */
void mr_parameters_destroy(mr_parameters *parameters);

/* Draws the initial weights; optimizer state becomes zero. Element e of parameter p of layer l is a
 * pure function of (the layer's seed, l, p, e), or with model.seed_layers false of (the job's seed,
 * its place among all random elements of the model), a tied one drawn as its tie's first layer, so
 * every cut of the model into stages starts with the same bits (law 1); e counts in the whole
 * parameter, so that a rank of the model axis starts with its shard of them. RESOURCE_EXHAUSTED: no
 * host memory. */
MR_MUST_CHECK mr_status mr_parameters_draw(mr_parameters *parameters);

/* Rounds the masters into their compute tensors; after every change of weights, before the next
 * forward. Nothing to do in fp32. */
void mr_parameters_refresh(mr_parameters *parameters);

/* The stage's layers, in order; index < layer_end - layer_first. */
size_t mr_parameters_layer_count(const mr_parameters *parameters);
const mr_layer *mr_parameters_layer(const mr_parameters *parameters, size_t index);

/* Parameters held, ascending by (layer, parameter); a tied one once, at its first layer here. */
size_t mr_parameters_count(const mr_parameters *parameters);
const mr_stage_parameter *mr_parameters_at(const mr_parameters *parameters, size_t index);
/* How many of them are owned. */
size_t mr_parameters_owned_count(const mr_parameters *parameters);
/* The held parameter that parameter number parameter of layer (index within the stage) stands for;
 * the same object for every use of a tied one. */
const mr_stage_parameter *mr_parameters_of_layer(const mr_parameters *parameters, size_t index,
                                                 size_t parameter);
/* The tied parameter of this key and slot; NULL where the stage has no such. A tie's slots count
 * from 0 without a gap. */
const mr_stage_parameter *mr_parameters_find_tie(const mr_parameters *parameters, const char *key,
                                                 size_t slot);

/* The state tensors that every parameter has: the optimizer's; none without training. */
mr_optimizer_states mr_parameters_states(const mr_parameters *parameters);
/* The replicas that the state is split over, at least 1, and which of them this one is. */
size_t mr_parameters_state_width(const mr_parameters *parameters);
size_t mr_parameters_state_index(const mr_parameters *parameters);
/* The part of a held parameter whose state is with replica index of the width. */
mr_parameter_part mr_parameters_part(const mr_parameters *parameters,
                                     const mr_stage_parameter *parameter, size_t index);
/* The one buffer of all master weights, and where in it the part of replica index of the width
 * begins, in bytes; index may be the width, whose beginning is the end of what is trained: frozen
 * weights lie behind. Parts follow each other without a gap. */
unsigned char *mr_parameters_weights(const mr_parameters *parameters);
size_t mr_parameters_weights_start(const mr_parameters *parameters, size_t index);

/* The device that holds them, the job they belong to, and whether gradients and states exist. */
mr_device *mr_parameters_device(const mr_parameters *parameters);
const mr_job *mr_parameters_job(const mr_parameters *parameters);
bool mr_parameters_training(const mr_parameters *parameters);
/* Bytes of device memory in use: weights with their compute copies, gradients, states. */
typedef struct mr_parameters_bytes {
    size_t weights;
    size_t gradients;
    size_t optimizer;
} mr_parameters_bytes;
mr_parameters_bytes mr_parameters_bytes_held(const mr_parameters *parameters);

/* All gradient accumulators become zero: one pass over one memory. */
void mr_parameters_zero_gradients(mr_parameters *parameters);
/* gradient = the sum of the parameter's own uses in layer order. Only for a tie whose layers are
 * all on this stage; a tied group of several ranks sums all parts at once instead (group.h),
 * because floating-point sums of sums would have other bits. */
void mr_parameters_sum_uses(const mr_parameters *parameters, const mr_stage_parameter *parameter);

/* Device memory for one double per owned parameter (the optimizer's sums of squares). */
double *mr_parameters_sums(const mr_parameters *parameters);

#endif
