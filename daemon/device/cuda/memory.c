/* SPDX-License-Identifier: Apache-2.0 */
/* memory.c: memory of the card and the ways in and out of it. Host memory that callers own may be
 * pageable and may change when a call returns, so its bytes pass through pinned slots: copied into
 * the next free one, and from there by the stream in its turn. */
#include <string.h>

#include <cuda_runtime_api.h>

#include "daemon/device/cuda/device_cuda.h"
#include "daemon/device/cuda/fault.h"

mr_status mr_device_cuda_slots_create(mr_device_cuda *cuda) {
    for (int i = 0; i < CUDA_SLOTS; i++) {
        MR_TRY(mr_cuda_fault_status(cudaHostAlloc((void **)&cuda->slots[i], CUDA_SLOT_BYTES,
                                                  cudaHostAllocDefault),
                                    "pinned memory of 4 MiB"));
        MR_TRY(mr_cuda_fault_status(cudaEventCreateWithFlags(&cuda->slot_free[i],
                                                             cudaEventDisableTiming),
                                    "an event"));
    }
    return MR_OK;
}

void mr_device_cuda_slots_destroy(mr_device_cuda *cuda) {
    for (int i = 0; i < CUDA_SLOTS; i++) {
        if (cuda->slots[i] != NULL)
            (void)cudaFreeHost(cuda->slots[i]); /* the process ends or the card is lost */
        if (cuda->slot_free[i] != NULL)
            (void)cudaEventDestroy(cuda->slot_free[i]);
    }
}

mr_status mr_device_cuda_memory_create(mr_device *device, size_t bytes,
                                       mr_device_memory *out_memory) {
    mr_device_cuda *cuda = mr_device_cuda_of(device);
    void *base = NULL;
    size_t free_bytes = 0;
    size_t total_bytes = 0;
    cudaError_t code = cudaMalloc(&base, bytes == 0 ? 1 : bytes);
    if (code == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError(); /* it is answered here */
        (void)cudaMemGetInfo(&free_bytes, &total_bytes);
        return MR_ERROR(RESOURCE_EXHAUSTED,
                        "no memory for %zu bytes on cuda:%d: %zu of %zu bytes are free", bytes,
                        cuda->number, free_bytes, total_bytes);
    }
    if (code == cudaSuccess)
        code = cudaMemsetAsync(base, 0, bytes, cuda->stream);
    if (code != cudaSuccess) {
        (void)cudaFree(base);
        return mr_cuda_fault_status(code, "memory");
    }
    *out_memory = (mr_device_memory){.base = base, .bytes = bytes, .handle = base};
    return MR_OK;
}

void mr_device_cuda_memory_destroy(mr_device *device, mr_device_memory *memory) {
    if (memory->handle != NULL)
        (void)mr_device_cuda_passed(mr_device_cuda_of(device), cudaFree(memory->handle),
                                    "freeing memory");
    *memory = (mr_device_memory){0};
}

/* The next slot, once the copy that used it last is over. */
static unsigned char *slot_take(mr_device_cuda *cuda) {
    cuda->slot = (cuda->slot + 1) % CUDA_SLOTS;
    if (!mr_device_cuda_passed(cuda, cudaEventSynchronize(cuda->slot_free[cuda->slot]), "a copy"))
        return NULL;
    return cuda->slots[cuda->slot];
}

void mr_device_cuda_copy_in(mr_device *device, void *to, const void *host_from, size_t bytes) {
    mr_device_cuda *cuda = mr_device_cuda_of(device);
    for (size_t at = 0; at < bytes; at += CUDA_SLOT_BYTES) {
        size_t n = bytes - at < CUDA_SLOT_BYTES ? bytes - at : CUDA_SLOT_BYTES;
        unsigned char *slot = slot_take(cuda);
        if (slot == NULL)
            return;
        memcpy(slot, (const unsigned char *)host_from + at, n);
        cudaError_t code = cudaMemcpyAsync((unsigned char *)to + at, slot, n,
                                           cudaMemcpyHostToDevice, cuda->stream);
        if (code == cudaSuccess)
            code = cudaEventRecord(cuda->slot_free[cuda->slot], cuda->stream);
        if (!mr_device_cuda_passed(cuda, code, "copy_in"))
            return;
    }
}

/* Begins the copy of piece number piece into slot piece % CUDA_SLOTS. */
static bool copy_out_begin(mr_device_cuda *cuda, const void *from, size_t bytes, size_t piece) {
    size_t at = piece * CUDA_SLOT_BYTES;
    size_t n = bytes - at < CUDA_SLOT_BYTES ? bytes - at : CUDA_SLOT_BYTES;
    size_t slot = piece % CUDA_SLOTS;
    cudaError_t code = cudaMemcpyAsync(cuda->slots[slot], (const unsigned char *)from + at, n,
                                       cudaMemcpyDeviceToHost, cuda->stream);
    if (code == cudaSuccess)
        code = cudaEventRecord(cuda->slot_free[slot], cuda->stream);
    return mr_device_cuda_passed(cuda, code, "copy_out");
}

void mr_device_cuda_copy_out(mr_device *device, void *host_to, const void *from, size_t bytes) {
    mr_device_cuda *cuda = mr_device_cuda_of(device);
    size_t pieces = bytes / CUDA_SLOT_BYTES + (bytes % CUDA_SLOT_BYTES != 0);
    if (pieces > 0 && !copy_out_begin(cuda, from, bytes, 0))
        return;
    for (size_t piece = 0; piece < pieces; piece++) {
        size_t at = piece * CUDA_SLOT_BYTES;
        size_t n = bytes - at < CUDA_SLOT_BYTES ? bytes - at : CUDA_SLOT_BYTES;
        size_t slot = piece % CUDA_SLOTS;
        if (piece + 1 < pieces && !copy_out_begin(cuda, from, bytes, piece + 1))
            return;
        if (!mr_device_cuda_passed(cuda, cudaEventSynchronize(cuda->slot_free[slot]), "copy_out"))
            return;
        memcpy((unsigned char *)host_to + at, cuda->slots[slot], n);
    }
}

void mr_device_cuda_copy(mr_device *device, void *to, const void *from, size_t bytes) {
    mr_device_cuda *cuda = mr_device_cuda_of(device);
    (void)mr_device_cuda_passed(
        cuda, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, cuda->stream), "copy");
}

void mr_device_cuda_zero(mr_device *device, void *at, size_t bytes) {
    mr_device_cuda *cuda = mr_device_cuda_of(device);
    (void)mr_device_cuda_passed(cuda, cudaMemsetAsync(at, 0, bytes, cuda->stream), "zero");
}
