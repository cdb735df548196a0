/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/base/clock.h"

#include <time.h>

static int64_t clock_read_ns(clockid_t clock) {
    struct timespec now;
    (void)clock_gettime(clock, &now); /* cannot fail for these two clocks */
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t mr_clock_now_ns(void) {
    return clock_read_ns(CLOCK_MONOTONIC);
}

int64_t mr_clock_now_ms(void) {
    return mr_clock_now_ns() / 1000000;
}

int64_t mr_clock_wall_ms(void) {
    return mr_clock_wall_ns() / 1000000;
}

int64_t mr_clock_wall_ns(void) {
    return clock_read_ns(CLOCK_REALTIME);
}
