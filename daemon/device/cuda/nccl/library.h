/* SPDX-License-Identifier: Apache-2.0 */
/* library.h: opens NCCL and the CUDA runtime on the machine that runs, and finds the functions of
 * calls.h in them.
 * Owner: device. Thread: any; use of the functions: see communicator.h.
 * Not here: a driver or a card; their absence shows at the first call. */
#ifndef MR_DEVICE_CUDA_NCCL_LIBRARY_H
#define MR_DEVICE_CUDA_NCCL_LIBRARY_H

#include "daemon/base/status.h"

struct mr_nccl_calls; /* calls.h */
typedef struct mr_nccl_library mr_nccl_library;

/* Paths: NULL for the names that the loader knows, libcudart.so.N and libnccl.so.2. UNAVAILABLE: a
 * library or a function is not there, or NCCL is not of the major version that was compiled
 * against; names it. */
MR_MUST_CHECK mr_status mr_nccl_library_open(const char *cuda_path, const char *nccl_path,
                                             mr_nccl_library **out_library);
/* Valid until close. */
const struct mr_nccl_calls *mr_nccl_library_calls(const mr_nccl_library *library);
/* After the last communicator. NULL is fine. */
void mr_nccl_library_close(mr_nccl_library *library);

#endif
