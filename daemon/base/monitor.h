/* SPDX-License-Identifier: Apache-2.0 */
/* monitor.h: a lock with a condition, and waits that have a bound: for state that two threads share
 * and one waits on (links, groups), where a queue of values does not fit.
 * Owner: base. Thread: any. */
#ifndef MR_BASE_MONITOR_H
#define MR_BASE_MONITOR_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct mr_monitor {
    pthread_mutex_t lock;
    pthread_cond_t changed; /* on the monotonic clock */
} mr_monitor;

/* On memory of the caller's; cannot fail. */
void mr_monitor_init(mr_monitor *monitor);
/* Nobody holds it or waits on it. */
void mr_monitor_deinit(mr_monitor *monitor);
/* Short: state is read and written inside, nothing waits there but mr_monitor_wait. */
void mr_monitor_lock(mr_monitor *monitor);
void mr_monitor_unlock(mr_monitor *monitor);
/* Wakes every waiter. Under the lock. */
void mr_monitor_notify(mr_monitor *monitor);
/* The moment timeout_ms from now, for wait; negative: never. */
int64_t mr_monitor_deadline(int64_t timeout_ms);
/* Under the lock: lets go of it until notified, or until the deadline. false: the deadline has
 * passed. The caller looks at its state again in both cases. */
bool mr_monitor_wait(mr_monitor *monitor, int64_t deadline);

#endif
