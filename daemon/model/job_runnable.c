/* SPDX-License-Identifier: Apache-2.0 */
/* job_runnable.c: what a job file may say but this version does not run yet. Apart from the other
 * checks, because such a job can still be validated and planned. */
#include "daemon/model/job.h"

#include <string.h>

#include "daemon/base/alloc.h"

void mr_job_become_inference(mr_job *job) {
    job->data = 1;
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

mr_status mr_job_check_runnable(const mr_job *job, bool training) {
    if (job->model > 1)
        return MR_ERROR(UNIMPLEMENTED,
                        "pipeline.topology.model is %zu; this version does not cut layers, 1",
                        job->model);
    if (training && job->loss == MR_LOSS_NONE)
        return MR_ERROR(INVALID_ARGUMENT,
                        "model.loss is none; training needs cross_entropy or mse");
    if (training && job->total_steps == 0)
        return MR_ERROR(INVALID_ARGUMENT,
                        "lr_schedule.total_steps is missing; it must be the number of steps to "
                        "train, at least 1");
    return MR_OK;
}
