/* SPDX-License-Identifier: Apache-2.0 */
/* calls.h: every function of NCCL and of the CUDA runtime that links and groups use, as one struct
 * of pointers whose types are those of the installed headers. The libraries are opened at run time
 * (library.h), so that one binary also runs where there are none; tests fill the struct with a fake
 * of the same functions (group/fake_nccl).
 * Owner: device. Plain data. Only .c files of link/, group/ and device/cuda/ include this. */
#ifndef MR_DEVICE_CUDA_NCCL_CALLS_H
#define MR_DEVICE_CUDA_NCCL_CALLS_H

#include <nccl.h>

#define MR_CUDA_CALLS(X)                                                                           \
    X(cudaSetDevice)                                                                               \
    X(cudaGetErrorString)                                                                          \
    X(cudaMalloc)                                                                                  \
    X(cudaFree)                                                                                    \
    X(cudaMemcpyAsync)                                                                             \
    X(cudaStreamCreateWithPriority)                                                                \
    X(cudaStreamDestroy)                                                                           \
    X(cudaStreamWaitEvent)                                                                         \
    X(cudaEventCreateWithFlags)                                                                    \
    X(cudaEventDestroy)                                                                            \
    X(cudaEventRecord)                                                                             \
    X(cudaEventQuery)                                                                              \
    X(cudaIpcGetMemHandle)                                                                         \
    X(cudaIpcOpenMemHandle)                                                                        \
    X(cudaIpcCloseMemHandle)                                                                       \
    X(cudaIpcGetEventHandle)                                                                       \
    X(cudaIpcOpenEventHandle)

#define MR_NCCL_CALLS(X)                                                                           \
    X(ncclGetVersion)                                                                              \
    X(ncclGetUniqueId)                                                                             \
    X(ncclCommInitRankConfig)                                                                      \
    X(ncclCommFinalize)                                                                            \
    X(ncclCommDestroy)                                                                             \
    X(ncclCommAbort)                                                                               \
    X(ncclCommGetAsyncError)                                                                       \
    X(ncclGetErrorString)                                                                          \
    X(ncclGroupStart)                                                                              \
    X(ncclGroupEnd)                                                                                \
    X(ncclSend)                                                                                    \
    X(ncclRecv)                                                                                    \
    X(ncclBroadcast)                                                                               \
    X(ncclAllReduce)

typedef struct mr_nccl_calls {
#define MR_NCCL_POINTER(name) __typeof__(&name) name;
    MR_CUDA_CALLS(MR_NCCL_POINTER)
    MR_NCCL_CALLS(MR_NCCL_POINTER)
#undef MR_NCCL_POINTER
} mr_nccl_calls;

#endif
