/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs, as the coordinator serves it: the table of its methods, and those that ask for a decision.
 */
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/coordinator/services.h"
#include "daemon/model/yaml_edit.h"

/* ---- what asks for a decision ---------------------------------------------------------------- */

/* DISK. */
static void submit_work(void *context) {
    mr_request *request = context;
    const Millrace__V1__SubmitRequest *message = (Millrace__V1__SubmitRequest *)request->message;
    const mr_admission_request wanted = {
        .job_file = message->job_file,
        .base_directory = message->base_directory,
        .mode = (mr_job_mode)message->mode,
        .profile = message->profile,
        .resume_tag = message->resume_tag,
        .resume_newest = message->resume_newest,
    };
    request->status = mr_admission_make(&wanted, &request->admission);
}

/* LOOP. */
static void submit_done(void *context) {
    mr_request *request = context;
    if (!mr_request_is_back(request))
        return;
    const Millrace__V1__SubmitRequest *message = (Millrace__V1__SubmitRequest *)request->message;
    mr_event event = {.kind = MR_EVENT_SUBMIT, .request = request->number};
    char path[MR_PATH_BYTES];
    char note[MR_STATUS_TEXT_BYTES];
    memcpy(path, request->admission.checkpoint_path, sizeof(path));
    memcpy(note, request->admission.note, sizeof(note));
    event.u.submit.owned_spec = request->admission.spec;
    event.u.submit.request_id = message->request_id;
    event.u.submit.checkpoint_path = path;
    event.u.submit.note = note;
    event.u.submit.start_step = request->admission.start_step;
    event.u.submit.epoch_floor = request->admission.epoch_floor;
    request->admission.spec = NULL;
    mr_runtime_take(request->coordinator, &event);
}

static void request_submit(mr_request *request) {
    mr_request_to_disk(request, submit_work, submit_done);
}

static void request_about_job(mr_request *request, mr_event_kind kind) {
    const Millrace__V1__JobRequest *message = (Millrace__V1__JobRequest *)request->message;
    mr_event event = {.kind = kind, .job = message->job, .request = request->number};
    mr_runtime_take(request->coordinator, &event);
}

static void request_pause(mr_request *request) {
    request_about_job(request, MR_EVENT_PAUSE);
}
static void request_resume(mr_request *request) {
    request_about_job(request, MR_EVENT_RESUME);
}
static void request_cancel(mr_request *request) {
    request_about_job(request, MR_EVENT_CANCEL);
}

/* DISK. Is the user's tag a checkpoint already? */
static void save_work(void *context) {
    mr_request *request = context;
    const Millrace__V1__SaveCheckpointRequest *message =
        (Millrace__V1__SaveCheckpointRequest *)request->message;
    char path[MR_PATH_BYTES];
    request->status = mr_layout_user_tag_check(message->tag);
    if (mr_status_is_ok(request->status))
        request->status = mr_layout_join(request->dir, message->tag, path, sizeof(path));
    if (!mr_status_is_ok(request->status))
        return;
    mr_manifest manifest = {0};
    mr_status found = mr_manifest_read(path, &manifest);
    mr_manifest_deinit(&manifest);
    request->taken = found.code != MR_CODE_NOT_FOUND; /* a damaged one has the name too */
}

static void save_take(mr_request *request) {
    const Millrace__V1__SaveCheckpointRequest *message =
        (Millrace__V1__SaveCheckpointRequest *)request->message;
    mr_event event = {.kind = MR_EVENT_SAVE, .job = message->job, .request = request->number};
    event.u.save.tag = message->tag;
    event.u.save.tag_taken = request->taken;
    mr_runtime_take(request->coordinator, &event);
}

/* LOOP. */
static void save_done(void *context) {
    mr_request *request = context;
    if (mr_request_is_back(request))
        save_take(request);
}

static void request_save(mr_request *request) {
    const Millrace__V1__SaveCheckpointRequest *message =
        (Millrace__V1__SaveCheckpointRequest *)request->message;
    const mr_job_record *job = mr_request_job(request, message->job);
    if (job == NULL)
        return;
    if (message->tag[0] == '\0' || !mr_job_spec_saves(job->spec)) {
        save_take(request);
        return;
    }
    memcpy(request->dir, job->spec->checkpoint_dir, sizeof(request->dir));
    mr_request_to_disk(request, save_work, save_done);
}

/* DISK. The job's file with the new value, read as a new job would be. */
static void set_work(void *context) {
    mr_request *request = context;
    const Millrace__V1__SetRequest *message = (Millrace__V1__SetRequest *)request->message;
    const mr_yaml_change change = {.path = "/pipeline/activation_checkpoint_interval",
                                   .value = message->value};
    char *text = NULL;
    request->status = mr_yaml_edit(request->job_file, &change, 1, &text);
    const mr_spec_source source = {
        .job_file = text,
        .base_directory = request->base_directory,
        .mode = request->mode,
        .profile = request->profile,
        .bounds = request->bounds,
        .bound_count = request->bound_count,
    };
    if (mr_status_is_ok(request->status))
        request->status = mr_job_spec_read(&source, &request->admission.spec);
    mr_free(text);
}

