/* SPDX-License-Identifier: Apache-2.0 */
/* loss.cu: losses and sums of squares. A row's or a chunk's share is written to the workspace in
 * double precision; one block then adds the shares, each thread a strided part of them in order and
 * the threads by a fixed tree. */
#include "daemon/device/cuda/kernels/pack.cuh"

enum { LOSS_THREADS = 512 };

/* The largest logit so far and the sum of exp(logit - largest). */
struct entropy_state {
    float max;
    float sum;
};

__device__ static entropy_state entropy_join(entropy_state a, entropy_state b) {
    float max = fmaxf(a.max, b.max);
    if (max == -INFINITY)
        return {max, 0.0f};
    return {max, a.sum * expf(a.max - max) + b.sum * expf(b.max - max)};
}

/* Over the block, as block_sum does. A thread that has not-a-number keeps it in its sum. */
__device__ static entropy_state entropy_block(entropy_state mine) {
    __shared__ entropy_state shares[LOSS_THREADS / 32];
    for (int step = 16; step > 0; step /= 2) {
        entropy_state other = {__shfl_xor_sync(0xffffffffu, mine.max, step),
                               __shfl_xor_sync(0xffffffffu, mine.sum, step)};
        mine = entropy_join(mine, other);
    }
    if (threadIdx.x % 32 == 0)
        shares[threadIdx.x / 32] = mine;
    __syncthreads();
    entropy_state all = shares[0];
    for (unsigned i = 1; i < blockDim.x / 32; i++)
        all = entropy_join(all, shares[i]);
    return all;
}

template <typename T>
__device__ static entropy_state entropy_row(const T *logits, size_t V, bool aligned) {
    constexpr int N = pack_of<T>::N;
    entropy_state mine = {-INFINITY, 0.0f};
    for (size_t v = threadIdx.x * N; v < V; v += blockDim.x * N) {
        float x[N];
        float max = mine.max;
        pack_load(logits + v, V - v, aligned, x);
#pragma unroll
        for (int j = 0; j < N; j++)
            max = v + j < V ? fmaxf(max, x[j]) : max;
        mine.sum = mine.max == -INFINITY ? 0.0f : mine.sum * expf(mine.max - max);
#pragma unroll
        for (int j = 0; j < N; j++)
            mine.sum += v + j < V ? expf(x[j] - max) : 0.0f;
        mine.max = max;
    }
    return entropy_block(mine);
}

/* One block for one row; dlogits may be logits: the label's logit is read before any is written. */
template <typename T>
__global__ void cross_entropy_kernel(const T *logits, const int32_t *labels, size_t V, float scale,
                                     bool aligned, T *dlogits, double *shares) {
    constexpr int N = pack_of<T>::N;
    size_t row = blockIdx.x;
    const T *x = logits + row * V;
    int32_t label = labels[row];
    bool counts = label >= 0 && static_cast<size_t>(label) < V;
    entropy_state all = {0.0f, 1.0f};
    if (counts)
        all = entropy_row(x, V, aligned);
    if (threadIdx.x == 0) {
        double at_label = counts ? static_cast<double>(pack_float(x[label])) : 0.0;
        double log_sum = counts ? log(static_cast<double>(all.sum)) + all.max : 0.0;
        shares[row] = log_sum - at_label;
    }
    if (dlogits == nullptr)
        return;
    __syncthreads();
    float factor = scale / all.sum;
    for (size_t v = threadIdx.x * N; v < V; v += blockDim.x * N) {
        float e[N] = {};
        if (counts) {
            pack_load(x + v, V - v, aligned, e);
#pragma unroll
            for (int j = 0; j < N; j++) {
                e[j] = expf(e[j] - all.max) * factor;
                if (v + j == static_cast<size_t>(label))
                    e[j] -= scale;
            }
        }
        pack_store(dlogits + row * V + v, V - v, aligned, e);
    }
}

