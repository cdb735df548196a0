/* SPDX-License-Identifier: Apache-2.0 */
/* Tasks go one way through a queue, the outcome of a step comes back through another; a task is a
 * layer's index, or REDUCER_TIES, which ends the step. After the first error the rest of the step's
 * tasks are taken and left undone: the step has failed on EXEC, too, as soon as it asks. */
#include "daemon/stage/gradient_reducer.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/clock.h"
#include "daemon/base/queue.h"

#define REDUCER_TIES SIZE_MAX

/* How long the thread sleeps without a task before it looks again; only a bound, tasks and the
 * queue's close wake it. */
enum { REDUCER_IDLE_WAIT_MS = 60000 };

typedef struct reducer_task {
    uint64_t step;
    size_t layer; /* REDUCER_TIES: the tied parameters */
} reducer_task;

typedef struct reducer_outcome {
    mr_status status;
    int64_t sum_ns;
} reducer_outcome;

struct mr_gradient_reducer {
    const mr_parameters *parameters;
    mr_trace_track *track;
    mr_group *group;
    mr_queue *tasks;
    mr_queue *outcomes;
    pthread_t thread;
    bool started;
    _Atomic bool stop;
    _Atomic bool busy; /* with a task; set before stop is looked at, see destroy */
    _Atomic uint64_t sums; /* begun so far: progress, for EXEC's bound */
    reducer_outcome step;  /* the thread's: of the step in work */
};

/* ---- the thread ---- */

/* From the first gradient's first element to the last one's last. */
static mr_status reducer_sum(mr_gradient_reducer *reducer, const mr_stage_parameter *first,
                             const mr_stage_parameter *last) {
    float *gradients = first->gradient.data;
    const float *end = last->gradient.data;
    const float *part = gradients;
    size_t elements = 0;
    MR_ASSERT(mr_shape_elements(&last->gradient.shape, &elements));
    MR_ASSERT(end >= gradients);
    atomic_fetch_add(&reducer->sums, 1);
    return mr_group_sum(reducer->group, &part, 1, gradients,
                        (size_t)(end - gradients) + elements, MR_STEP_WAIT_TIMEOUT_MS);
}

/* Is it one of the layer's own, with a gradient? */
static bool reducer_takes(const mr_gradient_reducer *reducer, size_t layer, size_t index) {
    const mr_stage_parameter *held = mr_parameters_of_layer(reducer->parameters, layer, index);
    return held->tie == NULL && held->gradient.data != NULL;
}

static mr_status reducer_sum_layer(mr_gradient_reducer *reducer, size_t layer) {
    const mr_layer *one = mr_parameters_layer(reducer->parameters, layer);
    const mr_stage_parameter *first = NULL; /* of a run without ties */
    size_t count = one->description->parameter_count;
    for (size_t i = 0; i < count; i++) {
        if (!reducer_takes(reducer, layer, i))
            continue;
        const mr_stage_parameter *held = mr_parameters_of_layer(reducer->parameters, layer, i);
        first = first == NULL ? held : first;
        if (i + 1 < count && reducer_takes(reducer, layer, i + 1))
            continue;
        mr_status status = reducer_sum(reducer, first, held);
        if (!mr_status_is_ok(status))
            return mr_status_prefix(status, "gradients of layer %zu, %s to %s", one->index,
                                    first->description->name, held->description->name);
        first = NULL;
    }
    return MR_OK;
}

static mr_status reducer_sum_ties(mr_gradient_reducer *reducer) {
    for (size_t i = 0; i < mr_parameters_count(reducer->parameters); i++) {
        const mr_stage_parameter *held = mr_parameters_at(reducer->parameters, i);
        if (held->tie == NULL || held->description->frozen || held->gradient.data == NULL)
            continue;
        mr_status status = reducer_sum(reducer, held, held);
        if (!mr_status_is_ok(status))
            return mr_status_prefix(status, "gradients of tie %s", held->tie);
    }
    return MR_OK;
}

static void reducer_work(mr_gradient_reducer *reducer, const reducer_task *task) {
    char name[MR_TRACE_NAME_BYTES] = "ties";
    bool ties = task->layer == REDUCER_TIES;
    if (!mr_status_is_ok(reducer->step.status))
        return;
    int64_t start_ns = mr_clock_now_ns();
    reducer->step.status =
        ties ? reducer_sum_ties(reducer) : reducer_sum_layer(reducer, task->layer);
    int64_t end_ns = mr_clock_now_ns();
    reducer->step.sum_ns += end_ns - start_ns;
    if (!ties)
        (void)snprintf(name, sizeof(name), "layer %zu",
                       mr_parameters_layer(reducer->parameters, task->layer)->index);
    mr_trace_add(reducer->track, name, task->step, UINT32_MAX, start_ns, end_ns);
}

static void reducer_take(mr_gradient_reducer *reducer, const reducer_task *task) {
    reducer_work(reducer, task);
    if (task->layer != REDUCER_TIES)
        return;
    mr_status pushed = mr_queue_push(reducer->outcomes, &reducer->step);
    MR_ASSERT(mr_status_is_ok(pushed)); /* EXEC waits for one step at a time */
    reducer->step = (reducer_outcome){.status = MR_OK};
}

