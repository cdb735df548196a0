/* SPDX-License-Identifier: Apache-2.0 */
/* embedding.c: rows looked up and rows added to, of a whole vocabulary or of a share of it.
 * Backward is cut into strips of columns, each of which goes through all positions in ascending
 * order, so that no row has two writers. */
#include <string.h>

#include "daemon/device/cpu/device_cpu.h"

enum { EMBEDDING_COLUMNS = 128 }; /* of one strip */

typedef struct embedding_work {
    const mr_cpu_kernels *kernels;
    const int32_t *tokens;
    size_t B;
    size_t T;
    size_t C;
    size_t V;     /* rows here */
    size_t first; /* the token of row 0 */
    size_t whole; /* tokens of all ranks */
    size_t task_rows;
    const mr_tensor *wte;
    const mr_tensor *wpe; /* NULL: none */
    mr_tensor *y;
    const mr_tensor *dy;
    mr_device_cpu_stage stage; /* bf16: two rows */
    float *dwte; /* NULL: none */
    float *dwpe; /* NULL: none */
} embedding_work;

static bool embedding_is_token(const embedding_work *work, int32_t token) {
    return token >= 0 && (size_t)token < work->whole;
}

/* Has this rank the token's row? */
static bool embedding_is_here(const embedding_work *work, int32_t token) {
    return token >= 0 && (size_t)token >= work->first && (size_t)token - work->first < work->V;
}

static size_t embedding_row_of(const embedding_work *work, int32_t token) {
    return (size_t)token - work->first;
}

/* The first token outside the vocabulary is latched; its row is zero and gets no gradient. */
static void embedding_check(mr_device_cpu *cpu, const embedding_work *work) {
    for (size_t r = 0; r < work->B * work->T; r++)
        if (!embedding_is_token(work, work->tokens[r])) {
            mr_device_cpu_latch(cpu, MR_ERROR(INVALID_ARGUMENT,
                                              "token at position %zu is %d; it must be in "
                                              "[0, %zu)",
                                              r, work->tokens[r], work->whole));
            return;
        }
}

/* vocabulary NULL: all of it is here. */
static embedding_work embedding_work_make(mr_device_cpu *cpu, const mr_tensor *tokens,
                                          const mr_vocabulary *vocabulary, const mr_tensor *wte,
                                          const mr_tensor *wpe, const mr_tensor *activations) {
    MR_ASSERT(tokens->shape.dtype == MR_DTYPE_I32);
    MR_ASSERT(tokens->shape.dim_count >= 1);
    embedding_work work = {
        .kernels = mr_device_cpu_kernels(cpu, activations),
        .tokens = tokens->data,
        .T = mr_device_cpu_width(tokens),
        .B = mr_device_cpu_rows(tokens),
        .C = mr_device_cpu_width(activations),
        .V = wte == NULL ? INT32_MAX : mr_device_cpu_rows(wte),
        .task_rows = mr_device_cpu_task_rows(mr_device_cpu_width(activations)),
    };
    work.first = vocabulary == NULL ? 0 : vocabulary->first;
    work.whole = vocabulary == NULL ? work.V : vocabulary->whole;
    MR_ASSERT(wte == NULL || mr_device_cpu_width(wte) == work.C);
    MR_ASSERT(wte == NULL || work.first + work.V <= work.whole);
    MR_ASSERT(wpe == NULL || mr_device_cpu_width(wpe) == work.C);
    MR_ASSERT(wpe == NULL || mr_device_cpu_rows(wpe) >= work.T);
    embedding_check(cpu, &work);
    return work;
}

/* y [row r] in f32, and the same in bf16. The token is here. */
static void embedding_row(const embedding_work *work, size_t r) {
    size_t C = work->C;
    float *y = mr_device_cpu_floats(work->y) + r * C;
    const float *row =
        mr_device_cpu_floats(work->wte) + embedding_row_of(work, work->tokens[r]) * C;
    if (work->wpe == NULL)
        memcpy(y, row, C * sizeof(float));
    else
        work->kernels->add(row, mr_device_cpu_floats(work->wpe) + r % work->T * C, NULL, 0, y, C);
}

static void embedding_row_staged(const embedding_work *work, size_t r, float *stage) {
    size_t C = work->C;
    uint16_t *y = mr_device_cpu_halves(work->y) + r * C;
    const uint16_t *row =
        mr_device_cpu_halves(work->wte) + embedding_row_of(work, work->tokens[r]) * C;
    if (work->wpe == NULL) {
        memcpy(y, row, C * sizeof(*y));
        return;
    }
    work->kernels->widen(row, stage, C);
    work->kernels->widen(mr_device_cpu_halves(work->wpe) + r % work->T * C, stage + C, C);
    work->kernels->add(stage, stage + C, NULL, 0, stage, C);
    work->kernels->narrow(stage, y, C);
}

