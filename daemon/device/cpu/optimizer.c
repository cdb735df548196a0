/* SPDX-License-Identifier: Apache-2.0 */
/* optimizer.c: AdamW, in chunks of CPU_CHUNK elements. */
#include "daemon/device/cpu/device_cpu.h"

typedef struct optimizer_work {
    const mr_cpu_kernels *kernels;
    const mr_adamw *options;
    const float *gradient;
    float *parameter;
    float *exp_avg;
    float *exp_avg_sq;
    size_t n;
} optimizer_work;

static void optimizer_task(void *context, size_t task, int thread) {
    (void)thread;
    const optimizer_work *work = context;
    size_t at = task * CPU_CHUNK;
    size_t n = work->n - at < CPU_CHUNK ? work->n - at : CPU_CHUNK;
    work->kernels->adamw(work->options, work->gradient + at, work->parameter + at,
                         work->exp_avg + at, work->exp_avg_sq + at, n);
}

void mr_device_cpu_adamw(mr_device *device, const mr_adamw *options, const mr_tensor *gradient,
                         mr_tensor *parameter, mr_tensor *exp_avg, mr_tensor *exp_avg_sq) {
    mr_device_cpu *cpu = mr_device_cpu_of(device);
    optimizer_work work = {
        .kernels = cpu->kernels,
        .options = options,
        .gradient = mr_device_cpu_floats(gradient),
        .parameter = mr_device_cpu_floats(parameter),
        .exp_avg = mr_device_cpu_floats(exp_avg),
        .exp_avg_sq = mr_device_cpu_floats(exp_avg_sq),
        .n = mr_device_cpu_count(parameter),
    };
    MR_ASSERT(mr_device_cpu_count(gradient) == work.n);
    MR_ASSERT(mr_device_cpu_count(exp_avg) == work.n);
    MR_ASSERT(mr_device_cpu_count(exp_avg_sq) == work.n);
    mr_pool_run(cpu->pool, mr_device_cpu_parts(work.n, CPU_CHUNK), optimizer_task, &work);
}
