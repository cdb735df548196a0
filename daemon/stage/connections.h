/* SPDX-License-Identifier: Apache-2.0 */
/* connections.h: the links and groups of one rank for one epoch: made from the plan, in the plan's
 * order. Receiving ends and first members stand before a stage says Prepared, so that nobody knocks
 * at a closed door; sending ends and joins follow at Connect.
 * Owner: stage/executor. Thread: EXEC, and the reducer for the gradients group; interrupt: any,
 * between a successful open and close. */
#ifndef MR_STAGE_CONNECTIONS_H
#define MR_STAGE_CONNECTIONS_H

#include "daemon/group/grpc.h"
#include "daemon/link/grpc.h"
#include "daemon/stage/assignment.h"
#include "daemon/stage/fabric.h"

/* What the daemon serves links and groups with; all borrowed. */
typedef struct mr_transport {
    mr_link_hub *links;
    mr_group_hub *groups;
    const mr_rpc_credentials *credentials;
    mr_fabric *fabric; /* NULL: what carries tensors works on host memory */
    mr_device *device; /* whose memory tensors are in; NULL: the host's. Without a fabric they pass
                          through the host */
} mr_transport;

/* A tied group this rank is in. */
typedef struct mr_tied_group {
    const mr_group_plan *plan;
    mr_group *group;
} mr_tied_group;

/* Links are NULL where the stage has no such neighbour; gradient links in inference. */
typedef struct mr_connections {
    mr_link *activation_in;
    mr_link *activation_out;
    mr_link *gradient_in;
    mr_link *gradient_out;
    mr_group *pipe;
    mr_group *data;      /* losses, records and a save's state; NULL with one replica */
    mr_group *gradients; /* the same ranks: sums of gradients, weights; NULL with one replica */
    mr_group *model;     /* NULL with a model axis of one rank */
    size_t tied_count;
    mr_tied_group *tied;
    mr_group_ids made; /* ids that this rank made in listen, for the coordinator */
} mr_connections;

/* Doubles that each rank of the pipe gives to the gather after a step (executor.c) are sized by the
 * caller: gather_bytes is their sum. */
MR_MUST_CHECK mr_status mr_connections_listen(mr_connections *connections,
                                              const mr_assignment *assignment,
                                              const mr_transport *transport, size_t gather_bytes);
/* ids: of all ranks, as the coordinator handed them out. UNAVAILABLE, DEADLINE_EXCEEDED: names the
 * rank and its address; FAILED_PRECONDITION: an id is missing. */
MR_MUST_CHECK mr_status mr_connections_open(mr_connections *connections,
                                            const mr_assignment *assignment,
                                            const mr_transport *transport,
                                            const mr_group_ids *ids, size_t gather_bytes);
/* Every wait on every link and group ends with CANCELLED and this reason. */
void mr_connections_interrupt(mr_connections *connections, const char *reason);
/* A half-open or zeroed one is fine. */
void mr_connections_close(mr_connections *connections);
/* Payload bytes that this rank sent so far. Any thread while open. */
uint64_t mr_connections_bytes_sent(const mr_connections *connections);

#endif
