/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/base/monitor.h"

#include <time.h>

#include "daemon/base/clock.h"
#include "daemon/base/status.h"

void mr_monitor_init(mr_monitor *monitor) {
    pthread_condattr_t attributes;
    (void)pthread_condattr_init(&attributes); /* these cannot fail on Linux */
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&monitor->changed, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    (void)pthread_mutex_init(&monitor->lock, NULL);
}

void mr_monitor_deinit(mr_monitor *monitor) {
    (void)pthread_cond_destroy(&monitor->changed);
    (void)pthread_mutex_destroy(&monitor->lock);
}

void mr_monitor_lock(mr_monitor *monitor) {
    MR_ASSERT(pthread_mutex_lock(&monitor->lock) == 0);
}

void mr_monitor_unlock(mr_monitor *monitor) {
    MR_ASSERT(pthread_mutex_unlock(&monitor->lock) == 0);
}

void mr_monitor_notify(mr_monitor *monitor) {
    (void)pthread_cond_broadcast(&monitor->changed);
}

int64_t mr_monitor_deadline(int64_t timeout_ms) {
    return timeout_ms < 0 ? -1 : mr_clock_now_ns() + timeout_ms * 1000000;
}

bool mr_monitor_wait(mr_monitor *monitor, int64_t deadline) {
    if (deadline < 0) {
        (void)pthread_cond_wait(&monitor->changed, &monitor->lock);
        return true;
    }
    const struct timespec limit = {.tv_sec = deadline / 1000000000,
                                   .tv_nsec = deadline % 1000000000};
    return pthread_cond_timedwait(&monitor->changed, &monitor->lock, &limit) == 0;
}
