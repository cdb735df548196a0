/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/stage/optimizer.h"

#include <math.h>

void mr_optimizer_sums(const mr_parameters *parameters, double *out_sums) {
    mr_device *device = mr_parameters_device(parameters);
    double *sums = mr_parameters_sums(parameters);
    size_t owned = 0;
    MR_ASSERT(mr_parameters_training(parameters));
    for (size_t i = 0; i < mr_parameters_count(parameters); i++) {
        const mr_stage_parameter *parameter = mr_parameters_at(parameters, i);
        if (parameter->owned)
            device->ops->sum_of_squares(device, &parameter->gradient, &sums[owned++]);
    }
    MR_ASSERT(owned == mr_parameters_owned_count(parameters));
    if (owned > 0)
        device->ops->copy_out(device, out_sums, sums, owned * sizeof *sums);
}

double mr_optimizer_norm(const double *sums, size_t count) {
    double total = 0;
    for (size_t i = 0; i < count; i++)
        total += sums[i];
    return sqrt(total);
}

double mr_optimizer_clip_factor(double norm, double clip) {
    const double guard = 1e-6; /* the field's, against division by zero */
    if (clip <= 0)
        return 1;
    double factor = clip / (norm + guard);
    return factor < 1 ? factor : 1;
}

void mr_optimizer_step(mr_parameters *parameters, uint64_t step, double clip_factor) {
    mr_device *device = mr_parameters_device(parameters);
    const mr_job *job = mr_parameters_job(parameters);
    MR_ASSERT(mr_parameters_training(parameters));
    MR_ASSERT(step >= 1);
    mr_adamw options = {
        .lr = (float)mr_job_learning_rate(job, step),
        .beta1 = (float)job->beta1,
        .beta2 = (float)job->beta2,
        .eps = (float)job->eps,
        .gradient_scale = (float)clip_factor,
        .bias_correction1 = (float)(1 - pow(job->beta1, (double)step)),
        .bias_correction2 = (float)(1 - pow(job->beta2, (double)step)),
    };
    for (size_t i = 0; i < mr_parameters_count(parameters); i++) {
        const mr_stage_parameter *parameter = mr_parameters_at(parameters, i);
        mr_tensor weight = parameter->weight;
        mr_tensor exp_avg = parameter->exp_avg;
        mr_tensor exp_avg_sq = parameter->exp_avg_sq;
        options.weight_decay = parameter->description->decay ? (float)job->weight_decay : 0;
        device->ops->adamw(device, &options, &parameter->gradient, &weight, &exp_avg, &exp_avg_sq);
    }
    mr_parameters_refresh(parameters);
}
