/* SPDX-License-Identifier: Apache-2.0 */
/* readiness.h: from which instruction of a rank's list on a gradient has its last addend, so that
 * replicas may sum it while the rank, or another stage, still computes. Derived from the list,
 * which is the same on all replicas of a stage, and so is everything derived from it.
 * Owner: plan. Pure, any thread. */
#ifndef MR_PLAN_READINESS_H
#define MR_PLAN_READINESS_H

#include "daemon/plan/schedule.h"

/* Index of the last instruction of the list that adds to gradients of a chunk's layers: a backward,
 * or the weight part of a split one. While it runs, layers become ready from the chunk's last to
 * its first. schedule->count: the list has none, as in inference. */
size_t mr_schedule_last_backward(const mr_schedule *schedule, uint32_t chunk);

#endif
