/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/base/queue.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

#include "daemon/base/alloc.h"

struct mr_queue {
    pthread_mutex_t mutex;
    pthread_cond_t filled; /* on the monotonic clock */
    unsigned char *items;
    size_t item_bytes;
    size_t capacity;
    size_t first;
    size_t length;
    bool closed;
};

mr_status mr_queue_create(size_t item_bytes, size_t capacity, mr_queue **out_queue) {
    MR_ASSERT(item_bytes > 0);
    MR_ASSERT(capacity > 0);
    mr_queue *queue = mr_alloc(sizeof(*queue));
    unsigned char *items = mr_alloc_array(capacity, item_bytes);
    if (queue == NULL || items == NULL) {
        mr_free(items);
        mr_free(queue);
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a queue of %zu items", capacity);
    }
    pthread_condattr_t attributes;
    (void)pthread_condattr_init(&attributes); /* these four cannot fail on Linux */
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&queue->filled, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    (void)pthread_mutex_init(&queue->mutex, NULL);
    queue->items = items;
    queue->item_bytes = item_bytes;
    queue->capacity = capacity;
    *out_queue = queue;
    return MR_OK;
}

void mr_queue_destroy(mr_queue *queue) {
    if (queue == NULL)
        return;
    (void)pthread_cond_destroy(&queue->filled);
    (void)pthread_mutex_destroy(&queue->mutex);
    mr_free(queue->items);
    mr_free(queue);
}

mr_status mr_queue_push(mr_queue *queue, const void *item) {
    mr_status status = MR_OK;
    (void)pthread_mutex_lock(&queue->mutex);
    if (queue->closed) {
        status = MR_ERROR(CANCELLED, "the queue is closed");
    } else if (queue->length == queue->capacity) {
        status = MR_ERROR(RESOURCE_EXHAUSTED, "the queue holds its maximum of %zu items",
                          queue->capacity);
    } else {
        size_t slot = (queue->first + queue->length) % queue->capacity;
        memcpy(queue->items + slot * queue->item_bytes, item, queue->item_bytes);
        queue->length++;
        (void)pthread_cond_signal(&queue->filled);
    }
    (void)pthread_mutex_unlock(&queue->mutex);
    return status;
}

static struct timespec queue_deadline(int64_t timeout_ms) {
    struct timespec deadline;
    (void)clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += (time_t)(timeout_ms / 1000);
    deadline.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (deadline.tv_nsec >= 1000000000) {
        deadline.tv_nsec -= 1000000000;
        deadline.tv_sec++;
    }
    return deadline;
}

mr_status mr_queue_pop(mr_queue *queue, void *out_item, int64_t timeout_ms) {
    mr_status status = MR_OK;
    struct timespec deadline = queue_deadline(timeout_ms);
    int waited = 0;
    (void)pthread_mutex_lock(&queue->mutex);
    while (queue->length == 0 && !queue->closed && timeout_ms > 0 && waited == 0)
        waited = pthread_cond_timedwait(&queue->filled, &queue->mutex, &deadline);
    if (queue->length > 0) {
        memcpy(out_item, queue->items + queue->first * queue->item_bytes, queue->item_bytes);
        queue->first = (queue->first + 1) % queue->capacity;
        queue->length--;
    } else if (queue->closed) {
        status = MR_ERROR(CANCELLED, "the queue is closed");
    } else {
        status = MR_ERROR(DEADLINE_EXCEEDED, "nothing came within %lld ms", (long long)timeout_ms);
    }
    (void)pthread_mutex_unlock(&queue->mutex);
    return status;
}

void mr_queue_close(mr_queue *queue) {
    (void)pthread_mutex_lock(&queue->mutex);
    queue->closed = true;
    (void)pthread_cond_broadcast(&queue->filled);
    (void)pthread_mutex_unlock(&queue->mutex);
}

size_t mr_queue_length(mr_queue *queue) {
    (void)pthread_mutex_lock(&queue->mutex);
    size_t length = queue->length;
    (void)pthread_mutex_unlock(&queue->mutex);
    return length;
}
