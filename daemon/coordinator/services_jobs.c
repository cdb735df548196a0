/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs, as the coordinator serves it. Each method is one handler on LOOP; what reads a file or
 * plans a job goes to DISK in between. A request is listed until it has its answer, so that a
 * decision can answer it later by its number. */
#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/clock.h"
#include "daemon/base/version.h"
#include "daemon/checkpoint/catalog.h"
#include "daemon/coordinator/admission.h"
#include "daemon/coordinator/replies.h"
#include "daemon/coordinator/runtime.h"
#include "daemon/plan/plan.h"

struct mr_request {
    mr_coordinator *coordinator;
    mr_rpc_stream *stream;     /* a reference */
    ProtobufCMessage *message; /* owned; of the method's type */
    void (*handle)(mr_request *request);
    uint64_t number;
    bool answered; /* not in the list any more; freed when it comes back from DISK */
    bool on_disk;
    mr_request *next;
    /* What DISK made of it. */
    mr_status status;
    mr_admission admission;
    mr_job_errors *errors;
    char *json;
    char dir[MR_PATH_BYTES];
    char job_name[MR_NAME_BYTES];
    char *job_file; /* of a job whose folder is not known */
    char *base_directory;
    mr_catalog_entry *entries;
    size_t entry_count;
    bool taken;
};

/* ---- a request's life ---- */

static void request_free(mr_request *request) {
    mr_job_spec_destroy(request->admission.spec);
    protobuf_c_message_free_unpacked(request->message, NULL);
    mr_rpc_stream_unref(request->stream);
    mr_free(request->errors);
    mr_free(request->json);
    mr_free(request->job_file);
    mr_free(request->base_directory);
    mr_free(request->entries);
    mr_free(request);
}

static void request_unlist(mr_request *request) {
    mr_coordinator *coordinator = request->coordinator;
    for (mr_request **at = &coordinator->requests; *at != NULL; at = &(*at)->next) {
        if (*at != request)
            continue;
        *at = request->next;
        coordinator->request_count--;
        break;
    }
    request->answered = true;
    if (!request->on_disk)
        request_free(request);
}

/* The answer's turn in the outbox. A client that has gone does not need it. */
static void answer_run(const mr_outbox_item *item) {
    mr_status status = item->status;
    if (item->message != NULL)
        status = mr_rpc_stream_send(item->stream, item->message, NULL);
    mr_rpc_stream_finish(item->stream, status);
}

/* Answers and forgets the request. message borrowed; NULL: status is the answer. */
static void request_answer(mr_request *request, const ProtobufCMessage *message, mr_status status) {
    mr_outbox_add(request->coordinator->outbox,
                  &(mr_outbox_item){.run = answer_run,
                                    .stream = request->stream,
                                    .message = (ProtobufCMessage *)(uintptr_t)message,
                                    .status = status});
    request_unlist(request);
}

static void request_fail(mr_request *request, mr_status status) {
    request_answer(request, NULL, status);
}

/* LOOP. */
static void request_arrived(void *context) {
    mr_request *request = context;
    mr_coordinator *coordinator = request->coordinator;
    request->number = ++coordinator->request_last;
    request->next = coordinator->requests;
    coordinator->requests = request;
    coordinator->request_count++;
    if (coordinator->stopping)
        request_fail(request, MR_ERROR(UNAVAILABLE, "the coordinator is stopping"));
    else if (coordinator->request_count > MR_REQUESTS_MAX)
        request_fail(request, MR_ERROR(RESOURCE_EXHAUSTED, "%d requests wait for an answer",
                                       MR_REQUESTS_MAX));
    else
        request->handle(request);
}

/* RPC thread. */
static void request_receive(mr_coordinator *coordinator, mr_rpc_stream *stream,
                            ProtobufCMessage *owned_message, void (*handle)(mr_request *)) {
    mr_request *request = mr_alloc(sizeof(*request));
    mr_status status = MR_ERROR(RESOURCE_EXHAUSTED, "no memory for one more request");
    if (request != NULL) {
        request->coordinator = coordinator;
        request->stream = mr_rpc_stream_ref(stream);
        request->message = owned_message;
        request->handle = handle;
        status = mr_loop_post(coordinator->loop, request_arrived, request);
        if (mr_status_is_ok(status))
            return;
        mr_rpc_stream_unref(stream);
        mr_free(request);
    }
    protobuf_c_message_free_unpacked(owned_message, NULL);
    mr_rpc_stream_finish(stream, status);
}

