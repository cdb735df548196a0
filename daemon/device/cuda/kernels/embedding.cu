/* SPDX-License-Identifier: Apache-2.0 */
/* embedding.cu: rows looked up and rows added to. Backward sorts the positions by token on the
 * device, stably, so that a token's positions stand together in ascending order; one block then
 * adds the rows of one token, and no row has two writers. */
#include <cub/device/device_radix_sort.cuh>

#include "daemon/device/cuda/kernels/pack.cuh"

enum { EMBEDDING_THREADS = 128, CHECK_THREADS = 1024 };

/* One block: the lowest wrong position wins, and an earlier call's wins over this one's. */
__global__ static void indices_check_kernel(const int32_t *indices, size_t n, int32_t low,
                                            size_t bound, int kind, mr_cuda_bad_index *bad) {
    __shared__ unsigned long long first;
    if (threadIdx.x == 0)
        first = n;
    __syncthreads();
    for (size_t i = threadIdx.x; i < n; i += blockDim.x) {
        int32_t index = indices[i];
        if (index < low || (index >= 0 && static_cast<size_t>(index) >= bound)) {
            atomicMin(&first, static_cast<unsigned long long>(i));
            break;
        }
    }
    __syncthreads();
    if (threadIdx.x == 0 && first < n && bad->kind == 0) {
        bad->value = indices[first];
        bad->position = first;
        bad->bound = bound;
        bad->kind = kind;
    }
}

template <typename A, typename P>
__global__ void embedding_forward_kernel(const int32_t *tokens, const P *wte, const P *wpe,
                                         size_t T, size_t C, size_t V, bool aligned, A *y) {
    constexpr int N = pack_of<A>::N;
    size_t row = blockIdx.x;
    int32_t token = tokens[row];
    bool good = token >= 0 && static_cast<size_t>(token) < V;
    for (size_t c = threadIdx.x * N; c < C; c += blockDim.x * N) {
        float x[N] = {};
        if (good) {
            pack_load(wte + static_cast<size_t>(token) * C + c, C - c, aligned, x);
            if (wpe != nullptr) {
                float position[N];
                pack_load(wpe + row % T * C + c, C - c, aligned, position);
#pragma unroll
                for (int j = 0; j < N; j++)
                    x[j] += position[j];
            }
        }
        pack_store(y + row * C + c, C - c, aligned, x);
    }
}

__global__ static void positions_kernel(uint32_t *positions, size_t R) {
    size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < R)
        positions[i] = static_cast<uint32_t>(i);
}

/* Block i works where sorted position i begins a new token. */
template <typename A>
__global__ void embedding_backward_kernel(const uint32_t *tokens, const uint32_t *positions,
                                          const A *dy, size_t R, size_t C, size_t V, float *dwte) {
    size_t i = blockIdx.x;
    uint32_t token = tokens[i];
    if (token >= V || (i > 0 && tokens[i - 1] == token))
        return;
    for (size_t c = blockIdx.y * blockDim.x + threadIdx.x; c < C; c += gridDim.y * blockDim.x) {
        float sum = dwte[token * C + c];
        for (size_t at = i; at < R && tokens[at] == token; at++)
            sum += pack_float(dy[positions[at] * C + c]);
        dwte[token * C + c] = sum;
    }
}

/* A position with a bad token gets no gradient, as its output was zero. */
template <typename A>
__global__ void positions_backward_kernel(const int32_t *tokens, const A *dy, size_t B, size_t T,
                                          size_t C, size_t V, float *dwpe) {
    size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= T * C)
        return;
    float sum = dwpe[i];
    for (size_t b = 0; b < B; b++) {
        int32_t token = tokens[b * T + i / C];
        if (token >= 0 && static_cast<size_t>(token) < V)
            sum += pack_float(dy[b * T * C + i]);
    }
    dwpe[i] = sum;
}

int mr_cuda_indices_check(mr_cuda_stream stream, const int32_t *indices, size_t n, int32_t low,
                          size_t bound, mr_cuda_index_kind kind, mr_cuda_bad_index *bad) {
    indices_check_kernel<<<1, CHECK_THREADS, 0, stream>>>(indices, n, low, bound, kind, bad);
    return cudaGetLastError();
}

