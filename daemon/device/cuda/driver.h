/* SPDX-License-Identifier: Apache-2.0 */
/* driver.h: is there a driver, and does it have the card? Asked before any library of CUDA is, and
 * through the driver itself, whose answers say more.
 * Owner: device/cuda. Thread: EXEC. */
#ifndef MR_DEVICE_CUDA_DRIVER_H
#define MR_DEVICE_CUDA_DRIVER_H

#include "daemon/base/status.h"

/* UNAVAILABLE: no driver; a driver that does not start, with cuInit's result; or fewer cards than
 * number + 1, with how many there are. */
MR_MUST_CHECK mr_status mr_cuda_driver_check(unsigned number);
/* How many cards the driver has, as CUDA_VISIBLE_DEVICES lets it see them. UNAVAILABLE: as above.
 * Any thread. */
MR_MUST_CHECK mr_status mr_cuda_driver_count(unsigned *out_count);

#endif