/* Sends the request to DISK; done gets it back unless it was answered meanwhile. */
static void request_to_disk(mr_request *request, mr_loop_fn work, mr_loop_fn done) {
    mr_status status = mr_disk_post(request->coordinator->file_disk, work, done, request);
    if (mr_status_is_ok(status))
        request->on_disk = true;
    else
        request_fail(request, status);
}

/* The request is back from DISK. False: it was answered meanwhile, and is gone now. */
static bool request_is_back(mr_request *request) {
    request->on_disk = false;
    if (request->answered) {
        request_free(request);
        return false;
    }
    if (mr_status_is_ok(request->status))
        return true;
    request_fail(request, request->status);
    return false;
}

static mr_request *request_find(const mr_coordinator *coordinator, uint64_t number) {
    for (mr_request *at = coordinator->requests; at != NULL; at = at->next)
        if (at->number == number)
            return at;
    return NULL;
}

void mr_services_answer(mr_coordinator *coordinator, uint64_t number,
                        const ProtobufCMessage *message, mr_status status) {
    mr_request *request = request_find(coordinator, number);
    if (request != NULL)
        request_answer(request, message, status);
}

void mr_services_jobs_stop(mr_coordinator *coordinator, mr_status status) {
    while (coordinator->requests != NULL)
        request_fail(coordinator->requests, status);
}

/* The job that a request names; NULL where there is none, and then the request is answered. */
static mr_job_record *request_job(mr_request *request, const char *job) {
    mr_job_record *record = mr_jobs_resolve(&request->coordinator->state.jobs, job);
    if (record == NULL)
        request_fail(request, MR_ERROR(NOT_FOUND, "no job has the id or name \"%.100s\"", job));
    return record;
}

/* ---- what asks for a decision ---- */

/* DISK. */
static void submit_work(void *context) {
    mr_request *request = context;
    const Millrace__V1__SubmitRequest *message = (Millrace__V1__SubmitRequest *)request->message;
    const mr_admission_request wanted = {
        .job_file = message->job_file,
        .base_directory = message->base_directory,
        .inference = message->mode == MILLRACE__V1__JOB_MODE__JOB_MODE_INFERENCE,
        .resume_tag = message->resume_tag,
        .resume_newest = message->resume_newest,
    };
    request->status = mr_admission_make(&wanted, &request->admission);
}

/* LOOP. */
static void submit_done(void *context) {
    mr_request *request = context;
    if (!request_is_back(request))
        return;
    const Millrace__V1__SubmitRequest *message = (Millrace__V1__SubmitRequest *)request->message;
    mr_event event = {.kind = MR_EVENT_SUBMIT, .request = request->number};
    char path[MR_PATH_BYTES];
    memcpy(path, request->admission.checkpoint_path, sizeof(path));
    event.u.submit.owned_spec = request->admission.spec;
    event.u.submit.request_id = message->request_id;
    event.u.submit.checkpoint_path = path;
    event.u.submit.start_step = request->admission.start_step;
    event.u.submit.epoch_floor = request->admission.epoch_floor;
    request->admission.spec = NULL;
    mr_runtime_take(request->coordinator, &event);
}

static void request_submit(mr_request *request) {
    request_to_disk(request, submit_work, submit_done);
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
    if (request_is_back(request))
        save_take(request);
}

static void request_save(mr_request *request) {
    const Millrace__V1__SaveCheckpointRequest *message =
        (Millrace__V1__SaveCheckpointRequest *)request->message;
    const mr_job_record *job = request_job(request, message->job);
    if (job == NULL)
        return;
    if (message->tag[0] == '\0' || !mr_job_spec_saves(job->spec)) {
        save_take(request);
        return;
    }
    memcpy(request->dir, job->spec->checkpoint_dir, sizeof(request->dir));
    request_to_disk(request, save_work, save_done);
}

