/* SPDX-License-Identifier: Apache-2.0 */
/* grpc.h: links over gRPC streams (service millrace.v1.Link). A daemon serves the service once;
 * each receiving end registers with the hub before the peer's stream arrives, and a stream whose
 * job, epoch, ranks or kind no end has registered is refused FAILED_PRECONDITION with all of them
 * named.
 * Owner: stage. Thread: LOOP for hub and open; see link.h for the ends. */
#ifndef MR_LINK_GRPC_H
#define MR_LINK_GRPC_H

#include "daemon/link/link.h"
#include "daemon/rpc/channel.h"
#include "daemon/rpc/server.h"

typedef struct mr_link_hub mr_link_hub;

/* The service's table for mr_rpc_server_start; the hub outlives the server. */
MR_MUST_CHECK mr_status mr_link_hub_create(mr_link_hub **out_hub);
void mr_link_hub_destroy(mr_link_hub *hub);
mr_rpc_service mr_link_hub_service(mr_link_hub *hub);

/* The receiving end: ready for its peer's stream when this returns. Slots are allocated here. */
MR_MUST_CHECK mr_status mr_link_grpc_receiver(mr_link_hub *hub, const mr_link_options *options,
                                              mr_link **out_link);
/* The sending end: opens the stream to address and waits until the peer has greeted, at most
 * timeout_ms. Not from LOOP (it blocks); called on EXEC while connecting. */
MR_MUST_CHECK mr_status mr_link_grpc_sender(const char *address,
                                            const mr_rpc_credentials *credentials,
                                            const mr_link_options *options, int64_t timeout_ms,
                                            mr_link **out_link);

/* ---- for links that carry their bytes beside the stream (cuda_ipc.h) ---- */

/* What the receiver offered, of a sender; valid until close. */
const void *mr_link_grpc_offer(const mr_link *sender, size_t *out_bytes);
/* From now on, each credit of the receiver calls taken with the messages that it has released so
 * far: on an RPC thread, without a lock; not after close. */
void mr_link_grpc_on_taken(mr_link *sender, void (*taken)(void *context, uint64_t count),
                           void *context);
/* Of a receiver: waits until the sender's stream has ended. False: not within timeout_ms. */
bool mr_link_grpc_wait_peer_end(mr_link *receiver, int64_t timeout_ms);

#endif
