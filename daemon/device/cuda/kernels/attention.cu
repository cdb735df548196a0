/* SPDX-License-Identifier: Apache-2.0 */
/* attention.cu: attention for what cuDNN's graphs do not take: f32, dropout, no mask, odd head
 * sizes. Simple before fast. A block has WARPS warps, each with one row of its own (a query, or in
 * the gradient of keys and values a key); tiles of 32 rows of the other side go through shared
 * memory, one for each lane. A lane first makes the products of its row with the warp's row, then
 * the warp goes over the 32 results in order while each lane keeps every 32nd number of the sums.
 * So every sum is made by one warp in ascending order, and the probabilities are made again from
 * the log-sum-exp in backward. */
#include "daemon/device/cuda/kernels/pack.cuh"

enum {
    ATTENTION_WARPS = 8,
    ATTENTION_THREADS = 32 * ATTENTION_WARPS,
    ATTENTION_KEPT = MR_CUDA_HEAD_MAX / 32 /* numbers of a row that a lane keeps */
};

/* Odd: lanes read the same column of 32 rows without meeting in a bank. */
__host__ __device__ static size_t tile_stride(size_t D) {
    return D | 1;
}

/* Shared memory: a tile, and two rows of D for each warp. */
static size_t attention_shared_bytes(size_t D) {
    return (32 * tile_stride(D) + 2 * ATTENTION_WARPS * D) * sizeof(float);
}

/* Rows [first, first + 32) of a matrix with the given row stride; zero from T on. */
template <typename A>
__device__ static void tile_load(const A *rows, size_t stride, size_t first, size_t T, size_t D,
                                 float *tile) {
    __syncthreads(); /* the tile before has been read */
    for (size_t i = threadIdx.x; i < 32 * D; i += ATTENTION_THREADS) {
        size_t r = i / D;
        size_t d = i % D;
        tile[r * tile_stride(D) + d] =
            first + r < T ? pack_float(rows[(first + r) * stride + d]) : 0.0f;
    }
    __syncthreads();
}

template <typename A>
__device__ static void row_load(const A *row, bool exists, size_t D, float *out) {
    for (size_t d = threadIdx.x % 32; d < D; d += 32)
        out[d] = exists ? pack_float(row[d]) : 0.0f;
    __syncwarp();
}

/* Product of the lane's row of the tile with the warp's row. */
__device__ static float tile_product(const float *tile, const float *row, size_t D) {
    const float *own = tile + (threadIdx.x % 32) * tile_stride(D);
    float sum = 0.0f;
    for (size_t d = 0; d < D; d++)
        sum = fmaf(own[d], row[d], sum);
    return sum;
}

/* kept += sum over the tile's rows of weight times row; a lane's weight belongs to its row. */
__device__ static void tile_accumulate(const float *tile, float weight, size_t D,
                                       float (&kept)[ATTENTION_KEPT]) {
    size_t lane = threadIdx.x % 32;
    for (int r = 0; r < 32; r++) {
        float w = __shfl_sync(0xffffffffu, weight, r);
#pragma unroll
        for (int k = 0; k < ATTENTION_KEPT; k++)
            if (lane + 32 * k < D)
                kept[k] = fmaf(w, tile[r * tile_stride(D) + lane + 32 * k], kept[k]);
    }
}

template <typename A>
__device__ static void kept_store(const float (&kept)[ATTENTION_KEPT], float factor, size_t D,
                                  A *row) {
    size_t lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < ATTENTION_KEPT; k++)
        if (lane + 32 * k < D)
            row[lane + 32 * k] = pack_round<A>(kept[k] * factor);
}

__device__ static float warp_max(float x) {
    for (int step = 16; step > 0; step /= 2)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}

