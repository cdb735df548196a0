/* SPDX-License-Identifier: Apache-2.0 */
/* activation_layout.h: where a stage keeps what its microbatches under way need, in one memory: the
 * plan asks how large it is, the stage makes it so and finds its way in it, and both are the same
 * computation. From its start:
 *   slots      one for each microbatch in flight: what stays from its forward to its backward
 *   again      what one run of layers gives and saves while it is computed again; all share it
 *   retained, scratch   of the layer that needs most; only one call runs at a time
 *   gradient   two by turns for what passes from layer to layer in a backward
 *   outgoing   two by turns for what goes to the previous stage
 *   aside      two by turns for the gradients of tensors put aside (model/aside.h), of those that
 *              some layer of the stage or before it puts and some layer of it or behind takes
 * With pipeline.activation_checkpoint_interval k a stage's layers fall into runs of k, from its
 * first layer on; the last may be short. Of a run whose layers may all be computed again
 * (pipeline.checkpointable_layers) a slot keeps only what leaves it, the input of the next run; a
 * slot keeps everything of the other runs, as it does without an interval. What a layer puts aside
 * stays in the slot always.
 * Not here: the stage's input, which stays in the link's or the feed's slot.
 * Owner: plan. Pure, any thread. */
#ifndef MR_PLAN_ACTIVATION_LAYOUT_H
#define MR_PLAN_ACTIVATION_LAYOUT_H

#include "daemon/plan/plan.h"

enum { MR_ACTIVATION_GRADIENT_BUFFERS = 2 };

/* Bytes from the start of the slot (in_slot) or of the shared area "again". */
typedef struct mr_activation_place {
    size_t offset;
    bool in_slot;
} mr_activation_place;

/* One layer; indices are within the stage. */
typedef struct mr_activation_layer {
    size_t run_first;
    size_t run_end;
    /* Must its forward be called again before the run's backward? Not for the last layer of a run
     * that saves nothing: nobody reads what it gives. */
    bool again;
    mr_activation_place output;
    mr_activation_place saved;
    /* Where its output goes when it is computed again. Differs from output for the stage's last
     * layer only: the gradient of the loss has taken the output's place, or a link may still be
     * reading it. The input of a later run is written anew with the same bits. */
    mr_activation_place output_again;
} mr_activation_layer;

/* Offsets from the memory's start. */
typedef struct mr_activation_layout {
    size_t layer_count;
    size_t slot_count; /* peak_in_flight, at least 1 */
    size_t slot_bytes;
    size_t again;
    size_t retained;
    size_t scratch;
    size_t gradient[MR_ACTIVATION_GRADIENT_BUFFERS];
    size_t outgoing[MR_ACTIVATION_GRADIENT_BUFFERS];
    size_t aside[MR_ACTIVATION_GRADIENT_BUFFERS];
    size_t aside_at[MR_ASIDES_MAX]; /* within each of these, by the plan's index */
    size_t bytes; /* of the whole; SIZE_MAX: more than can be counted */
} mr_activation_layout;

/* Does the stage hold a gradient of the plan's aside of that index? */
bool mr_activation_has_aside(const mr_plan *plan, const mr_stage_plan *stage, size_t index);

/* Lays out the memory of a stage whose layer_first, layer_end and peak_in_flight are set, with
 * activations kept each interval layers (the job's, or what it was set to since).
 * out_layers: layer_end - layer_first of them, or NULL. */
void mr_activation_layout_make(const mr_plan *plan, const mr_stage_plan *stage, size_t interval,
                               mr_activation_layout *out_layout, mr_activation_layer *out_layers);

#endif
