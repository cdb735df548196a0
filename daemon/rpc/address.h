/* SPDX-License-Identifier: Apache-2.0 */
/* address.h: where a server listens or a channel connects: IPV4:PORT, [IPV6]:PORT, localhost:PORT,
 * NAME:PORT (channels only) or unix:PATH.
 * Owner: rpc. Plain data. Internal to this folder. */
#ifndef MR_RPC_ADDRESS_H
#define MR_RPC_ADDRESS_H

#include <stdint.h>
#include <sys/socket.h>

#include "daemon/base/status.h"

enum { MR_RPC_ADDRESS_BYTES = 288 };

typedef enum mr_rpc_address_kind {
    MR_RPC_ADDRESS_IP,
    MR_RPC_ADDRESS_NAME,
    MR_RPC_ADDRESS_UNIX,
    MR_RPC_ADDRESS_COUNT
} mr_rpc_address_kind;

typedef struct mr_rpc_address {
    mr_rpc_address_kind kind;
    bool local; /* loopback or a Unix socket: nobody outside this machine */
    uint16_t port;
    char host[MR_RPC_ADDRESS_BYTES]; /* without brackets; the path of a Unix socket */
    char text[MR_RPC_ADDRESS_BYTES]; /* as people write it; localhost has become 127.0.0.1 */
    char core[MR_RPC_ADDRESS_BYTES]; /* as a gRPC channel wants it: a URI */
    struct sockaddr_storage socket;  /* of an IP address or a Unix socket */
    socklen_t socket_bytes;
} mr_rpc_address;

/* INVALID_ARGUMENT names the text and the forms there are. */
MR_MUST_CHECK mr_status mr_rpc_address_parse(const char *text, mr_rpc_address *out_address);
/* The same address with another port. */
void mr_rpc_address_port_set(mr_rpc_address *address, uint16_t port);
/* OK: a server could listen there now; UNAVAILABLE says why not, by name. A Unix socket that nobody
 * serves is free; gRPC removes the old file. */
MR_MUST_CHECK mr_status mr_rpc_address_probe(const mr_rpc_address *address);

#endif
