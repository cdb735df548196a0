/* SPDX-License-Identifier: Apache-2.0 */
/* tail.h: how codec.c makes the mr_rpc_tail that message.h shows to the rest of the tree.
 * Owner: rpc. Thread: any. Internal to this folder. */
#ifndef MR_RPC_TAIL_H
#define MR_RPC_TAIL_H

#include <grpc/byte_buffer.h>

#include "daemon/rpc/message.h"

/* The bytes of a received buffer from offset to its end. owned_buffer: consumed in every
 * outcome. */
MR_MUST_CHECK mr_status mr_rpc_tail_create(grpc_byte_buffer *owned_buffer, size_t offset,
                                           mr_rpc_tail **out_tail);
/* Frees the tails kept for use again; at mr_rpc_stop. */
void mr_rpc_tail_spares_free(void);

#endif
