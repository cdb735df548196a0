/* SPDX-License-Identifier: Apache-2.0 */
/* Of a build without CUDA or without NCCL's headers. */
#include "daemon/stage/fabric_open.h"

mr_status mr_fabric_open(const mr_device_options *options, mr_device *device,
                         mr_fabric **out_fabric) {
    (void)options;
    (void)device;
    *out_fabric = NULL;
    return MR_OK;
}
