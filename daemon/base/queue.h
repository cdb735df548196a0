/* SPDX-License-Identifier: Apache-2.0 */
/* queue.h: the bounded queue between two threads: many push, one pops. Items are copied by value.
 * Owner: base. Thread: any may push or close; one pops.
 * Not here: a queue without a limit. */
#ifndef MR_BASE_QUEUE_H
#define MR_BASE_QUEUE_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/base/status.h"

typedef struct mr_queue mr_queue;

/* Room for capacity items of item_bytes. RESOURCE_EXHAUSTED: no memory. */
MR_MUST_CHECK mr_status mr_queue_create(size_t item_bytes, size_t capacity, mr_queue **out_queue);
/* No thread may use it any more. NULL is fine. Items left are the caller's to drain before. */
void mr_queue_destroy(mr_queue *queue);
/* Copies item in. Never blocks. RESOURCE_EXHAUSTED: full; CANCELLED: closed. */
MR_MUST_CHECK mr_status mr_queue_push(mr_queue *queue, const void *item);
/* Copies the oldest item out, waiting up to timeout_ms (0: not at all).
 * DEADLINE_EXCEEDED: nothing came; CANCELLED: closed and empty. */
MR_MUST_CHECK mr_status mr_queue_pop(mr_queue *queue, void *out_item, int64_t timeout_ms);
/* Later pushes fail; pops drain what is left, then fail. Wakes a waiting pop. */
void mr_queue_close(mr_queue *queue);
size_t mr_queue_length(mr_queue *queue);

#endif
