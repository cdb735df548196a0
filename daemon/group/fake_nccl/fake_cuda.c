/* SPDX-License-Identifier: Apache-2.0 */
/* fake_cuda.c: the CUDA runtime's part of the fake. Device memory is host memory; the handles that
 * processes exchange are addresses, for both ends live in one process.
 * Owner: tests. */
#include <stdlib.h>
#include <string.h>

#include "daemon/device/cuda/nccl/calls.h"
#include "daemon/group/fake_nccl/engine.h"
#include "daemon/group/fake_nccl/fake_nccl.h"

/* A handle: magic, and the address. */
enum { FAKE_HANDLE_MAGIC = 0x6d72 };

typedef struct fake_handle {
    uint64_t magic;
    void *address;
} fake_handle;

cudaError_t cudaSetDevice(int ordinal) {
    return ordinal == 0 ? cudaSuccess : cudaErrorInvalidDevice;
}

const char *cudaGetErrorString(cudaError_t error) {
    return error == cudaSuccess ? "no error" : "an error of the fake";
}

/* ---- memory ---- */

static fake_block *block_find(const void *memory) {
    for (size_t i = 0; i < FAKE_BLOCKS_MAX; i++)
        if (fake.blocks[i].used && fake.blocks[i].memory == memory)
            return &fake.blocks[i];
    return NULL;
}

cudaError_t cudaMalloc(void **out_memory, size_t bytes) {
    cudaError_t error = cudaErrorMemoryAllocation;
    fake_lock();
    for (size_t i = 0; i < FAKE_BLOCKS_MAX && error != cudaSuccess; i++) {
        fake_block *block = &fake.blocks[i];
        if (block->used || posix_memalign(&block->memory, 256, bytes) != 0)
            continue;
        block->used = true;
        block->openers = 0;
        memset(block->memory, 0xa5, bytes); /* poison: nothing is zero by itself */
        *out_memory = block->memory;
        error = cudaSuccess;
    }
    fake_unlock();
    return error;
}

cudaError_t cudaFree(void *memory) {
    cudaError_t error = cudaSuccess;
    fake_lock();
    fake_block *block = block_find(memory);
    if (block == NULL && memory != NULL) {
        fake_violate("memory is freed that was not allocated, or twice");
        error = cudaErrorInvalidValue;
    } else if (block != NULL) {
        if (block->openers > 0)
            fake_violate("memory is freed while %zu peers have it open", block->openers);
        block->used = false;
        free(block->memory);
    }
    fake_unlock();
    return error;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream) {
    (void)kind;
    fake_lock();
    fake_op *op = fake_op_add((fake_stream *)stream, FAKE_COPY);
    if (op != NULL) {
        op->to = to;
        op->from = from;
        op->bytes = bytes;
    }
    fake_unlock();
    return op != NULL ? cudaSuccess : cudaErrorUnknown;
}

