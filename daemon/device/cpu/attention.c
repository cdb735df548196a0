/* SPDX-License-Identifier: Apache-2.0 */
/* attention.c: one task for each head of each sequence; a thread's scratch is its own. A head of
 * bf16 is staged as matrices [T, D] of its own. */
#include "daemon/base/alloc.h"
#include "daemon/device/cpu/device_cpu.h"

typedef struct attention_work {
    void (*kernel)(const mr_cpu_attention *attention);
    size_t T;
    size_t C;
    size_t NH;
    mr_cpu_attention common; /* pointers: of head 0 of sequence 0 */
    float *scratch;          /* scratch_floats for each thread */
    size_t scratch_floats;
    /* bf16: of head 0 of sequence 0; common then points to none of these. dout NULL: forward. */
    const uint16_t *qkv;
    const uint16_t *dout;
    uint16_t *out; /* const in backward */
    uint16_t *dqkv;
    mr_device_cpu_stage stage;
    const mr_cpu_kernels *kernels;
} attention_work;

enum { ATTENTION_STAGED = 8 }; /* q, k, v, out, dout, dq, dk, dv */

static void attention_widen(const attention_work *work, const uint16_t *from, size_t stride,
                            float *to) {
    for (size_t t = 0; t < work->T; t++)
        work->kernels->widen(from + t * stride, to + t * work->common.D, work->common.D);
}

static void attention_narrow(const attention_work *work, const float *from, uint16_t *to,
                             size_t stride) {
    for (size_t t = 0; t < work->T; t++)
        work->kernels->narrow(from + t * work->common.D, to + t * stride, work->common.D);
}

/* Heads of a share are runs of whole planes [T, T], so a plane's words follow each other. */
static uint64_t attention_dropout_first(const attention_work *work, size_t task) {
    uint64_t element = (uint64_t)task * work->T * work->T;
    return work->common.dropout == NULL ? element : mr_dropout_word(work->common.dropout, element);
}

static void attention_staged_task(void *context, size_t task, int thread) {
    const attention_work *work = context;
    size_t C = work->C;
    size_t D = work->common.D;
    size_t packed = task / work->NH * work->T * 3 * C + task % work->NH * D;
    size_t plain = task / work->NH * work->T * C + task % work->NH * D;
    float *part[ATTENTION_STAGED];
    for (size_t i = 0; i < ATTENTION_STAGED; i++)
        part[i] = mr_device_cpu_stage_of(&work->stage, thread) + i * work->T * D;
    mr_cpu_attention head = work->common;
    head.q = part[0];
    head.k = part[1];
    head.v = part[2];
    head.out = part[3];
    head.stride = D;
    head.out_stride = D;
    head.lse += task * work->T;
    head.dropout_first = attention_dropout_first(work, task);
    head.scratch = work->scratch + (size_t)thread * work->scratch_floats;
    for (size_t i = 0; i < 3; i++)
        attention_widen(work, work->qkv + packed + i * C, 3 * C, part[i]);
    if (work->dout == NULL) {
        work->kernel(&head);
        attention_narrow(work, head.out, work->out + plain, C);
        return;
    }
    attention_widen(work, work->out + plain, C, part[3]);
    attention_widen(work, work->dout + plain, C, part[4]);
    head.dout = part[4];
    head.dq = part[5];
    head.dk = part[6];
    head.dv = part[7];
    work->kernel(&head);
    for (size_t i = 0; i < 3; i++)
        attention_narrow(work, part[5 + i], work->dqkv + packed + i * C, 3 * C);
}

static void attention_task(void *context, size_t task, int thread) {
    const attention_work *work = context;
    size_t b = task / work->NH;
    size_t h = task % work->NH;
    size_t D = work->common.D;
    size_t packed = b * work->T * 3 * work->C + h * D; /* of this head in qkv */
    size_t plain = b * work->T * work->C + h * D;      /* in out */
    mr_cpu_attention head = work->common;
    head.q += packed;
    head.k += packed;
    head.v += packed;
    head.out += plain;
    head.lse += task * work->T;
    head.dropout_first = attention_dropout_first(work, task);
    if (head.dout != NULL) {
        head.dout += plain;
        head.dq += packed;
        head.dk += packed;
        head.dv += packed;
    }
    head.scratch = work->scratch + (size_t)thread * work->scratch_floats;
    work->kernel(&head);
}

