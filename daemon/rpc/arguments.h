/* SPDX-License-Identifier: Apache-2.0 */
/* arguments.h: gRPC's channel arguments for both ends: every limit that core would otherwise
 * choose, set here next to its counterpart.
 * Owner: rpc. Plain data. Internal to this folder. */
#ifndef MR_RPC_ARGUMENTS_H
#define MR_RPC_ARGUMENTS_H

#include <grpc/grpc.h>

enum { MR_RPC_ARGUMENTS_MAX = 24 };

typedef struct mr_rpc_arguments {
    grpc_arg list[MR_RPC_ARGUMENTS_MAX];
    grpc_channel_args args; /* points into list: do not move the struct */
} mr_rpc_arguments;

/* receive_bytes_max: of the largest message any method takes. */
void mr_rpc_arguments_server(mr_rpc_arguments *arguments, size_t receive_bytes_max);
void mr_rpc_arguments_channel(mr_rpc_arguments *arguments);

#endif
