/* SPDX-License-Identifier: Apache-2.0 */
/* pass.h: one microbatch forward or backward through all layers of a stage.
 * Owner: stage/executor. Thread: EXEC. Straight-line work: no allocation, and no waiting but for
 * the other ranks of the model axis, whose errors the caller asks for (model_axis.h).
 * Not here: which microbatch when (executor), where its input comes from (link, feed). */
#ifndef MR_STAGE_PASS_H
#define MR_STAGE_PASS_H

#include "daemon/stage/activations.h"
#include "daemon/stage/parameters.h"
#include "daemon/stage/side_losses.h"

/* Everything borrowed. micro_batch: its number within the replica, which chooses the slot; random
 * numbers are keyed by its number in the whole step, which counts through the replicas. */
typedef struct mr_pass {
    mr_device *device;
    const mr_assignment *assignment;
    const mr_parameters *parameters;
    const mr_activations *activations;
    const mr_side_losses *sides; /* may be NULL where no layer has one */
    double side_scale; /* of the gradient of a side loss's mean over one microbatch */
    mr_reducer *model; /* NULL with a model axis of one rank */
    uint64_t step;
    uint32_t micro_batch;
    size_t micro_batches; /* of each replica in this step */
    /* What layers of earlier stages put aside (model/aside.h), as it came with the input, and for a
     * backward its gradients as they came from later stages: by the plan's index, without data
     * where none came. May be NULL where nothing crosses. turn: which buffers backward uses for
     * those that go to the previous stage. */
    const mr_tensor *asides;
    const mr_tensor *aside_gradients;
    size_t turn;
    /* backward: told of each layer (its index within the stage) when nothing more is added to its
     * gradients in this pass; may be NULL */
    void (*layer_done)(void *context, size_t layer);
    void *done_context;
} mr_pass;

/* Returns the stage's output: a view of the microbatch's slot. */
mr_tensor mr_pass_forward(const mr_pass *pass, const mr_tensor *x);
/* dy: gradient of the output; dx: where the input's gradient goes, NULL for the first stage; it is
 * left as it is where no layer before the stage is trained. Adds to the gradients of the stage's
 * parameters. Each run of layers that the forward did not keep is
 * computed again just before its backward, with the same random numbers and so to the same bits. */
void mr_pass_backward(const mr_pass *pass, const mr_tensor *x, const mr_tensor *dy, mr_tensor *dx);

#endif
