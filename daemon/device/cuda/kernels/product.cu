/* SPDX-License-Identifier: Apache-2.0 */
/* product.cu: a plain tiled matrix product for what cuBLASLt has no algorithm for. Each element is
 * one thread's sum over k in ascending order. */
#include "daemon/device/cuda/kernels/pack.cuh"

enum { PRODUCT_TILE = 16 };

template <typename A, typename D>
__global__ void product_kernel(const A *a, const A *b, mr_cuda_array bias, D *c, size_t m,
                               size_t n, size_t k, bool a_transposed, bool b_transposed,
                               bool accumulate) {
    __shared__ float tile_a[PRODUCT_TILE][PRODUCT_TILE + 1];
    __shared__ float tile_b[PRODUCT_TILE][PRODUCT_TILE + 1];
    size_t row = static_cast<size_t>(blockIdx.y) * PRODUCT_TILE + threadIdx.y;
    size_t column = static_cast<size_t>(blockIdx.x) * PRODUCT_TILE + threadIdx.x;
    float sum = 0.0f;
    for (size_t first = 0; first < k; first += PRODUCT_TILE) {
        size_t x = first + threadIdx.x;
        size_t y = first + threadIdx.y;
        float from_a = 0.0f;
        float from_b = 0.0f;
        if (row < m && x < k)
            from_a = pack_float(a[a_transposed ? x * m + row : row * k + x]);
        if (column < n && y < k)
            from_b = pack_float(b[b_transposed ? column * k + y : y * n + column]);
        __syncthreads();
        tile_a[threadIdx.y][threadIdx.x] = from_a;
        tile_b[threadIdx.y][threadIdx.x] = from_b;
        __syncthreads();
#pragma unroll
        for (int i = 0; i < PRODUCT_TILE; i++)
            sum = fmaf(tile_a[threadIdx.y][i], tile_b[i][threadIdx.x], sum);
    }
    if (row < m && column < n) {
        D *at = c + row * n + column;
        if (bias.data != nullptr)
            sum += bias.dtype == MR_DTYPE_BF16
                       ? pack_float(static_cast<const bf16 *>(bias.data)[column])
                       : static_cast<const float *>(bias.data)[column];
        *at = pack_round<D>(accumulate ? pack_float(*at) + sum : sum);
    }
}

int mr_cuda_product(mr_cuda_stream stream, mr_cuda_array a, mr_cuda_array b, mr_cuda_array bias,
                    mr_cuda_array c, size_t m, size_t n, size_t k, bool a_transposed,
                    bool b_transposed, bool accumulate) {
    unsigned rows = pack_blocks(m, PRODUCT_TILE);
    if (m * n == 0)
        return 0;
    if (!array_is(b, a.dtype) || rows > 65535)
        return cudaErrorNotSupported;
    return dtype_choose_two(a.dtype, c.dtype, [&](auto *s, auto *t) {
        typedef std::remove_pointer_t<decltype(s)> A;
        typedef std::remove_pointer_t<decltype(t)> D;
        product_kernel<A, D><<<dim3(pack_blocks(n, PRODUCT_TILE), rows),
                               dim3(PRODUCT_TILE, PRODUCT_TILE), 0, stream>>>(
            array_data(s, a), array_data(s, b), bias, array_data(t, c), m, n, k, a_transposed,
            b_transposed, accumulate);
        return static_cast<int>(cudaGetLastError());
    });
}
