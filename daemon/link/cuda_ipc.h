/* SPDX-License-Identifier: Apache-2.0 */
/* cuda_ipc.h: links between devices of one machine, also between two processes on one card: the
 * receiver allocates a ring of slots and two events for each, and offers their handles over the
 * gRPC link; the sender copies into the ring with the copy engine, which takes no multiprocessor.
 * Tag and shapes go over the gRPC link (header.h) once a copy is queued and its event recorded.
 *
 * Slots are used in the order of messages: one that is released before an older one is free only
 * with it. The copy waits on the device for the event that the receiver recorded at the slot's
 * release, and the receiver's compute stream for the event behind the copy; the host waits for
 * neither.
 * Handles are closed before the memory is freed: a receiver waits for that when it closes, and
 * leaves the ring to a peer that does not let go of it.
 * Owner: stage. Thread: EXEC; copies are also queued on an RPC thread, when credit comes; interrupt
 * and bytes: any. Limits: MR_LINK_IPC_SLOTS_MAX. */
#ifndef MR_LINK_CUDA_IPC_H
#define MR_LINK_CUDA_IPC_H

#include "daemon/device/cuda/nccl/communicator.h"
#include "daemon/link/grpc.h"

/* As mr_link_grpc_receiver and mr_link_grpc_sender; usable after the join. INVALID_ARGUMENT: too
 * many slots; RESOURCE_EXHAUSTED: the card has no memory for them; INTERNAL: CUDA refuses. */
MR_MUST_CHECK mr_status mr_link_cuda_ipc_receiver(const mr_nccl_place *place, mr_link_hub *hub,
                                                  const mr_link_options *options,
                                                  mr_link **out_link);
MR_MUST_CHECK mr_status mr_link_cuda_ipc_sender(const mr_nccl_place *place, const char *address,
                                                const mr_rpc_credentials *credentials,
                                                const mr_link_options *options,
                                                int64_t timeout_ms, mr_link **out_link);
/* The sender opens what was offered; a receiver has nothing to do. FAILED_PRECONDITION: the offer
 * is not of such a link. */
MR_MUST_CHECK mr_status mr_link_cuda_ipc_join(mr_link *link);

#endif
