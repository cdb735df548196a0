/* SPDX-License-Identifier: Apache-2.0 */
/* norm.c: layer norm, cut into rows. Gradients of weights are summed in rows of CPU_SUM_ROWS, whose
 * sums are added in order. */
#include "daemon/device/cpu/device_cpu.h"

typedef struct norm_work {
    const mr_cpu_kernels *kernels;
    mr_cpu_norm forward;
    mr_cpu_norm_backward backward;
    size_t R;
    size_t task_rows;
    float *partial; /* [tasks, 2C] */
} norm_work;

static size_t norm_last(const norm_work *work, size_t task) {
    size_t first = task * work->task_rows;
    return work->R - first < work->task_rows ? work->R : first + work->task_rows;
}

static void norm_forward_task(void *context, size_t task, int thread) {
    (void)thread;
    const norm_work *work = context;
    work->kernels->norm_forward(&work->forward, task * work->task_rows, norm_last(work, task));
}

static void norm_forward_run(mr_device *device, const mr_cpu_norm *norm, size_t R) {
    mr_device_cpu *cpu = mr_device_cpu_of(device);
    norm_work work = {
        .kernels = cpu->kernels,
        .forward = *norm,
        .R = R,
        .task_rows = mr_device_cpu_task_rows(norm->C),
    };
    mr_pool_run(cpu->pool, mr_device_cpu_parts(R, work.task_rows), norm_forward_task, &work);
}

void mr_device_cpu_layernorm_forward(mr_device *device, const mr_tensor *x, const mr_tensor *w,
                                     const mr_tensor *b, float eps, mr_tensor *y, mr_tensor *mean,
                                     mr_tensor *rstd) {
    size_t R = mr_device_cpu_rows(x);
    size_t C = mr_device_cpu_width(x);
    MR_ASSERT(mr_device_cpu_count(w) == C && mr_device_cpu_count(b) == C);
    MR_ASSERT(mr_device_cpu_count(y) == R * C);
    MR_ASSERT(mr_device_cpu_count(mean) == R && mr_device_cpu_count(rstd) == R);
    mr_cpu_norm norm = {
        .C = C,
        .eps = eps,
        .x = mr_device_cpu_floats(x),
        .w = mr_device_cpu_floats(w),
        .b = mr_device_cpu_floats(b),
        .y = mr_device_cpu_floats(y),
        .mean = mr_device_cpu_floats(mean),
        .rstd = mr_device_cpu_floats(rstd),
    };
    norm_forward_run(device, &norm, R);
}

void mr_device_cpu_residual_layernorm_forward(mr_device *device, const mr_tensor *x,
                                              const mr_tensor *branch, const mr_dropout *dropout,
                                              const mr_tensor *w, const mr_tensor *b, float eps,
                                              mr_tensor *sum, mr_tensor *y, mr_tensor *mean,
                                              mr_tensor *rstd) {
    size_t R = mr_device_cpu_rows(x);
    size_t C = mr_device_cpu_width(x);
    MR_ASSERT(mr_device_cpu_count(branch) == R * C && mr_device_cpu_count(sum) == R * C);
    MR_ASSERT(mr_device_cpu_count(w) == C && mr_device_cpu_count(b) == C);
    MR_ASSERT(mr_device_cpu_count(y) == R * C);
    MR_ASSERT(mr_device_cpu_count(mean) == R && mr_device_cpu_count(rstd) == R);
    mr_cpu_norm norm = {
        .C = C,
        .eps = eps,
        .x = mr_device_cpu_floats(x),
        .branch = mr_device_cpu_floats(branch),
        .dropout = dropout,
        .w = mr_device_cpu_floats(w),
        .b = mr_device_cpu_floats(b),
        .sum = mr_device_cpu_floats(sum),
        .y = mr_device_cpu_floats(y),
        .mean = mr_device_cpu_floats(mean),
        .rstd = mr_device_cpu_floats(rstd),
    };
    norm_forward_run(device, &norm, R);
}

