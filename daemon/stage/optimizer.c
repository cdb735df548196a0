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

/* Everything of a step but the decay, which the parameter decides. */
typedef struct optimizer_options {
    mr_adamw moments; /* of adamw and adam */
    mr_sgd sgd;
    mr_lion lion;
} optimizer_options;

static optimizer_options optimizer_options_make(const mr_job *job, uint64_t step,
                                                double clip_factor) {
    float lr = (float)mr_job_learning_rate(job, step);
    return (optimizer_options){
        .moments = {.lr = lr,
                    .beta1 = (float)job->beta1,
                    .beta2 = (float)job->beta2,
                    .eps = (float)job->eps,
                    .gradient_scale = (float)clip_factor,
                    .bias_correction1 = (float)(1 - pow(job->beta1, (double)step)),
                    .bias_correction2 = (float)(1 - pow(job->beta2, (double)step))},
        .sgd = {.lr = lr,
                .momentum = (float)job->momentum,
                .gradient_scale = (float)clip_factor,
                .nesterov = job->nesterov},
        .lion = {.lr = lr,
                 .beta1 = (float)job->beta1,
                 .beta2 = (float)job->beta2,
                 .gradient_scale = (float)clip_factor},
    };
}

/* The part of a weight or gradient whose state is here; updates go element by element, so that the
 * cut changes no bit. */
static mr_tensor optimizer_part(const mr_stage_parameter *parameter, const mr_tensor *whole) {
    size_t elements = 0;
    MR_ASSERT(mr_shape_elements(&whole->shape, &elements));
    if (parameter->part.count == elements)
        return *whole;
    return (mr_tensor){
        .data = (float *)whole->data + parameter->part.first,
        .shape = {.dtype = MR_DTYPE_F32, .dim_count = 1, .dims = {parameter->part.count}},
    };
}

static void optimizer_step_one(mr_device *device, const mr_job *job, optimizer_options *options,
                               const mr_stage_parameter *parameter) {
    const mr_device_ops *ops = device->ops;
    mr_tensor gradient = optimizer_part(parameter, &parameter->gradient);
    mr_tensor weight = optimizer_part(parameter, &parameter->weight);
    mr_tensor first = parameter->states[0];
    mr_tensor second = parameter->states[1];
    float decay = parameter->description->decay ? (float)job->weight_decay : 0;
    options->moments.weight_decay = decay;
    options->sgd.weight_decay = decay;
    options->lion.weight_decay = decay;
    switch (job->optimizer) {
    case MR_OPTIMIZER_ADAMW:
        ops->adamw(device, &options->moments, &gradient, &weight, &first, &second);
        return;
    case MR_OPTIMIZER_ADAM:
        ops->adam(device, &options->moments, &gradient, &weight, &first, &second);
        return;
    case MR_OPTIMIZER_SGD:
        ops->sgd(device, &options->sgd, &gradient, &weight, first.data == NULL ? NULL : &first);
        return;
    case MR_OPTIMIZER_LION:
        ops->lion(device, &options->lion, &gradient, &weight, &first);
        return;
    case MR_OPTIMIZER_KIND_COUNT:
        break;
    }
    MR_ASSERT(false); /* the job was read */
}

void mr_optimizer_step(mr_parameters *parameters, uint64_t step, double clip_factor) {
    const mr_job *job = mr_parameters_job(parameters);
    MR_ASSERT(mr_parameters_training(parameters));
    MR_ASSERT(step >= 1);
    optimizer_options options = optimizer_options_make(job, step, clip_factor);
    for (size_t i = 0; i < mr_parameters_count(parameters); i++)
        if (mr_parameters_at(parameters, i)->part.count > 0)
            optimizer_step_one(mr_parameters_device(parameters), job, &options,
                               mr_parameters_at(parameters, i));
    if (mr_parameters_state_width(parameters) == 1)
        mr_parameters_refresh(parameters);
}
