/* SPDX-License-Identifier: Apache-2.0 */
/* loop.h: the LOOP thread: one libuv loop that owns all control state of a daemon. Other threads
 * hand it work through mr_loop_post; nothing reacts inside their callbacks.
 * Owner: base. Thread: LOOP unless a function says otherwise. Limits: MR_QUEUE_LOOP_MAX.
 * Not here: sockets (rpc/, observe/). */
#ifndef MR_BASE_LOOP_H
#define MR_BASE_LOOP_H

#include <stdint.h>

#include "daemon/base/status.h"

typedef struct mr_loop mr_loop;
typedef struct mr_loop_timer mr_loop_timer;
/* Work or a tick, run on LOOP. context is the caller's; a post owns it from the push on. */
typedef void (*mr_loop_fn)(void *context);
typedef void (*mr_loop_signal_fn)(void *context, int signal_number);
typedef void (*mr_loop_readable_fn)(void *context, int fd);

/* Any thread. RESOURCE_EXHAUSTED: no memory; INTERNAL: libuv gives no loop. Owner destroys it. */
MR_MUST_CHECK mr_status mr_loop_create(mr_loop **out_loop);
/* After mr_loop_run returned and no thread posts any more; posts left are run first. NULL is
 * fine. */
void mr_loop_destroy(mr_loop *loop);
/* Runs until mr_loop_stop. The calling thread becomes LOOP. */
void mr_loop_run(mr_loop *loop);
/* Any thread, any time. mr_loop_run returns after the work posted before it. */
void mr_loop_stop(mr_loop *loop);
/* Any thread. Runs fn(context) on LOOP, in order. RESOURCE_EXHAUSTED: MR_QUEUE_LOOP_MAX wait. */
MR_MUST_CHECK mr_status mr_loop_post(mr_loop *loop, mr_loop_fn fn, void *context);
/* Calls fn after delay_ms, then each period_ms (0: once). The loop owns the timer. */
MR_MUST_CHECK mr_status mr_loop_timer_start(mr_loop *loop, uint64_t delay_ms, uint64_t period_ms,
                                            mr_loop_fn fn, void *context,
                                            mr_loop_timer **out_timer);
/* Ends and frees it. NULL is fine. */
void mr_loop_timer_stop(mr_loop_timer *timer);
/* Calls fn on LOOP for each arrival of the signal. */
MR_MUST_CHECK mr_status mr_loop_signal_watch(mr_loop *loop, int signal_number, mr_loop_signal_fn fn,
                                             void *context);
/* Calls fn on LOOP while fd has bytes to read, until the loop is destroyed. The descriptor is the
 * caller's, who closes it after that. */
MR_MUST_CHECK mr_status mr_loop_readable_watch(mr_loop *loop, int fd, mr_loop_readable_fn fn,
                                               void *context);

#endif
