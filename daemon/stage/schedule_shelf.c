/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/stage/schedule_shelf.h"

#include "daemon/base/alloc.h"
#include "daemon/plan/readiness.h"
#include "daemon/plan/verify.h"

struct mr_schedule_shelf {
    const mr_assignment *assignment;
    size_t oldest; /* of kept: the next to make room */
    mr_schedule lists[MR_STEP_SCHEDULES_MAX];
    mr_step_schedule kept[MR_STEP_SCHEDULES_MAX]; /* micro_batches 0: a free place */
};

mr_status mr_schedule_shelf_create(const mr_assignment *assignment,
                                   mr_schedule_shelf **out_shelf) {
    mr_schedule_shelf *shelf = mr_alloc(sizeof(*shelf));
    if (shelf == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for schedules");
    shelf->assignment = assignment;
    *out_shelf = shelf;
    return MR_OK;
}

void mr_schedule_shelf_destroy(mr_schedule_shelf *shelf) {
    if (shelf == NULL)
        return;
    for (size_t i = 0; i < MR_STEP_SCHEDULES_MAX; i++)
        mr_schedule_deinit(&shelf->lists[i]);
    mr_free(shelf);
}

static mr_step_schedule shelf_entry(const mr_schedule *list, size_t micro_batches) {
    return (mr_step_schedule){
        .micro_batches = micro_batches,
        .list = list,
        .last_backward = mr_schedule_last_backward(list, 0),
    };
}

/* All stages' lists into lists, proved together. */
static mr_status shelf_prove(const mr_plan *plan, size_t micro_batches, mr_schedule *lists,
                             size_t *peaks) {
    const mr_verify_shape shape = {.stage_count = plan->stage_count,
                                   .micro_batches = micro_batches,
                                   .chunks = 1,
                                   .training = !plan->inference};
    mr_schedule_kind kind = plan->inference ? MR_SCHEDULE_INFERENCE : plan->job->schedule;
    for (size_t s = 0; s < plan->stage_count; s++)
        MR_TRY(mr_schedule_generate(kind, s, plan->stage_count, micro_batches, &lists[s]));
    MR_TRY(mr_verify(lists, &shape, peaks));
    for (size_t s = 0; s < plan->stage_count; s++)
        if (peaks[s] > plan->stages[s].peak_in_flight)
            return MR_ERROR(INTERNAL, "%zu microbatches hold %zu activations on stage %zu, not %zu",
                            micro_batches, peaks[s], s, plan->stages[s].peak_in_flight);
    return MR_OK;
}

/* Takes this rank's list out of the proved ones. */
static mr_status shelf_make(const mr_assignment *assignment, size_t micro_batches,
                            mr_schedule *out_list) {
    const mr_plan *plan = assignment->plan;
    mr_schedule *lists = mr_alloc_array(plan->stage_count, sizeof(*lists));
    size_t *peaks = mr_alloc_array(plan->stage_count, sizeof(*peaks));
    mr_status status = lists == NULL || peaks == NULL
                           ? MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the schedules of %zu "
                                                          "stages", plan->stage_count)
                           : shelf_prove(plan, micro_batches, lists, peaks);
    if (mr_status_is_ok(status)) {
        *out_list = lists[assignment->stage];
        lists[assignment->stage] = (mr_schedule){0};
    }
    for (size_t s = 0; lists != NULL && s < plan->stage_count; s++)
        mr_schedule_deinit(&lists[s]);
    mr_free(peaks);
    mr_free(lists);
    return status;
}

mr_status mr_schedule_shelf_get(mr_schedule_shelf *shelf, size_t micro_batches,
                                mr_step_schedule *out_schedule) {
    const mr_assignment *assignment = shelf->assignment;
    size_t most = assignment->job->micro_batches;
    if (micro_batches == 0 || micro_batches > most)
        return MR_ERROR(OUT_OF_RANGE, "a step of %zu microbatches; it must be 1 to %zu",
                        micro_batches, most);
    if (micro_batches == most) {
        *out_schedule = shelf_entry(&assignment->plan->schedules[assignment->stage], most);
        return MR_OK;
    }
    size_t at = 0;
    while (at < MR_STEP_SCHEDULES_MAX && shelf->kept[at].micro_batches != micro_batches)
        at++;
    if (at == MR_STEP_SCHEDULES_MAX) {
        mr_schedule list = {0};
        MR_TRY(shelf_make(assignment, micro_batches, &list));
        at = shelf->oldest;
        shelf->oldest = (at + 1) % MR_STEP_SCHEDULES_MAX;
        mr_schedule_deinit(&shelf->lists[at]);
        shelf->lists[at] = list;
        shelf->kept[at] = shelf_entry(&shelf->lists[at], micro_batches);
    }
    *out_schedule = shelf->kept[at];
    return MR_OK;
}
