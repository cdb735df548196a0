/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/stage/fabric_open.h"

#include <string.h>

static mr_status fabric_open_links(const mr_device_options *options, mr_device *device,
                                   mr_fabric **out_fabric) {
    MR_TRY(mr_fabric_open(options, device, out_fabric));
    if (*out_fabric != NULL)
        (*out_fabric)->group_open = NULL;
    return MR_OK;
}

mr_status mr_fabric_opener_find(const char *name, mr_fabric_opener *out_opener) {
    if (strcmp(name, "auto") == 0)
        *out_opener = mr_fabric_open;
    else if (strcmp(name, "links") == 0)
        *out_opener = fabric_open_links;
    else if (strcmp(name, "none") == 0)
        *out_opener = NULL;
    else
        return MR_ERROR(INVALID_ARGUMENT, "--fabric is \"%.40s\"; it must be auto, links or none",
                        name);
    return MR_OK;
}
