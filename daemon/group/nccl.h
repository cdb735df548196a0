/* SPDX-License-Identifier: Apache-2.0 */
/* nccl.h: groups over an NCCL communicator, for data in a device's memory.
 *
 * A sum adds a rank's own parts in their order on the device, and the ranks' sums by
 * ncclAllReduce, whose order follows from the topology: the same bits for the same topology, not
 * the bits of the host groups (law 1 is the CPU's). A gather is one NCCL group of broadcasts.
 * Members that disagree are not told so by NCCL: they run into the deadline, or get NCCL's error.
 * Operations return when the result is there, so the idle wait between steps, which would keep a
 * kernel turning, is for host groups (grpc.h).
 * Owner: stage. Thread: EXEC, as communicator.h says; interrupt: any. */
#ifndef MR_GROUP_NCCL_H
#define MR_GROUP_NCCL_H

#include "daemon/device/cuda/nccl/communicator.h"
#include "daemon/device/device.h"
#include "daemon/group/group.h"

/* Joins the group's communicator; returns when every member has, at most timeout_ms. device copies
 * and adds parts on place's compute stream; borrowed until close. id: of this epoch and group, made
 * by the first member. DEADLINE_EXCEEDED names the ranks awaited; RESOURCE_EXHAUSTED. */
MR_MUST_CHECK mr_status mr_group_nccl_open(const mr_nccl_place *place, mr_device *device,
                                           const unsigned char id[MR_NCCL_ID_BYTES],
                                           const mr_group_options *options, int64_t timeout_ms,
                                           mr_group **out_group);

#endif
