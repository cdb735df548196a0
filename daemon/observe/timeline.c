/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/observe/timeline.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/observe/text.h"

typedef struct timeline_job {
    char id[MR_NAME_BYTES];
    uint64_t heard; /* the number of its last expectation; 0: a free place */
    mr_timeline_step shown;
    mr_timeline_step waiting; /* step 0: nothing is waited for */
    size_t told;              /* stages of waiting that have told; the others have no spans */
} timeline_job;

struct mr_timeline {
    pthread_mutex_t lock; /* everything */
    uint64_t expectations;
    timeline_job jobs[MR_TIMELINE_JOBS_MAX];
};

mr_status mr_timeline_create(mr_timeline **out_timeline) {
    mr_timeline *timeline = mr_alloc(sizeof(*timeline));
    if (timeline == NULL || pthread_mutex_init(&timeline->lock, NULL) != 0) {
        mr_free(timeline);
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the timelines of jobs");
    }
    *out_timeline = timeline;
    return MR_OK;
}

void mr_timeline_step_deinit(mr_timeline_step *step) {
    for (size_t i = 0; i < step->stage_count; i++)
        mr_free(step->stages[i].spans);
    mr_free(step->stages);
    *step = (mr_timeline_step){0};
}

static void job_deinit(timeline_job *job) {
    mr_timeline_step_deinit(&job->shown);
    mr_timeline_step_deinit(&job->waiting);
    *job = (timeline_job){0};
}

void mr_timeline_destroy(mr_timeline *timeline) {
    if (timeline == NULL)
        return;
    for (size_t i = 0; i < MR_TIMELINE_JOBS_MAX; i++)
        job_deinit(&timeline->jobs[i]);
    (void)pthread_mutex_destroy(&timeline->lock); /* nobody holds it any more */
    mr_free(timeline);
}

static timeline_job *timeline_find(mr_timeline *timeline, const char *id) {
    for (size_t i = 0; i < MR_TIMELINE_JOBS_MAX; i++)
        if (timeline->jobs[i].heard > 0 && strcmp(timeline->jobs[i].id, id) == 0)
            return &timeline->jobs[i];
    return NULL;
}

/* A free place, or that of the job heard of longest ago. */
static timeline_job *timeline_take(mr_timeline *timeline, const char *id) {
    timeline_job *oldest = &timeline->jobs[0];
    for (size_t i = 1; i < MR_TIMELINE_JOBS_MAX; i++)
        if (timeline->jobs[i].heard < oldest->heard)
            oldest = &timeline->jobs[i];
    job_deinit(oldest);
    (void)snprintf(oldest->id, sizeof(oldest->id), "%s", id); /* ids fit */
    return oldest;
}

mr_status mr_timeline_expect(mr_timeline *timeline, const char *job, uint64_t step,
                             size_t stage_count) {
    if (stage_count == 0 || stage_count > MR_TIMELINE_STAGES_MAX)
        return MR_ERROR(INVALID_ARGUMENT, "a timeline of %zu stages; it must have 1 to %d",
                        stage_count, MR_TIMELINE_STAGES_MAX);
    mr_timeline_stage *stages = mr_alloc_array(stage_count, sizeof(*stages));
    if (stages == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a timeline of %zu stages", stage_count);
    MR_ASSERT(pthread_mutex_lock(&timeline->lock) == 0);
    timeline_job *at = timeline_find(timeline, job);
    if (at == NULL)
        at = timeline_take(timeline, job);
    at->heard = ++timeline->expectations;
    at->told = 0;
    mr_timeline_step_deinit(&at->waiting);
    at->waiting =
        (mr_timeline_step){.step = step, .stage_count = stage_count, .stages = stages};
    MR_ASSERT(pthread_mutex_unlock(&timeline->lock) == 0);
    return MR_OK;
}

/* Is this a stage that the step still waits for? Then it takes the spans. */
static bool job_tell(timeline_job *job, uint64_t step, const mr_timeline_stage *stage,
                     mr_timeline_span *spans) {
    if (job == NULL || job->waiting.step != step || stage->stage >= job->waiting.stage_count ||
        job->waiting.stages[stage->stage].spans != NULL)
        return false;
    mr_timeline_stage *place = &job->waiting.stages[stage->stage];
    *place = *stage;
    place->spans = spans;
    if (++job->told < job->waiting.stage_count)
        return true;
    mr_timeline_step_deinit(&job->shown);
    job->shown = job->waiting;
    job->waiting = (mr_timeline_step){0};
    return true;
}

mr_status mr_timeline_add(mr_timeline *timeline, const char *job, uint64_t step,
                          const mr_timeline_stage *stage, mr_timeline_span *owned_spans) {
    MR_ASSERT(owned_spans != NULL);
    MR_ASSERT(pthread_mutex_lock(&timeline->lock) == 0);
    bool taken = job_tell(timeline_find(timeline, job), step, stage, owned_spans);
    MR_ASSERT(pthread_mutex_unlock(&timeline->lock) == 0);
    if (taken)
        return MR_OK;
    mr_free(owned_spans);
    return MR_ERROR(NOT_FOUND, "nobody waits for step %" PRIu64 " of stage %" PRIu32 " of job %s",
                    step, stage->stage, job);
}

static mr_status step_copy(const mr_timeline_step *step, mr_timeline_step *out_step) {
    mr_timeline_step copy = {.step = step->step};
    copy.stages = mr_alloc_array(step->stage_count, sizeof(*copy.stages));
    for (size_t i = 0; i < step->stage_count && copy.stages != NULL; i++) {
        const mr_timeline_stage *stage = &step->stages[i];
        mr_timeline_span *spans = mr_alloc_array(stage->span_count, sizeof(*spans));
        if (spans == NULL)
            break;
        memcpy(spans, stage->spans, stage->span_count * sizeof(*spans));
        copy.stages[i] = *stage;
        copy.stages[i].spans = spans;
        copy.stage_count = i + 1;
    }
    if (copy.stages == NULL || copy.stage_count < step->stage_count) {
        mr_timeline_step_deinit(&copy);
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to copy a timeline of %zu stages",
                        step->stage_count);
    }
    *out_step = copy;
    return MR_OK;
}

