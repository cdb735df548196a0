/* SPDX-License-Identifier: Apache-2.0 */
/* The coordinator's work on checkpoint folders, on DISK: the commit of a save that every rank has
 * reported, and the cleaning after saves that failed or epochs that ended. */
#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/clock.h"
#include "daemon/checkpoint/catalog.h"
#include "daemon/coordinator/runtime.h"

typedef struct folder_task {
    mr_coordinator *coordinator;
    char dir[MR_PATH_BYTES];
    char job_id[MR_COORDINATOR_ID_BYTES];
    char tag[MR_NAME_BYTES];
    uint64_t epoch;
    uint64_t step;
    /* a commit's own */
    mr_manifest manifest;
    uint64_t keep;
    uint64_t bytes;
    int64_t begun_ms;
    mr_status status;
    mr_status advisory; /* what failed after the commit */
} folder_task;

static void folder_task_destroy(folder_task *task) {
    mr_free(task->manifest.files);
    mr_free(task);
}

static folder_task *folder_task_make(mr_coordinator *coordinator, const mr_action *action) {
    folder_task *task = mr_alloc(sizeof(*task));
    if (task == NULL)
        return NULL;
    task->coordinator = coordinator;
    memcpy(task->dir, action->job->spec->checkpoint_dir, sizeof(task->dir));
    memcpy(task->job_id, action->job->facts.id, sizeof(task->job_id));
    memcpy(task->tag, action->tag, sizeof(task->tag));
    task->epoch = action->epoch;
    task->step = action->step;
    task->begun_ms = mr_clock_now_ms();
    return task;
}

/* ---- commit ---------------------------------------------------------------------------------- */

static mr_status commit_fill(folder_task *task, const mr_action *action) {
    const mr_job_spec *spec = action->job->spec;
    const mr_job_save *save = action->save;
    mr_manifest *manifest = &task->manifest;
    memcpy(manifest->job, spec->name, sizeof(manifest->job));
    manifest->step = save->step;
    manifest->epoch = action->epoch;
    memcpy(manifest->model_hash, spec->model_hash, sizeof(manifest->model_hash));
    manifest->data_cursor.step = save->step;
    manifest->data_cursor.sample = save->step * spec->samples_per_step;
    mr_optimizer_kind optimizer = spec->job != NULL ? spec->job->optimizer : MR_OPTIMIZER_ADAMW;
    (void)snprintf(manifest->optimizer.type, sizeof(manifest->optimizer.type), "%s",
                   mr_optimizer_name(optimizer));
    manifest->optimizer.steps = save->optimizer_steps;
    manifest->optimizer.loss_scale = save->loss_scale;
    if (save->optimizer_steps > 0 && spec->job != NULL)
        manifest->optimizer.lr = mr_job_learning_rate(spec->job, save->optimizer_steps);
    manifest->files = mr_alloc_array(save->file_count, sizeof(*manifest->files));
    if (manifest->files == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a manifest of %zu files",
                        save->file_count);
    memcpy(manifest->files, save->files, save->file_count * sizeof(*manifest->files));
    manifest->file_count = save->file_count;
    for (size_t i = 0; i < save->file_count; i++)
        task->bytes += save->files[i].bytes;
    task->keep = spec->checkpoint_keep;
    return MR_OK;
}

/* DISK. The commit first; only when it stands are older checkpoints deleted. */
static void commit_work(void *context) {
    folder_task *task = context;
    task->status = mr_manifest_commit(task->dir, task->tag, &task->manifest, &task->advisory);
    if (!mr_status_is_ok(task->status) || task->keep == 0)
        return;
    mr_status retained =
        mr_catalog_retain(task->dir, task->manifest.job, (size_t)task->keep, task->tag, NULL);
    if (mr_status_is_ok(task->advisory))
        task->advisory = retained;
}

