/* SPDX-License-Identifier: Apache-2.0 */
/* entry.h: the one symbol of libmillrace_cuda.so. The program and the library are built from one
 * tree; the contract number and the sizes say so, and a library from another build is refused.
 * Owner: device. Plain data. */
#ifndef MR_DEVICE_CUDA_ENTRY_H
#define MR_DEVICE_CUDA_ENTRY_H

#include "daemon/device/device.h"

#define MR_CUDA_LIBRARY "libmillrace_cuda.so"
#define MR_CUDA_ENTRY "mr_device_cuda_entry"

/* What the program was built with; the library compares it with its own. */
typedef struct mr_cuda_contract {
    uint32_t number; /* MR_CUDA_CONTRACT */
    uint32_t ops_bytes;
    uint32_t options_bytes;
    uint32_t tensor_bytes;
} mr_cuda_contract;

/* Raise it when a slot's meaning changes without its size. */
enum { MR_CUDA_CONTRACT = 2 };

#define MR_CUDA_CONTRACT_HERE                                                                      \
    ((mr_cuda_contract){.number = MR_CUDA_CONTRACT,                                                \
                        .ops_bytes = sizeof(mr_device_ops),                                        \
                        .options_bytes = sizeof(mr_device_options),                                \
                        .tensor_bytes = sizeof(mr_tensor)})

/* number: of "cuda:N". Errors as mr_device_create. */
typedef mr_status (*mr_cuda_entry)(const mr_cuda_contract *contract,
                                   const mr_device_options *options, unsigned number,
                                   mr_device **out_device);

#endif
