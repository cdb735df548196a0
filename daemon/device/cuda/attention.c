/* SPDX-License-Identifier: Apache-2.0 */
/* attention.c: which attention goes to cuDNN (bf16, causal, no dropout, heads of a multiple of 8
 * numbers, addresses of 16 bytes), and which to our own kernels: the rest, and what cuDNN refuses.
 * Deterministic backward needs B NH T T 2 bytes in cuDNN; above ATTENTION_ORDERED_BYTES_MAX our
 * own kernels, which are ordered in any case, take it. */
#include "daemon/device/cuda/device_cuda.h"

enum { ATTENTION_HEAD_STEP = 8, ATTENTION_ALIGNMENT = 16 };
#define ATTENTION_ORDERED_BYTES_MAX ((size_t)2 << 30)

typedef struct attention_call {
    size_t B;
    size_t T;
    size_t C;
    size_t heads;
    bool causal;
    const mr_dropout *dropout;
} attention_call;

static attention_call attention_call_of(const mr_tensor *qkv, size_t heads, bool causal,
                                        const mr_dropout *dropout) {
    size_t width = mr_device_cuda_width(qkv);
    MR_ASSERT(qkv->shape.dim_count == 3);
    MR_ASSERT(heads > 0 && width % (3 * heads) == 0);
    return (attention_call){.B = qkv->shape.dims[0],
                            .T = qkv->shape.dims[1],
                            .C = width / 3,
                            .heads = heads,
                            .causal = causal,
                            .dropout = dropout};
}

static bool attention_is_cudnns(const attention_call *call, const mr_tensor *const *tensors,
                                size_t count) {
    bool dropped = call->dropout != NULL && call->dropout->probability > 0.0f;
    if (!call->causal || dropped || call->C / call->heads % ATTENTION_HEAD_STEP != 0)
        return false;
    for (size_t i = 0; i < count; i++)
        if (tensors[i]->shape.dtype != MR_DTYPE_BF16 ||
            (uintptr_t)tensors[i]->data % ATTENTION_ALIGNMENT != 0)
            return false;
    return true;
}

static mr_cuda_attention attention_own(const attention_call *call) {
    return (mr_cuda_attention){.B = call->B,
                               .T = call->T,
                               .NH = call->heads,
                               .D = call->C / call->heads,
                               .causal = call->causal,
                               .mask = mr_device_cuda_mask(call->dropout)};
}

static mr_sdpa_shape attention_shape(const mr_device_cuda *cuda, const attention_call *call,
                                     bool backward) {
    return (mr_sdpa_shape){.B = (int64_t)call->B,
                           .H = (int64_t)call->heads,
                           .HK = (int64_t)call->heads,
                           .T = (int64_t)call->T,
                           .D = (int64_t)(call->C / call->heads),
                           .backward = backward,
                           .deterministic = backward && !cuda->fast};
}

/* Q, K and V of a row of three parts. */
static void attention_parts(void *memory[MR_SDPA_UID_COUNT], const mr_tensor *row, size_t C,
                            mr_sdpa_uid q, mr_sdpa_uid k, mr_sdpa_uid v) {
    unsigned char *base = row->data;
    size_t part = C * mr_dtype_bytes(row->shape.dtype);
    memory[q] = base;
    memory[k] = base + part;
    memory[v] = base + 2 * part;
}

/* False when cuDNN has no engine, or none within the bound of memory; then nothing was done. */
static bool attention_run(mr_device_cuda *cuda, const mr_sdpa_shape *shape,
                          void *const memory[MR_SDPA_UID_COUNT]) {
    const mr_sdpa_plan *plan = NULL;
    mr_status status = mr_sdpa_plan_get(cuda->sdpa, shape, &plan);
    if (status.code == MR_CODE_UNIMPLEMENTED)
        return false;
    if (!mr_status_is_ok(status)) {
        mr_device_cuda_latch(cuda, status);
        return true;
    }
    size_t bytes = mr_sdpa_plan_workspace(plan);
    if (shape->deterministic && bytes > ATTENTION_ORDERED_BYTES_MAX)
        return false;
    void *workspace = mr_device_cuda_workspace(cuda, bytes + 1); /* never of size 0 */
    if (workspace != NULL)
        mr_device_cuda_latch(cuda, mr_sdpa_run(cuda->sdpa, plan, memory, workspace));
    return true;
}