/* LOOP. */
static void commit_done(void *context) {
    folder_task *task = context;
    mr_coordinator *coordinator = task->coordinator;
    if (!mr_status_is_ok(task->advisory))
        MR_LOG(WARN, "checkpoint committed, cleaning failed", MR_S("job", task->job_id),
               MR_S("tag", task->tag), MR_S("why", task->advisory.text));
    mr_job_record *job = mr_jobs_resolve(&coordinator->state.jobs, task->job_id);
    if (mr_status_is_ok(task->status)) {
        double seconds = (double)(mr_clock_now_ms() - task->begun_ms) / 1000;
        MR_LOG(INFO, "checkpoint committed", MR_S("job", task->job_id), MR_S("tag", task->tag),
               MR_I("step", task->step), MR_I("bytes", task->bytes), MR_F("seconds", seconds));
        if (job != NULL)
            mr_status_board_saved(coordinator, job, task->tag, task->step, task->bytes,
                                  seconds);
    }
    mr_event event = {.kind = MR_EVENT_COMMIT, .job = task->job_id, .epoch = task->epoch};
    event.u.commit.tag = task->tag;
    event.u.commit.step = task->step;
    event.u.commit.bytes = task->bytes;
    event.u.commit.status = task->status;
    if (!coordinator->stopping)
        mr_runtime_take(coordinator, &event);
    folder_task_destroy(task);
}

/* Sends the task to DISK; from then on it is DISK's, and its status the work's. Where DISK
 * cannot take it, it has failed. */
static bool folder_task_post(folder_task *task, mr_loop_fn work, mr_loop_fn done) {
    mr_status posted = mr_disk_post(task->coordinator->file_disk, work, done, task);
    if (mr_status_is_ok(posted))
        return true;
    task->status = posted;
    return false;
}

/* The task's turn in the outbox. */
static void commit_run(const mr_outbox_item *item) {
    folder_task *task = item->context;
    mr_coordinator *coordinator = task->coordinator;
    if (folder_task_post(task, commit_work, commit_done))
        return;
    mr_status posted = mr_loop_post(coordinator->loop, commit_done, task);
    if (!mr_status_is_ok(posted)) {
        MR_LOG(ERROR, "checkpoint not committed", MR_S("tag", task->tag),
               MR_S("why", task->status.text));
        folder_task_destroy(task); /* the save stays open until its job ends */
    }
}

void mr_checkpoints_commit(mr_coordinator *coordinator, const mr_action *action) {
    folder_task *task = folder_task_make(coordinator, action);
    mr_status status = task == NULL
                           ? MR_ERROR(RESOURCE_EXHAUSTED, "no memory to commit %s", action->tag)
                           : commit_fill(task, action);
    if (mr_status_is_ok(status)) {
        mr_outbox_add(coordinator->outbox, &(mr_outbox_item){.run = commit_run, .context = task});
        return;
    }
    MR_LOG(ERROR, "checkpoint not committed", MR_S("job", action->job->facts.id),
           MR_S("tag", action->tag), MR_S("why", status.text));
    if (task == NULL)
        return;
    task->status = status;
    if (!mr_status_is_ok(mr_loop_post(coordinator->loop, commit_done, task)))
        folder_task_destroy(task);
}

/* ---- cleaning -------------------------------------------------------------------------------- */

/* LOOP. Nothing depends on cleaning, so a failure is only told. */
static void clean_done(void *context) {
    folder_task *task = context;
    if (!mr_status_is_ok(task->status))
        MR_LOG(WARN, "checkpoint folder not cleaned", MR_S("job", task->job_id),
               MR_S("folder", task->dir), MR_S("why", task->status.text));
    folder_task_destroy(task);
}

/* DISK. */
static void discard_work(void *context) {
    folder_task *task = context;
    task->status = mr_catalog_discard(task->dir, task->tag, task->epoch, task->step);
}

/* DISK. */
static void sweep_work(void *context) {
    folder_task *task = context;
    task->status = mr_catalog_sweep(task->dir, task->epoch, NULL);
}

static void discard_run(const mr_outbox_item *item) {
    folder_task *task = item->context;
    if (!folder_task_post(task, discard_work, clean_done))
        clean_done(task);
}

static void sweep_run(const mr_outbox_item *item) {
    folder_task *task = item->context;
    if (!folder_task_post(task, sweep_work, clean_done))
        clean_done(task);
}

void mr_checkpoints_discard(mr_coordinator *coordinator, const mr_action *action) {
    folder_task *task = folder_task_make(coordinator, action);
    if (task != NULL) /* else the next sweep does it */
        mr_outbox_add(coordinator->outbox, &(mr_outbox_item){.run = discard_run, .context = task});
}

void mr_checkpoints_sweep(mr_coordinator *coordinator, const mr_action *action) {
    folder_task *task = folder_task_make(coordinator, action);
    if (task != NULL) /* else a later job does it */
        mr_outbox_add(coordinator->outbox, &(mr_outbox_item){.run = sweep_run, .context = task});
}
