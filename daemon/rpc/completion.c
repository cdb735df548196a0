/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/rpc/completion.h"

#include <pthread.h>
#include <stdatomic.h>

#include "daemon/base/alloc.h"

struct mr_rpc_queue {
    grpc_completion_queue *core;
    pthread_t thread;
    atomic_size_t outstanding;
};

static void *queue_run(void *context) {
    mr_rpc_queue *queue = context;
    for (;;) {
        grpc_event event = grpc_completion_queue_next(queue->core,
                                                      gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        if (event.type == GRPC_QUEUE_SHUTDOWN)
            return NULL;
        MR_ASSERT(event.type == GRPC_OP_COMPLETE);
        MR_ASSERT(atomic_fetch_sub(&queue->outstanding, 1) > 0);
        mr_rpc_tag *tag = event.tag;
        tag->done(tag, event.success != 0);
    }
}

mr_status mr_rpc_queue_create(const char *thread_name, mr_rpc_queue **out_queue) {
    mr_rpc_queue *queue = mr_alloc(sizeof(*queue));
    if (queue == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for an RPC queue");
    queue->core = grpc_completion_queue_create_for_next(NULL);
    int error = pthread_create(&queue->thread, NULL, queue_run, queue);
    if (error != 0) {
        grpc_completion_queue_shutdown(queue->core);
        (void)grpc_completion_queue_next(queue->core, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        grpc_completion_queue_destroy(queue->core);
        mr_free(queue);
        return MR_ERROR(RESOURCE_EXHAUSTED, "no thread for RPCs (error %d)", error);
    }
    (void)pthread_setname_np(queue->thread, thread_name); /* only for people */
    *out_queue = queue;
    return MR_OK;
}

void mr_rpc_queue_destroy(mr_rpc_queue *queue) {
    if (queue == NULL)
        return;
    MR_ASSERT(!mr_rpc_queue_is_own_thread(queue));
    grpc_completion_queue_shutdown(queue->core);
    (void)pthread_join(queue->thread, NULL); /* it drains to QUEUE_SHUTDOWN first */
    MR_ASSERT(atomic_load(&queue->outstanding) == 0);
    grpc_completion_queue_destroy(queue->core);
    mr_free(queue);
}

grpc_completion_queue *mr_rpc_queue_core(mr_rpc_queue *queue) {
    return queue->core;
}

void mr_rpc_queue_begin(mr_rpc_queue *queue) {
    atomic_fetch_add(&queue->outstanding, 1);
}

bool mr_rpc_queue_is_own_thread(const mr_rpc_queue *queue) {
    return pthread_equal(queue->thread, pthread_self()) != 0;
}
