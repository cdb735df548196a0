/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/coordinator/disk.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

#include "daemon/base/alloc.h"
#include "daemon/base/limits.h"
#include "daemon/base/queue.h"

typedef struct disk_task {
    mr_loop_fn work;
    mr_loop_fn done;
    void *context;
} disk_task;

struct mr_disk {
    mr_loop *loop;
    mr_queue *tasks;
    pthread_t thread;
    atomic_bool stopping;
};

/* LOOP drains its queue all the time, so a full one is a matter of a moment; unless LOOP itself
 * waits in mr_disk_stop, and then nothing else runs and its work may be done here. */
static void disk_hand_back(mr_disk *disk, const disk_task *task) {
    const struct timespec pause = {.tv_nsec = 1000000};
    while (!mr_status_is_ok(mr_loop_post(disk->loop, task->done, task->context))) {
        if (atomic_load(&disk->stopping)) {
            task->done(task->context);
            return;
        }
        (void)nanosleep(&pause, NULL);
    }
}

static void *disk_run(void *context) {
    mr_disk *disk = context;
    disk_task task;
    for (;;) {
        mr_status status = mr_queue_pop(disk->tasks, &task, 60000);
        if (status.code == MR_CODE_CANCELLED)
            return NULL;
        if (!mr_status_is_ok(status)) /* nothing came for a while */
            continue;
        task.work(task.context);
        disk_hand_back(disk, &task);
    }
}

mr_status mr_disk_create(mr_loop *loop, mr_disk **out_disk) {
    mr_disk *disk = mr_alloc(sizeof(*disk));
    if (disk == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a disk thread");
    disk->loop = loop;
    mr_status status = mr_queue_create(sizeof(disk_task), MR_DISK_TASKS_MAX, &disk->tasks);
    if (!mr_status_is_ok(status)) {
        mr_free(disk);
        return status;
    }
    sigset_t all;
    sigset_t before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are LOOP's */
    int error = pthread_create(&disk->thread, NULL, disk_run, disk);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) {
        mr_queue_destroy(disk->tasks);
        mr_free(disk);
        return MR_ERROR(RESOURCE_EXHAUSTED, "no disk thread: error %d", error);
    }
    *out_disk = disk;
    return MR_OK;
}

mr_status mr_disk_post(mr_disk *disk, mr_loop_fn work, mr_loop_fn done, void *context) {
    mr_status status =
        mr_queue_push(disk->tasks, &(disk_task){.work = work, .done = done, .context = context});
    return mr_status_is_ok(status) ? status : mr_status_prefix(status, "the disk is behind");
}

mr_status mr_disk_stop(mr_disk *disk, int64_t timeout_ms) {
    if (disk == NULL)
        return MR_OK;
    atomic_store(&disk->stopping, true);
    mr_queue_close(disk->tasks);
    struct timespec limit;
    (void)clock_gettime(CLOCK_REALTIME, &limit); /* the clock that pthread_timedjoin_np takes */
    int64_t ns = limit.tv_nsec + timeout_ms % 1000 * 1000000;
    limit.tv_sec += timeout_ms / 1000 + ns / 1000000000;
    limit.tv_nsec = ns % 1000000000;
    if (pthread_timedjoin_np(disk->thread, NULL, &limit) != 0)
        return MR_ERROR(DEADLINE_EXCEEDED, "the disk thread did not end in %lld ms",
                        (long long)timeout_ms);
    mr_queue_destroy(disk->tasks);
    mr_free(disk);
    return MR_OK;
}
