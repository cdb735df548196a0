/* SPDX-License-Identifier: Apache-2.0 */
/* norm.c: layer norm, cut into rows. Gradients of weights are summed in rows of CPU_SUM_ROWS, whose
 * sums are added in order. Rows of bf16 are staged: one at a time where rows stand alone, all of a
 * task's where they are summed. */
#include "daemon/device/cpu/device_cpu.h"

/* The activations of a bf16 operation; the kernels' structs then hold the f32 tensors only. */
typedef struct norm_halves {
    const uint16_t *x;
    const uint16_t *branch; /* NULL: none */
    const uint16_t *dy;
    const uint16_t *residual; /* NULL: none */
    uint16_t *sum;
    uint16_t *out; /* y or dx */
} norm_halves;

typedef struct norm_work {
    const mr_cpu_kernels *kernels;
    mr_cpu_norm forward;
    mr_cpu_norm_backward backward;
    norm_halves halves;
    mr_device_cpu_stage stage;
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

/* x becomes the rounded sum; other: room for a row. */
static void norm_add_staged(const norm_work *work, size_t r, float *x, float *other) {
    const norm_halves *halves = &work->halves;
    size_t C = work->forward.C;
    work->kernels->widen(halves->branch + r * C, other, C);
    work->kernels->add(x, other, work->forward.dropout, (uint64_t)r * C, x, C);
    work->kernels->narrow(x, halves->sum + r * C, C);
    work->kernels->widen(halves->sum + r * C, x, C);
}

static void norm_forward_staged_task(void *context, size_t task, int thread) {
    const norm_work *work = context;
    size_t C = work->forward.C;
    float *x = mr_device_cpu_stage_of(&work->stage, thread);
    float *y = x + C;
    for (size_t r = task * work->task_rows; r < norm_last(work, task); r++) {
        work->kernels->widen(work->halves.x + r * C, x, C);
        if (work->halves.branch != NULL)
            norm_add_staged(work, r, x, y);
        mr_cpu_norm row = work->forward;
        row.x = x;
        row.y = y;
        row.mean += r;
        row.rstd += r;
        work->kernels->norm_forward(&row, 0, 1);
        work->kernels->narrow(y, work->halves.out + r * C, C);
    }
}

/* work: all but rows of a task and staging. */
static void norm_forward_run(mr_device *device, norm_work *work) {
    mr_device_cpu *cpu = mr_device_cpu_of(device);
    bool staged = work->halves.x != NULL;
    work->task_rows = mr_device_cpu_task_rows(work->forward.C);
    if (staged)
        work->stage = mr_device_cpu_staging(cpu, 2 * work->forward.C);
    if (!staged || work->stage.base != NULL)
        mr_pool_run(cpu->pool, mr_device_cpu_parts(work->R, work->task_rows),
                    staged ? norm_forward_staged_task : norm_forward_task, work);
}

/* What is f32 in every precision. */
static mr_cpu_norm norm_forward_make(size_t C, float eps, const mr_tensor *w, const mr_tensor *b,
                                     mr_tensor *mean, mr_tensor *rstd) {
    return (mr_cpu_norm){
        .C = C,
        .eps = eps,
        .w = mr_device_cpu_floats(w),
        .b = mr_device_cpu_floats(b),
        .mean = mr_device_cpu_floats(mean),
        .rstd = mr_device_cpu_floats(rstd),
    };
}

void mr_device_cpu_layernorm_forward(mr_device *device, const mr_tensor *x, const mr_tensor *w,
                                     const mr_tensor *b, float eps, mr_tensor *y, mr_tensor *mean,
                                     mr_tensor *rstd) {
    size_t R = mr_device_cpu_rows(x);
    size_t C = mr_device_cpu_width(x);
    MR_ASSERT(mr_device_cpu_count(w) == C && mr_device_cpu_count(b) == C);
    MR_ASSERT(mr_device_cpu_count(y) == R * C);
    MR_ASSERT(mr_device_cpu_count(mean) == R && mr_device_cpu_count(rstd) == R);
    norm_work work = {.kernels = mr_device_cpu_kernels(mr_device_cpu_of(device), x),
                      .forward = norm_forward_make(C, eps, w, b, mean, rstd),
                      .R = R};
    if (mr_device_cpu_is_half(x)) {
        work.halves.x = mr_device_cpu_halves(x);
        work.halves.out = mr_device_cpu_halves(y);
    } else {
        work.forward.x = mr_device_cpu_floats(x);
        work.forward.y = mr_device_cpu_floats(y);
    }
    norm_forward_run(device, &work);
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
    norm_work work = {.kernels = mr_device_cpu_kernels(mr_device_cpu_of(device), x),
                      .forward = norm_forward_make(C, eps, w, b, mean, rstd),
                      .R = R};
    work.forward.dropout = dropout;
    if (mr_device_cpu_is_half(x)) {
        work.halves.x = mr_device_cpu_halves(x);
        work.halves.branch = mr_device_cpu_halves(branch);
        work.halves.sum = mr_device_cpu_halves(sum);
        work.halves.out = mr_device_cpu_halves(y);
    } else {
        work.forward.x = mr_device_cpu_floats(x);
        work.forward.branch = mr_device_cpu_floats(branch);
        work.forward.sum = mr_device_cpu_floats(sum);
        work.forward.y = mr_device_cpu_floats(y);
    }
    norm_forward_run(device, &work);
}

static void norm_backward_input_task(void *context, size_t task, int thread) {
    (void)thread;
    const norm_work *work = context;
    work->kernels->norm_backward_input(&work->backward, task * work->task_rows,
                                       norm_last(work, task));
}

static void norm_backward_input_staged_task(void *context, size_t task, int thread) {
    const norm_work *work = context;
    const norm_halves *halves = &work->halves;
    size_t C = work->backward.C;
    float *dy = mr_device_cpu_stage_of(&work->stage, thread);
    float *x = dy + C;
    float *residual = x + C;
    for (size_t r = task * work->task_rows; r < norm_last(work, task); r++) {
        mr_cpu_norm_backward row = work->backward;
        work->kernels->widen(halves->dy + r * C, dy, C);
        work->kernels->widen(halves->x + r * C, x, C);
        if (halves->residual != NULL) {
            work->kernels->widen(halves->residual + r * C, residual, C);
            row.residual = residual;
        }
        row.dy = dy;
        row.x = x;
        row.mean += r;
        row.rstd += r;
        row.dx = dy;
        work->kernels->norm_backward_input(&row, 0, 1);
        work->kernels->narrow(dy, halves->out + r * C, C);
    }
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
        .kernels = mr_device_cpu_kernels(cpu, x),
        .backward =
            {
                .C = C,
                .w = mr_device_cpu_floats(w),
                .mean = mr_device_cpu_floats(mean),
                .rstd = mr_device_cpu_floats(rstd),
            },
        .R = R,
        .task_rows = mr_device_cpu_task_rows(C),
    };
    bool staged = mr_device_cpu_is_half(x);
    if (staged) {
        work.halves.dy = mr_device_cpu_halves(dy);
        work.halves.x = mr_device_cpu_halves(x);
        work.halves.residual = residual == NULL ? NULL : mr_device_cpu_halves(residual);
        work.halves.out = mr_device_cpu_halves(dx);
        work.stage = mr_device_cpu_staging(cpu, 3 * C);
        if (work.stage.base == NULL)
            return;
    } else {
        work.backward.dy = mr_device_cpu_floats(dy);
        work.backward.x = mr_device_cpu_floats(x);
        work.backward.residual = residual == NULL ? NULL : mr_device_cpu_floats(residual);
        work.backward.dx = mr_device_cpu_floats(dx);
    }
    mr_pool_run(cpu->pool, mr_device_cpu_parts(R, work.task_rows),
                staged ? norm_backward_input_staged_task : norm_backward_input_task, &work);
}

