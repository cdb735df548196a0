/* SPDX-License-Identifier: Apache-2.0 */
/* clock.h: time. Monotonic for every wait and duration, wall time only for what people read.
 * Owner: base. Thread: any. */
#ifndef MR_BASE_CLOCK_H
#define MR_BASE_CLOCK_H

#include <stdint.h>

/* Nanoseconds of the monotonic clock. */
int64_t mr_clock_now_ns(void);
/* Milliseconds of the monotonic clock. */
int64_t mr_clock_now_ms(void);
/* Milliseconds since 1970, UTC. */
int64_t mr_clock_wall_ms(void);
/* Nanoseconds since 1970, UTC: only to lay times of several machines beside each other. */
int64_t mr_clock_wall_ns(void);

#endif
