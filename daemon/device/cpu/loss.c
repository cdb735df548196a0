/* SPDX-License-Identifier: Apache-2.0 */
/* loss.c: losses and sums of squares. A row's or a chunk's share is stored in double precision;
 * the shares are added in order by EXEC. Rows and chunks of bf16 are staged. */
#include "daemon/device/cpu/device_cpu.h"

typedef struct loss_work {
    const mr_cpu_kernels *kernels;
    mr_cpu_cross_entropy entropy;
    const float *x;
    const float *target; /* NULL: sum of squares of x */
    float factor;
    float *dx;
    /* bf16: logits or y, and their gradient (NULL: none), in place of the floats */
    const uint16_t *narrow;
    uint16_t *dnarrow;
    mr_device_cpu_stage stage;
    size_t n; /* rows of entropy, elements of the others */
    size_t task_rows;
    double *shares;
} loss_work;

static double loss_total(const double *shares, size_t count) {
    double total = 0.0;
    for (size_t i = 0; i < count; i++)
        total += shares[i];
    return total;
}

/* Labels are looked at before any row is; a wrong one is latched and the step is lost anyway. */
static bool loss_labels_are_good(mr_device_cpu *cpu, const int32_t *labels, size_t R, size_t V) {
    for (size_t r = 0; r < R; r++)
        if (labels[r] < -1 || (labels[r] >= 0 && (size_t)labels[r] >= V)) {
            mr_device_cpu_latch(cpu, MR_ERROR(INVALID_ARGUMENT,
                                              "label at position %zu is %d; it must be -1 or in "
                                              "[0, %zu)",
                                              r, labels[r], V));
            return false;
        }
    return true;
}

static void loss_entropy_task(void *context, size_t task, int thread) {
    (void)thread;
    const loss_work *work = context;
    size_t first = task * work->task_rows;
    size_t left = work->n - first;
    work->kernels->cross_entropy(&work->entropy, first,
                                 first + (left < work->task_rows ? left : work->task_rows));
}

static void loss_entropy_staged_task(void *context, size_t task, int thread) {
    const loss_work *work = context;
    size_t V = work->entropy.V;
    size_t first = task * work->task_rows;
    size_t left = work->n - first;
    size_t last = first + (left < work->task_rows ? left : work->task_rows);
    float *logits = mr_device_cpu_stage_of(&work->stage, thread);
    for (size_t r = first; r < last; r++) {
        mr_cpu_cross_entropy row = work->entropy;
        row.logits = logits;
        row.labels += r;
        row.loss += r;
        row.dlogits = work->dnarrow == NULL ? NULL : logits;
        work->kernels->widen(work->narrow + r * V, logits, V);
        work->kernels->cross_entropy(&row, 0, 1);
        if (work->dnarrow != NULL)
            work->kernels->narrow(logits, work->dnarrow + r * V, V);
    }
}

/* Puts activation x and its gradient dx (NULL: none) where the work's task looks for them. False
 * when bf16 has no room for `floats` of each thread. */
static bool loss_bind(mr_device_cpu *cpu, loss_work *work, const mr_tensor *x, const mr_tensor *dx,
                      size_t floats) {
    if (!mr_device_cpu_is_half(x)) {
        work->x = mr_device_cpu_floats(x);
        work->dx = dx == NULL ? NULL : mr_device_cpu_floats(dx);
        work->entropy.logits = work->x;
        work->entropy.dlogits = work->dx;
        return true;
    }
    work->narrow = mr_device_cpu_halves(x);
    work->dnarrow = dx == NULL ? NULL : mr_device_cpu_halves(dx);
    work->stage = mr_device_cpu_staging(cpu, floats);
    return work->stage.base != NULL;
}

