/* SPDX-License-Identifier: Apache-2.0 */
/* far_device.h: a device whose memory the host cannot read, for tests of everything that must treat
 * a card's memory as a card's. It computes on the CPU device, to the same bits, but the addresses
 * that it hands out lie outside what a processor can address: whoever follows one without a copy
 * dies at once, and an address of the host in an operation ends the program, too.
 * A program that links far_kind has it as --device far.
 * Owner: tests. Thread: EXEC. */
#ifndef MR_TESTS_FAR_FAR_DEVICE_H
#define MR_TESTS_FAR_FAR_DEVICE_H

#include "daemon/device/device.h"

/* As mr_device_cpu_create. */
MR_MUST_CHECK mr_status mr_far_device_create(const mr_device_options *options,
                                             mr_device **out_device);

#endif