static void norm_backward_input_task(void *context, size_t task, int thread) {
    (void)thread;
    const norm_work *work = context;
    work->kernels->norm_backward_input(&work->backward, task * work->task_rows,
                                       norm_last(work, task));
}

void mr_device_cpu_layernorm_backward_input(mr_device *device, const mr_tensor *dy,
                                            const mr_tensor *x, const mr_tensor *w,
                                            const mr_tensor *mean, const mr_tensor *rstd,
                                            const mr_tensor *residual, mr_tensor *dx) {
    mr_device_cpu *cpu = mr_device_cpu_of(device);
    size_t R = mr_device_cpu_rows(x);
    size_t C = mr_device_cpu_width(x);
    MR_ASSERT(mr_device_cpu_count(dy) == R * C && mr_device_cpu_count(dx) == R * C);
    MR_ASSERT(mr_device_cpu_count(w) == C);
    MR_ASSERT(mr_device_cpu_count(mean) == R && mr_device_cpu_count(rstd) == R);
    MR_ASSERT(residual == NULL || mr_device_cpu_count(residual) == R * C);
    norm_work work = {
        .kernels = cpu->kernels,
        .backward =
            {
                .C = C,
                .dy = mr_device_cpu_floats(dy),
                .x = mr_device_cpu_floats(x),
                .w = mr_device_cpu_floats(w),
                .mean = mr_device_cpu_floats(mean),
                .rstd = mr_device_cpu_floats(rstd),
                .residual = residual == NULL ? NULL : mr_device_cpu_floats(residual),
                .dx = mr_device_cpu_floats(dx),
            },
        .R = R,
        .task_rows = mr_device_cpu_task_rows(C),
    };
    mr_pool_run(cpu->pool, mr_device_cpu_parts(R, work.task_rows), norm_backward_input_task,
                &work);
}

static void norm_backward_weight_task(void *context, size_t task, int thread) {
    (void)thread;
    const norm_work *work = context;
    work->kernels->norm_backward_weight(&work->backward, task * work->task_rows,
                                        norm_last(work, task),
                                        work->partial + task * 2 * work->backward.C);
}

void mr_device_cpu_layernorm_backward_weight(mr_device *device, const mr_tensor *dy,
                                             const mr_tensor *x, const mr_tensor *mean,
                                             const mr_tensor *rstd, mr_tensor *dw, mr_tensor *db) {
    mr_device_cpu *cpu = mr_device_cpu_of(device);
    size_t R = mr_device_cpu_rows(x);
    size_t C = mr_device_cpu_width(x);
    size_t tasks = mr_device_cpu_parts(R, CPU_SUM_ROWS);
    MR_ASSERT(mr_device_cpu_count(dy) == R * C);
    MR_ASSERT(mr_device_cpu_count(mean) == R && mr_device_cpu_count(rstd) == R);
    MR_ASSERT(mr_device_cpu_count(dw) == C && mr_device_cpu_count(db) == C);
    norm_work work = {
        .kernels = cpu->kernels,
        .backward =
            {
                .C = C,
                .dy = mr_device_cpu_floats(dy),
                .x = mr_device_cpu_floats(x),
                .mean = mr_device_cpu_floats(mean),
                .rstd = mr_device_cpu_floats(rstd),
            },
        .R = R,
        .task_rows = CPU_SUM_ROWS,
        .partial = mr_device_cpu_workspace(cpu, (tasks + 1) * 2 * C * sizeof(float)),
    };
    if (work.partial == NULL)
        return;
    mr_pool_run(cpu->pool, tasks, norm_backward_weight_task, &work);
    float *total = work.partial + tasks * 2 * C;
    cpu->kernels->column_sums(work.partial, tasks, 2 * C, total);
    cpu->kernels->accumulate(mr_device_cpu_floats(dw), total, C);
    cpu->kernels->accumulate(mr_device_cpu_floats(db), total + C, C);
}
