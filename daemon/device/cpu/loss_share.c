/* SPDX-License-Identifier: Apache-2.0 */
/* loss_share.c: cross-entropy of a vocabulary that model ranks share. First each rank says of every
 * row the largest of its own logits, the sum of their exponentials and the label's logit; with what
 * all ranks said, each has the row's loss and the gradient of its own logits. The sum over the
 * ranks runs in double precision in rank order, on every rank alike. Rows of bf16 are staged. */
#include <math.h>

#include "daemon/device/cpu/device_cpu.h"

typedef struct share_work {
    const mr_cpu_kernels *kernels;
    const mr_tensor *logits;
    const int32_t *labels;
    size_t R;
    size_t V; /* columns here */
    mr_vocabulary vocabulary;
    size_t task_rows;
    mr_device_cpu_stage stage; /* bf16: one row */
    float *statistics;         /* of this rank: statistics' task */
    /* the losses' task */
    const float *all;
    size_t width;
    float scale;
    mr_tensor *dlogits; /* NULL: none */
    double *shares;     /* [R] */
} share_work;

/* A label outside the whole vocabulary is latched; the step is lost anyway. */
static bool share_labels_are_good(mr_device_cpu *cpu, const share_work *work) {
    for (size_t r = 0; r < work->R; r++)
        if (work->labels[r] < -1 ||
            (work->labels[r] >= 0 && (size_t)work->labels[r] >= work->vocabulary.whole)) {
            mr_device_cpu_latch(cpu, MR_ERROR(INVALID_ARGUMENT,
                                              "label at position %zu is %d; it must be -1 or in "
                                              "[0, %zu)",
                                              r, work->labels[r], work->vocabulary.whole));
            return false;
        }
    return true;
}

/* False when bf16 has no room, or a label is wrong. */
static bool share_begin(mr_device_cpu *cpu, const mr_tensor *logits, const mr_tensor *labels,
                        const mr_vocabulary *vocabulary, share_work *work) {
    work->kernels = mr_device_cpu_kernels(cpu, logits);
    work->logits = logits;
    work->labels = labels->data;
    work->R = mr_device_cpu_rows(logits);
    work->V = mr_device_cpu_width(logits);
    work->vocabulary = *vocabulary;
    work->task_rows = mr_device_cpu_task_rows(work->V);
    MR_ASSERT(labels->shape.dtype == MR_DTYPE_I32 && mr_device_cpu_count(labels) == work->R);
    MR_ASSERT(vocabulary->first + work->V <= vocabulary->whole);
    if (mr_device_cpu_is_half(logits)) {
        work->stage = mr_device_cpu_staging(cpu, work->V);
        if (work->stage.base == NULL)
            return false;
    }
    return share_labels_are_good(cpu, work);
}

/* Row r in f32. */
static const float *share_row(const share_work *work, size_t r, int thread) {
    if (work->stage.base == NULL)
        return mr_device_cpu_floats(work->logits) + r * work->V;
    float *row = mr_device_cpu_stage_of(&work->stage, thread);
    work->kernels->widen(mr_device_cpu_halves(work->logits) + r * work->V, row, work->V);
    return row;
}

/* Is the label's logit one of this rank's? */
static bool share_has_label(const share_work *work, size_t r, size_t *out_column) {
    int32_t label = work->labels[r];
    if (label < 0 || (size_t)label < work->vocabulary.first ||
        (size_t)label - work->vocabulary.first >= work->V)
        return false;
    *out_column = (size_t)label - work->vocabulary.first;
    return true;
}

static size_t share_last_row(const share_work *work, size_t first) {
    size_t left = work->R - first;
    return first + (left < work->task_rows ? left : work->task_rows);
}

static void share_statistics_task(void *context, size_t task, int thread) {
    const share_work *work = context;
    size_t first = task * work->task_rows;
    for (size_t r = first; r < share_last_row(work, first); r++) {
        const float *row = share_row(work, r, thread);
        size_t column = 0;
        work->kernels->logit_sum(row, work->V, &work->statistics[MR_LOGIT_MAX * work->R + r],
                                 &work->statistics[MR_LOGIT_SUM * work->R + r]);
        bool here = share_has_label(work, r, &column);
        work->statistics[MR_LOGIT_LABEL * work->R + r] = here ? row[column] : 0.0f;
    }
}

