/* SPDX-License-Identifier: Apache-2.0 */
/* security.h: mr_rpc_credentials as gRPC's credentials objects.
 * Owner: rpc. Thread: main or LOOP. Internal to this folder. */
#ifndef MR_RPC_SECURITY_H
#define MR_RPC_SECURITY_H

#include <grpc/grpc_security.h>

#include "daemon/rpc/address.h"
#include "daemon/rpc/credentials.h"

/* Plain text or TLS for this address. The caller releases *out. INVALID_ARGUMENT: plain text beyond
 * this machine that was not asked for, half a certificate; NOT_FOUND, PERMISSION_DENIED: a PEM file
 * by name. */
MR_MUST_CHECK mr_status mr_rpc_security_server(const mr_rpc_credentials *credentials,
                                               const mr_rpc_address *address,
                                               grpc_server_credentials **out);
MR_MUST_CHECK mr_status mr_rpc_security_channel(const mr_rpc_credentials *credentials,
                                                const mr_rpc_address *address,
                                                grpc_channel_credentials **out);

#endif