static void norm_backward_weight_task(void *context, size_t task, int thread) {
    (void)thread;
    const norm_work *work = context;
    work->kernels->norm_backward_weight(&work->backward, task * work->task_rows,
                                        norm_last(work, task),
                                        work->partial + task * 2 * work->backward.C);
}

static void norm_backward_weight_staged_task(void *context, size_t task, int thread) {
    const norm_work *work = context;
    size_t C = work->backward.C;
    size_t first = task * work->task_rows;
    size_t rows = norm_last(work, task) - first;
    float *dy = mr_device_cpu_stage_of(&work->stage, thread);
    float *x = dy + CPU_SUM_ROWS * C;
    mr_cpu_norm_backward part = work->backward;
    work->kernels->widen(work->halves.dy + first * C, dy, rows * C);
    work->kernels->widen(work->halves.x + first * C, x, rows * C);
    part.dy = dy;
    part.x = x;
    part.mean += first;
    part.rstd += first;
    work->kernels->norm_backward_weight(&part, 0, rows, work->partial + task * 2 * C);
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
        .kernels = mr_device_cpu_kernels(cpu, x),
        .backward =
            {
                .C = C,
                .mean = mr_device_cpu_floats(mean),
                .rstd = mr_device_cpu_floats(rstd),
            },
        .R = R,
        .task_rows = CPU_SUM_ROWS,
        .partial = mr_device_cpu_workspace(cpu, (tasks + 1) * 2 * C * sizeof(float)),
    };
    if (work.partial == NULL)
        return;
    bool staged = mr_device_cpu_is_half(x);
    if (staged) {
        work.halves.dy = mr_device_cpu_halves(dy);
        work.halves.x = mr_device_cpu_halves(x);
        work.stage = mr_device_cpu_staging(cpu, 2 * CPU_SUM_ROWS * C);
        if (work.stage.base == NULL)
            return;
    } else {
        work.backward.dy = mr_device_cpu_floats(dy);
        work.backward.x = mr_device_cpu_floats(x);
    }
    mr_pool_run(cpu->pool, tasks,
                staged ? norm_backward_weight_staged_task : norm_backward_weight_task, &work);
    float *total = work.partial + tasks * 2 * C;
    cpu->kernels->column_sums(work.partial, tasks, 2 * C, total);
    cpu->kernels->accumulate(mr_device_cpu_floats(dw), total, C);
    cpu->kernels->accumulate(mr_device_cpu_floats(db), total + C, C);
}
