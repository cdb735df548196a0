/* SPDX-License-Identifier: Apache-2.0 */
/* staged.h: a group for vectors in the memory of a device that is not the host, over a group of
 * host memory: each operation copies out, works there, and copies in. Bits are those of the inner
 * group. Where a device has groups of its own (nccl.h) those are the better ones.
 * Owner: stage. Thread: EXEC, since only it may use the device; interrupt: any. */
#ifndef MR_GROUP_STAGED_H
#define MR_GROUP_STAGED_H

#include "daemon/device/device.h"
#include "daemon/group/group.h"

/* Vectors of at most bytes_max, and at most parts_max of them in one sum. owned_inner is the new
 * group's in every outcome; device is borrowed until close. RESOURCE_EXHAUSTED: no host memory. */
MR_MUST_CHECK mr_status mr_group_staged(mr_device *device, size_t bytes_max, size_t parts_max,
                                        mr_group *owned_inner, mr_group **out_group);

#endif
