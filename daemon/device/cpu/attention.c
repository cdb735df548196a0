/* SPDX-License-Identifier: Apache-2.0 */
/* attention.c: one task for each head of each sequence; a thread's scratch is its own. */
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
} attention_work;

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
    head.dropout_first = (uint64_t)task * work->T * work->T;
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
    float *base = mr_device_cpu_floats(qkv);
    size_t D = C / heads;
    return (attention_work){
        .T = T,
        .C = C,
        .NH = heads,
        .common =
            {
                .T = T,
                .D = D,
                .scale = 1.0f / __builtin_sqrtf((float)D),
                .causal = causal,
                .q = base,
                .k = base + C,
                .v = base + 2 * C,
                .stride = 3 * C,
                .out = mr_device_cpu_floats(out),
                .out_stride = C,
                .lse = mr_device_cpu_floats(lse),
                .dropout = dropout,
            },
    };
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
    if (work->scratch != NULL)
        mr_pool_run(cpu->pool, B * work->NH, attention_task, work);
}

void mr_device_cpu_attention_forward(mr_device *device, const mr_tensor *qkv, size_t heads,
                                     bool causal, const mr_dropout *dropout, mr_tensor *out,
                                     mr_tensor *lse) {
    mr_device_cpu *cpu = mr_device_cpu_of(device);
    attention_work work = attention_work_make(qkv, heads, causal, dropout, out, lse);
    work.kernel = cpu->kernels->attention_forward;
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
    work.kernel = cpu->kernels->attention_backward;
    work.common.dout = mr_device_cpu_floats(dout);
    work.common.dq = mr_device_cpu_floats(dqkv);
    work.common.dk = work.common.dq + work.C;
    work.common.dv = work.common.dq + 2 * work.C;
    attention_run(cpu, &work, qkv->shape.dims[0]);
}