/* LOOP. */
static void set_done(void *context) {
    mr_request *request = context;
    if (!mr_request_is_back(request))
        return;
    const Millrace__V1__SetRequest *message = (Millrace__V1__SetRequest *)request->message;
    mr_event event = {.kind = MR_EVENT_SET, .job = message->job, .request = request->number};
    event.u.set.owned_spec = request->admission.spec;
    event.u.set.old_file = request->job_file;
    request->admission.spec = NULL;
    mr_runtime_take(request->coordinator, &event);
}

/* What DISK needs of the job as it is. */
static mr_status set_copy(mr_request *request, const mr_job_record *job) {
    const mr_job_spec *spec = job->spec;
    request->mode = job->facts.mode;
    request->job_file = mr_strdup(spec->job_file);
    request->base_directory = mr_strdup(spec->base_directory);
    request->profile = mr_strdup(spec->profile_text);
    request->bound_count = spec->bound_count;
    if (spec->bound_count > 0)
        request->bounds = mr_alloc_array(spec->bound_count, sizeof(*request->bounds));
    if (request->job_file == NULL || request->base_directory == NULL ||
        (spec->profile_text != NULL && request->profile == NULL) ||
        (spec->bound_count > 0 && request->bounds == NULL))
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the job's text");
    if (spec->bound_count > 0)
        memcpy(request->bounds, spec->bounds, spec->bound_count * sizeof(*request->bounds));
    return MR_OK;
}

static void request_set(mr_request *request) {
    static const char settable[] = "pipeline.activation_checkpoint_interval";
    const Millrace__V1__SetRequest *message = (Millrace__V1__SetRequest *)request->message;
    const mr_job_record *job = mr_request_job(request, message->job);
    if (job == NULL)
        return;
    if (strcmp(message->key, settable) != 0) {
        mr_request_fail(request, MR_ERROR(INVALID_ARGUMENT,
                                          "key is \"%.64s\"; a job's %s alone can be changed",
                                          message->key, settable));
        return;
    }
    mr_status copied = set_copy(request, job);
    if (!mr_status_is_ok(copied))
        mr_request_fail(request, copied);
    else
        mr_request_to_disk(request, set_work, set_done);
}

static void request_drain(mr_request *request) {
    const Millrace__V1__DrainStageRequest *message =
        (Millrace__V1__DrainStageRequest *)request->message;
    mr_event event = {.kind = MR_EVENT_DRAIN, .request = request->number};
    event.u.drain.member_id = message->member_id;
    mr_runtime_take(request->coordinator, &event);
}

/* ---- the table ------------------------------------------------------------------------------- */

#define JOBS_METHODS(X)                                                                            \
    X(Submit, request_submit)                                                                      \
    X(Validate, mr_service_validate)                                                               \
    X(Plan, mr_service_plan)                                                                       \
    X(Get, mr_service_get)                                                                         \
    X(List, mr_service_list)                                                                       \
    X(Watch, mr_service_watch)                                                                     \
    X(Pause, request_pause)                                                                        \
    X(Resume, request_resume)                                                                      \
    X(Cancel, request_cancel)                                                                      \
    X(Set, request_set)                                                                            \
    X(SaveCheckpoint, request_save)                                                                \
    X(ListCheckpoints, mr_service_list_checkpoints)                                                \
    X(OpenFeed, mr_service_open_feed)                                                              \
    X(ListStages, mr_service_list_stages)                                                          \
    X(DrainStage, request_drain)                                                                   \
    X(ClusterInfo, mr_service_cluster_info)                                                        \
    X(GetProfile, mr_service_get_profile)

#define JOBS_RECEIVE(name, handle)                                                                 \
    static void receive_##name(mr_rpc_stream *stream, ProtobufCMessage *owned_request,             \
                               void *context) {                                                    \
        mr_request_receive(context, stream, owned_request, handle);                                \
    }
JOBS_METHODS(JOBS_RECEIVE)
#undef JOBS_RECEIVE

static const mr_rpc_method jobs_methods[] = {
#define JOBS_ROW(method, handle) {.name = #method, .on_request = receive_##method},
    JOBS_METHODS(JOBS_ROW)
#undef JOBS_ROW
};

mr_rpc_service mr_services_jobs(mr_coordinator *coordinator) {
    return (mr_rpc_service){
        .descriptor = &millrace__v1__jobs__descriptor,
        .methods = jobs_methods,
        .method_count = sizeof(jobs_methods) / sizeof(jobs_methods[0]),
        .context = coordinator,
    };
}
