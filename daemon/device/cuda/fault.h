/* SPDX-License-Identifier: Apache-2.0 */
/* fault.h: what an error of CUDA means for us: its class, whether the process can go on, and which
 * Xid the kernel's log is likely to have (NVIDIA's numbers for faults of a card).
 * Owner: device/cuda. Thread: any. */
#ifndef MR_DEVICE_CUDA_FAULT_H
#define MR_DEVICE_CUDA_FAULT_H

#include "daemon/base/status.h"

typedef enum mr_cuda_fault {
    MR_CUDA_FAULT_NONE,
    MR_CUDA_FAULT_MEMORY,   /* not enough; the device is as good as before */
    MR_CUDA_FAULT_MISSING,  /* no such card, or a driver that is too old */
    MR_CUDA_FAULT_KERNEL,   /* a kernel of ours went wrong: the context is lost */
    MR_CUDA_FAULT_HARDWARE, /* memory or link errors of the card: the context is lost */
    MR_CUDA_FAULT_GONE,     /* the card no longer answers */
    MR_CUDA_FAULT_TYPES,    /* no kernel for these element types */
    MR_CUDA_FAULT_OTHER,
    MR_CUDA_FAULT_COUNT
} mr_cuda_fault;

/* code: a cudaError_t. */
mr_cuda_fault mr_cuda_fault_of(int code);
/* Every call gives the same error until the process ends. */
bool mr_cuda_fault_is_sticky(int code);
/* Most likely Xid; 0: none. */
int mr_cuda_fault_xid(int code);
/* OK for 0; else the class's code and a text with CUDA's name, its number and what did it. */
MR_MUST_CHECK mr_status mr_cuda_fault_status(int code, const char *what);

#endif
