/* SPDX-License-Identifier: Apache-2.0 */
/* release.h: tells callers that gRPC has let go of the bytes they lent. Core drops a slice on
 * whatever thread it happens to be, often inside a call that holds a stream's lock; so a dropped
 * slice is only put on a list here, and one RPC thread runs the callbacks.
 * Nodes are made at start and used again: only more at once than ever before allocate.
 * Owner: rpc. Thread: any, except start and stop: main. Internal to this folder. */
#ifndef MR_RPC_RELEASE_H
#define MR_RPC_RELEASE_H

#include <stddef.h>

#include "daemon/base/status.h"

typedef struct mr_rpc_release mr_rpc_release;

/* Starts the thread and makes the spare nodes. RESOURCE_EXHAUSTED: no memory or no thread. */
MR_MUST_CHECK mr_status mr_rpc_release_start(void);
/* Waits until every node taken has run, then ends the thread. */
void mr_rpc_release_stop(void);
/* A node that will call fn(context) once, on the release thread. NULL: no memory. */
mr_rpc_release *mr_rpc_release_take(void (*fn)(void *context), void *context);
/* Hands the node over; its fn runs soon. The form that grpc_slice_new_with_user_data wants. */
void mr_rpc_release_run(void *node);

#endif
