/* SPDX-License-Identifier: Apache-2.0 */
/* A job's layers are timed; now its model is cut: the members' times become one profile in rank
 * order, and the job is read and planned anew with it. That thinks for up to a second, so it is
 * done on DISK. */
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/coordinator/runtime.h"

typedef struct cut_task {
    mr_coordinator *coordinator;
    char job_id[MR_COORDINATOR_ID_BYTES];
    uint64_t epoch;
    char *job_file;
    char *base_directory;
    mr_job_mode mode;
    size_t count;
    mr_profile_device **devices; /* owned; NULL once they are the profile's */
    mr_job_spec *spec;
    mr_status status;
} cut_task;

static void cut_task_destroy(cut_task *task) {
    if (task == NULL)
        return;
    for (size_t i = 0; task->devices != NULL && i < task->count; i++)
        mr_profile_device_destroy(task->devices[i]);
    mr_free(task->devices);
    mr_free(task->job_file);
    mr_free(task->base_directory);
    mr_job_spec_destroy(task->spec);
    mr_free(task);
}

/* A copy of rank's times, as its present member. */
static mr_status cut_take_rank(cut_task *task, const mr_job_record *job, size_t index) {
    const mr_job_rank *rank = &job->ranks[index];
    const mr_profile_device *times =
        rank->profile != NULL ? rank->profile : job->spec->profile->devices[rank->profile_entry];
    return mr_profile_device_copy(times, &task->devices[index]);
}

static mr_status cut_fill(cut_task *task, const mr_action *action) {
    const mr_job_record *job = action->job;
    memcpy(task->job_id, job->facts.id, sizeof(task->job_id));
    task->epoch = action->epoch;
    task->mode = job->spec->mode;
    task->count = job->spec->rank_count;
    task->job_file = mr_strdup(job->spec->job_file);
    task->base_directory = mr_strdup(job->spec->base_directory);
    task->devices = mr_alloc_array(task->count, sizeof(mr_profile_device *));
    if (task->job_file == NULL || task->base_directory == NULL || task->devices == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to cut the model of job %s", task->job_id);
    for (size_t i = 0; i < task->count; i++)
        MR_TRY(cut_take_rank(task, job, i));
    return MR_OK;
}

/* ---- DISK ------------------------------------------------------------------------------------ */

/* The ranks' times as one profile. */
static mr_status cut_join(cut_task *task, const mr_job *job, mr_profile **out_profile) {
    mr_layer_description *layers = mr_alloc_array(job->layer_count, sizeof(*layers));
    if (layers == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu layers", job->layer_count);
    mr_profile *profile = NULL;
    mr_status status = mr_job_describe(job, layers);
    if (mr_status_is_ok(status))
        status = mr_profile_create(job, layers, &profile);
    mr_free(layers);
    for (size_t i = 0; i < task->count && mr_status_is_ok(status); i++) {
        mr_profile_device *device = task->devices[i];
        task->devices[i] = NULL;
        status = mr_profile_add(profile, device);
        if (!mr_status_is_ok(status))
            status = mr_status_prefix(status, "rank %zu", i);
    }
    if (mr_status_is_ok(status))
        *out_profile = profile;
    else
        mr_profile_destroy(profile);
    return status;
}

static mr_status cut_make(cut_task *task) {
    mr_job *job = NULL;
    mr_profile *profile = NULL;
    char *text = NULL;
    MR_TRY(mr_job_parse(task->job_file, strlen(task->job_file), &job, NULL));
    mr_status status = cut_join(task, job, &profile);
    if (mr_status_is_ok(status))
        status = mr_profile_json(profile, &text);
    const mr_spec_source source = {
        .job_file = task->job_file,
        .base_directory = task->base_directory,
        .mode = task->mode,
        .profile = text,
        .cut = true,
    };
    if (mr_status_is_ok(status))
        status = mr_job_spec_read(&source, &task->spec);
    mr_free(text);
    mr_profile_destroy(profile);
    mr_job_destroy(job);
    return status;
}

static void cut_work(void *context) {
    cut_task *task = context;
    task->status = cut_make(task);
}

/* ---- LOOP ------------------------------------------------------------------------------------ */

static void cut_done(void *context) {
    cut_task *task = context;
    mr_event event = {.kind = MR_EVENT_CUT, .job = task->job_id, .epoch = task->epoch};
    if (!task->coordinator->stopping) {
        event.u.cut.owned_spec = task->spec;
        event.u.cut.status = task->status;
        task->spec = NULL;
        mr_runtime_take(task->coordinator, &event);
    }
    cut_task_destroy(task);
}

/* A cut that cannot even be asked for has failed; where nobody can be told, the job's bound ends
 * it. */
void mr_cuts_begin(mr_coordinator *coordinator, const mr_action *action) {
    cut_task *task = mr_alloc(sizeof(*task));
    if (task == NULL)
        return;
    task->coordinator = coordinator;
    mr_status status = cut_fill(task, action);
    if (mr_status_is_ok(status))
        status = mr_disk_post(coordinator->file_disk, cut_work, cut_done, task);
    if (mr_status_is_ok(status))
        return; /* the task is DISK's: its status is the work's */
    task->status = status;
    if (!mr_status_is_ok(mr_loop_post(coordinator->loop, cut_done, task)))
        cut_task_destroy(task);
}
