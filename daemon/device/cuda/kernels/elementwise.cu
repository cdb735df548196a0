/* SPDX-License-Identifier: Apache-2.0 */
/* elementwise.cu: activations, masks and sums, one pack of elements for each thread. */
#include "daemon/device/cuda/kernels/pack.cuh"

/* tanh's GELU as x s(2u), s the logistic function, which keeps its digits where tanh is near -1. */
__device__ static float gelu_inner(float x) {
    return 1.5957691216057308f * x * fmaf(0.044715f * x, x, 1.0f);
}

__device__ static float logistic(float x) {
    return 1.0f / (1.0f + expf(-x));
}

template <int KIND> __device__ static float activation(float x) {
    if (KIND == MR_CUDA_RELU)
        return x < 0.0f ? 0.0f : x; /* not-a-number passes */
    if (KIND == MR_CUDA_SILU)
        return x * logistic(x);
    return x * logistic(gelu_inner(x));
}

template <int KIND> __device__ static float activation_slope(float x) {
    if (KIND == MR_CUDA_RELU)
        return x > 0.0f ? 1.0f : 0.0f;
    float s = KIND == MR_CUDA_SILU ? logistic(x) : logistic(gelu_inner(x));
    float inner = KIND == MR_CUDA_SILU
                      ? 1.0f
                      : 1.5957691216057308f * fmaf(3.0f * 0.044715f * x, x, 1.0f);
    return s + x * s * (1.0f - s) * inner;
}

template <typename T, int KIND>
__global__ void pointwise_forward_kernel(const T *x, T *y, size_t n, bool aligned) {
    constexpr int N = pack_of<T>::N;
    size_t i = (static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x) * N;
    if (i >= n)
        return;
    float v[N];
    pack_load(x + i, n - i, aligned, v);
#pragma unroll
    for (int j = 0; j < N; j++)
        v[j] = activation<KIND>(v[j]);
    pack_store(y + i, n - i, aligned, v);
}

template <typename T, int KIND>
__global__ void pointwise_backward_kernel(const T *x, const T *dy, T *dx, size_t n, bool aligned) {
    constexpr int N = pack_of<T>::N;
    size_t i = (static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x) * N;
    if (i >= n)
        return;
    float v[N];
    float g[N];
    pack_load(x + i, n - i, aligned, v);
    pack_load(dy + i, n - i, aligned, g);
#pragma unroll
    for (int j = 0; j < N; j++)
        g[j] *= activation_slope<KIND>(v[j]);
    pack_store(dx + i, n - i, aligned, g);
}

template <typename A, typename B>
__global__ void add_kernel(const A *a, const B *b, mr_cuda_mask mask, A *out, size_t n,
                           bool aligned) {
    constexpr int N = pack_of<A>::N;
    size_t i = (static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x) * N;
    if (i >= n)
        return;
    float x[N];
    float y[N];
    pack_load(b + i, n - i, aligned, y);
    mask_apply(mask, i, y);
    if (a != nullptr) {
        pack_load(a + i, n - i, aligned, x);
#pragma unroll
        for (int j = 0; j < N; j++)
            y[j] = x[j] + y[j];
    }
    pack_store(out + i, n - i, aligned, y);
}

template <typename A, typename P>
__global__ void bias_add_kernel(A *y, const P *bias, size_t R, size_t C) {
    size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < R * C)
        y[i] = pack_round<A>(pack_float(y[i]) + pack_float(bias[i % C]));
}

template <typename T> static unsigned grid(size_t n) {
    return pack_blocks(n, static_cast<size_t>(PACK_THREADS) * pack_of<T>::N);
}

template <int KIND>
static int forward_of(mr_cuda_stream stream, mr_cuda_array x, mr_cuda_array y, size_t n) {
    return dtype_choose(x.dtype, [&](auto *t) {
        typedef std::remove_pointer_t<decltype(t)> T;
        pointwise_forward_kernel<T, KIND><<<grid<T>(n), PACK_THREADS, 0, stream>>>(
            array_data(t, x), array_data(t, y), n, pack_aligned(x.data, y.data));
        return static_cast<int>(cudaGetLastError());
    });
}

