/* SPDX-License-Identifier: Apache-2.0 */
/* Records lie in an array in order of submission. The queue's order is this order. */
#include "daemon/coordinator/jobs.h"

#include <string.h>

#include "daemon/base/alloc.h"

bool mr_job_state_is_final(mr_job_state state) {
    return state == MR_JOB_SUCCEEDED || state == MR_JOB_FAILED || state == MR_JOB_CANCELLED;
}

bool mr_job_state_is_active(mr_job_state state) {
    return state >= MR_JOB_STARTING && state <= MR_JOB_DRAINING;
}

const char *mr_job_state_name(mr_job_state state) {
    static const char *const names[MR_JOB_STATE_COUNT] = {
        [MR_JOB_QUEUED] = "QUEUED",
        [MR_JOB_STARTING] = "STARTING",
        [MR_JOB_RUNNING] = "RUNNING",
        [MR_JOB_PAUSED] = "PAUSED",
        [MR_JOB_CHECKPOINTING] = "CHECKPOINTING",
        [MR_JOB_DRAINING] = "DRAINING",
        [MR_JOB_SUCCEEDED] = "SUCCEEDED",
        [MR_JOB_FAILED] = "FAILED",
        [MR_JOB_CANCELLED] = "CANCELLED",
    };
    if (state < MR_JOB_QUEUED || state >= MR_JOB_STATE_COUNT)
        return "UNSPECIFIED";
    return names[state];
}

void mr_job_record_forget_profiles(mr_job_record *record) {
    for (size_t rank = 0; record->ranks != NULL && rank < record->spec->rank_count; rank++) {
        mr_profile_device_destroy(record->ranks[rank].profile);
        record->ranks[rank].profile = NULL;
    }
}

static void record_destroy(mr_job_record *record) {
    if (record == NULL)
        return;
    for (size_t i = 0; i < MR_JOB_SAVES_MAX; i++) {
        mr_free(record->saves[i].reported);
        mr_free(record->saves[i].files);
    }
    mr_group_ids_deinit(&record->group_ids);
    mr_job_record_forget_profiles(record);
    mr_free(record->ranks);
    mr_job_spec_destroy(record->spec);
    mr_free(record);
}

/* Everything a record will need, so that no later event can fail for want of it (only the lists of
 * a save's files grow, and a save may fail). Consumes owned_spec. */
static mr_job_record *record_create(const mr_job_facts *facts, mr_job_spec *owned_spec) {
    mr_job_record *record = mr_alloc(sizeof(*record));
    if (record == NULL) {
        mr_job_spec_destroy(owned_spec);
        return NULL;
    }
    record->facts = *facts;
    record->spec = owned_spec;
    size_t rank_count = owned_spec->rank_count;
    record->ranks = mr_alloc_array(rank_count, sizeof(*record->ranks));
    bool complete = record->ranks != NULL;
    for (size_t i = 0; i < MR_JOB_SAVES_MAX && complete; i++) {
        record->saves[i].reported = mr_alloc_array(rank_count, sizeof(bool));
        complete = record->saves[i].reported != NULL;
    }
    if (!complete) {
        record_destroy(record);
        return NULL;
    }
    return record;
}

static void jobs_remove(mr_jobs *jobs, size_t position) {
    record_destroy(jobs->records[position]);
    jobs->count--;
    memmove(&jobs->records[position], &jobs->records[position + 1],
            (jobs->count - position) * sizeof(jobs->records[0]));
}

/* Room for one more, if need be by forgetting the oldest job that has ended. */
static mr_status jobs_make_room(mr_jobs *jobs) {
    if (jobs->count < MR_JOBS_MAX && jobs->count < jobs->capacity)
        return MR_OK;
    if (jobs->count < MR_JOBS_MAX) {
        size_t capacity = jobs->capacity == 0 ? 16 : jobs->capacity * 2;
        mr_job_record **records =
            mr_realloc_array(jobs->records, jobs->capacity, capacity, sizeof(*records));
        if (records == NULL)
            return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu jobs", capacity);
        jobs->records = records;
        jobs->capacity = capacity;
        return MR_OK;
    }
    for (size_t i = 0; i < jobs->count; i++) {
        if (mr_job_state_is_final(jobs->records[i]->facts.state)) {
            jobs_remove(jobs, i);
            return MR_OK;
        }
    }
    return MR_ERROR(RESOURCE_EXHAUSTED, "%zu jobs are queued or active; the limit is %d",
                    jobs->count, MR_JOBS_MAX);
}

mr_status mr_jobs_add(mr_jobs *jobs, const mr_job_facts *facts, mr_job_spec *owned_spec,
                      mr_job_record **out_record) {
    MR_ASSERT(jobs->count == 0 || jobs->records[jobs->count - 1]->facts.number < facts->number);
    mr_status status = jobs_make_room(jobs);
    if (!mr_status_is_ok(status)) {
        mr_job_spec_destroy(owned_spec);
        return status;
    }
    mr_job_record *record = record_create(facts, owned_spec);
    if (record == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for one more job");
    jobs->records[jobs->count++] = record;
    *out_record = record;
    return MR_OK;
}

mr_job_record *mr_jobs_find(const mr_jobs *jobs, uint64_t number) {
    size_t low = 0;
    size_t high = jobs->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (jobs->records[middle]->facts.number < number)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == jobs->count || jobs->records[low]->facts.number != number)
        return NULL;
    return jobs->records[low];
}

mr_job_record *mr_jobs_find_active(const mr_jobs *jobs, const char *name) {
    for (size_t i = jobs->count; i > 0; i--) {
        mr_job_record *record = jobs->records[i - 1];
        if (mr_job_mode_trains(record->facts.mode) && !mr_job_state_is_final(record->facts.state) &&
            strcmp(record->facts.name, name) == 0)
            return record;
    }
    return NULL;
}

mr_job_record *mr_jobs_resolve(const mr_jobs *jobs, const char *id_or_name) {
    for (size_t i = jobs->count; i > 0; i--)
        if (strcmp(jobs->records[i - 1]->facts.id, id_or_name) == 0)
            return jobs->records[i - 1];
    mr_job_record *active = mr_jobs_find_active(jobs, id_or_name);
    if (active != NULL)
        return active;
    for (size_t i = jobs->count; i > 0; i--)
        if (strcmp(jobs->records[i - 1]->facts.name, id_or_name) == 0)
            return jobs->records[i - 1];
    return NULL;
}

mr_job_record *mr_jobs_find_request(const mr_jobs *jobs, const char *request_id) {
    if (request_id[0] == '\0')
        return NULL;
    for (size_t i = jobs->count; i > 0; i--)
        if (strcmp(jobs->records[i - 1]->facts.request_id, request_id) == 0)
            return jobs->records[i - 1];
    return NULL;
}

void mr_jobs_deinit(mr_jobs *jobs) {
    for (size_t i = 0; i < jobs->count; i++)
        record_destroy(jobs->records[i]);
    mr_free(jobs->records);
    *jobs = (mr_jobs){0};
}