static void request_drain(mr_request *request) {
    const Millrace__V1__DrainStageRequest *message =
        (Millrace__V1__DrainStageRequest *)request->message;
    mr_event event = {.kind = MR_EVENT_DRAIN, .request = request->number};
    event.u.drain.member_id = message->member_id;
    mr_runtime_take(request->coordinator, &event);
}

/* ---- what is computed from a job file ---- */

/* DISK. */
static void validate_work(void *context) {
    mr_request *request = context;
    const Millrace__V1__ValidateRequest *message =
        (Millrace__V1__ValidateRequest *)request->message;
    mr_job *job = NULL;
    mr_plan *plan = NULL;
    mr_status parsed = mr_job_parse(message->job_file, strlen(message->job_file), &job,
                                    request->errors);
    if (mr_status_is_ok(parsed)) {
        mr_status planned = mr_plan_make(job, false, &plan);
        if (!mr_status_is_ok(planned)) {
            request->errors->count = 1;
            memcpy(request->errors->items[0].text, planned.text, sizeof(planned.text));
        }
    } else if (request->errors->count == 0) {
        request->errors->count = 1;
        memcpy(request->errors->items[0].text, parsed.text, sizeof(parsed.text));
    }
    mr_plan_destroy(plan);
    mr_job_destroy(job);
}

/* LOOP. An error says its line, as the file's own reader does. */
static void validate_done(void *context) {
    mr_request *request = context;
    if (!request_is_back(request))
        return;
    Millrace__V1__ValidateResponse response = MILLRACE__V1__VALIDATE_RESPONSE__INIT;
    char texts[MR_JOB_ERRORS_MAX][MR_STATUS_TEXT_BYTES + 32];
    char *pointers[MR_JOB_ERRORS_MAX];
    for (size_t i = 0; i < request->errors->count; i++) {
        size_t line = request->errors->items[i].line;
        const char *text = request->errors->items[i].text;
        if (line > 0)
            (void)snprintf(texts[i], sizeof(texts[i]), "line %zu: %s", line, text); /* fits */
        else
            (void)snprintf(texts[i], sizeof(texts[i]), "%s", text);
        pointers[i] = texts[i];
    }
    response.errors = pointers;
    response.n_errors = request->errors->count;
    request_answer(request, &response.base, MR_OK);
}

