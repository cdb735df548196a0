/* SPDX-License-Identifier: Apache-2.0 */
/* optimizer.c: the optimizers' steps, in chunks of CPU_CHUNK elements. */
#include "daemon/device/cpu/device_cpu.h"

/* One of the options is set: that of the operation under way. */
typedef struct optimizer_work {
    const mr_cpu_kernels *kernels;
    const mr_adamw *moments;
    const mr_sgd *sgd;
    const mr_lion *lion;
    const float *gradient;
    float *parameter;
    float *state[2]; /* NULL where the optimizer has none */
    size_t n;
} optimizer_work;

static size_t optimizer_part(const optimizer_work *work, size_t at) {
    return work->n - at < CPU_CHUNK ? work->n - at : CPU_CHUNK;
}

static void optimizer_adamw_task(void *context, size_t task, int thread) {
    (void)thread;
    const optimizer_work *work = context;
    size_t at = task * CPU_CHUNK;
    work->kernels->adamw(work->moments, work->gradient + at, work->parameter + at,
                         work->state[0] + at, work->state[1] + at, optimizer_part(work, at));
}

static void optimizer_adam_task(void *context, size_t task, int thread) {
    (void)thread;
    const optimizer_work *work = context;
    size_t at = task * CPU_CHUNK;
    work->kernels->adam(work->moments, work->gradient + at, work->parameter + at,
                        work->state[0] + at, work->state[1] + at, optimizer_part(work, at));
}

static void optimizer_sgd_task(void *context, size_t task, int thread) {
    (void)thread;
    const optimizer_work *work = context;
    size_t at = task * CPU_CHUNK;
    float *momentum = work->state[0] == NULL ? NULL : work->state[0] + at;
    work->kernels->sgd(work->sgd, work->gradient + at, work->parameter + at, momentum,
                       optimizer_part(work, at));
}

static void optimizer_lion_task(void *context, size_t task, int thread) {
    (void)thread;
    const optimizer_work *work = context;
    size_t at = task * CPU_CHUNK;
    work->kernels->lion(work->lion, work->gradient + at, work->parameter + at, work->state[0] + at,
                        optimizer_part(work, at));
}

/* Fills in the tensors and runs task over all chunks; a state may be NULL. */
static void optimizer_run(mr_device *device, optimizer_work *work, const mr_tensor *gradient,
                          const mr_tensor *parameter, const mr_tensor *const states[2],
                          void (*task)(void *context, size_t task, int thread)) {
    mr_device_cpu *cpu = mr_device_cpu_of(device);
    work->kernels = cpu->kernels;
    work->gradient = mr_device_cpu_floats(gradient);
    work->parameter = mr_device_cpu_floats(parameter);
    work->n = mr_device_cpu_count(parameter);
    MR_ASSERT(mr_device_cpu_count(gradient) == work->n);
    for (size_t i = 0; i < 2; i++) {
        if (states[i] == NULL)
            continue;
        MR_ASSERT(mr_device_cpu_count(states[i]) == work->n);
        work->state[i] = mr_device_cpu_floats(states[i]);
    }
    mr_pool_run(cpu->pool, mr_device_cpu_parts(work->n, CPU_CHUNK), task, work);
}

void mr_device_cpu_adamw(mr_device *device, const mr_adamw *options, const mr_tensor *gradient,
                         mr_tensor *parameter, mr_tensor *exp_avg, mr_tensor *exp_avg_sq) {
    const mr_tensor *states[2] = {exp_avg, exp_avg_sq};
    optimizer_work work = {.moments = options};
    optimizer_run(device, &work, gradient, parameter, states, optimizer_adamw_task);
}

void mr_device_cpu_adam(mr_device *device, const mr_adamw *options, const mr_tensor *gradient,
                        mr_tensor *parameter, mr_tensor *exp_avg, mr_tensor *exp_avg_sq) {
    const mr_tensor *states[2] = {exp_avg, exp_avg_sq};
    optimizer_work work = {.moments = options};
    optimizer_run(device, &work, gradient, parameter, states, optimizer_adam_task);
}

void mr_device_cpu_sgd(mr_device *device, const mr_sgd *options, const mr_tensor *gradient,
                       mr_tensor *parameter, mr_tensor *momentum) {
    const mr_tensor *states[2] = {momentum, NULL};
    optimizer_work work = {.sgd = options};
    MR_ASSERT((momentum != NULL) == (options->momentum > 0));
    optimizer_run(device, &work, gradient, parameter, states, optimizer_sgd_task);
}

void mr_device_cpu_lion(mr_device *device, const mr_lion *options, const mr_tensor *gradient,
                        mr_tensor *parameter, mr_tensor *exp_avg) {
    const mr_tensor *states[2] = {exp_avg, NULL};
    optimizer_work work = {.lion = options};
    optimizer_run(device, &work, gradient, parameter, states, optimizer_lion_task);
}
