/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/rpc/message.h"

#include <pthread.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/rpc/tail.h"

struct mr_rpc_tail {
    grpc_byte_buffer *buffer;
    size_t offset; /* of the tail's first byte in the buffer */
    size_t bytes;
    mr_rpc_tail *next; /* while spare */
};

/* Tails are used again, so that receiving a step's tensors allocates nothing after the first
 * ones. */
enum { TAIL_SPARES_MAX = 64 };

static struct {
    pthread_mutex_t lock;
    mr_rpc_tail *first;
    size_t count;
} spares = {.lock = PTHREAD_MUTEX_INITIALIZER};

static mr_rpc_tail *tail_take(void) {
    (void)pthread_mutex_lock(&spares.lock);
    mr_rpc_tail *tail = spares.first;
    if (tail != NULL) {
        spares.first = tail->next;
        spares.count--;
    }
    (void)pthread_mutex_unlock(&spares.lock);
    return tail != NULL ? tail : mr_alloc(sizeof(*tail));
}

mr_status mr_rpc_tail_create(grpc_byte_buffer *owned_buffer, size_t offset,
                             mr_rpc_tail **out_tail) {
    size_t length = grpc_byte_buffer_length(owned_buffer);
    MR_ASSERT(offset <= length);
    mr_rpc_tail *tail = tail_take();
    if (tail == NULL) {
        grpc_byte_buffer_destroy(owned_buffer);
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to receive %zu bytes", length);
    }
    *tail = (mr_rpc_tail){.buffer = owned_buffer, .offset = offset, .bytes = length - offset};
    *out_tail = tail;
    return MR_OK;
}

size_t mr_rpc_tail_bytes(const mr_rpc_tail *tail) {
    return tail != NULL ? tail->bytes : 0;
}

mr_status mr_rpc_tail_copy(const mr_rpc_tail *tail, size_t offset, size_t bytes,
                           void *destination) {
    size_t have = mr_rpc_tail_bytes(tail);
    if (offset > have || bytes > have - offset)
        return MR_ERROR(OUT_OF_RANGE, "%zu bytes from offset %zu are asked of a payload of %zu",
                        bytes, offset, have);
    if (bytes == 0)
        return MR_OK;
    const grpc_slice_buffer *slices = &tail->buffer->data.raw.slice_buffer;
    size_t skip = tail->offset + offset;
    unsigned char *to = destination;
    for (size_t i = 0; i < slices->count && bytes > 0; i++) {
        size_t length = GRPC_SLICE_LENGTH(slices->slices[i]);
        if (skip >= length) {
            skip -= length;
            continue;
        }
        size_t part = length - skip < bytes ? length - skip : bytes;
        memcpy(to, GRPC_SLICE_START_PTR(slices->slices[i]) + skip, part);
        to += part;
        bytes -= part;
        skip = 0;
    }
    MR_ASSERT(bytes == 0);
    return MR_OK;
}

void mr_rpc_tail_destroy(mr_rpc_tail *tail) {
    if (tail == NULL)
        return;
    grpc_byte_buffer_destroy(tail->buffer);
    (void)pthread_mutex_lock(&spares.lock);
    bool keep = spares.count < TAIL_SPARES_MAX;
    if (keep) {
        tail->next = spares.first;
        spares.first = tail;
        spares.count++;
    }
    (void)pthread_mutex_unlock(&spares.lock);
    if (!keep)
        mr_free(tail);
}

void mr_rpc_tail_spares_free(void) {
    (void)pthread_mutex_lock(&spares.lock);
    while (spares.first != NULL) {
        mr_rpc_tail *next = spares.first->next;
        mr_free(spares.first);
        spares.first = next;
    }
    spares.count = 0;
    (void)pthread_mutex_unlock(&spares.lock);
}