__device__ static float warp_sum(float x) {
    for (int step = 16; step > 0; step /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}

/* Where one head of one sequence lies. */
struct head_place {
    size_t b;
    size_t h;
    size_t C;
    size_t qkv; /* of its first query; keys C on, values 2 C on */
    size_t out;
    size_t lse;
    uint64_t mask; /* index of its first probability */
};

__device__ static head_place head_of(const mr_cuda_attention &s) {
    head_place p;
    p.b = blockIdx.y / s.NH;
    p.h = blockIdx.y % s.NH;
    p.C = s.NH * s.D;
    p.qkv = p.b * s.T * 3 * p.C + p.h * s.D;
    p.out = p.b * s.T * p.C + p.h * s.D;
    p.lse = blockIdx.y * s.T;
    p.mask = static_cast<uint64_t>(blockIdx.y) * s.T * s.T;
    return p;
}

__device__ static bool pair_is_seen(const mr_cuda_attention &s, size_t query, size_t key) {
    return query < s.T && key < s.T && (!s.causal || key <= query);
}

template <typename A>
__global__ void attention_forward_kernel(const mr_cuda_attention s, float scale, const A *qkv,
                                         A *out, float *lse) {
    extern __shared__ float tile[];
    float *q = tile + 32 * tile_stride(s.D) + threadIdx.x / 32 * s.D;
    head_place at = head_of(s);
    size_t query = static_cast<size_t>(blockIdx.x) * ATTENTION_WARPS + threadIdx.x / 32;
    size_t last = static_cast<size_t>(blockIdx.x + 1) * ATTENTION_WARPS;
    size_t end = s.causal && last < s.T ? last : s.T;
    row_load(qkv + at.qkv + query * 3 * at.C, query < s.T, s.D, q);
    float max = -INFINITY;
    float sum = 0.0f;
    float kept[ATTENTION_KEPT] = {};
    for (size_t first = 0; first < end; first += 32) {
        size_t key = first + threadIdx.x % 32;
        bool seen = pair_is_seen(s, query, key);
        tile_load(qkv + at.qkv + at.C, 3 * at.C, first, s.T, s.D, tile);
        float score = seen ? tile_product(tile, q, s.D) * scale : -INFINITY;
        float new_max = fmaxf(max, warp_max(score));
        float shrink = max == -INFINITY ? 0.0f : expf(max - new_max);
        float p = seen ? expf(score - new_max) : 0.0f;
        sum = sum * shrink + warp_sum(p);
        max = new_max;
        if (seen && s.mask.needed)
            p *= mask_factor(s.mask, at.mask + query * s.T + key);
#pragma unroll
        for (int k = 0; k < ATTENTION_KEPT; k++)
            kept[k] *= shrink;
        tile_load(qkv + at.qkv + 2 * at.C, 3 * at.C, first, s.T, s.D, tile);
        tile_accumulate(tile, p, s.D, kept);
    }
    if (query >= s.T)
        return;
    kept_store(kept, 1.0f / sum, s.D, out + at.out + query * at.C);
    if (threadIdx.x % 32 == 0)
        lse[at.lse + query] = max + logf(sum);
}

/* Row sums of dO O, which are the means that softmax's gradient subtracts. */
template <typename A>
__global__ void attention_mean_kernel(const mr_cuda_attention s, const A *dout, const A *out,
                                      float *means) {
    head_place at = head_of(s);
    size_t query = static_cast<size_t>(blockIdx.x) * ATTENTION_WARPS + threadIdx.x / 32;
    float sum = 0.0f;
    if (query >= s.T)
        return;
    for (size_t d = threadIdx.x % 32; d < s.D; d += 32) {
        size_t i = at.out + query * at.C + d;
        sum = fmaf(pack_float(dout[i]), pack_float(out[i]), sum);
    }
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0)
        means[at.lse + query] = sum;
}

template <typename A>
__global__ void attention_query_kernel(const mr_cuda_attention s, float scale, const A *dout,
                                       const A *qkv, const float *lse, const float *means,
                                       A *dqkv) {
    extern __shared__ float tile[];
    float *q = tile + 32 * tile_stride(s.D) + threadIdx.x / 32 * 2 * s.D;
    float *d_o = q + s.D;
    head_place at = head_of(s);
    size_t query = static_cast<size_t>(blockIdx.x) * ATTENTION_WARPS + threadIdx.x / 32;
    size_t last = static_cast<size_t>(blockIdx.x + 1) * ATTENTION_WARPS;
    size_t end = s.causal && last < s.T ? last : s.T;
    row_load(qkv + at.qkv + query * 3 * at.C, query < s.T, s.D, q);
    row_load(dout + at.out + query * at.C, query < s.T, s.D, d_o);
    float log_sum = query < s.T ? lse[at.lse + query] : 0.0f;
    float mean = query < s.T ? means[at.lse + query] : 0.0f;
    float kept[ATTENTION_KEPT] = {};
    for (size_t first = 0; first < end; first += 32) {
        size_t key = first + threadIdx.x % 32;
        bool seen = pair_is_seen(s, query, key);
        tile_load(qkv + at.qkv + 2 * at.C, 3 * at.C, first, s.T, s.D, tile);
        float dp = tile_product(tile, d_o, s.D);
        if (seen && s.mask.needed)
            dp *= mask_factor(s.mask, at.mask + query * s.T + key);
        tile_load(qkv + at.qkv + at.C, 3 * at.C, first, s.T, s.D, tile);
        float p = seen ? expf(tile_product(tile, q, s.D) * scale - log_sum) : 0.0f;
        tile_accumulate(tile, p * (dp - mean), s.D, kept);
    }
    if (query < s.T)
        kept_store(kept, scale, s.D, dqkv + at.qkv + query * 3 * at.C);
}

