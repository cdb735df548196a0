/* SPDX-License-Identifier: Apache-2.0 */
/* staged.h: ends of a link for tensors in the memory of a device that is not the host, over an end
 * that carries host memory: a sending end copies each message out into a buffer of its own, a
 * receiving end copies it in. All buffers are made here; no message allocates.
 * Owner: stage. Thread: EXEC; interrupt: any. */
#ifndef MR_LINK_STAGED_H
#define MR_LINK_STAGED_H

#include "daemon/device/device.h"
#include "daemon/link/link.h"

/* Both: owned_inner is an end of the same options, and the new end's in every outcome; device is
 * borrowed until close. RESOURCE_EXHAUSTED: no memory, of the host or of the device. */

/* buffers: messages that the caller lets be on their way at once (wait_sent). One more waits in
 * send until the first of them is gone, at most MR_STEP_WAIT_TIMEOUT_MS. */
MR_MUST_CHECK mr_status mr_link_staged_sender(mr_device *device, const mr_link_options *options,
                                              size_t buffers, mr_link *owned_inner,
                                              mr_link **out_link);
/* Has options->slots messages in device memory; inner's are released as soon as they are copied. */
MR_MUST_CHECK mr_status mr_link_staged_receiver(mr_device *device, const mr_link_options *options,
                                                mr_link *owned_inner, mr_link **out_link);

#endif
