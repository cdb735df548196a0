/* SPDX-License-Identifier: Apache-2.0 */
/* norm.cu: layer norm, alone and behind a residual sum, and sums over rows.
 * One block takes one row; a thread goes over the same packs of it in every pass, so that what it
 * wrote in the first (the rounded sum) it may read in the next without a barrier, and outputs may
 * be inputs. The second and third pass find the row in cache. Sums over rows go in two stages:
 * MR_CUDA_SUM_ROWS rows at a time into the workspace, then those sums in order. */
#include "daemon/device/cuda/kernels/pack.cuh"

/* A row's width decides the threads: one pack for each, in whole warps. */
static unsigned norm_threads(size_t packs) {
    size_t threads = (packs + 31) / 32 * 32;
    return static_cast<unsigned>(threads < 32 ? 32 : threads > 1024 ? 1024 : threads);
}

/* x + mask(branch), rounded, into sum. */
template <typename A>
__device__ static void norm_row_add(const A *x, const A *branch, const mr_cuda_mask &mask,
                                    size_t row, size_t C, bool aligned, A *sum) {
    constexpr int N = pack_of<A>::N;
    for (size_t c = threadIdx.x * N; c < C; c += blockDim.x * N) {
        float a[N];
        float b[N];
        pack_load(x + c, C - c, aligned, a);
        pack_load(branch + c, C - c, aligned, b);
        mask_apply(mask, row * C + c, b);
#pragma unroll
        for (int j = 0; j < N; j++)
            a[j] = a[j] + b[j];
        pack_store(sum + c, C - c, aligned, a);
    }
}

template <typename A>
__device__ static float norm_row_sum(const A *x, size_t C, bool aligned) {
    constexpr int N = pack_of<A>::N;
    float total = 0.0f;
    for (size_t c = threadIdx.x * N; c < C; c += blockDim.x * N) {
        float a[N];
        pack_load(x + c, C - c, aligned, a);
#pragma unroll
        for (int j = 0; j < N; j++)
            total += a[j];
    }
    return block_sum(total);
}

template <typename A>
__device__ static float norm_row_squares(const A *x, size_t C, bool aligned, float mean) {
    constexpr int N = pack_of<A>::N;
    float total = 0.0f;
    for (size_t c = threadIdx.x * N; c < C; c += blockDim.x * N) {
        float a[N];
        pack_load(x + c, C - c, aligned, a);
#pragma unroll
        for (int j = 0; j < N; j++) {
            float d = c + j < C ? a[j] - mean : 0.0f;
            total = fmaf(d, d, total);
        }
    }
    return block_sum(total);
}

template <typename A, typename P>
__global__ void layernorm_forward_kernel(const A *x, const A *branch, mr_cuda_mask mask,
                                         const P *w, const P *b, float eps, size_t C, bool aligned,
                                         A *sum, A *y, float *mean, float *rstd) {
    constexpr int N = pack_of<A>::N;
    size_t row = blockIdx.x;
    const A *at = x + row * C;
    if (branch != nullptr) {
        norm_row_add(at, branch + row * C, mask, row, C, aligned, sum + row * C);
        at = sum + row * C;
    }
    float m = norm_row_sum(at, C, aligned) / static_cast<float>(C);
    float variance = norm_row_squares(at, C, aligned, m) / static_cast<float>(C);
    float scale = 1.0f / sqrtf(variance + eps);
    for (size_t c = threadIdx.x * N; c < C; c += blockDim.x * N) {
        float v[N];
        float weight[N];
        float shift[N];
        pack_load(at + c, C - c, aligned, v);
        pack_load(w + c, C - c, aligned, weight);
        pack_load(b + c, C - c, aligned, shift);
#pragma unroll
        for (int j = 0; j < N; j++)
            v[j] = fmaf((v[j] - m) * scale, weight[j], shift[j]);
        pack_store(y + row * C + c, C - c, aligned, v);
    }
    if (threadIdx.x == 0) {
        mean[row] = m;
        rstd[row] = scale;
    }
}

