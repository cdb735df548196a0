/* SPDX-License-Identifier: Apache-2.0 */
/* health.h: grpc.health.v1.Health: what a server says of itself to load balancers and probes.
 * The empty name is the whole server. Every service is SERVING from the start; names that set adds
 * (readiness, liveness) exist from then on. Check of an unknown name is NOT_FOUND, Watch of one
 * says SERVICE_UNKNOWN and stays, as the protocol wants.
 * Owner: rpc. Thread: any. Limits: HEALTH_NAMES_MAX, MR_WATCHERS_MAX. Internal to this folder. */
#ifndef MR_RPC_HEALTH_H
#define MR_RPC_HEALTH_H

#include "daemon/rpc/server.h"

typedef struct mr_rpc_health mr_rpc_health;

/* RESOURCE_EXHAUSTED: no memory. Owner destroys it. */
MR_MUST_CHECK mr_status mr_rpc_health_create(mr_rpc_health **out_health);
/* After the server's last stream. NULL is fine. */
void mr_rpc_health_destroy(mr_rpc_health *health);
mr_rpc_service mr_rpc_health_service(mr_rpc_health *health);
/* Tells every watcher of the name. RESOURCE_EXHAUSTED: too many names. */
MR_MUST_CHECK mr_status mr_rpc_health_set(mr_rpc_health *health, const char *service,
                                          bool serving);
/* The server stops: every name becomes NOT_SERVING, and the watches end after saying so. */
void mr_rpc_health_stop(mr_rpc_health *health);

#endif
