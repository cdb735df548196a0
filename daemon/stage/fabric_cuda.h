/* SPDX-License-Identifier: Apache-2.0 */
/* fabric_cuda.h: the fabric of a CUDA device: NCCL for groups and for links between machines, CUDA
 * IPC for links within one.
 * Owner: stage. Thread: EXEC, the one thread that calls NCCL. */
#ifndef MR_STAGE_FABRIC_CUDA_H
#define MR_STAGE_FABRIC_CUDA_H

#include "daemon/device/cuda/nccl/communicator.h"
#include "daemon/stage/fabric.h"

/* place and device are those of the stage's device, borrowed until close. RESOURCE_EXHAUSTED: no
 * memory. */
MR_MUST_CHECK mr_status mr_fabric_cuda_create(const mr_nccl_place *place, mr_device *device,
                                              mr_fabric **out_fabric);
/* The same with NCCL as this machine has it, for a device with a stream. UNAVAILABLE: it has none,
 * or not the one that this was built for. */
MR_MUST_CHECK mr_status mr_fabric_cuda_open(mr_device *device, mr_fabric **out_fabric);

#endif