void mr_device_cpu_logit_statistics(mr_device *device, const mr_tensor *logits,
                                    const mr_tensor *labels, const mr_vocabulary *vocabulary,
                                    float *statistics) {
    mr_device_cpu *cpu = mr_device_cpu_of(device);
    share_work work = {.statistics = statistics};
    if (share_begin(cpu, logits, labels, vocabulary, &work))
        mr_pool_run(cpu->pool, mr_device_cpu_parts(work.R, work.task_rows), share_statistics_task,
                    &work);
}

/* What the statistics of all ranks say of row r. */
typedef struct share_whole {
    float max;
    double sum; /* of exp(logit - max) */
    double label;
} share_whole;

static share_whole share_combine(const share_work *work, size_t r) {
    size_t each = MR_LOGIT_STATISTIC_COUNT * work->R;
    share_whole whole = {.max = work->all[MR_LOGIT_MAX * work->R + r]};
    for (size_t rank = 1; rank < work->width; rank++) {
        float max = work->all[rank * each + MR_LOGIT_MAX * work->R + r];
        whole.max = max > whole.max ? max : whole.max;
    }
    for (size_t rank = 0; rank < work->width; rank++) {
        const float *of = work->all + rank * each + r;
        whole.sum += (double)of[MR_LOGIT_SUM * work->R] *
                     exp((double)of[MR_LOGIT_MAX * work->R] - (double)whole.max);
        whole.label += (double)of[MR_LOGIT_LABEL * work->R];
    }
    return whole;
}

static void share_gradient(const share_work *work, size_t r, const share_whole *whole,
                           int thread) {
    size_t column = 0;
    bool bf16 = work->stage.base != NULL;
    size_t at = r * work->V;
    float *out = bf16 ? mr_device_cpu_stage_of(&work->stage, thread)
                      : mr_device_cpu_floats(work->dlogits) + at;
    if (work->labels[r] < 0) {
        for (size_t i = 0; i < work->V; i++)
            out[i] = 0.0f;
    } else {
        work->kernels->logit_gradient(share_row(work, r, thread), whole->max,
                                      (float)((double)work->scale / whole->sum), out, work->V);
        if (share_has_label(work, r, &column))
            out[column] -= work->scale;
    }
    if (bf16)
        work->kernels->narrow(out, mr_device_cpu_halves(work->dlogits) + at, work->V);
}

static void share_entropy_task(void *context, size_t task, int thread) {
    const share_work *work = context;
    size_t first = task * work->task_rows;
    for (size_t r = first; r < share_last_row(work, first); r++) {
        share_whole whole = share_combine(work, r);
        work->shares[r] =
            work->labels[r] < 0 ? 0.0 : log(whole.sum) + ((double)whole.max - whole.label);
        if (work->dlogits != NULL)
            share_gradient(work, r, &whole, thread);
    }
}

void mr_device_cpu_cross_entropy_share(mr_device *device, const mr_tensor *logits,
                                       const mr_tensor *labels, const mr_vocabulary *vocabulary,
                                       const float *statistics, size_t width, float scale,
                                       mr_tensor *dlogits, double *loss) {
    mr_device_cpu *cpu = mr_device_cpu_of(device);
    share_work work = {.all = statistics, .width = width, .scale = scale, .dlogits = dlogits};
    MR_ASSERT(width > 0);
    MR_ASSERT(dlogits == NULL || mr_device_cpu_count(dlogits) == mr_device_cpu_count(logits));
    work.shares = mr_device_cpu_workspace(cpu, mr_device_cpu_rows(logits) * sizeof(double));
    if (work.shares == NULL || !share_begin(cpu, logits, labels, vocabulary, &work))
        return;
    mr_pool_run(cpu->pool, mr_device_cpu_parts(work.R, work.task_rows), share_entropy_task, &work);
    double total = 0.0;
    for (size_t r = 0; r < work.R; r++)
        total += work.shares[r];
    *loss += total;
}