int mr_cuda_embedding_forward(mr_cuda_stream stream, const int32_t *tokens, mr_cuda_array wte,
                              mr_cuda_array wpe, size_t B, size_t T, size_t C, size_t V,
                              mr_cuda_array y) {
    if (B * T == 0)
        return 0;
    if (!array_is(wpe, wte.dtype))
        return cudaErrorNotSupported;
    return dtype_choose_two(y.dtype, wte.dtype, [&](auto *s, auto *t) {
        typedef std::remove_pointer_t<decltype(s)> A;
        typedef std::remove_pointer_t<decltype(t)> P;
        bool aligned = C % pack_of<A>::N == 0 && C * sizeof(P) % 16 == 0 &&
                       pack_aligned(wte.data, wpe.data, y.data);
        embedding_forward_kernel<A, P>
            <<<static_cast<unsigned>(B * T), EMBEDDING_THREADS, 0, stream>>>(
                tokens, array_data(t, wte), array_data(t, wpe), T, C, V, aligned,
                array_data(s, y));
        return static_cast<int>(cudaGetLastError());
    });
}

/* The workspace: sorted tokens, positions in order, sorted positions, then the sort's own. */
static size_t embedding_words(size_t R) {
    return (3 * R * sizeof(uint32_t) + 255) / 256 * 256;
}

static cudaError_t embedding_sort(mr_cuda_stream stream, void *own, size_t &own_bytes,
                                  const uint32_t *tokens, uint32_t *sorted,
                                  const uint32_t *positions, uint32_t *sorted_positions,
                                  size_t R) {
    return cub::DeviceRadixSort::SortPairs(own, own_bytes, tokens, sorted, positions,
                                           sorted_positions, static_cast<int>(R), 0, 32, stream);
}

size_t mr_cuda_embedding_bytes(size_t R) {
    size_t own = 0;
    if (R == 0 || R > INT32_MAX ||
        embedding_sort(nullptr, nullptr, own, nullptr, nullptr, nullptr, nullptr, R) != 0)
        return 0;
    return embedding_words(R) + own;
}

int mr_cuda_embedding_backward(mr_cuda_stream stream, const int32_t *tokens, mr_cuda_array dy,
                               size_t B, size_t T, size_t C, size_t V, void *workspace,
                               size_t workspace_bytes, float *dwte, float *dwpe) {
    size_t R = B * T;
    if (R * C == 0)
        return 0;
    uint32_t *sorted = static_cast<uint32_t *>(workspace);
    uint32_t *positions = sorted + R;
    uint32_t *sorted_positions = positions + R;
    size_t own_bytes = workspace_bytes - embedding_words(R);
    positions_kernel<<<pack_blocks(R, PACK_THREADS), PACK_THREADS, 0, stream>>>(positions, R);
    int code = embedding_sort(stream, static_cast<char *>(workspace) + embedding_words(R),
                              own_bytes, reinterpret_cast<const uint32_t *>(tokens), sorted,
                              positions, sorted_positions, R);
    if (code != 0)
        return code;
    return dtype_choose(dy.dtype, [&](auto *t) {
        typedef std::remove_pointer_t<decltype(t)> A;
        unsigned columns = pack_blocks(C, EMBEDDING_THREADS);
        if (dwte != nullptr)
            embedding_backward_kernel<A>
                <<<dim3(static_cast<unsigned>(R), columns < 64 ? columns : 64), EMBEDDING_THREADS,
                   0, stream>>>(sorted, sorted_positions, array_data(t, dy), R, C, V, dwte);
        if (dwpe != nullptr)
            positions_backward_kernel<A>
                <<<pack_blocks(T * C, PACK_THREADS), PACK_THREADS, 0, stream>>>(
                    tokens, array_data(t, dy), B, T, C, V, dwpe);
        return static_cast<int>(cudaGetLastError());
    });
}
