/* SPDX-License-Identifier: Apache-2.0 */
/* load.h: finds libmillrace_cuda.so beside the program or in ../lib, loads it once and makes a
 * device with it. Part of every build: a program without the library, or on a machine without a
 * driver, runs the CPU and says what is missing when a card is asked for.
 * Owner: device. Thread: EXEC.
 * Not here: anything of CUDA. */
#ifndef MR_DEVICE_CUDA_LOAD_H
#define MR_DEVICE_CUDA_LOAD_H

#include "daemon/device/device.h"

/* options->kind is "cuda:N" with N = number. UNAVAILABLE: no library, none that loads, no driver,
 * no such card. FAILED_PRECONDITION: a library of another build. The library stays loaded. */
MR_MUST_CHECK mr_status mr_device_cuda_create(const mr_device_options *options, unsigned number,
                                              mr_device **out_device);
/* Does this installation have the CUDA library? It is not loaded. UNAVAILABLE: no. Any thread. */
MR_MUST_CHECK mr_status mr_device_cuda_present(void);
/* The same as create from the library at path alone; for tests. */
MR_MUST_CHECK mr_status mr_device_cuda_create_from(const char *path,
                                                   const mr_device_options *options,
                                                   unsigned number, mr_device **out_device);

#endif
