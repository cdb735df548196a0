/* SPDX-License-Identifier: Apache-2.0 */
/* pool.h: the threads of one CPU device. A run is a number of tasks; every thread takes the next
 * one until none is left, and the caller works along as thread 0. Which thread runs which task is
 * left open, so a task's result must depend on its number alone.
 * Why not OpenMP: its runtime spins between regions unless an environment variable, read before
 * main, says otherwise (on shared processors that was measured to cost 40% and more), and thread
 * sanitizers do not know it. Here an idle thread looks for work for MR_DEVICE_SPIN_NS at most, then
 * sleeps on a futex.
 * Owner: device/cpu. Thread: EXEC. Limits: MR_DEVICE_THREADS_MAX. */
#ifndef MR_DEVICE_CPU_POOL_H
#define MR_DEVICE_CPU_POOL_H

#include <stddef.h>

#include "daemon/base/status.h"

typedef struct mr_pool mr_pool;

/* task: its number in the run; thread: in [0, threads). */
typedef void (*mr_pool_task)(void *context, size_t task, int thread);

/* threads: in [1, MR_DEVICE_THREADS_MAX], the caller counted. start runs once on each new thread
 * (not on the caller) before its first task; may be NULL. processors: one for each thread to be
 * bound to, the caller too, or NULL. RESOURCE_EXHAUSTED: a thread cannot be started. */
MR_MUST_CHECK mr_status mr_pool_create(int threads, const int *processors, void (*start)(void),
                                       mr_pool **out_pool);
/* Ends the threads and gives the caller its old binding back; NULL is fine. */
void mr_pool_destroy(mr_pool *pool);
int mr_pool_threads(const mr_pool *pool);
/* Returns when all tasks are done. At most UINT32_MAX tasks. Not from within a task. */
void mr_pool_run(mr_pool *pool, size_t tasks, mr_pool_task function, void *context);

#endif
