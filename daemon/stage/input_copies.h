/* SPDX-License-Identifier: Apache-2.0 */
/* input_copies.h: microbatches of the feed in the memory of a device that is not the host: copied
 * in once, when they are loaded, into a slot for each that is under way.
 * Owner: stage/session. Thread: EXEC. No allocation after create. */
#ifndef MR_STAGE_INPUT_COPIES_H
#define MR_STAGE_INPUT_COPIES_H

#include "daemon/device/device.h"
#include "daemon/link/link.h"

typedef struct mr_input_copies mr_input_copies;

/* slots microbatches of at most bytes of tensors. device is borrowed until destroy.
 * RESOURCE_EXHAUSTED: no memory. */
MR_MUST_CHECK mr_status mr_input_copies_create(mr_device *device, size_t slots, size_t bytes,
                                               mr_input_copies **out_copies);
/* NULL is fine. */
void mr_input_copies_destroy(mr_input_copies *copies);
/* Copies the message's tensors, which are in host memory, into slot and makes them point there.
 * RESOURCE_EXHAUSTED: more bytes than a slot has. */
MR_MUST_CHECK mr_status mr_input_copies_place(mr_input_copies *copies, size_t slot,
                                              mr_message *message);

#endif
