/* SPDX-License-Identifier: Apache-2.0 */
/* embedding.c: rows looked up and rows added to. Backward is cut into strips of columns, each of
 * which goes through all positions in ascending order, so that no row has two writers. */
#include <string.h>

#include "daemon/device/cpu/device_cpu.h"

enum { EMBEDDING_COLUMNS = 128 }; /* of one strip */

typedef struct embedding_work {
    const mr_cpu_kernels *kernels;
    const int32_t *tokens;
    size_t B;
    size_t T;
    size_t C;
    size_t V;
    size_t task_rows;
    const float *wte;
    const float *wpe; /* NULL: none */
    float *y;
    const float *dy;
    float *dwte;
    float *dwpe; /* NULL: none */
} embedding_work;

static bool embedding_is_token(const embedding_work *work, int32_t token) {
    return token >= 0 && (size_t)token < work->V;
}

/* The first token outside the vocabulary is latched; its row is zero and gets no gradient. */
static void embedding_check(mr_device_cpu *cpu, const embedding_work *work) {
    for (size_t r = 0; r < work->B * work->T; r++)
        if (!embedding_is_token(work, work->tokens[r])) {
            mr_device_cpu_latch(cpu, MR_ERROR(INVALID_ARGUMENT,
                                              "token at position %zu is %d; it must be in "
                                              "[0, %zu)",
                                              r, work->tokens[r], work->V));
            return;
        }
}

static embedding_work embedding_work_make(mr_device_cpu *cpu, const mr_tensor *tokens,
                                          const mr_tensor *wte, const mr_tensor *wpe) {
    MR_ASSERT(tokens->shape.dtype == MR_DTYPE_I32);
    MR_ASSERT(tokens->shape.dim_count >= 1);
    embedding_work work = {
        .kernels = cpu->kernels,
        .tokens = tokens->data,
        .T = mr_device_cpu_width(tokens),
        .B = mr_device_cpu_rows(tokens),
        .C = mr_device_cpu_width(wte),
        .V = mr_device_cpu_rows(wte),
        .task_rows = mr_device_cpu_task_rows(mr_device_cpu_width(wte)),
    };
    MR_ASSERT(wpe == NULL || mr_device_cpu_width(wpe) == work.C);
    MR_ASSERT(wpe == NULL || mr_device_cpu_rows(wpe) >= work.T);
    embedding_check(cpu, &work);
    return work;
}

static void embedding_forward_task(void *context, size_t task, int thread) {
    (void)thread;
    const embedding_work *work = context;
    size_t C = work->C;
    size_t rows = work->B * work->T;
    size_t first = task * work->task_rows;
    size_t last = rows - first < work->task_rows ? rows : first + work->task_rows;
    for (size_t r = first; r < last; r++) {
        float *y = work->y + r * C;
        if (!embedding_is_token(work, work->tokens[r])) {
            memset(y, 0, C * sizeof(float));
            continue;
        }
        const float *row = work->wte + (size_t)work->tokens[r] * C;
        if (work->wpe == NULL)
            memcpy(y, row, C * sizeof(float));
        else
            work->kernels->add(row, work->wpe + r % work->T * C, NULL, 0, y, C);
    }
}

void mr_device_cpu_embedding_forward(mr_device *device, const mr_tensor *tokens,
                                     const mr_tensor *wte, const mr_tensor *wpe, mr_tensor *y) {
    mr_device_cpu *cpu = mr_device_cpu_of(device);
    embedding_work work = embedding_work_make(cpu, tokens, wte, wpe);
    MR_ASSERT(mr_device_cpu_count(y) == work.B * work.T * work.C);
    work.wte = mr_device_cpu_floats(wte);
    work.wpe = wpe == NULL ? NULL : mr_device_cpu_floats(wpe);
    work.y = mr_device_cpu_floats(y);
    mr_pool_run(cpu->pool, mr_device_cpu_parts(work.B * work.T, work.task_rows),
                embedding_forward_task, &work);
}

static void embedding_backward_task(void *context, size_t task, int thread) {
    (void)thread;
    const embedding_work *work = context;
    size_t C = work->C;
    size_t column = task * EMBEDDING_COLUMNS;
    size_t n = C - column < EMBEDDING_COLUMNS ? C - column : EMBEDDING_COLUMNS;
    for (size_t r = 0; r < work->B * work->T; r++) {
        const float *dy = work->dy + r * C + column;
        if (embedding_is_token(work, work->tokens[r]))
            work->kernels->accumulate(work->dwte + (size_t)work->tokens[r] * C + column, dy, n);
        if (work->dwpe != NULL)
            work->kernels->accumulate(work->dwpe + r % work->T * C + column, dy, n);
    }
}

void mr_device_cpu_embedding_backward(mr_device *device, const mr_tensor *tokens,
                                      const mr_tensor *dy, mr_tensor *dwte, mr_tensor *dwpe) {
    mr_device_cpu *cpu = mr_device_cpu_of(device);
    embedding_work work = embedding_work_make(cpu, tokens, dwte, dwpe);
    MR_ASSERT(mr_device_cpu_count(dy) == work.B * work.T * work.C);
    work.dy = mr_device_cpu_floats(dy);
    work.dwte = mr_device_cpu_floats(dwte);
    work.dwpe = dwpe == NULL ? NULL : mr_device_cpu_floats(dwpe);
    mr_pool_run(cpu->pool, mr_device_cpu_parts(work.C, EMBEDDING_COLUMNS),
                embedding_backward_task, &work);
}
