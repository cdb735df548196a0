/* SPDX-License-Identifier: Apache-2.0 */
/* disk.h: a DISK thread: work that may wait for a disk, or think for milliseconds, is done there in
 * order, and its result comes back to LOOP. The coordinator has two: one for the store, so that a
 * decision never waits behind a checkpoint, and one for everything else.
 * Owner: coordinator. Thread: post LOOP or RPC; create and stop LOOP. Limits: MR_DISK_TASKS_MAX. */
#ifndef MR_COORDINATOR_DISK_H
#define MR_COORDINATOR_DISK_H

#include "daemon/base/loop.h"
#include "daemon/base/status.h"

typedef struct mr_disk mr_disk;

/* Starts DISK; what is done is told on loop. RESOURCE_EXHAUSTED: no memory or no thread. */
MR_MUST_CHECK mr_status mr_disk_create(mr_loop *loop, mr_disk **out_disk);
/* Runs work(context) on DISK, then done(context) on LOOP. RESOURCE_EXHAUSTED: MR_DISK_TASKS_MAX
 * wait; neither runs then. */
MR_MUST_CHECK mr_status mr_disk_post(mr_disk *disk, mr_loop_fn work, mr_loop_fn done,
                                     void *context);
/* Lets the tasks that wait finish, for at most timeout_ms, and frees. What is done then waits in
 * the loop's queue. DEADLINE_EXCEEDED: the disk hangs; the thread and its memory are left behind.
 * NULL is fine. */
MR_MUST_CHECK mr_status mr_disk_stop(mr_disk *disk, int64_t timeout_ms);

#endif