/* Sum of squares of x, or of x - target, over one chunk; the gradient where it is asked for. */
template <typename T, typename U>
__global__ void squares_kernel(const T *x, const U *target, float factor, T *dx, size_t n,
                               bool aligned, double *shares) {
    constexpr int N = pack_of<T>::N;
    size_t first = static_cast<size_t>(blockIdx.x) * MR_CUDA_CHUNK;
    size_t last = n - first < MR_CUDA_CHUNK ? n : first + MR_CUDA_CHUNK;
    double total = 0.0;
    for (size_t i = first + threadIdx.x * N; i < last; i += blockDim.x * N) {
        float d[N];
        pack_load(x + i, last - i, aligned, d);
        if (target != nullptr) {
            float t[N];
            pack_load(target + i, last - i, aligned, t);
#pragma unroll
            for (int j = 0; j < N; j++)
                d[j] -= t[j];
        }
#pragma unroll
        for (int j = 0; j < N; j++)
            total += static_cast<double>(d[j]) * static_cast<double>(d[j]);
        if (dx != nullptr) {
#pragma unroll
            for (int j = 0; j < N; j++)
                d[j] *= factor;
            pack_store(dx + i, last - i, aligned, d);
        }
    }
    total = block_sum(total);
    if (threadIdx.x == 0)
        shares[blockIdx.x] = total;
}

__global__ static void shares_kernel(const double *shares, size_t count, bool add, double *out) {
    double total = 0.0;
    for (size_t i = threadIdx.x; i < count; i += blockDim.x)
        total += shares[i];
    total = block_sum(total);
    if (threadIdx.x == 0)
        *out = add ? *out + total : total;
}

static int shares_add(mr_cuda_stream stream, const double *shares, size_t count, bool add,
                      double *out) {
    shares_kernel<<<1, LOSS_THREADS, 0, stream>>>(shares, count, add, out);
    return cudaGetLastError();
}

int mr_cuda_cross_entropy(mr_cuda_stream stream, mr_cuda_array logits, const int32_t *labels,
                          size_t R, size_t V, float scale, mr_cuda_array dlogits,
                          double *workspace, double *loss) {
    if (R == 0)
        return 0;
    if (!array_is(dlogits, logits.dtype))
        return cudaErrorNotSupported;
    int code = dtype_choose(logits.dtype, [&](auto *t) {
        typedef std::remove_pointer_t<decltype(t)> T;
        bool aligned = V % pack_of<T>::N == 0 && pack_aligned(logits.data, dlogits.data);
        cross_entropy_kernel<T><<<static_cast<unsigned>(R), LOSS_THREADS, 0, stream>>>(
            array_data(t, logits), labels, V, scale, aligned, array_data(t, dlogits), workspace);
        return static_cast<int>(cudaGetLastError());
    });
    return code != 0 ? code : shares_add(stream, workspace, R, true, loss);
}

static int squares_run(mr_cuda_stream stream, mr_cuda_array x, mr_cuda_array target, float factor,
                       mr_cuda_array dx, size_t n, double *workspace) {
    if (n == 0)
        return 0;
    if (!array_is(dx, x.dtype))
        return cudaErrorNotSupported;
    return dtype_choose_two(x.dtype, target.dtype, [&](auto *t, auto *u) {
        typedef std::remove_pointer_t<decltype(t)> T;
        typedef std::remove_pointer_t<decltype(u)> U;
        squares_kernel<T, U><<<pack_blocks(n, MR_CUDA_CHUNK), PACK_THREADS, 0, stream>>>(
            array_data(t, x), array_data(u, target), factor, array_data(t, dx), n,
            pack_aligned(x.data, target.data, dx.data), workspace);
        return static_cast<int>(cudaGetLastError());
    });
}

int mr_cuda_squared_error(mr_cuda_stream stream, mr_cuda_array y, mr_cuda_array target,
                          float factor, mr_cuda_array dy, size_t n, double *workspace,
                          double *loss) {
    int code = squares_run(stream, y, target, factor, dy, n, workspace);
    return code != 0 ? code
                     : shares_add(stream, workspace, pack_blocks(n, MR_CUDA_CHUNK), true, loss);
}

int mr_cuda_sum_of_squares(mr_cuda_stream stream, mr_cuda_array x, size_t n, double *workspace,
                           double *out) {
    mr_cuda_array none = {nullptr, x.dtype};
    int code = squares_run(stream, x, none, 0.0f, none, n, workspace);
    return code != 0 ? code
                     : shares_add(stream, workspace, pack_blocks(n, MR_CUDA_CHUNK), false, out);
}
