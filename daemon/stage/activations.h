/* SPDX-License-Identifier: Apache-2.0 */
/* activations.h: the memory of microbatches under way on one stage, laid out by the plan
 * (plan/activation_layout.h): for each of the plan's peak_in_flight slots, what layers give (their
 * outputs) and keep (their saved bytes), as far as it is not computed again; one area for the run
 * of layers that is; and the gradients that pass through a backward. All of it is one device
 * memory, sized before step 0 (law 6).
 * Owner: stage. Thread: EXEC. No allocation after create.
 * Not here: the stage's input, which stays in the link's or the feed's slot. */
#ifndef MR_STAGE_ACTIVATIONS_H
#define MR_STAGE_ACTIVATIONS_H

#include "daemon/device/device.h"
#include "daemon/plan/activation_layout.h"
#include "daemon/stage/assignment.h"

typedef struct mr_activations mr_activations;

/* RESOURCE_EXHAUSTED names the bytes. assignment is borrowed until destroy. */
MR_MUST_CHECK mr_status mr_activations_create(mr_device *device, const mr_assignment *assignment,
                                              size_t interval,
                                              mr_activations **out_activations);
/* NULL is fine. */
void mr_activations_destroy(mr_activations *activations);

/* Microbatches that may be under way; microbatch m uses slot m % slots. */
size_t mr_activations_slots(const mr_activations *activations);
/* The run that a layer (index within the stage) belongs to, and whether it is computed again. */
const mr_activation_layer *mr_activations_layer(const mr_activations *activations, size_t layer);
/* Output of layer (index within the stage) for a slot; inside a run that is computed again, valid
 * only until another run of the stage is computed. */
mr_tensor mr_activations_output(const mr_activations *activations, size_t slot, size_t layer);
/* Where that output goes when it is computed again. */
mr_tensor mr_activations_output_again(const mr_activations *activations, size_t slot, size_t layer);
/* Where that layer saves for its backward; valid as long as its output. */
void *mr_activations_saved(const mr_activations *activations, size_t slot, size_t layer);
/* Shared by all layers: only one call runs at a time. */
void *mr_activations_retained(const mr_activations *activations);
void *mr_activations_scratch(const mr_activations *activations);
/* Buffer turn % MR_ACTIVATION_GRADIENT_BUFFERS for the gradient of layer's input, inside the
 * stage. */
mr_tensor mr_activations_gradient(const mr_activations *activations, size_t turn, size_t layer);
/* The same for the gradient of the stage's input, which a link borrows while sending. */
mr_tensor mr_activations_outgoing(const mr_activations *activations, size_t turn);
/* Buffer turn % MR_ACTIVATION_GRADIENT_BUFFERS for the gradient of the plan's aside of that index;
 * only where mr_activation_has_aside. */
mr_tensor mr_activations_aside(const mr_activations *activations, size_t turn, size_t index);
/* Bytes of the whole memory, as the device gave it. */
size_t mr_activations_bytes(const mr_activations *activations);
/* What the layout says that it takes; the device may round it up. */
size_t mr_activations_bytes_predicted(const mr_activations *activations);

#endif
