/* SPDX-License-Identifier: Apache-2.0 */
/* optimizer.h: from summed gradients to new weights: sums of squares, clip factor, and the
 * step of the job's optimizer.
 * The global norm needs all stages: each gives its sums, the executor puts them in stage order,
 * which is layer order, and every stage computes the same norm from the same list (law 1).
 *
 *   mr_optimizer_sums(p, mine)  ->  gather over the pipe  ->  mr_optimizer_norm(all)
 *   -> mr_optimizer_clip_factor -> mr_optimizer_step
 *
 * Owner: stage. Thread: EXEC. No state besides mr_parameters, no allocation.
 * Not here: learning-rate schedules (model/job: mr_job_learning_rate), sums over ranks (group/). */
#ifndef MR_STAGE_OPTIMIZER_H
#define MR_STAGE_OPTIMIZER_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/stage/parameters.h"

/* out_sums[mr_parameters_owned_count]: the sum of squares of each owned parameter's gradient, in
 * layer order. Waits for the device. */
void mr_optimizer_sums(const mr_parameters *parameters, double *out_sums);
/* Square root of the sums added in the given order. */
double mr_optimizer_norm(const double *sums, size_t count);
/* min(1, clip / (norm + 1e-6)); 1 where clip is 0 (none). Refusing a norm that is not finite is the
 * caller's decision, before this. */
double mr_optimizer_clip_factor(double norm, double clip);
/* One optimizer step of every held parameter, or of the parts whose state is here; step counts from
 * 1. Learning rate from the job's schedule, weight decay only where the description says so. With
 * split state the weights' other parts are the caller's to bring, with mr_parameters_refresh after
 * them. */
void mr_optimizer_step(mr_parameters *parameters, uint64_t step, double clip_factor);

#endif