static void embedding_forward_task(void *context, size_t task, int thread) {
    const embedding_work *work = context;
    size_t row_bytes = work->C * mr_dtype_bytes(work->y->shape.dtype);
    size_t rows = work->B * work->T;
    size_t first = task * work->task_rows;
    size_t last = rows - first < work->task_rows ? rows : first + work->task_rows;
    for (size_t r = first; r < last; r++) {
        if (!embedding_is_here(work, work->tokens[r]))
            memset((unsigned char *)work->y->data + r * row_bytes, 0, row_bytes);
        else if (work->stage.base == NULL)
            embedding_row(work, r);
        else
            embedding_row_staged(work, r, mr_device_cpu_stage_of(&work->stage, thread));
    }
}

void mr_device_cpu_embedding_forward_share(mr_device *device, const mr_tensor *tokens,
                                           const mr_vocabulary *vocabulary, const mr_tensor *wte,
                                           const mr_tensor *wpe, mr_tensor *y) {
    mr_device_cpu *cpu = mr_device_cpu_of(device);
    embedding_work work = embedding_work_make(cpu, tokens, vocabulary, wte, wpe, y);
    MR_ASSERT(mr_device_cpu_count(y) == work.B * work.T * work.C);
    work.wte = wte;
    work.wpe = wpe;
    work.y = y;
    if (mr_device_cpu_is_half(y)) {
        work.stage = mr_device_cpu_staging(cpu, 2 * work.C);
        if (work.stage.base == NULL)
            return;
    }
    mr_pool_run(cpu->pool, mr_device_cpu_parts(work.B * work.T, work.task_rows),
                embedding_forward_task, &work);
}

void mr_device_cpu_embedding_forward(mr_device *device, const mr_tensor *tokens,
                                     const mr_tensor *wte, const mr_tensor *wpe, mr_tensor *y) {
    mr_device_cpu_embedding_forward_share(device, tokens, NULL, wte, wpe, y);
}

static void embedding_backward_task(void *context, size_t task, int thread) {
    (void)thread;
    const embedding_work *work = context;
    float wide[EMBEDDING_COLUMNS];
    bool staged = mr_device_cpu_is_half(work->dy);
    size_t C = work->C;
    size_t column = task * EMBEDDING_COLUMNS;
    size_t n = C - column < EMBEDDING_COLUMNS ? C - column : EMBEDDING_COLUMNS;
    for (size_t r = 0; r < work->B * work->T; r++) {
        const float *dy = wide;
        if (staged)
            work->kernels->widen(mr_device_cpu_halves(work->dy) + r * C + column, wide, n);
        else
            dy = mr_device_cpu_floats(work->dy) + r * C + column;
        if (work->dwte != NULL && embedding_is_here(work, work->tokens[r]))
            work->kernels->accumulate(
                work->dwte + embedding_row_of(work, work->tokens[r]) * C + column, dy, n);
        if (work->dwpe != NULL)
            work->kernels->accumulate(work->dwpe + r % work->T * C + column, dy, n);
    }
}

void mr_device_cpu_embedding_backward_share(mr_device *device, const mr_tensor *tokens,
                                            const mr_vocabulary *vocabulary, const mr_tensor *dy,
                                            mr_tensor *dwte, mr_tensor *dwpe) {
    mr_device_cpu *cpu = mr_device_cpu_of(device);
    embedding_work work = embedding_work_make(cpu, tokens, vocabulary, dwte, dwpe, dy);
    MR_ASSERT(mr_device_cpu_count(dy) == work.B * work.T * work.C);
    work.dy = dy;
    work.dwte = dwte == NULL ? NULL : mr_device_cpu_floats(dwte);
    work.dwpe = dwpe == NULL ? NULL : mr_device_cpu_floats(dwpe);
    mr_pool_run(cpu->pool, mr_device_cpu_parts(work.C, EMBEDDING_COLUMNS),
                embedding_backward_task, &work);
}

void mr_device_cpu_embedding_backward(mr_device *device, const mr_tensor *tokens,
                                      const mr_tensor *dy, mr_tensor *dwte, mr_tensor *dwpe) {
    mr_device_cpu_embedding_backward_share(device, tokens, NULL, dy, dwte, dwpe);
}