void mr_device_cuda_attention_forward(mr_device *device, const mr_tensor *qkv, size_t heads,
                                      bool causal, const mr_dropout *dropout, mr_tensor *out,
                                      mr_tensor *lse) {
    mr_device_cuda *cuda = mr_device_cuda_of(device);
    attention_call call = attention_call_of(qkv, heads, causal, dropout);
    const mr_tensor *const tensors[] = {qkv, out};
    MR_ASSERT(mr_device_cuda_count(out) == call.B * call.T * call.C);
    MR_ASSERT(mr_device_cuda_count(lse) == call.B * call.T * heads);
    if (attention_is_cudnns(&call, tensors, 2)) {
        mr_sdpa_shape shape = attention_shape(cuda, &call, false);
        void *memory[MR_SDPA_UID_COUNT] = {[MR_SDPA_O] = out->data,
                                           [MR_SDPA_STATISTIC] = mr_device_cuda_floats(lse)};
        attention_parts(memory, qkv, call.C, MR_SDPA_Q, MR_SDPA_K, MR_SDPA_V);
        if (attention_run(cuda, &shape, memory))
            return;
    }
    mr_cuda_attention own = attention_own(&call);
    (void)mr_device_cuda_passed(
        cuda,
        mr_cuda_attention_forward(cuda->stream, &own, mr_device_cuda_array(qkv, MR_DTYPE_NONE),
                                  mr_device_cuda_array(out, MR_DTYPE_NONE),
                                  mr_device_cuda_floats(lse)),
        "attention_forward");
}

void mr_device_cuda_attention_backward(mr_device *device, const mr_tensor *dout,
                                       const mr_tensor *qkv, const mr_tensor *out,
                                       const mr_tensor *lse, size_t heads, bool causal,
                                       const mr_dropout *dropout, mr_tensor *dqkv) {
    mr_device_cuda *cuda = mr_device_cuda_of(device);
    attention_call call = attention_call_of(qkv, heads, causal, dropout);
    const mr_tensor *const tensors[] = {qkv, out, dout, dqkv};
    MR_ASSERT(mr_device_cuda_count(dqkv) == mr_device_cuda_count(qkv));
    MR_ASSERT(mr_device_cuda_count(dout) == call.B * call.T * call.C);
    if (attention_is_cudnns(&call, tensors, 4)) {
        mr_sdpa_shape shape = attention_shape(cuda, &call, true);
        void *memory[MR_SDPA_UID_COUNT] = {[MR_SDPA_O] = out->data,
                                           [MR_SDPA_DO] = dout->data,
                                           [MR_SDPA_STATISTIC] = mr_device_cuda_floats(lse)};
        attention_parts(memory, qkv, call.C, MR_SDPA_Q, MR_SDPA_K, MR_SDPA_V);
        attention_parts(memory, dqkv, call.C, MR_SDPA_DQ, MR_SDPA_DK, MR_SDPA_DV);
        if (attention_run(cuda, &shape, memory))
            return;
    }
    mr_cuda_attention own = attention_own(&call);
    float *workspace =
        mr_device_cuda_workspace(cuda, call.B * call.T * heads * sizeof(float) + 1);
    if (workspace != NULL)
        (void)mr_device_cuda_passed(
            cuda,
            mr_cuda_attention_backward(
                cuda->stream, &own, mr_device_cuda_array(dout, MR_DTYPE_NONE),
                mr_device_cuda_array(qkv, MR_DTYPE_NONE), mr_device_cuda_array(out, MR_DTYPE_NONE),
                mr_device_cuda_floats(lse), workspace, mr_device_cuda_array(dqkv, MR_DTYPE_NONE)),
            "attention_backward");
}