void mr_device_cpu_cross_entropy(mr_device *device, const mr_tensor *logits,
                                 const mr_tensor *labels, float scale, mr_tensor *dlogits,
                                 double *loss) {
    mr_device_cpu *cpu = mr_device_cpu_of(device);
    size_t R = mr_device_cpu_rows(logits);
    size_t V = mr_device_cpu_width(logits);
    MR_ASSERT(labels->shape.dtype == MR_DTYPE_I32 && mr_device_cpu_count(labels) == R);
    MR_ASSERT(dlogits == NULL || mr_device_cpu_count(dlogits) == R * V);
    double *shares = mr_device_cpu_workspace(cpu, R * sizeof(double));
    if (shares == NULL || !loss_labels_are_good(cpu, labels->data, R, V))
        return;
    loss_work work = {
        .kernels = mr_device_cpu_kernels(cpu, logits),
        .entropy =
            {
                .V = V,
                .labels = labels->data,
                .scale = scale,
                .loss = shares,
            },
        .n = R,
        .task_rows = mr_device_cpu_task_rows(V),
    };
    if (!loss_bind(cpu, &work, logits, dlogits, V))
        return;
    mr_pool_run(cpu->pool, mr_device_cpu_parts(R, work.task_rows),
                work.narrow != NULL ? loss_entropy_staged_task : loss_entropy_task, &work);
    *loss += loss_total(shares, R);
}

static void loss_chunk_task(void *context, size_t task, int thread) {
    (void)thread;
    const loss_work *work = context;
    size_t at = task * CPU_CHUNK;
    size_t n = work->n - at < CPU_CHUNK ? work->n - at : CPU_CHUNK;
    if (work->target == NULL)
        work->shares[task] = work->kernels->sum_of_squares(work->x + at, n);
    else
        work->shares[task] =
            work->kernels->squared_error(work->x + at, work->target + at, work->factor,
                                         work->dx == NULL ? NULL : work->dx + at, n);
}

/* Of y in bf16. */
static void loss_chunk_staged_task(void *context, size_t task, int thread) {
    const loss_work *work = context;
    size_t at = task * CPU_CHUNK;
    size_t n = work->n - at < CPU_CHUNK ? work->n - at : CPU_CHUNK;
    float *y = mr_device_cpu_stage_of(&work->stage, thread);
    work->kernels->widen(work->narrow + at, y, n);
    work->shares[task] = work->kernels->squared_error(y, work->target + at, work->factor,
                                                      work->dnarrow == NULL ? NULL : y, n);
    if (work->dnarrow != NULL)
        work->kernels->narrow(y, work->dnarrow + at, n);
}

/* Runs over chunks of x; the sum, or false when there is no workspace. */
static bool loss_chunks(mr_device_cpu *cpu, loss_work *work, double *out_sum) {
    size_t chunks = mr_device_cpu_parts(work->n, CPU_CHUNK);
    work->shares = mr_device_cpu_workspace(cpu, chunks * sizeof(double));
    if (work->shares == NULL)
        return false;
    mr_pool_run(cpu->pool, chunks, work->narrow != NULL ? loss_chunk_staged_task : loss_chunk_task,
                work);
    *out_sum = loss_total(work->shares, chunks);
    return true;
}

void mr_device_cpu_mean_squared_error(mr_device *device, const mr_tensor *y,
                                      const mr_tensor *target, float scale, mr_tensor *dy,
                                      double *loss) {
    double sum = 0.0;
    mr_device_cpu *cpu = mr_device_cpu_of(device);
    loss_work work = {
        .kernels = mr_device_cpu_kernels(cpu, y),
        .target = mr_device_cpu_floats(target),
        .factor = 2.0f * scale,
        .n = mr_device_cpu_count(y),
    };
    MR_ASSERT(mr_device_cpu_count(target) == work.n);
    MR_ASSERT(dy == NULL || mr_device_cpu_count(dy) == work.n);
    if (loss_bind(cpu, &work, y, dy, CPU_CHUNK) && loss_chunks(cpu, &work, &sum))
        *loss += sum;
}

void mr_device_cpu_sum_of_squares(mr_device *device, const mr_tensor *x, double *out) {
    double sum = 0.0;
    mr_device_cpu *cpu = mr_device_cpu_of(device);
    loss_work work = {
        .kernels = cpu->kernels, .x = mr_device_cpu_floats(x), .n = mr_device_cpu_count(x)};
    if (loss_chunks(cpu, &work, &sum))
        *out = sum;
}
