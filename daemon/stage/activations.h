/* SPDX-License-Identifier: Apache-2.0 */
/* activations.h: the memory of microbatches under way on one stage: for each of the plan's
 * peak_in_flight slots, what every layer gives (its output) and keeps (its saved bytes); and the
 * gradients that pass through a backward, two by turns inside the stage and two by turns on their
 * way to the previous stage. All of it is one device memory, sized before step 0 (law 6).
 * Owner: stage. Thread: EXEC. No allocation after create.
 * Not here: the stage's input, which stays in the link's or the feed's slot. */
#ifndef MR_STAGE_ACTIVATIONS_H
#define MR_STAGE_ACTIVATIONS_H

#include "daemon/device/device.h"
#include "daemon/stage/assignment.h"

typedef struct mr_activations mr_activations;

enum { MR_ACTIVATIONS_GRADIENT_BUFFERS = 2 };

/* RESOURCE_EXHAUSTED names the bytes. assignment is borrowed until destroy. */
MR_MUST_CHECK mr_status mr_activations_create(mr_device *device, const mr_assignment *assignment,
                                              mr_activations **out_activations);
/* NULL is fine. */
void mr_activations_destroy(mr_activations *activations);

/* Microbatches that may be under way; microbatch m uses slot m % slots. */
size_t mr_activations_slots(const mr_activations *activations);
/* Output of layer (index within the stage) for a slot. */
mr_tensor mr_activations_output(const mr_activations *activations, size_t slot, size_t layer);
/* Where that layer saves for its backward. */
void *mr_activations_saved(const mr_activations *activations, size_t slot, size_t layer);
/* Shared by all layers: only one call runs at a time. */
void *mr_activations_retained(const mr_activations *activations);
void *mr_activations_scratch(const mr_activations *activations);
/* Buffer turn % MR_ACTIVATIONS_GRADIENT_BUFFERS for the gradient of layer's input, inside the
 * stage. */
mr_tensor mr_activations_gradient(const mr_activations *activations, size_t turn, size_t layer);
/* The same for the gradient of the stage's input, which a link borrows while sending. */
mr_tensor mr_activations_outgoing(const mr_activations *activations, size_t turn);
/* Bytes of the whole memory. */
size_t mr_activations_bytes(const mr_activations *activations);

#endif
