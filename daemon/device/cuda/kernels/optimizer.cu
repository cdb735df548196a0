/* SPDX-License-Identifier: Apache-2.0 */
/* optimizer.cu: AdamW on a list of tensors in one launch. The list travels as the kernel's
 * argument; a block finds its tensor by the number of its first block. */
#include "daemon/device/cuda/kernels/pack.cuh"

enum { ADAMW_ELEMENTS = 4, ADAMW_BLOCK = PACK_THREADS * ADAMW_ELEMENTS };

struct adamw_list {
    mr_cuda_adamw_tensor tensors[MR_CUDA_ADAMW_MAX];
    unsigned first[MR_CUDA_ADAMW_MAX]; /* block of a tensor */
    unsigned count;
};

template <typename G>
__device__ static void adamw_pack(const mr_cuda_adamw &o, const mr_cuda_adamw_tensor &t, size_t i) {
    constexpr int N = ADAMW_ELEMENTS;
    size_t valid = t.n - i;
    const G *gradient = static_cast<const G *>(t.gradient.data) + i;
    bool aligned = ((reinterpret_cast<uintptr_t>(gradient) |
                     reinterpret_cast<uintptr_t>(t.parameter + i) |
                     reinterpret_cast<uintptr_t>(t.exp_avg + i) |
                     reinterpret_cast<uintptr_t>(t.exp_avg_sq + i)) &
                    15) == 0;
    float g[N];
    float p[N];
    float m[N];
    float v[N];
    pack_load(gradient, valid, aligned, g);
    pack_load(t.parameter + i, valid, aligned, p);
    pack_load(t.exp_avg + i, valid, aligned, m);
    pack_load(t.exp_avg_sq + i, valid, aligned, v);
    float step = o.lr / o.bias_correction1;
    float root = 1.0f / o.bias_correction2;
#pragma unroll
    for (int j = 0; j < N; j++) {
        float scaled = g[j] * o.gradient_scale;
        m[j] = fmaf(o.beta1, m[j], (1.0f - o.beta1) * scaled);
        v[j] = fmaf(o.beta2, v[j], (1.0f - o.beta2) * (scaled * scaled));
        p[j] *= 1.0f - o.lr * t.weight_decay;
        p[j] = fmaf(-step, m[j] / (sqrtf(v[j] * root) + o.eps), p[j]);
    }
    pack_store(t.parameter + i, valid, aligned, p);
    pack_store(t.exp_avg + i, valid, aligned, m);
    pack_store(t.exp_avg_sq + i, valid, aligned, v);
}

__global__ static void adamw_kernel(const __grid_constant__ mr_cuda_adamw options,
                                    const __grid_constant__ adamw_list list) {
    unsigned at = 0;
    while (at + 1 < list.count && blockIdx.x >= list.first[at + 1])
        at++;
    const mr_cuda_adamw_tensor &t = list.tensors[at];
    size_t block = blockIdx.x - list.first[at];
    size_t i = block * ADAMW_BLOCK + static_cast<size_t>(threadIdx.x) * ADAMW_ELEMENTS;
    if (i >= t.n)
        return;
    if (t.gradient.dtype == MR_DTYPE_BF16)
        adamw_pack<bf16>(options, t, i);
    else
        adamw_pack<float>(options, t, i);
}

int mr_cuda_adamw_update(mr_cuda_stream stream, const mr_cuda_adamw *options,
                         const mr_cuda_adamw_tensor *tensors, size_t count) {
    adamw_list list = {};
    size_t blocks = 0;
    if (count > MR_CUDA_ADAMW_MAX)
        return cudaErrorInvalidValue;
    for (size_t i = 0; i < count; i++) {
        if (tensors[i].gradient.dtype != MR_DTYPE_F32 && tensors[i].gradient.dtype != MR_DTYPE_BF16)
            return cudaErrorNotSupported;
        list.tensors[i] = tensors[i];
        list.first[i] = static_cast<unsigned>(blocks);
        blocks += (tensors[i].n + ADAMW_BLOCK - 1) / ADAMW_BLOCK;
    }
    list.count = static_cast<unsigned>(count);
    if (blocks == 0)
        return 0;
    adamw_kernel<<<static_cast<unsigned>(blocks), PACK_THREADS, 0, stream>>>(*options, list);
    return cudaGetLastError();
}
