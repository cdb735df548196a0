/* SPDX-License-Identifier: Apache-2.0 */
/* The learning rate of an optimizer step (DESIGN section 4): a pure function, so that every stage
 * and a resumed job compute the same bits. */
#include <math.h>

#include "daemon/model/job.h"

static const double PI = 3.14159265358979323846;

double mr_job_learning_rate(const mr_job *job, uint64_t step) {
    MR_ASSERT(step >= 1);
    double s = (double)step;
    double w = (double)job->warmup_steps;
    double total = (double)job->total_steps;
    if (step <= job->warmup_steps)
        return job->lr * s / w;
    if (job->lr_kind == MR_LR_CONSTANT)
        return job->lr;
    if (step >= job->total_steps)
        return job->min_lr;
    double progress = (s - w) / (total - w);
    double left = job->lr_kind == MR_LR_LINEAR ? 1 - progress : (1 + cos(PI * progress)) / 2;
    return job->min_lr + (job->lr - job->min_lr) * left;
}
