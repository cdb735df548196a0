/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/link/ipc_ring.h"

#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/link/header.h"

enum { RING_MAGIC = 0x6d697063 };

typedef struct ring_slot_offer {
    cudaIpcEventHandle_t filled;
    cudaIpcEventHandle_t freed;
} ring_slot_offer;

typedef struct ring_offer {
    uint64_t magic;
    uint64_t slot_count;
    uint64_t slot_bytes;
    cudaIpcMemHandle_t memory;
    ring_slot_offer slots[];
} ring_offer;

static_assert(sizeof(ring_offer) + MR_LINK_IPC_SLOTS_MAX * sizeof(ring_slot_offer) <
                  MR_RPC_HEADER_BYTES_MAX,
              "an offer fits the protobuf part of one message");

mr_link_options mr_ipc_header_options(const mr_link_options *options) {
    mr_link_options inner = mr_link_header_options(options);
    inner.slots = 4 * options->slots + 16; /* of at most MR_LINK_IPC_SLOTS_MAX */
    return inner;
}

mr_status mr_ipc_failed(const mr_nccl_calls *calls, const char *what, cudaError_t error) {
    return MR_ERROR(INTERNAL, "%s: %.100s", what, calls->cudaGetErrorString(error));
}

#define RING_TRY(calls, call)                                                                      \
    do {                                                                                           \
        cudaError_t ring_error_ = (calls)->call;                                                   \
        if (ring_error_ != cudaSuccess)                                                            \
            return mr_ipc_failed(calls, #call, ring_error_);                                       \
    } while (0)

static mr_status ring_size(const mr_nccl_place *place, const mr_link_options *options,
                           mr_ipc_ring *ring) {
    *ring = (mr_ipc_ring){.calls = place->calls};
    if (options->slots == 0 || options->slots > MR_LINK_IPC_SLOTS_MAX ||
        options->message_bytes_max == 0)
        return MR_ERROR(INVALID_ARGUMENT,
                        "a CUDA IPC link has %zu slots of %zu bytes; 1 to %d slots are possible",
                        options->slots, options->message_bytes_max, MR_LINK_IPC_SLOTS_MAX);
    size_t all = 0;
    if (!mr_link_header_slot_bytes(options, &ring->slot_bytes) ||
        !mr_size_mul(ring->slot_bytes, options->slots, &all))
        return MR_ERROR(INVALID_ARGUMENT, "%zu slots of %zu bytes are no possible size",
                        options->slots, options->message_bytes_max);
    ring->filled = mr_alloc_array(options->slots, sizeof(*ring->filled));
    ring->freed = mr_alloc_array(options->slots, sizeof(*ring->freed));
    if (ring->filled == NULL || ring->freed == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu slots", options->slots);
    ring->slot_count = options->slots;
    return MR_OK;
}

mr_status mr_ipc_ring_make(const mr_nccl_place *place, const mr_link_options *options,
                           mr_ipc_ring *ring) {
    const unsigned flags = cudaEventInterprocess | cudaEventDisableTiming;
    MR_TRY(ring_size(place, options, ring));
    size_t all = ring->slot_bytes * ring->slot_count; /* was checked */
    void *memory = NULL;
    RING_TRY(ring->calls, cudaSetDevice(place->ordinal));
    if (ring->calls->cudaMalloc(&memory, all) != cudaSuccess)
        return MR_ERROR(RESOURCE_EXHAUSTED, "the card has no %zu bytes for the slots of a link",
                        all);
    ring->memory = memory;
    for (size_t i = 0; i < ring->slot_count; i++) {
        RING_TRY(ring->calls, cudaEventCreateWithFlags(&ring->filled[i], flags));
        RING_TRY(ring->calls, cudaEventCreateWithFlags(&ring->freed[i], flags));
    }
    return MR_OK;
}

static mr_status ring_fill_offer(const mr_ipc_ring *ring, ring_offer *offer) {
    offer->magic = RING_MAGIC;
    offer->slot_count = ring->slot_count;
    offer->slot_bytes = ring->slot_bytes;
    RING_TRY(ring->calls, cudaIpcGetMemHandle(&offer->memory, ring->memory));
    for (size_t i = 0; i < ring->slot_count; i++) {
        ring_slot_offer *slot = &offer->slots[i];
        RING_TRY(ring->calls, cudaIpcGetEventHandle(&slot->filled, ring->filled[i]));
        RING_TRY(ring->calls, cudaIpcGetEventHandle(&slot->freed, ring->freed[i]));
    }
    return MR_OK;
}

mr_status mr_ipc_ring_offer(const mr_ipc_ring *ring, void **out_offer, size_t *out_bytes) {
    size_t bytes = sizeof(ring_offer) + ring->slot_count * sizeof(ring_slot_offer);
    ring_offer *offer = mr_alloc(bytes);
    if (offer == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the offer of a link");
    mr_status status = ring_fill_offer(ring, offer);
    if (!mr_status_is_ok(status)) {
        mr_free(offer);
        return status;
    }
    *out_offer = offer;
    *out_bytes = bytes;
    return MR_OK;
}

static mr_status ring_open_parts(const ring_offer *offer, mr_ipc_ring *ring) {
    void *memory = NULL;
    RING_TRY(ring->calls,
             cudaIpcOpenMemHandle(&memory, offer->memory, cudaIpcMemLazyEnablePeerAccess));
    ring->memory = memory;
    for (size_t i = 0; i < ring->slot_count; i++) {
        const ring_slot_offer *slot = &offer->slots[i];
        RING_TRY(ring->calls, cudaIpcOpenEventHandle(&ring->filled[i], slot->filled));
        RING_TRY(ring->calls, cudaIpcOpenEventHandle(&ring->freed[i], slot->freed));
    }
    return MR_OK;
}

mr_status mr_ipc_ring_open(const mr_nccl_place *place, const mr_link_options *options,
                           const void *offer_data, size_t offer_bytes, mr_ipc_ring *ring) {
    MR_TRY(ring_size(place, options, ring));
    ring->opened = true;
    size_t bytes = sizeof(ring_offer) + ring->slot_count * sizeof(ring_slot_offer);
    const ring_offer *offer = offer_data; /* from mr_alloc: aligned for anything */
    if (offer == NULL || offer_bytes != bytes || offer->magic != RING_MAGIC ||
        offer->slot_count != ring->slot_count || offer->slot_bytes != ring->slot_bytes)
        return MR_ERROR(FAILED_PRECONDITION,
                        "rank %u offers %zu bytes for a CUDA IPC link; %zu for %zu slots are due",
                        options->to_rank, offer_bytes, bytes, ring->slot_count);
    RING_TRY(ring->calls, cudaSetDevice(place->ordinal));
    return ring_open_parts(offer, ring);
}

void mr_ipc_ring_end(mr_ipc_ring *ring, bool abandon) {
    const mr_nccl_calls *calls = ring->calls;
    for (size_t i = 0; i < ring->slot_count; i++) {
        if (ring->filled[i] != NULL)
            (void)calls->cudaEventDestroy(ring->filled[i]); /* the card's errors are known */
        if (ring->freed[i] != NULL)
            (void)calls->cudaEventDestroy(ring->freed[i]);
    }
    if (ring->memory != NULL && ring->opened)
        (void)calls->cudaIpcCloseMemHandle(ring->memory);
    else if (ring->memory != NULL && !abandon)
        (void)calls->cudaFree(ring->memory);
    mr_free(ring->filled);
    mr_free(ring->freed);
    *ring = (mr_ipc_ring){0};
}