mr_status mr_timeline_read(mr_timeline *timeline, const char *job, mr_timeline_step *out_step) {
    mr_status status = MR_OK;
    mr_timeline_step copy = {0};
    MR_ASSERT(pthread_mutex_lock(&timeline->lock) == 0);
    const timeline_job *at = timeline_find(timeline, job);
    if (at != NULL && at->shown.step > 0)
        status = step_copy(&at->shown, &copy);
    MR_ASSERT(pthread_mutex_unlock(&timeline->lock) == 0);
    if (mr_status_is_ok(status))
        *out_step = copy;
    return status;
}

static void timeline_add_us(mr_text *text, const char *key, int64_t ns) {
    mr_text_add(text, ",\"%s\":%.3f", key, (double)ns / 1000);
}

static void timeline_add_stage(mr_text *text, const mr_timeline_stage *stage, int64_t origin_ns) {
    const mr_timeline_memory *memory = &stage->memory;
    mr_text_add(text,
                "{\"stage\":%" PRIu32 ",\"rank\":%" PRIu32 ",\"whole\":%s,\"memory_held_bytes\":"
                "{\"weights\":%" PRIu64 ",\"gradients\":%" PRIu64 ",\"optimizer\":%" PRIu64
                ",\"activations\":%" PRIu64 "},\"spans\":[",
                stage->stage, stage->rank, stage->whole ? "true" : "false", memory->weights,
                memory->gradients, memory->optimizer, memory->activations);
    for (size_t i = 0; i < stage->span_count; i++) {
        const mr_timeline_span *span = &stage->spans[i];
        mr_text_add(text, "%s{\"name\":\"", i == 0 ? "\n" : ",\n");
        mr_text_add_escaped(text, span->name);
        mr_text_add(text, "\"");
        timeline_add_us(text, "start_us", span->start_ns - origin_ns);
        timeline_add_us(text, "duration_us", span->end_ns - span->start_ns);
        mr_text_add(text, "}");
    }
    mr_text_add(text, "]}");
}

static int64_t step_origin_ns(const mr_timeline_step *step) {
    int64_t origin_ns = INT64_MAX;
    for (size_t i = 0; i < step->stage_count; i++)
        if (step->stages[i].span_count > 0 && step->stages[i].spans[0].start_ns < origin_ns)
            origin_ns = step->stages[i].spans[0].start_ns;
    return origin_ns;
}

mr_status mr_timeline_render(mr_timeline *timeline, const char *job, char **out_text,
                             size_t *out_bytes) {
    mr_timeline_step step = {0};
    mr_text text = {0};
    MR_TRY(mr_timeline_read(timeline, job, &step));
    mr_text_add(&text, "{\"schema\":\"millrace.timeline/v1\",\"job\":\"");
    mr_text_add_escaped(&text, job);
    mr_text_add(&text, "\",\"step\":%" PRIu64 ",\"stages\":[", step.step);
    int64_t origin_ns = step_origin_ns(&step);
    for (size_t i = 0; i < step.stage_count; i++) {
        mr_text_add(&text, i == 0 ? "\n" : ",\n");
        timeline_add_stage(&text, &step.stages[i], origin_ns);
    }
    mr_text_add(&text, "]}\n");
    mr_timeline_step_deinit(&step);
    return mr_text_take(&text, out_text, out_bytes);
}