/* Checks shapes and fills in what both directions share. */
static attention_work attention_work_make(const mr_tensor *qkv, size_t heads, bool causal,
                                          const mr_dropout *dropout, const mr_tensor *out,
                                          const mr_tensor *lse) {
    MR_ASSERT(qkv->shape.dim_count == 3);
    size_t B = qkv->shape.dims[0];
    size_t T = qkv->shape.dims[1];
    size_t C = qkv->shape.dims[2] / 3;
    MR_ASSERT(qkv->shape.dims[2] == 3 * C);
    MR_ASSERT(heads > 0 && C % heads == 0);
    MR_ASSERT(mr_device_cpu_count(out) == B * T * C);
    MR_ASSERT(mr_device_cpu_count(lse) == B * heads * T);
    size_t D = C / heads;
    attention_work work = {
        .T = T,
        .C = C,
        .NH = heads,
        .common =
            {
                .T = T,
                .D = D,
                .scale = 1.0f / __builtin_sqrtf((float)D),
                .causal = causal,
                .stride = 3 * C,
                .out_stride = C,
                .lse = mr_device_cpu_floats(lse),
                .dropout = dropout,
            },
    };
    if (mr_device_cpu_is_half(qkv)) {
        work.qkv = mr_device_cpu_halves(qkv);
        work.out = mr_device_cpu_halves(out);
        return work;
    }
    work.common.q = mr_device_cpu_floats(qkv);
    work.common.k = work.common.q + C;
    work.common.v = work.common.q + 2 * C;
    work.common.out = mr_device_cpu_floats(out);
    return work;
}

static void attention_run(mr_device_cpu *cpu, attention_work *work, size_t B) {
    size_t bytes = 0;
    size_t threads = (size_t)mr_pool_threads(cpu->pool);
    bool fits = mr_cpu_attention_scratch(work->T, work->common.D, &work->scratch_floats) &&
                mr_size_mul(work->scratch_floats, threads * sizeof(float), &bytes);
    if (!fits) {
        mr_device_cpu_latch(cpu, MR_ERROR(RESOURCE_EXHAUSTED,
                                          "attention over %zu positions needs too much scratch",
                                          work->T));
        return;
    }
    work->scratch = mr_device_cpu_workspace(cpu, bytes);
    bool staged = work->qkv != NULL;
    if (staged)
        /* No more than the scratch times ATTENTION_STAGED: fits. */
        work->stage = mr_device_cpu_staging(cpu, ATTENTION_STAGED * work->T * work->common.D);
    if (work->scratch != NULL && (!staged || work->stage.base != NULL))
        mr_pool_run(cpu->pool, B * work->NH, staged ? attention_staged_task : attention_task, work);
}

void mr_device_cpu_attention_forward(mr_device *device, const mr_tensor *qkv, size_t heads,
                                     bool causal, const mr_dropout *dropout, mr_tensor *out,
                                     mr_tensor *lse) {
    mr_device_cpu *cpu = mr_device_cpu_of(device);
    attention_work work = attention_work_make(qkv, heads, causal, dropout, out, lse);
    work.kernels = mr_device_cpu_kernels(cpu, qkv);
    work.kernel = work.kernels->attention_forward;
    attention_run(cpu, &work, qkv->shape.dims[0]);
}

void mr_device_cpu_attention_backward(mr_device *device, const mr_tensor *dout,
                                      const mr_tensor *qkv, const mr_tensor *out,
                                      const mr_tensor *lse, size_t heads, bool causal,
                                      const mr_dropout *dropout, mr_tensor *dqkv) {
    mr_device_cpu *cpu = mr_device_cpu_of(device);
    attention_work work = attention_work_make(qkv, heads, causal, dropout, out, lse);
    MR_ASSERT(mr_device_cpu_count(dout) == mr_device_cpu_count(out));
    MR_ASSERT(mr_device_cpu_count(dqkv) == mr_device_cpu_count(qkv));
    work.kernels = mr_device_cpu_kernels(cpu, qkv);
    work.kernel = work.kernels->attention_backward;
    if (work.qkv != NULL) {
        work.dout = mr_device_cpu_halves(dout);
        work.dqkv = mr_device_cpu_halves(dqkv);
    } else {
        work.common.dout = mr_device_cpu_floats(dout);
        work.common.dq = mr_device_cpu_floats(dqkv);
        work.common.dk = work.common.dq + work.C;
        work.common.dv = work.common.dq + 2 * work.C;
    }
    attention_run(cpu, &work, qkv->shape.dims[0]);
}