static void request_validate(mr_request *request) {
    request->errors = mr_alloc(sizeof(*request->errors));
    if (request->errors == NULL)
        request_fail(request, MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the list of errors"));
    else
        request_to_disk(request, validate_work, validate_done);
}

/* DISK. */
static void plan_work(void *context) {
    mr_request *request = context;
    const Millrace__V1__PlanRequest *message = (Millrace__V1__PlanRequest *)request->message;
    mr_job *job = NULL;
    mr_plan *plan = NULL;
    request->status = mr_job_parse(message->job_file, strlen(message->job_file), &job, NULL);
    if (mr_status_is_ok(request->status))
        request->status = mr_plan_make(job, false, &plan);
    if (mr_status_is_ok(request->status))
        request->status = mr_plan_json(plan, &request->json);
    mr_plan_destroy(plan);
    mr_job_destroy(job);
}

/* LOOP. */
static void plan_done(void *context) {
    mr_request *request = context;
    if (!request_is_back(request))
        return;
    Millrace__V1__PlanResponse response = MILLRACE__V1__PLAN_RESPONSE__INIT;
    response.json = request->json;
    request_answer(request, &response.base, MR_OK);
}

static void request_plan(mr_request *request) {
    request_to_disk(request, plan_work, plan_done);
}

/* ---- what is only read ---- */

static void request_get(mr_request *request) {
    const Millrace__V1__JobRequest *message = (Millrace__V1__JobRequest *)request->message;
    const mr_job_record *job = request_job(request, message->job);
    if (job == NULL)
        return;
    mr_reply_job reply;
    mr_status status = mr_reply_job_init(&reply, &request->coordinator->state, job, true);
    if (!mr_status_is_ok(status)) {
        request_fail(request, status);
        return;
    }
    request_answer(request, &reply.message.base, MR_OK);
    mr_reply_job_deinit(&reply);
}

/* All jobs; replies and pointers have room for each. */
static mr_status list_fill(const mr_coordinator_state *state, mr_reply_job *replies,
                           Millrace__V1__Job **pointers, Millrace__V1__ListResponse *response) {
    for (size_t i = 0; i < state->jobs.count; i++) {
        MR_TRY(mr_reply_job_init(&replies[i], state, state->jobs.records[i], false));
        pointers[i] = &replies[i].message;
        response->n_jobs = i + 1;
    }
    response->jobs = pointers;
    return MR_OK;
}

static void request_list(mr_request *request) {
    const mr_coordinator_state *state = &request->coordinator->state;
    Millrace__V1__ListResponse response = MILLRACE__V1__LIST_RESPONSE__INIT;
    mr_reply_job *replies = mr_alloc_array(state->jobs.count, sizeof(*replies));
    Millrace__V1__Job **pointers = mr_alloc_array(state->jobs.count, sizeof(*pointers));
    mr_status status = replies == NULL || pointers == NULL
                           ? MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the list of jobs")
                           : list_fill(state, replies, pointers, &response);
    request_answer(request, mr_status_is_ok(status) ? &response.base : NULL, status);
    for (size_t i = 0; i < response.n_jobs; i++)
        mr_reply_job_deinit(&replies[i]);
    mr_free(pointers);
    mr_free(replies);
}

static void request_list_stages(mr_request *request) {
    const mr_registry *registry = &request->coordinator->state.registry;
    Millrace__V1__ListStagesResponse response = MILLRACE__V1__LIST_STAGES_RESPONSE__INIT;
    Millrace__V1__Member *members = mr_alloc_array(registry->count, sizeof(*members));
    Millrace__V1__Member **pointers = mr_alloc_array(registry->count, sizeof(*pointers));
    if (members == NULL || pointers == NULL) {
        request_fail(request, MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the list of stages"));
    } else {
        for (size_t i = 0; i < registry->count; i++) {
            mr_reply_member(&members[i], registry->members[i], mr_clock_now_ms());
            pointers[i] = &members[i];
        }
        response.members = pointers;
        response.n_members = registry->count;
        request_answer(request, &response.base, MR_OK);
    }
    mr_free(pointers);
    mr_free(members);
}

static void request_cluster_info(mr_request *request) {
    const mr_coordinator *coordinator = request->coordinator;
    const mr_coordinator_state *state = &coordinator->state;
    Millrace__V1__ClusterInfoResponse response = MILLRACE__V1__CLUSTER_INFO_RESPONSE__INIT;
    response.version = (char *)(uintptr_t)MR_VERSION; /* only packed, as the next two */
    response.address = (char *)(uintptr_t)mr_coordinator_address(coordinator);
    response.status_address = (char *)(uintptr_t)mr_coordinator_status_address(coordinator);
    for (size_t i = 0; i < state->registry.count; i++)
        response.members += state->registry.members[i]->state != MR_MEMBER_LOST;
    response.members_idle = (uint32_t)mr_registry_idle_count(&state->registry);
    for (size_t i = 0; i < state->jobs.count; i++) {
        mr_job_state job_state = state->jobs.records[i]->facts.state;
        response.jobs_running += mr_job_state_is_active(job_state);
        response.jobs_queued += job_state == MR_JOB_QUEUED;
    }
    response.started_ms = coordinator->started_ms;
    request_answer(request, &response.base, MR_OK);
}

/* Addresses of the first stages in order of their ranks, which is the order of the replicas. */
static void request_open_feed(mr_request *request) {
    const Millrace__V1__JobRequest *message = (Millrace__V1__JobRequest *)request->message;
    const mr_job_record *job = request_job(request, message->job);
    if (job == NULL)
        return;
    mr_job_state state = job->facts.state;
    if (!mr_job_state_is_active(state) || state == MR_JOB_STARTING) {
        request_fail(request, MR_ERROR(FAILED_PRECONDITION,
                                       "job %s is %s%s%s; it can be fed when it is RUNNING",
                                       job->facts.id, mr_job_state_name(state),
                                       job->facts.reason[0] == '\0' ? "" : ": ",
                                       job->facts.reason));
        return;
    }
    Millrace__V1__OpenFeedResponse response = MILLRACE__V1__OPEN_FEED_RESPONSE__INIT;
    char **addresses = mr_alloc_array(job->spec->rank_count, sizeof(*addresses));
    if (addresses == NULL) {
        request_fail(request, MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the addresses"));
        return;
    }
    for (size_t rank = 0; rank < job->spec->rank_count; rank++) {
        mr_member *member = mr_registry_find(&request->coordinator->state.registry,
                                             job->ranks[rank].member);
        if (job->spec->ranks[rank].first)
            addresses[response.n_addresses++] = member == NULL ? "" : member->address;
    }
    response.addresses = addresses;
    response.job_id = (char *)(uintptr_t)job->facts.id; /* only packed */
    response.epoch = job->facts.epoch;
    response.next_step = job->facts.step;
    request_answer(request, &response.base, MR_OK);
    mr_free(addresses);
}

/* ---- checkpoints ---- */

/* DISK. The folder of a job that ended before this coordinator started is in its job file. */
static mr_status list_checkpoints(mr_request *request) {
    if (request->job_file != NULL) {
        mr_job_spec *spec = NULL;
        MR_TRY(mr_job_spec_make(request->job_file, request->base_directory, false, &spec));
        memcpy(request->dir, spec->checkpoint_dir, sizeof(request->dir));
        mr_job_spec_destroy(spec);
    }
    if (request->dir[0] == '\0')
        return MR_ERROR(FAILED_PRECONDITION, "job %s has no checkpoint.dir", request->job_name);
    mr_status status = mr_catalog_list(request->dir, request->job_name, NULL, NULL,
                                       &request->entries, &request->entry_count);
    return status.code == MR_CODE_NOT_FOUND ? MR_OK : status; /* nothing was saved yet */
}

static void list_checkpoints_work(void *context) {
    mr_request *request = context;
    request->status = list_checkpoints(request);
}

static mr_status list_checkpoints_answer(mr_request *request) {
    size_t count = request->entry_count;
    Millrace__V1__ListCheckpointsResponse response = MILLRACE__V1__LIST_CHECKPOINTS_RESPONSE__INIT;
    Millrace__V1__Checkpoint *items = mr_alloc_array(count, sizeof(*items));
    Millrace__V1__Checkpoint **pointers = mr_alloc_array(count, sizeof(*pointers));
    char(*paths)[MR_PATH_BYTES + MR_NAME_BYTES] = mr_alloc_array(count, sizeof(*paths));
    bool complete = items != NULL && pointers != NULL && paths != NULL;
    for (size_t i = 0; complete && i < count; i++) {
        mr_catalog_entry *entry = &request->entries[i];
        (void)snprintf(paths[i], sizeof(paths[i]), "%s/%s", request->dir, entry->tag); /* fits */
        millrace__v1__checkpoint__init(&items[i]);
        items[i].tag = entry->tag;
        items[i].path = paths[i];
        items[i].step = entry->step;
        items[i].created_ms = entry->committed_ms;
        items[i].bytes = entry->bytes;
        items[i].newest = i + 1 == count;
        pointers[i] = &items[i];
    }
    response.checkpoints = pointers;
    response.n_checkpoints = complete ? count : 0;
    if (complete)
        request_answer(request, &response.base, MR_OK);
    mr_free(items);
    mr_free(pointers);
    mr_free(paths);
    return complete ? MR_OK : MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu checkpoints", count);
}

/* LOOP. */
static void list_checkpoints_done(void *context) {
    mr_request *request = context;
    if (!request_is_back(request))
        return;
    mr_status status = list_checkpoints_answer(request);
    if (!mr_status_is_ok(status))
        request_fail(request, status);
}

static void request_list_checkpoints(mr_request *request) {
    const Millrace__V1__ListCheckpointsRequest *message =
        (Millrace__V1__ListCheckpointsRequest *)request->message;
    const mr_job_record *job = request_job(request, message->job);
    if (job == NULL)
        return;
    memcpy(request->dir, job->spec->checkpoint_dir, sizeof(request->dir));
    memcpy(request->job_name, job->facts.name, sizeof(request->job_name));
    if (job->spec->rank_count == 0) { /* it ended before this coordinator started */
        request->job_file = mr_strdup(job->spec->job_file);
        request->base_directory = mr_strdup(job->spec->base_directory);
        if (request->job_file == NULL || request->base_directory == NULL) {
            request_fail(request, MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the job's text"));
            return;
        }
    }
    request_to_disk(request, list_checkpoints_work, list_checkpoints_done);
}

/* ---- watch ---- */

/* An event about the job as it is now. */
static mr_status event_send(mr_coordinator *coordinator, const mr_job_record *job,
                            const mr_job_step *step, mr_outbox_item item) {
    mr_reply_job reply;
    MR_TRY(mr_reply_job_init(&reply, &coordinator->state, job, false));
    Millrace__V1__StepResult result;
    Millrace__V1__JobEvent event = MILLRACE__V1__JOB_EVENT__INIT;
    event.job = &reply.message;
    if (step != NULL) {
        mr_reply_step(&result, step);
        event.step = &result;
    }
    item.context = coordinator;
    item.message = &event.base;
    item.number = job->facts.number;
    item.flag = step != NULL;
    mr_outbox_add(coordinator->outbox, &item);
    mr_reply_job_deinit(&reply);
    return MR_OK;
}

static bool event_is_final(const ProtobufCMessage *message) {
    const Millrace__V1__JobEvent *event = (const Millrace__V1__JobEvent *)message;
    return mr_job_state_is_final((mr_job_state)event->job->state);
}

static void notify_run(const mr_outbox_item *item) {
    mr_coordinator *coordinator = item->context;
    mr_watchers_send(coordinator->watchers, item->number, item->message, item->flag,
                     event_is_final(item->message), mr_clock_now_ms());
}

void mr_services_notify(mr_coordinator *coordinator, const mr_job_record *job,
                        const mr_job_step *step) {
    if (coordinator->watchers_pending == 0 &&
        !mr_watchers_any(coordinator->watchers, job->facts.number))
        return;
    mr_status status = event_send(coordinator, job, step, (mr_outbox_item){.run = notify_run});
    if (!mr_status_is_ok(status))
        MR_LOG(WARN, "watchers not told", MR_S("job", job->facts.id), MR_S("why", status.text));
}

/* A watcher begins in its turn, so that nothing older than its first event comes after it. */
static void watch_run(const mr_outbox_item *item) {
    mr_coordinator *coordinator = item->context;
    coordinator->watchers_pending--;
    bool final = event_is_final(item->message);
    mr_status status = mr_rpc_stream_send(item->stream, item->message, NULL);
    if (mr_status_is_ok(status) && !final)
        status = mr_watchers_add(coordinator->watchers, item->stream, item->number,
                                 mr_clock_now_ms());
    if (!mr_status_is_ok(status) || final)
        mr_rpc_stream_finish(item->stream, status);
}

static void request_watch(mr_request *request) {
    mr_coordinator *coordinator = request->coordinator;
    const Millrace__V1__JobRequest *message = (Millrace__V1__JobRequest *)request->message;
    const mr_job_record *job = request_job(request, message->job);
    if (job == NULL)
        return;
    coordinator->watchers_pending++;
    mr_status status = event_send(coordinator, job, NULL,
                                  (mr_outbox_item){.run = watch_run, .stream = request->stream});
    if (!mr_status_is_ok(status)) {
        coordinator->watchers_pending--;
        request_fail(request, status);
        return;
    }
    request_unlist(request); /* the stream is the watcher's now */
}

/* ---- the table ---- */

#define JOBS_METHODS(X)                                                                            \
    X(Submit, request_submit)                                                                      \
    X(Validate, request_validate)                                                                  \
    X(Plan, request_plan)                                                                          \
    X(Get, request_get)                                                                            \
    X(List, request_list)                                                                          \
    X(Watch, request_watch)                                                                        \
    X(Pause, request_pause)                                                                        \
    X(Resume, request_resume)                                                                      \
    X(Cancel, request_cancel)                                                                      \
    X(SaveCheckpoint, request_save)                                                                \
    X(ListCheckpoints, request_list_checkpoints)                                                   \
    X(OpenFeed, request_open_feed)                                                                 \
    X(ListStages, request_list_stages)                                                             \
    X(DrainStage, request_drain)                                                                   \
    X(ClusterInfo, request_cluster_info)

#define JOBS_RECEIVE(name, handle)                                                                 \
    static void receive_##name(mr_rpc_stream *stream, ProtobufCMessage *owned_request,             \
                               void *context) {                                                    \
        request_receive(context, stream, owned_request, handle);                                   \
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