static void *reducer_main(void *context) {
    mr_gradient_reducer *reducer = context;
    bool open = true;
    reducer->step = (reducer_outcome){.status = MR_OK};
    while (open) {
        reducer_task task;
        mr_status taken = mr_queue_pop(reducer->tasks, &task, REDUCER_IDLE_WAIT_MS);
        atomic_store(&reducer->busy, true);
        open = taken.code != MR_CODE_CANCELLED && !atomic_load(&reducer->stop);
        if (open && mr_status_is_ok(taken))
            reducer_take(reducer, &task);
        atomic_store(&reducer->busy, false);
    }
    return NULL;
}

/* ---- EXEC ---- */

mr_status mr_gradient_reducer_create(const mr_parameters *parameters, mr_trace_track *track,
                                     mr_gradient_reducer **out_reducer) {
    mr_gradient_reducer *reducer = mr_alloc(sizeof(*reducer));
    if (reducer == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a reducer of gradients");
    reducer->parameters = parameters;
    reducer->track = track;
    size_t tasks = mr_parameters_layer_count(parameters) + 1;
    mr_status status = mr_queue_create(sizeof(reducer_task), tasks, &reducer->tasks);
    if (mr_status_is_ok(status))
        status = mr_queue_create(sizeof(reducer_outcome), 1, &reducer->outcomes);
    if (!mr_status_is_ok(status)) {
        mr_gradient_reducer_destroy(reducer);
        return status;
    }
    *out_reducer = reducer;
    return MR_OK;
}

mr_status mr_gradient_reducer_start(mr_gradient_reducer *reducer, mr_group *group) {
    MR_ASSERT(reducer->group == NULL);
    reducer->group = group;
    if (!group->ops->any_thread)
        return MR_OK;
    int error = pthread_create(&reducer->thread, NULL, reducer_main, reducer);
    if (error != 0)
        return MR_ERROR(RESOURCE_EXHAUSTED, "the reducer's thread: %s", strerror(error));
    reducer->started = true;
    return MR_OK;
}

static void reducer_hand_over(mr_gradient_reducer *reducer, uint64_t step, size_t layer) {
    mr_status status =
        mr_queue_push(reducer->tasks, &(reducer_task){.step = step, .layer = layer});
    MR_ASSERT(mr_status_is_ok(status)); /* each layer once a step, and the step before is done */
}

void mr_gradient_reducer_ready(mr_gradient_reducer *reducer, uint64_t step, size_t layer) {
    MR_ASSERT(layer < mr_parameters_layer_count(reducer->parameters));
    if (reducer->started)
        reducer_hand_over(reducer, step, layer);
}

/* Each sum ends by its own bound, so a wait of twice that in which no sum began is our bug or a
 * transport that does not keep its bound. */
static mr_status reducer_await(mr_gradient_reducer *reducer, reducer_outcome *out_outcome) {
    uint64_t seen;
    mr_status status;
    do {
        seen = atomic_load(&reducer->sums);
        status = mr_queue_pop(reducer->outcomes, out_outcome, 2 * MR_STEP_WAIT_TIMEOUT_MS);
    } while (status.code == MR_CODE_DEADLINE_EXCEEDED && atomic_load(&reducer->sums) != seen);
    return mr_status_is_ok(status)
               ? status
               : mr_status_prefix(status, "sum number %" PRIu64 " of the gradients", seen);
}

/* Without a thread: everything here and now. */
static void reducer_work_all(mr_gradient_reducer *reducer, uint64_t step,
                             reducer_outcome *out_outcome) {
    reducer->step = (reducer_outcome){.status = MR_OK};
    for (size_t i = mr_parameters_layer_count(reducer->parameters); i-- > 0;)
        reducer_work(reducer, &(reducer_task){.step = step, .layer = i});
    reducer_work(reducer, &(reducer_task){.step = step, .layer = REDUCER_TIES});
    *out_outcome = reducer->step;
}

mr_status mr_gradient_reducer_finish(mr_gradient_reducer *reducer, uint64_t step,
                                     mr_reduction_time *out_time) {
    reducer_outcome outcome = {.status = MR_OK};
    int64_t start_ns = mr_clock_now_ns();
    MR_ASSERT(reducer->group != NULL);
    if (reducer->started) {
        reducer_hand_over(reducer, step, REDUCER_TIES);
        MR_TRY(reducer_await(reducer, &outcome));
    } else {
        reducer_work_all(reducer, step, &outcome);
    }
    MR_TRY(outcome.status);
    *out_time = (mr_reduction_time){.sum_ns = outcome.sum_ns,
                                    .exposed_ns = mr_clock_now_ns() - start_ns};
    return MR_OK;
}

void mr_gradient_reducer_destroy(mr_gradient_reducer *reducer) {
    if (reducer == NULL)
        return;
    /* Either the thread sees stop before it begins a sum, or its sum is seen here and ended. An
     * idle group is left alone: the others may still read what it has sent. */
    atomic_store(&reducer->stop, true);
    if (reducer->started) {
        mr_queue_close(reducer->tasks);
        if (atomic_load(&reducer->busy))
            mr_group_interrupt(reducer->group, "the step is abandoned");
        (void)pthread_join(reducer->thread, NULL);
    }
    mr_queue_destroy(reducer->outcomes);
    mr_queue_destroy(reducer->tasks);
    mr_free(reducer);
}
