/* SPDX-License-Identifier: Apache-2.0 */
/* Of a build with CUDA. */
#include "daemon/stage/fabric_open.h"

#include "daemon/base/log.h"
#include "daemon/stage/fabric_cuda.h"

mr_status mr_fabric_open(const mr_device_options *options, mr_device *device,
                         mr_fabric **out_fabric) {
    *out_fabric = NULL;
    if (device->ops->stream == NULL)
        return MR_OK;
    mr_status status = mr_fabric_cuda_open(device, out_fabric);
    if (status.code != MR_CODE_UNAVAILABLE)
        return status;
    MR_LOG(WARN, "no NCCL: tensors pass through the host", MR_S("device", options->kind),
           MR_S("why", status.text));
    return MR_OK;
}
