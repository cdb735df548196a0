/* SPDX-License-Identifier: Apache-2.0 */
/* far_kind.c: --device far, for a millraced that is built with this. */
#include "daemon/device/kind.h"
#include "tests/far/far_device.h"

static const mr_device_kind far_kind = {.name = "far", .create = mr_far_device_create};
MR_DEVICE_KIND_REGISTER(far_kind)
