/* SPDX-License-Identifier: Apache-2.0 */
/* scheduler.h: the queue of jobs: first come, first served. The first job waits until enough
 * members are idle; those behind it wait for it. Each is told what it waits for and its position.
 * Owner: coordinator; only decide's own files include it. Thread: LOOP. */
#ifndef MR_COORDINATOR_SCHEDULER_H
#define MR_COORDINATOR_SCHEDULER_H

#include "daemon/coordinator/decision.h"

/* Starts what can start, and explains what cannot. */
void mr_scheduler_run(mr_decision *decision);

#endif
