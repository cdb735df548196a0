/* SPDX-License-Identifier: Apache-2.0 */
/* completion.h: one gRPC completion queue and the one thread that lives inside its next. One thread
 * for each queue means that the events of a call, whose operations all end on one queue, are
 * handled one at a time and in order.
 * Every operation is counted: begin before it is handed to core, end when its tag returns, so that
 * a queue is never destroyed with an operation outstanding (core would not tell).
 * Owner: rpc. Thread: any, except destroy: main. Internal to this folder. */
#ifndef MR_RPC_COMPLETION_H
#define MR_RPC_COMPLETION_H

#include <stdbool.h>

#include <grpc/grpc.h>

#include "daemon/base/status.h"

typedef struct mr_rpc_queue mr_rpc_queue;

/* What an operation carries; embedded in the struct that owns all its inputs and outputs, which
 * must live until done has run. success is core's: it says nothing about the RPC's result. */
typedef struct mr_rpc_tag {
    void (*done)(struct mr_rpc_tag *tag, bool success);
} mr_rpc_tag;

/* thread_name: at most 15 characters, for debuggers. RESOURCE_EXHAUSTED: no memory or no thread. */
MR_MUST_CHECK mr_status mr_rpc_queue_create(const char *thread_name, mr_rpc_queue **out_queue);
/* No new operation may begin any more. Waits for the outstanding ones. NULL is fine. */
void mr_rpc_queue_destroy(mr_rpc_queue *queue);
/* gRPC's own object, for the calls that want it. */
grpc_completion_queue *mr_rpc_queue_core(mr_rpc_queue *queue);
/* Counts an operation that is about to be handed to core. It also orders what this thread wrote
 * before it ahead of what the tag's done reads. */
void mr_rpc_queue_begin(mr_rpc_queue *queue);
/* Does the caller run on the queue's thread? */
bool mr_rpc_queue_is_own_thread(const mr_rpc_queue *queue);

#endif