/* ---- streams and events ---- */

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *out_stream, unsigned int flags,
                                         int priority) {
    (void)priority;
    cudaError_t error = cudaErrorMemoryAllocation;
    fake_lock();
    if (flags != cudaStreamNonBlocking)
        fake_violate("a stream waits for the default stream");
    for (size_t i = 0; i < FAKE_STREAMS_MAX && error != cudaSuccess; i++) {
        if (fake.streams[i].used)
            continue;
        fake.streams[i] = (fake_stream){.used = true};
        *out_stream = (cudaStream_t)(void *)&fake.streams[i];
        error = cudaSuccess;
    }
    fake_unlock();
    return error;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    fake_lock();
    fake_progress();
    fake_stream *self = (fake_stream *)(void *)stream;
    if (!self->used)
        fake_violate("a stream is destroyed twice");
    while (self->first != NULL) { /* CUDA would let it run out; what is left here never could */
        fake_op *op = self->first;
        if (op->kind == FAKE_SET)
            op->event->passed = op->ticket;
        self->first = op->next;
        op->used = false;
    }
    *self = (fake_stream){0};
    fake_unlock();
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned int flags) {
    (void)flags;
    fake_lock();
    fake_event *self = (fake_event *)(void *)event;
    if (!self->used)
        fake_violate("a stream waits for an event that does not exist");
    fake_op *op = fake_op_add((fake_stream *)(void *)stream, FAKE_WAIT);
    if (op != NULL) {
        op->event = self;
        op->ticket = self->set;
    }
    fake_unlock();
    return op != NULL ? cudaSuccess : cudaErrorUnknown;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out_event, unsigned int flags) {
    cudaError_t error = cudaErrorMemoryAllocation;
    fake_lock();
    if ((flags & cudaEventDisableTiming) == 0)
        fake_violate("an event takes the time, which nobody reads");
    for (size_t i = 0; i < FAKE_EVENTS_MAX && error != cudaSuccess; i++) {
        if (fake.events[i].used)
            continue;
        fake.events[i] = (fake_event){.used = true};
        *out_event = (cudaEvent_t)(void *)&fake.events[i];
        error = cudaSuccess;
    }
    fake_unlock();
    return error;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    fake_lock();
    fake_event *self = (fake_event *)(void *)event;
    if (!self->used)
        fake_violate("an event is destroyed twice");
    else if (self->openers > 0)
        self->openers--; /* by the peer that had opened it, or by its maker before that peer */
    else
        self->used = false;
    fake_unlock();
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    fake_lock();
    fake_event *self = (fake_event *)(void *)event;
    if (!self->used)
        fake_violate("an event is recorded that does not exist");
    fake_op *op = fake_op_add((fake_stream *)(void *)stream, FAKE_SET);
    if (op != NULL) {
        op->event = self;
        op->ticket = ++self->set;
    }
    fake_unlock();
    return op != NULL ? cudaSuccess : cudaErrorUnknown;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
    fake_lock();
    fake_progress();
    const fake_event *self = (const fake_event *)(const void *)event;
    if (!self->used)
        fake_violate("an event is looked at that does not exist");
    bool passed = self->passed >= self->set;
    fake_unlock();
    return passed ? cudaSuccess : cudaErrorNotReady;
}

/* ---- between processes ---- */

cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t *out_handle, void *memory) {
    fake_lock();
    bool known = block_find(memory) != NULL;
    if (!known)
        fake_violate("a handle is asked for memory that was not allocated here");
    fake_unlock();
    const fake_handle handle = {FAKE_HANDLE_MAGIC, memory};
    memcpy(out_handle, &handle, sizeof(handle));
    return known ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaIpcOpenMemHandle(void **out_memory, cudaIpcMemHandle_t from, unsigned int flags) {
    fake_handle handle;
    memcpy(&handle, &from, sizeof(handle));
    fake_lock();
    fake_block *block = handle.magic == FAKE_HANDLE_MAGIC ? block_find(handle.address) : NULL;
    bool good = block != NULL && flags == cudaIpcMemLazyEnablePeerAccess;
    if (good) {
        block->openers++;
        *out_memory = block->memory;
    }
    fake_unlock();
    return good ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaIpcCloseMemHandle(void *memory) {
    fake_lock();
    fake_block *block = block_find(memory);
    if (block == NULL || block->openers == 0)
        fake_violate("memory of a peer is closed that is not open");
    else
        block->openers--;
    fake_unlock();
    return cudaSuccess;
}

cudaError_t cudaIpcGetEventHandle(cudaIpcEventHandle_t *out_handle, cudaEvent_t event) {
    const fake_handle handle = {FAKE_HANDLE_MAGIC + 1, (void *)event};
    memcpy(out_handle, &handle, sizeof(handle));
    return cudaSuccess;
}

cudaError_t cudaIpcOpenEventHandle(cudaEvent_t *out_event, cudaIpcEventHandle_t from) {
    fake_handle handle;
    memcpy(&handle, &from, sizeof(handle));
    if (handle.magic != FAKE_HANDLE_MAGIC + 1)
        return cudaErrorInvalidValue;
    fake_lock();
    ((fake_event *)handle.address)->openers++;
    fake_unlock();
    *out_event = (cudaEvent_t)handle.address;
    return cudaSuccess;
}

const mr_nccl_calls *mr_fake_nccl_calls(void) {
    static const mr_nccl_calls calls = {
#define FAKE_CALL(name) .name = name,
        MR_CUDA_CALLS(FAKE_CALL) MR_NCCL_CALLS(FAKE_CALL)
#undef FAKE_CALL
    };
    return &calls;
}
