/* SPDX-License-Identifier: Apache-2.0 */
/* pack.cuh: elements and packs of 16 bytes, the choice of types at launch, sums over a block, and
 * dropout masks. A pack is moved as one vector where address and count allow it, element by element
 * elsewhere; its arithmetic is the same, so results do not depend on addresses.
 * Owner: device/cuda/kernels; not for others. */
#ifndef MR_DEVICE_CUDA_KERNELS_PACK_CUH
#define MR_DEVICE_CUDA_KERNELS_PACK_CUH

#include <cstring>
#include <type_traits>

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "daemon/device/cuda/kernels/kernels.h"

typedef __nv_bfloat16 bf16;

enum { PACK_THREADS = 256 };

__device__ inline float pack_float(float x) {
    return x;
}
__device__ inline float pack_float(bf16 x) {
    return __bfloat162float(x);
}
template <typename T> __device__ inline T pack_round(float x);
template <> __device__ inline float pack_round<float>(float x) {
    return x;
}
template <> __device__ inline bf16 pack_round<bf16>(float x) {
    return __float2bfloat16(x);
}

/* Packs hold as many elements of A as 16 bytes do; other arrays of the call follow that count. */
template <typename A> struct pack_of {
    static constexpr int N = 16 / sizeof(A);
};

/* N elements at p as floats; those from valid on are zero. */
template <typename T, int N>
__device__ inline void pack_load(const T *p, size_t valid, bool aligned, float (&out)[N]) {
    constexpr int STEP = 16 / sizeof(T) < N ? 16 / sizeof(T) : N;
    if (aligned && valid >= N) {
#pragma unroll
        for (int i = 0; i < N; i += STEP) {
            if constexpr (STEP * sizeof(T) == 16) {
                uint4 bytes = *reinterpret_cast<const uint4 *>(p + i);
                T elements[STEP];
                memcpy(elements, &bytes, sizeof(bytes));
#pragma unroll
                for (int j = 0; j < STEP; j++)
                    out[i + j] = pack_float(elements[j]);
            } else {
#pragma unroll
                for (int j = 0; j < STEP; j++)
                    out[i + j] = pack_float(p[i + j]);
            }
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < N; i++)
        out[i] = static_cast<size_t>(i) < valid ? pack_float(p[i]) : 0.0f;
}

template <typename T, int N>
__device__ inline void pack_store(T *p, size_t valid, bool aligned, const float (&x)[N]) {
    constexpr int STEP = 16 / sizeof(T) < N ? 16 / sizeof(T) : N;
    if (aligned && valid >= N) {
#pragma unroll
        for (int i = 0; i < N; i += STEP) {
            if constexpr (STEP * sizeof(T) == 16) {
                uint4 bytes;
                T elements[STEP];
#pragma unroll
                for (int j = 0; j < STEP; j++)
                    elements[j] = pack_round<T>(x[i + j]);
                memcpy(&bytes, elements, sizeof(bytes));
                *reinterpret_cast<uint4 *>(p + i) = bytes;
            } else {
#pragma unroll
                for (int j = 0; j < STEP; j++)
                    p[i + j] = pack_round<T>(x[i + j]);
            }
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < N; i++)
        if (static_cast<size_t>(i) < valid)
            p[i] = pack_round<T>(x[i]);
}

/* Are all of them multiples of 16 bytes? NULL is. */
template <typename... P> inline bool pack_aligned(P... pointers) {
    uintptr_t bits = 0;
    ((bits |= reinterpret_cast<uintptr_t>(pointers)), ...);
    return bits % 16 == 0;
}

inline unsigned pack_blocks(size_t n, size_t each) {
    return static_cast<unsigned>((n + each - 1) / each);
}

/* Sum over a block of a multiple of 32 threads, at most 1024; every thread gets it. The order is
 * fixed: within warps by halves, then over the warps the same way. */
template <typename F> __device__ inline F block_sum(F x) {
    __shared__ F shares[33];
    for (int step = 16; step > 0; step /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, step);
    int lane = threadIdx.x % 32;
    int warp = threadIdx.x / 32;
    __syncthreads(); /* the last call's shares have been read */
    if (lane == 0)
        shares[warp] = x;
    __syncthreads();
    if (warp == 0) {
        F y = lane < static_cast<int>(blockDim.x / 32) ? shares[lane] : F(0);
        for (int step = 16; step > 0; step /= 2)
            y += __shfl_xor_sync(0xffffffffu, y, step);
        if (lane == 0)
            shares[32] = y;
    }
    __syncthreads();
    return shares[32];
}

/* The generator of base/random.h: block number block of the stream. */
__device__ inline void mask_words(const mr_cuda_mask &mask, uint64_t block, uint32_t (&out)[4]) {
    uint32_t c0 = static_cast<uint32_t>(block);
    uint32_t c1 = static_cast<uint32_t>(block >> 32);
    uint32_t c2 = mask.stream[0];
    uint32_t c3 = mask.stream[1];
    uint32_t k0 = mask.k[0];
    uint32_t k1 = mask.k[1];
#pragma unroll
    for (int round = 0; round < 10; round++) {
        uint32_t high0 = __umulhi(0xd2511f53u, c0);
        uint32_t low0 = 0xd2511f53u * c0;
        uint32_t high1 = __umulhi(0xcd9e8d57u, c2);
        uint32_t low1 = 0xcd9e8d57u * c2;
        c0 = high1 ^ c1 ^ k0;
        c1 = low1;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

__device__ inline float mask_factor(const mr_cuda_mask &mask, uint64_t index) {
    uint32_t words[4];
    mask_words(mask, index / 4, words);
    uint32_t at = static_cast<uint32_t>(index % 4);
    uint32_t word = at == 0 ? words[0] : at == 1 ? words[1] : at == 2 ? words[2] : words[3];
    return word >= mask.threshold ? mask.factor : 0.0f;
}

/* x[i] times the factor of element first + i. */
template <int N>
__device__ inline void mask_apply(const mr_cuda_mask &mask, uint64_t first, float (&x)[N]) {
    if (!mask.needed)
        return;
    if (first % 4 != 0) {
#pragma unroll
        for (int i = 0; i < N; i++)
            x[i] *= mask_factor(mask, first + i);
        return;
    }
#pragma unroll
    for (int i = 0; i < N; i += 4) {
        uint32_t words[4];
        mask_words(mask, first / 4 + i / 4, words);
#pragma unroll
        for (int j = 0; j < 4; j++)
            x[i + j] *= words[j] >= mask.threshold ? mask.factor : 0.0f;
    }
}

/* Calls function with a null pointer of the element's type; 801 for a type without kernels. */
template <typename Function> inline int dtype_choose(mr_dtype dtype, Function function) {
    if (dtype == MR_DTYPE_F32)
        return function(static_cast<float *>(nullptr));
    if (dtype == MR_DTYPE_BF16)
        return function(static_cast<bf16 *>(nullptr));
    return cudaErrorNotSupported;
}

/* For two arrays whose types vary on their own: both f32, both bf16, bf16 with f32 beside it, and
 * f32 with bf16 beside it. */
template <typename Function>
inline int dtype_choose_two(mr_dtype a, mr_dtype b, Function function) {
    return dtype_choose(a, [&](auto *x) {
        return dtype_choose(b, [&](auto *y) { return function(x, y); });
    });
}

template <typename T> inline T *array_data(T *, const mr_cuda_array &array) {
    return static_cast<T *>(array.data);
}

/* An array that may be absent agrees with every type. */
inline bool array_is(const mr_cuda_array &array, mr_dtype dtype) {
    return array.data == nullptr || array.dtype == dtype;
}

#endif
