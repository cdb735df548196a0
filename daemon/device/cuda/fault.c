/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/device/cuda/fault.h"

#include <cuda_runtime_api.h>

/* X(error, class, sticky, Xid). What is not named is OTHER, not sticky. */
#define FAULTS(X)                                                                                  \
    X(cudaErrorMemoryAllocation, MEMORY, false, 0)                                                 \
    X(cudaErrorNoDevice, MISSING, false, 0)                                                        \
    X(cudaErrorInvalidDevice, MISSING, false, 0)                                                   \
    X(cudaErrorInsufficientDriver, MISSING, false, 0)                                              \
    X(cudaErrorNoKernelImageForDevice, MISSING, false, 0)                                          \
    X(cudaErrorNotSupported, TYPES, false, 0)                                                      \
    X(cudaErrorIllegalAddress, KERNEL, true, 31)                                                   \
    X(cudaErrorLaunchFailure, KERNEL, true, 13)                                                    \
    X(cudaErrorLaunchTimeout, KERNEL, true, 8)                                                     \
    X(cudaErrorHardwareStackError, KERNEL, true, 13)                                               \
    X(cudaErrorIllegalInstruction, KERNEL, true, 13)                                               \
    X(cudaErrorMisalignedAddress, KERNEL, true, 13)                                                \
    X(cudaErrorInvalidAddressSpace, KERNEL, true, 13)                                              \
    X(cudaErrorInvalidPc, KERNEL, true, 13)                                                        \
    X(cudaErrorAssert, KERNEL, true, 0)                                                            \
    X(cudaErrorECCUncorrectable, HARDWARE, true, 48)                                               \
    X(cudaErrorNvlinkUncorrectable, HARDWARE, true, 74)                                            \
    X(cudaErrorContained, HARDWARE, true, 94)                                                      \
    X(cudaErrorDevicesUnavailable, GONE, true, 79)                                                 \
    X(cudaErrorUnknown, GONE, true, 79)                                                            \
    X(cudaErrorSystemNotReady, GONE, true, 0)

static const struct {
    int code;
    mr_cuda_fault fault;
    bool sticky;
    int xid;
} faults[] = {
#define FAULTS_ROW(code, fault, sticky, xid) {code, MR_CUDA_FAULT_##fault, sticky, xid},
    FAULTS(FAULTS_ROW)
#undef FAULTS_ROW
};
enum { FAULT_ROWS = sizeof(faults) / sizeof(faults[0]) };

static int fault_row(int code) {
    for (int i = 0; i < FAULT_ROWS; i++)
        if (faults[i].code == code)
            return i;
    return -1;
}

mr_cuda_fault mr_cuda_fault_of(int code) {
    int row = fault_row(code);
    if (code == cudaSuccess)
        return MR_CUDA_FAULT_NONE;
    return row < 0 ? MR_CUDA_FAULT_OTHER : faults[row].fault;
}

bool mr_cuda_fault_is_sticky(int code) {
    int row = fault_row(code);
    return row >= 0 && faults[row].sticky;
}

int mr_cuda_fault_xid(int code) {
    int row = fault_row(code);
    return row < 0 ? 0 : faults[row].xid;
}

static mr_code fault_code(mr_cuda_fault fault) {
    static const mr_code codes[MR_CUDA_FAULT_COUNT] = {
        [MR_CUDA_FAULT_NONE] = MR_CODE_OK,
        [MR_CUDA_FAULT_MEMORY] = MR_CODE_RESOURCE_EXHAUSTED,
        [MR_CUDA_FAULT_MISSING] = MR_CODE_UNAVAILABLE,
        [MR_CUDA_FAULT_KERNEL] = MR_CODE_INTERNAL,
        [MR_CUDA_FAULT_HARDWARE] = MR_CODE_DATA_LOSS,
        [MR_CUDA_FAULT_GONE] = MR_CODE_UNAVAILABLE,
        [MR_CUDA_FAULT_TYPES] = MR_CODE_UNIMPLEMENTED,
        [MR_CUDA_FAULT_OTHER] = MR_CODE_INTERNAL,
    };
    return codes[fault];
}

mr_status mr_cuda_fault_status(int code, const char *what) {
    mr_cuda_fault fault = mr_cuda_fault_of(code);
    const char *name = cudaGetErrorName((cudaError_t)code);
    int xid = mr_cuda_fault_xid(code);
    if (fault == MR_CUDA_FAULT_NONE)
        return MR_OK;
    if (xid != 0)
        return mr_status_make(fault_code(fault), __FILE__, __LINE__,
                              "%s: %s (%d); the card is lost to this process, the kernel's log may "
                              "have Xid %d",
                              what, name, code, xid);
    return mr_status_make(fault_code(fault), __FILE__, __LINE__, "%s: %s (%d): %s%s", what, name,
                          code, cudaGetErrorString((cudaError_t)code),
                          mr_cuda_fault_is_sticky(code) ? "; the card is lost to this process"
                                                        : "");
}
