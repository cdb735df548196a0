/* SPDX-License-Identifier: Apache-2.0 */
/* job_runnable.c: what a job file may leave out but a run needs. Apart from the other checks,
 * because such a job can still be validated and planned. */
#include "daemon/model/job.h"

void mr_job_become_inference(mr_job *job) {
    job->data = 1;
    job->micro_batches = 1;
}

mr_status mr_job_check_runnable(const mr_job *job, bool training) {
    if (training && job->loss == MR_LOSS_NONE)
        return MR_ERROR(INVALID_ARGUMENT,
                        "model.loss is none; training needs cross_entropy or mse");
    if (training && job->total_steps == 0)
        return MR_ERROR(INVALID_ARGUMENT,
                        "lr_schedule.total_steps is missing; it must be the number of steps to "
                        "train, at least 1");
    return MR_OK;
}
