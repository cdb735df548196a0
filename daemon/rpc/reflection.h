/* SPDX-License-Identifier: Apache-2.0 */
/* reflection.h: server reflection, so that foreign clients need no .proto files: the names of the
 * registered services, and the files of descriptors.h by name or by symbol, each followed by all it
 * imports. v1 and v1alpha have the same messages and share one implementation.
 * Owner: rpc. Thread: RPC. Internal to this folder. */
#ifndef MR_RPC_REFLECTION_H
#define MR_RPC_REFLECTION_H

#include "daemon/rpc/server.h"

enum { MR_RPC_REFLECTION_SERVICES = 2 };

/* Lists these services; they outlive it. Plain data in the server. */
typedef struct mr_rpc_reflection {
    const mr_rpc_service *services;
    size_t service_count;
} mr_rpc_reflection;

/* The services of both versions, for the server to register; reflection outlives it. */
void mr_rpc_reflection_services(mr_rpc_reflection *reflection,
                                mr_rpc_service out_services[MR_RPC_REFLECTION_SERVICES]);

#endif
