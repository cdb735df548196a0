/* SPDX-License-Identifier: Apache-2.0 */
/* The methods of Jobs that change nothing: what follows from a job file (computed on DISK's
 * thread), and what the state says now. */
#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/clock.h"
#include "daemon/base/version.h"
#include "daemon/coordinator/replies.h"
#include "daemon/coordinator/services.h"
#include "daemon/plan/plan.h"

/* ---- what is computed from a job file -------------------------------------------------------- */

/* DISK. */
static void validate_work(void *context) {
    mr_request *request = context;
    const Millrace__V1__ValidateRequest *message =
        (Millrace__V1__ValidateRequest *)request->message;
    mr_job *job = NULL;
    mr_plan *plan = NULL;
    mr_status parsed =
        mr_job_parse(message->job_file, strlen(message->job_file), &job, request->errors);
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
    if (!mr_request_is_back(request))
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
    mr_request_answer(request, &response.base, MR_OK);
}

void mr_service_validate(mr_request *request) {
    request->errors = mr_alloc(sizeof(*request->errors));
    if (request->errors == NULL)
        mr_request_fail(request, MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the list of errors"));
    else
        mr_request_to_disk(request, validate_work, validate_done);
}

/* DISK. */
static void plan_work(void *context) {
    mr_request *request = context;
    const Millrace__V1__PlanRequest *message = (Millrace__V1__PlanRequest *)request->message;
    mr_job *job = NULL;
    mr_plan *plan = NULL;
    request->status = mr_job_parse(message->job_file, strlen(message->job_file), &job, NULL);
    mr_profile *profile = NULL;
    if (mr_status_is_ok(request->status) && message->profile[0] != '\0')
        request->status = mr_profile_parse(message->profile, strlen(message->profile), &profile);
    if (mr_status_is_ok(request->status))
        request->status = mr_plan_make_profiled(job, false, profile, &plan);
    if (mr_status_is_ok(request->status))
        request->status = mr_plan_json(plan, &request->json);
    mr_plan_destroy(plan);
    mr_profile_destroy(profile);
    mr_job_destroy(job);
}

/* LOOP. */
static void plan_done(void *context) {
    mr_request *request = context;
    if (!mr_request_is_back(request))
        return;
    Millrace__V1__PlanResponse response = MILLRACE__V1__PLAN_RESPONSE__INIT;
    response.json = request->json;
    mr_request_answer(request, &response.base, MR_OK);
}

void mr_service_plan(mr_request *request) {
    mr_request_to_disk(request, plan_work, plan_done);
}

/* ---- what is only read ----------------------------------------------------------------------- */

void mr_service_get(mr_request *request) {
    const Millrace__V1__JobRequest *message = (Millrace__V1__JobRequest *)request->message;
    const mr_job_record *job = mr_request_job(request, message->job);
    if (job == NULL)
        return;
    mr_reply_job reply;
    mr_status status = mr_reply_job_init(&reply, &request->coordinator->state, job, true);
    if (!mr_status_is_ok(status)) {
        mr_request_fail(request, status);
        return;
    }
    mr_request_answer(request, &reply.message.base, MR_OK);
    mr_reply_job_deinit(&reply);
}

void mr_service_get_profile(mr_request *request) {
    const Millrace__V1__JobRequest *message = (Millrace__V1__JobRequest *)request->message;
    const mr_job_record *job = mr_request_job(request, message->job);
    if (job == NULL)
        return;
    if (job->spec->profile_text == NULL) {
        mr_request_fail(request,
                        MR_ERROR(NOT_FOUND,
                                 "job %s has no profile: it is %s, and none was given to it",
                                 job->facts.id, mr_job_state_name(job->facts.state)));
        return;
    }
    Millrace__V1__ProfileResponse response = MILLRACE__V1__PROFILE_RESPONSE__INIT;
    response.json = job->spec->profile_text;
    mr_request_answer(request, &response.base, MR_OK);
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

void mr_service_list(mr_request *request) {
    const mr_coordinator_state *state = &request->coordinator->state;
    Millrace__V1__ListResponse response = MILLRACE__V1__LIST_RESPONSE__INIT;
    mr_reply_job *replies = mr_alloc_array(state->jobs.count, sizeof(*replies));
    Millrace__V1__Job **pointers = mr_alloc_array(state->jobs.count, sizeof(*pointers));
    mr_status status = replies == NULL || pointers == NULL
                           ? MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the list of jobs")
                           : list_fill(state, replies, pointers, &response);
    mr_request_answer(request, mr_status_is_ok(status) ? &response.base : NULL, status);
    for (size_t i = 0; i < response.n_jobs; i++)
        mr_reply_job_deinit(&replies[i]);
    mr_free(pointers);
    mr_free(replies);
}

void mr_service_list_stages(mr_request *request) {
    const mr_registry *registry = &request->coordinator->state.registry;
    Millrace__V1__ListStagesResponse response = MILLRACE__V1__LIST_STAGES_RESPONSE__INIT;
    mr_reply_member *members = mr_alloc_array(registry->count, sizeof(*members));
    Millrace__V1__Member **pointers = mr_alloc_array(registry->count, sizeof(*pointers));
    if (members == NULL || pointers == NULL) {
        mr_request_fail(request, MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the list of stages"));
    } else {
        for (size_t i = 0; i < registry->count; i++) {
            mr_reply_member_init(&members[i], &request->coordinator->state, registry->members[i],
                                 mr_clock_now_ms());
            pointers[i] = &members[i].message;
        }
        response.members = pointers;
        response.n_members = registry->count;
        mr_request_answer(request, &response.base, MR_OK);
    }
    mr_free(pointers);
    mr_free(members);
}

void mr_service_cluster_info(mr_request *request) {
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
    mr_request_answer(request, &response.base, MR_OK);
}

/* Addresses of the first stages in order of their ranks, which is the order of the replicas. */
void mr_service_open_feed(mr_request *request) {
    const Millrace__V1__JobRequest *message = (Millrace__V1__JobRequest *)request->message;
    const mr_job_record *job = mr_request_job(request, message->job);
    if (job == NULL)
        return;
    mr_job_state state = job->facts.state;
    if (!mr_job_state_is_active(state) || state == MR_JOB_STARTING) {
        mr_request_fail(request,
                        MR_ERROR(FAILED_PRECONDITION,
                                 "job %s is %s%s%s; it can be fed when it is RUNNING",
                                 job->facts.id, mr_job_state_name(state),
                                 job->facts.reason[0] == '\0' ? "" : ": ", job->facts.reason));
        return;
    }
    Millrace__V1__OpenFeedResponse response = MILLRACE__V1__OPEN_FEED_RESPONSE__INIT;
    char **addresses = mr_alloc_array(job->spec->rank_count, sizeof(*addresses));
    if (addresses == NULL) {
        mr_request_fail(request, MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the addresses"));
        return;
    }
    for (size_t rank = 0; rank < job->spec->rank_count; rank++) {
        mr_member *member =
            mr_registry_find(&request->coordinator->state.registry, job->ranks[rank].member);
        if (job->spec->ranks[rank].first)
            addresses[response.n_addresses++] = member == NULL ? "" : member->address;
    }
    response.addresses = addresses;
    response.job_id = (char *)(uintptr_t)job->facts.id; /* only packed */
    response.epoch = job->facts.epoch;
    response.next_step = job->facts.step;
    mr_request_answer(request, &response.base, MR_OK);
    mr_free(addresses);
}

/* ---- checkpoints ----------------------------------------------------------------------------- */

/* DISK. The folder of a job that ended before this coordinator started is in its job file. */
static mr_status list_checkpoints(mr_request *request) {
    if (request->job_file != NULL) {
        mr_job_spec *spec = NULL;
        MR_TRY(mr_job_spec_make(request->job_file, request->base_directory, MR_JOB_MODE_TRAIN,
                                &spec));
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
        mr_request_answer(request, &response.base, MR_OK);
    mr_free(items);
    mr_free(pointers);
    mr_free(paths);
    return complete ? MR_OK : MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu checkpoints", count);
}

/* LOOP. */
static void list_checkpoints_done(void *context) {
    mr_request *request = context;
    if (!mr_request_is_back(request))
        return;
    mr_status status = list_checkpoints_answer(request);
    if (!mr_status_is_ok(status))
        mr_request_fail(request, status);
}

void mr_service_list_checkpoints(mr_request *request) {
    const Millrace__V1__ListCheckpointsRequest *message =
        (Millrace__V1__ListCheckpointsRequest *)request->message;
    const mr_job_record *job = mr_request_job(request, message->job);
    if (job == NULL)
        return;
    memcpy(request->dir, job->spec->checkpoint_dir, sizeof(request->dir));
    memcpy(request->job_name, job->facts.name, sizeof(request->job_name));
    if (job->spec->rank_count == 0) { /* it ended before this coordinator started */
        request->job_file = mr_strdup(job->spec->job_file);
        request->base_directory = mr_strdup(job->spec->base_directory);
        if (request->job_file == NULL || request->base_directory == NULL) {
            mr_request_fail(request, MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the job's text"));
            return;
        }
    }
    mr_request_to_disk(request, list_checkpoints_work, list_checkpoints_done);
}
