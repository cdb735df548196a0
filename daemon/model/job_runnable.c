/* SPDX-License-Identifier: Apache-2.0 */
/* job_runnable.c: what a job file may leave out but a run needs. Apart from the other checks,
 * because such a job can still be validated and planned. */
#include "daemon/model/job.h"

#include <string.h>

#include "daemon/base/alloc.h"

const char *mr_job_mode_name(mr_job_mode mode) {
    static const char *const names[MR_JOB_MODE_COUNT] = {"train", "inference", "evaluation",
                                                         "profile"};
    MR_ASSERT((unsigned)mode < MR_JOB_MODE_COUNT);
    return names[mode];
}

void mr_job_become(mr_job *job, mr_job_mode mode) {
    if (mr_job_mode_is_forward(mode))
        job->data = 1;
    if (mode == MR_JOB_MODE_INFERENCE)
        job->micro_batches = 1;
}

mr_status mr_job_set_bounds(mr_job *job, const size_t *bounds, size_t bound_count) {
    size_t *copy = mr_alloc_array(bound_count, sizeof(*copy));
    if (copy == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu bounds", bound_count);
    memcpy(copy, bounds, bound_count * sizeof(*copy));
    mr_free(job->bounds);
    job->partition = MR_PARTITION_BOUNDS;
    job->bounds = copy;
    job->bound_count = bound_count;
    return MR_OK;
}

mr_status mr_job_check_runnable(const mr_job *job, mr_job_mode mode) {
    bool needs_loss = mr_job_mode_trains(mode) || mode == MR_JOB_MODE_EVALUATION;
    if (needs_loss && job->loss == MR_LOSS_NONE)
        return MR_ERROR(INVALID_ARGUMENT, "model.loss is none; %s needs cross_entropy or mse",
                        mr_job_mode_trains(mode) ? "training" : "evaluation");
    if (mr_job_mode_trains(mode) && job->total_steps == 0)
        return MR_ERROR(INVALID_ARGUMENT,
                        "lr_schedule.total_steps is missing; it must be the number of steps to "
                        "train, at least 1");
    return MR_OK;
}