template <int KIND>
static int backward_of(mr_cuda_stream stream, mr_cuda_array x, mr_cuda_array dy, mr_cuda_array dx,
                       size_t n) {
    return dtype_choose(x.dtype, [&](auto *t) {
        typedef std::remove_pointer_t<decltype(t)> T;
        pointwise_backward_kernel<T, KIND><<<grid<T>(n), PACK_THREADS, 0, stream>>>(
            array_data(t, x), array_data(t, dy), array_data(t, dx), n,
            pack_aligned(x.data, dy.data, dx.data));
        return static_cast<int>(cudaGetLastError());
    });
}

int mr_cuda_pointwise_forward(mr_cuda_stream stream, mr_cuda_pointwise kind, mr_cuda_array x,
                              mr_cuda_array y, size_t n) {
    if (n == 0)
        return 0;
    if (!array_is(y, x.dtype))
        return cudaErrorNotSupported;
    switch (kind) {
    case MR_CUDA_RELU: return forward_of<MR_CUDA_RELU>(stream, x, y, n);
    case MR_CUDA_GELU_TANH: return forward_of<MR_CUDA_GELU_TANH>(stream, x, y, n);
    case MR_CUDA_SILU: return forward_of<MR_CUDA_SILU>(stream, x, y, n);
    }
    return cudaErrorNotSupported;
}

int mr_cuda_pointwise_backward(mr_cuda_stream stream, mr_cuda_pointwise kind, mr_cuda_array x,
                               mr_cuda_array dy, mr_cuda_array dx, size_t n) {
    if (n == 0)
        return 0;
    if (!array_is(dy, x.dtype) || !array_is(dx, x.dtype))
        return cudaErrorNotSupported;
    switch (kind) {
    case MR_CUDA_RELU: return backward_of<MR_CUDA_RELU>(stream, x, dy, dx, n);
    case MR_CUDA_GELU_TANH: return backward_of<MR_CUDA_GELU_TANH>(stream, x, dy, dx, n);
    case MR_CUDA_SILU: return backward_of<MR_CUDA_SILU>(stream, x, dy, dx, n);
    }
    return cudaErrorNotSupported;
}

int mr_cuda_add(mr_cuda_stream stream, mr_cuda_array a, mr_cuda_array b, mr_cuda_mask mask,
                mr_cuda_array out, size_t n) {
    if (n == 0)
        return 0;
    if (!array_is(a, out.dtype))
        return cudaErrorNotSupported;
    return dtype_choose_two(out.dtype, b.dtype, [&](auto *s, auto *t) {
        typedef std::remove_pointer_t<decltype(s)> A;
        typedef std::remove_pointer_t<decltype(t)> B;
        add_kernel<A, B><<<grid<A>(n), PACK_THREADS, 0, stream>>>(
            array_data(s, a), array_data(t, b), mask, array_data(s, out), n,
            pack_aligned(a.data, b.data, out.data));
        return static_cast<int>(cudaGetLastError());
    });
}

int mr_cuda_bias_add(mr_cuda_stream stream, mr_cuda_array y, mr_cuda_array bias, size_t R,
                     size_t C) {
    if (R * C == 0)
        return 0;
    return dtype_choose_two(y.dtype, bias.dtype, [&](auto *s, auto *t) {
        typedef std::remove_pointer_t<decltype(s)> A;
        typedef std::remove_pointer_t<decltype(t)> P;
        bias_add_kernel<A, P><<<pack_blocks(R * C, PACK_THREADS), PACK_THREADS, 0, stream>>>(
            array_data(s, y), array_data(t, bias), R, C);
        return static_cast<int>(cudaGetLastError());
    });
}
