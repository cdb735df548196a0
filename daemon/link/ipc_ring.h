/* SPDX-License-Identifier: Apache-2.0 */
/* ipc_ring.h: the memory and the events that both ends of a CUDA IPC link share, made by the
 * receiver and opened by the sender, and the offer that carries their handles.
 * Owner: link. Thread: any one at a time. Internal to this folder. */
#ifndef MR_LINK_IPC_RING_H
#define MR_LINK_IPC_RING_H

#include "daemon/device/cuda/nccl/calls.h"
#include "daemon/device/cuda/nccl/communicator.h"
#include "daemon/link/link.h"

typedef struct mr_ipc_ring {
    const mr_nccl_calls *calls;
    bool opened; /* of a peer */
    unsigned char *memory;
    size_t slot_count;
    size_t slot_bytes;
    cudaEvent_t *filled; /* [slot_count] recorded by the sender */
    cudaEvent_t *freed;  /* [slot_count] recorded by the receiver */
} mr_ipc_ring;

/* options of the gRPC link that carries headers: with more slots than the ring, because its
 * transport may hold a header for some time after the receiver has released it. */
mr_link_options mr_ipc_header_options(const mr_link_options *options);
/* What CUDA said of a call. */
MR_MUST_CHECK mr_status mr_ipc_failed(const mr_nccl_calls *calls, const char *what,
                                      cudaError_t error);
/* The receiver's. After an error, end is right. */
MR_MUST_CHECK mr_status mr_ipc_ring_make(const mr_nccl_place *place,
                                         const mr_link_options *options, mr_ipc_ring *out_ring);
/* Its offer, freed by the caller. */
MR_MUST_CHECK mr_status mr_ipc_ring_offer(const mr_ipc_ring *ring, void **out_offer,
                                          size_t *out_bytes);
/* The sender's, from an offer that must fit options. After an error, end is right. */
MR_MUST_CHECK mr_status mr_ipc_ring_open(const mr_nccl_place *place,
                                         const mr_link_options *options, const void *offer,
                                         size_t offer_bytes, mr_ipc_ring *out_ring);
/* Closes or frees; abandon: memory that a peer may still have open stays. Zero is fine. */
void mr_ipc_ring_end(mr_ipc_ring *ring, bool abandon);

#endif
