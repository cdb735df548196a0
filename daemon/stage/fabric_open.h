/* SPDX-License-Identifier: Apache-2.0 */
/* fabric_open.h: the fabric that goes with a stage's device in this build: NCCL and CUDA IPC with a
 * CUDA device, none with others and in a build without CUDA. Where NCCL is not installed tensors
 * pass through the host, with a line in the log.
 * Owner: stage. Thread: EXEC. */
#ifndef MR_STAGE_FABRIC_OPEN_H
#define MR_STAGE_FABRIC_OPEN_H

#include "daemon/stage/fabric.h"

/* What --fabric asks for: auto, this build's; links, the same without groups, for which NCCL wants
 * each rank on a card of its own; none: *out_opener NULL. INVALID_ARGUMENT: another word. */
MR_MUST_CHECK mr_status mr_fabric_opener_find(const char *name, mr_fabric_opener *out_opener);
/* An mr_fabric_opener. *out_fabric NULL: none. */
MR_MUST_CHECK mr_status mr_fabric_open(const mr_device_options *options, mr_device *device,
                                       mr_fabric **out_fabric);

#endif