template <typename A>
__global__ void attention_key_kernel(const mr_cuda_attention s, float scale, const A *dout,
                                     const A *qkv, const float *lse, const float *means, A *dqkv) {
    extern __shared__ float tile[];
    float *k = tile + 32 * tile_stride(s.D) + threadIdx.x / 32 * 2 * s.D;
    float *v = k + s.D;
    head_place at = head_of(s);
    size_t key = static_cast<size_t>(blockIdx.x) * ATTENTION_WARPS + threadIdx.x / 32;
    size_t begin = s.causal ? static_cast<size_t>(blockIdx.x) * ATTENTION_WARPS / 32 * 32 : 0;
    row_load(qkv + at.qkv + at.C + key * 3 * at.C, key < s.T, s.D, k);
    row_load(qkv + at.qkv + 2 * at.C + key * 3 * at.C, key < s.T, s.D, v);
    float dk[ATTENTION_KEPT] = {};
    float dv[ATTENTION_KEPT] = {};
    for (size_t first = begin; first < s.T; first += 32) {
        size_t query = first + threadIdx.x % 32;
        bool seen = pair_is_seen(s, query, key);
        tile_load(qkv + at.qkv, 3 * at.C, first, s.T, s.D, tile);
        float score = tile_product(tile, k, s.D) * scale;
        float p = seen ? expf(score - lse[at.lse + query]) : 0.0f;
        float factor = 1.0f;
        if (seen && s.mask.needed)
            factor = mask_factor(s.mask, at.mask + query * s.T + key);
        tile_load(dout + at.out, at.C, first, s.T, s.D, tile);
        float dp = tile_product(tile, v, s.D) * factor;
        tile_accumulate(tile, p * factor, s.D, dv);
        tile_load(qkv + at.qkv, 3 * at.C, first, s.T, s.D, tile);
        tile_accumulate(tile, seen ? p * (dp - means[at.lse + query]) : 0.0f, s.D, dk);
    }
    if (key >= s.T)
        return;
    kept_store(dk, scale, s.D, dqkv + at.qkv + at.C + key * 3 * at.C);
    kept_store(dv, 1.0f, s.D, dqkv + at.qkv + 2 * at.C + key * 3 * at.C);
}

/* More than a block has without asking: heads of almost MR_CUDA_HEAD_MAX. */
static int attention_shared_allow(const void *kernel, size_t bytes) {
    if (bytes <= 48 * 1024)
        return 0;
    return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                static_cast<int>(bytes));
}

static dim3 attention_grid(const mr_cuda_attention *s) {
    return dim3(pack_blocks(s->T, ATTENTION_WARPS), static_cast<unsigned>(s->B * s->NH));
}

static bool attention_is_taken(const mr_cuda_attention *s) {
    return s->D <= MR_CUDA_HEAD_MAX && s->B * s->NH <= 65535;
}

int mr_cuda_attention_forward(mr_cuda_stream stream, const mr_cuda_attention *shape,
                              mr_cuda_array qkv, mr_cuda_array out, float *lse) {
    if (!attention_is_taken(shape) || !array_is(out, qkv.dtype))
        return cudaErrorNotSupported;
    float scale = 1.0f / sqrtf(static_cast<float>(shape->D));
    return dtype_choose(qkv.dtype, [&](auto *t) {
        typedef std::remove_pointer_t<decltype(t)> A;
        size_t shared = attention_shared_bytes(shape->D);
        int code = attention_shared_allow(
            reinterpret_cast<const void *>(attention_forward_kernel<A>), shared);
        if (code != 0)
            return code;
        attention_forward_kernel<A><<<attention_grid(shape), ATTENTION_THREADS, shared, stream>>>(
            *shape, scale, array_data(t, qkv), array_data(t, out), lse);
        return static_cast<int>(cudaGetLastError());
    });
}

template <typename A>
static int attention_backward_of(mr_cuda_stream stream, const mr_cuda_attention *shape,
                                 const A *dout, const A *qkv, const A *out, const float *lse,
                                 float *means, A *dqkv) {
    dim3 grid = attention_grid(shape);
    size_t shared = attention_shared_bytes(shape->D);
    float scale = 1.0f / sqrtf(static_cast<float>(shape->D));
    int code = attention_shared_allow(reinterpret_cast<const void *>(attention_query_kernel<A>),
                                      shared);
    if (code == 0)
        code = attention_shared_allow(reinterpret_cast<const void *>(attention_key_kernel<A>),
                                      shared);
    if (code != 0)
        return code;
    attention_mean_kernel<A><<<grid, ATTENTION_THREADS, 0, stream>>>(*shape, dout, out, means);
    attention_query_kernel<A><<<grid, ATTENTION_THREADS, shared, stream>>>(
        *shape, scale, dout, qkv, lse, means, dqkv);
    attention_key_kernel<A><<<grid, ATTENTION_THREADS, shared, stream>>>(*shape, scale, dout, qkv,
                                                                        lse, means, dqkv);
    return cudaGetLastError();
}

int mr_cuda_attention_backward(mr_cuda_stream stream, const mr_cuda_attention *shape,
                               mr_cuda_array dout, mr_cuda_array qkv, mr_cuda_array out,
                               const float *lse, float *workspace, mr_cuda_array dqkv) {
    if (!attention_is_taken(shape) || !array_is(out, qkv.dtype) || !array_is(dout, qkv.dtype) ||
        !array_is(dqkv, qkv.dtype))
        return cudaErrorNotSupported;
    return dtype_choose(qkv.dtype, [&](auto *t) {
        return attention_backward_of(stream, shape, array_data(t, dout), array_data(t, qkv),
                                     array_data(t, out), lse, workspace, array_data(t, dqkv));
    });
}