template <typename A, typename P>
__global__ void layernorm_backward_input_kernel(const A *dy, const A *x, const P *w,
                                                const float *mean, const float *rstd,
                                                const A *residual, size_t C, bool aligned,
                                                A *dx) {
    constexpr int N = pack_of<A>::N;
    size_t row = blockIdx.x;
    float m = mean[row];
    float scale = rstd[row];
    float sum_g = 0.0f;
    float sum_gx = 0.0f;
    for (size_t c = threadIdx.x * N; c < C; c += blockDim.x * N) {
        float g[N];
        float v[N];
        float weight[N];
        pack_load(dy + row * C + c, C - c, aligned, g);
        pack_load(x + row * C + c, C - c, aligned, v);
        pack_load(w + c, C - c, aligned, weight);
#pragma unroll
        for (int j = 0; j < N; j++) {
            float gw = g[j] * weight[j];
            sum_g += gw;
            sum_gx = fmaf(gw, (v[j] - m) * scale, sum_gx);
        }
    }
    float mean_g = block_sum(sum_g) / static_cast<float>(C);
    float mean_gx = block_sum(sum_gx) / static_cast<float>(C);
    for (size_t c = threadIdx.x * N; c < C; c += blockDim.x * N) {
        float g[N];
        float v[N];
        float weight[N];
        float add[N] = {};
        pack_load(dy + row * C + c, C - c, aligned, g);
        pack_load(x + row * C + c, C - c, aligned, v);
        pack_load(w + c, C - c, aligned, weight);
        if (residual != nullptr)
            pack_load(residual + row * C + c, C - c, aligned, add);
#pragma unroll
        for (int j = 0; j < N; j++)
            v[j] = add[j] + scale * (g[j] * weight[j] - mean_g - (v[j] - m) * scale * mean_gx);
        pack_store(dx + row * C + c, C - c, aligned, v);
    }
}

enum { COLUMNS_X = 32, COLUMNS_Y = 8 };

/* Sums over MR_CUDA_SUM_ROWS rows: of dy, and of dy xhat where x is given. */
template <typename A>
__global__ void columns_part_kernel(const A *dy, const A *x, const float *mean, const float *rstd,
                                    size_t R, size_t C, float *shares, float *weighted) {
    __shared__ float part[2][COLUMNS_Y][COLUMNS_X];
    size_t c = static_cast<size_t>(blockIdx.x) * COLUMNS_X + threadIdx.x;
    size_t first = static_cast<size_t>(blockIdx.y) * MR_CUDA_SUM_ROWS;
    size_t last = R - first < MR_CUDA_SUM_ROWS ? R : first + MR_CUDA_SUM_ROWS;
    float sum = 0.0f;
    float sum_x = 0.0f;
    for (size_t r = first + threadIdx.y; c < C && r < last; r += COLUMNS_Y) {
        float g = pack_float(dy[r * C + c]);
        sum += g;
        if (x != nullptr)
            sum_x = fmaf(g, (pack_float(x[r * C + c]) - mean[r]) * rstd[r], sum_x);
    }
    part[0][threadIdx.y][threadIdx.x] = sum;
    part[1][threadIdx.y][threadIdx.x] = sum_x;
    __syncthreads();
    if (threadIdx.y != 0 || c >= C)
        return;
    for (int i = 1; i < COLUMNS_Y; i++) {
        sum += part[0][i][threadIdx.x];
        sum_x += part[1][i][threadIdx.x];
    }
    shares[blockIdx.y * C + c] = sum;
    if (x != nullptr)
        weighted[blockIdx.y * C + c] = sum_x;
}

__global__ static void columns_total_kernel(const float *shares, size_t parts, size_t C,
                                            float *out) {
    size_t c = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (c >= C)
        return;
    float total = 0.0f;
    for (size_t i = 0; i < parts; i++)
        total += shares[i * C + c];
    out[c] += total;
}

int mr_cuda_layernorm_forward(mr_cuda_stream stream, mr_cuda_array x, mr_cuda_array branch,
                              mr_cuda_mask mask, mr_cuda_array w, mr_cuda_array b, float eps,
                              size_t R, size_t C, mr_cuda_array sum, mr_cuda_array y, float *mean,
                              float *rstd) {
    if (R == 0)
        return 0;
    if (!array_is(branch, x.dtype) || !array_is(sum, x.dtype) || !array_is(y, x.dtype) ||
        !array_is(b, w.dtype))
        return cudaErrorNotSupported;
    return dtype_choose_two(x.dtype, w.dtype, [&](auto *s, auto *t) {
        typedef std::remove_pointer_t<decltype(s)> A;
        typedef std::remove_pointer_t<decltype(t)> P;
        constexpr size_t N = pack_of<A>::N;
        bool aligned = C % N == 0 && C * sizeof(P) % 16 == 0 &&
                       pack_aligned(x.data, branch.data, w.data, b.data, sum.data, y.data);
        layernorm_forward_kernel<A, P>
            <<<static_cast<unsigned>(R), norm_threads((C + N - 1) / N), 0, stream>>>(
                array_data(s, x), array_data(s, branch), mask, array_data(t, w), array_data(t, b),
                eps, C, aligned, array_data(s, sum), array_data(s, y), mean, rstd);
        return static_cast<int>(cudaGetLastError());
    });
}

