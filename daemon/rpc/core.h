/* SPDX-License-Identifier: Apache-2.0 */
/* core.h: what the rest of this folder needs of the running gRPC core (runtime.c).
 * Owner: rpc. Thread: any. Internal to this folder. */
#ifndef MR_RPC_CORE_H
#define MR_RPC_CORE_H

#include <signal.h>
#include <stdint.h>

#include <grpc/support/time.h>

#include "daemon/rpc/completion.h"

/* The queue of every channel's calls. */
mr_rpc_queue *mr_rpc_core_queue(void);
/* A deadline as core wants it: absolute. 0: none. */
gpr_timespec mr_rpc_core_deadline(int64_t timeout_ms);
/* Around every call that makes core start threads: they inherit a mask without signals, so that
 * only our own threads see any. */
void mr_rpc_signals_block(sigset_t *out_previous);
void mr_rpc_signals_restore(const sigset_t *previous);

#endif
