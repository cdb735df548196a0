/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/observe/history.h"

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/observe/text.h"

enum { HISTORY_GROW_FIRST = 64 };

typedef struct history_job {
    char id[MR_NAME_BYTES];
    uint64_t heard; /* of all additions, the number of its last; 0: a free place */
    mr_history_step *steps;
    size_t capacity; /* grows up to MR_HISTORY_STEPS_MAX, then the oldest step goes */
    size_t first;    /* 0 until then */
    size_t count;
} history_job;

struct mr_history {
    pthread_mutex_t lock; /* everything */
    uint64_t additions;
    history_job jobs[MR_HISTORY_JOBS_MAX];
};

mr_status mr_history_create(mr_history **out_history) {
    mr_history *history = mr_alloc(sizeof(*history));
    if (history == NULL || pthread_mutex_init(&history->lock, NULL) != 0) {
        mr_free(history);
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the history of jobs");
    }
    *out_history = history;
    return MR_OK;
}

void mr_history_destroy(mr_history *history) {
    if (history == NULL)
        return;
    for (size_t i = 0; i < MR_HISTORY_JOBS_MAX; i++)
        mr_free(history->jobs[i].steps);
    (void)pthread_mutex_destroy(&history->lock); /* nobody holds it any more */
    mr_free(history);
}

static history_job *history_find(mr_history *history, const char *id) {
    for (size_t i = 0; i < MR_HISTORY_JOBS_MAX; i++)
        if (history->jobs[i].heard > 0 && strcmp(history->jobs[i].id, id) == 0)
            return &history->jobs[i];
    return NULL;
}

/* A free place, or that of the job heard of longest ago. */
static history_job *history_take(mr_history *history, const char *id) {
    history_job *oldest = &history->jobs[0];
    for (size_t i = 1; i < MR_HISTORY_JOBS_MAX; i++)
        if (history->jobs[i].heard < oldest->heard)
            oldest = &history->jobs[i];
    mr_free(oldest->steps);
    *oldest = (history_job){0};
    (void)snprintf(oldest->id, sizeof(oldest->id), "%s", id); /* ids fit */
    return oldest;
}

static mr_history_step *job_at(const history_job *job, size_t index) {
    return &job->steps[(job->first + index) % job->capacity];
}

static mr_status job_reserve(history_job *job) {
    if (job->count < job->capacity || job->capacity == MR_HISTORY_STEPS_MAX)
        return MR_OK;
    size_t capacity = job->capacity == 0 ? HISTORY_GROW_FIRST : job->capacity * 2;
    if (capacity > MR_HISTORY_STEPS_MAX)
        capacity = MR_HISTORY_STEPS_MAX;
    MR_ASSERT(job->first == 0);
    mr_history_step *grown =
        mr_realloc_array(job->steps, job->capacity, capacity, sizeof(*job->steps));
    if (grown == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a history of %zu steps", capacity);
    job->steps = grown;
    job->capacity = capacity;
    return MR_OK;
}

static mr_status job_add(history_job *job, const mr_history_step *step) {
    while (job->count > 0 && job_at(job, job->count - 1)->step >= step->step)
        job->count--;
    MR_TRY(job_reserve(job));
    if (job->count == job->capacity) {
        job->first = (job->first + 1) % job->capacity;
        job->count--;
    }
    *job_at(job, job->count) = *step;
    job->count++;
    return MR_OK;
}

mr_status mr_history_add(mr_history *history, const char *job, const mr_history_step *step) {
    MR_ASSERT(pthread_mutex_lock(&history->lock) == 0);
    history_job *at = history_find(history, job);
    if (at == NULL)
        at = history_take(history, job);
    at->heard = ++history->additions;
    mr_status status = job_add(at, step);
    MR_ASSERT(pthread_mutex_unlock(&history->lock) == 0);
    return status;
}

mr_status mr_history_read(mr_history *history, const char *job, uint64_t since,
                          mr_history_step **out_steps, size_t *out_count) {
    mr_status status = MR_OK;
    size_t count = 0;
    MR_ASSERT(pthread_mutex_lock(&history->lock) == 0);
    const history_job *at = history_find(history, job);
    mr_history_step *steps = mr_alloc_array(at == NULL ? 1 : at->count, sizeof(*steps));
    if (steps == NULL)
        status = MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the history of job %s", job);
    for (size_t i = 0; at != NULL && steps != NULL && i < at->count; i++)
        if (job_at(at, i)->step > since)
            steps[count++] = *job_at(at, i);
    MR_ASSERT(pthread_mutex_unlock(&history->lock) == 0);
    if (!mr_status_is_ok(status))
        return status;
    *out_steps = steps;
    *out_count = count;
    return MR_OK;
}

static void history_add_number(mr_text *text, const char *key, double value) {
    mr_text_add(text, ",\"%s\":", key);
    if (isfinite(value))
        mr_text_add_number(text, value);
    else
        mr_text_add(text, "null");
}

static void history_add_step(mr_text *text, const mr_history_step *step) {
    mr_text_add(text, "{\"step\":%" PRIu64 ",\"at_ms\":%" PRId64, step->step, step->at_ms);
    history_add_number(text, "loss", step->loss);
    history_add_number(text, "grad_norm", step->gradient_norm);
    history_add_number(text, "lr", step->learning_rate);
    mr_text_add(text, ",\"tokens\":%" PRIu64, step->tokens);
    history_add_number(text, "tokens_per_second", step->tokens_per_second);
    history_add_number(text, "bubble", step->bubble);
    history_add_number(text, "step_seconds", step->step_seconds);
    mr_text_add(text, "}");
}

mr_status mr_history_render(mr_history *history, const char *job, uint64_t since, char **out_text,
                            size_t *out_bytes) {
    mr_history_step *steps = NULL;
    size_t count = 0;
    mr_text text = {0};
    MR_TRY(mr_history_read(history, job, since, &steps, &count));
    mr_text_add(&text, "{\"schema\":\"millrace.history/v1\",\"job\":\"");
    mr_text_add_escaped(&text, job);
    mr_text_add(&text, "\",\"since\":%" PRIu64 ",\"steps_max\":%d,\"steps\":[", since,
                MR_HISTORY_STEPS_MAX);
    for (size_t i = 0; i < count; i++) {
        mr_text_add(&text, i == 0 ? "\n" : ",\n");
        history_add_step(&text, &steps[i]);
    }
    mr_text_add(&text, "]}\n");
    mr_free(steps);
    return mr_text_take(&text, out_text, out_bytes);
}