int mr_cuda_layernorm_backward_input(mr_cuda_stream stream, mr_cuda_array dy, mr_cuda_array x,
                                     mr_cuda_array w, const float *mean, const float *rstd,
                                     mr_cuda_array residual, size_t R, size_t C,
                                     mr_cuda_array dx) {
    if (R == 0)
        return 0;
    if (!array_is(dy, x.dtype) || !array_is(residual, x.dtype) || !array_is(dx, x.dtype))
        return cudaErrorNotSupported;
    return dtype_choose_two(x.dtype, w.dtype, [&](auto *s, auto *t) {
        typedef std::remove_pointer_t<decltype(s)> A;
        typedef std::remove_pointer_t<decltype(t)> P;
        constexpr size_t N = pack_of<A>::N;
        bool aligned = C % N == 0 && C * sizeof(P) % 16 == 0 &&
                       pack_aligned(dy.data, x.data, w.data, residual.data, dx.data);
        layernorm_backward_input_kernel<A, P>
            <<<static_cast<unsigned>(R), norm_threads((C + N - 1) / N), 0, stream>>>(
                array_data(s, dy), array_data(s, x), array_data(t, w), mean, rstd,
                array_data(s, residual), C, aligned, array_data(s, dx));
        return static_cast<int>(cudaGetLastError());
    });
}

size_t mr_cuda_columns_bytes(size_t R, size_t C) {
    return 2 * ((R + MR_CUDA_SUM_ROWS - 1) / MR_CUDA_SUM_ROWS) * C * sizeof(float);
}

/* db [C] += sums of dy; dw [C] += sums of dy xhat where x is given. */
static int columns_run(mr_cuda_stream stream, mr_cuda_array dy, mr_cuda_array x, const float *mean,
                       const float *rstd, size_t R, size_t C, void *workspace, float *dw,
                       float *db) {
    if (R * C == 0)
        return 0;
    if (!array_is(x, dy.dtype))
        return cudaErrorNotSupported;
    unsigned parts = pack_blocks(R, MR_CUDA_SUM_ROWS);
    float *shares = static_cast<float *>(workspace);
    float *weighted = shares + parts * C;
    int code = dtype_choose(dy.dtype, [&](auto *t) {
        typedef std::remove_pointer_t<decltype(t)> A;
        columns_part_kernel<A>
            <<<dim3(pack_blocks(C, COLUMNS_X), parts), dim3(COLUMNS_X, COLUMNS_Y), 0, stream>>>(
                array_data(t, dy), array_data(t, x), mean, rstd, R, C, shares, weighted);
        return static_cast<int>(cudaGetLastError());
    });
    if (code != 0)
        return code;
    unsigned blocks = pack_blocks(C, PACK_THREADS);
    columns_total_kernel<<<blocks, PACK_THREADS, 0, stream>>>(shares, parts, C, db);
    if (x.data != nullptr)
        columns_total_kernel<<<blocks, PACK_THREADS, 0, stream>>>(weighted, parts, C, dw);
    return cudaGetLastError();
}

int mr_cuda_layernorm_backward_weight(mr_cuda_stream stream, mr_cuda_array dy, mr_cuda_array x,
                                      const float *mean, const float *rstd, size_t R, size_t C,
                                      void *workspace, float *dw, float *db) {
    return columns_run(stream, dy, x, mean, rstd, R, C, workspace, dw, db);
}

int mr_cuda_columns_sum(mr_cuda_stream stream, mr_cuda_array dy, size_t R, size_t C,
                        void *workspace, float *out) {
    mr_cuda_array none = {nullptr, dy.dtype};
    return columns_run(stream, dy, none, nullptr, nullptr, R, C, workspace, nullptr, out);
}
