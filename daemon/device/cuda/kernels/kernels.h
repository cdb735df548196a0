/* SPDX-License-Identifier: Apache-2.0 */
/* kernels.h: our own kernels, as plain C calls that put work on a stream and return. Seen by C and
 * by nvcc's C++, so it includes nothing of either's own.
 * Activations are f32 or bf16, one type for all activations of a call unless said; parameters
 * (weights of norms, biases, tables) f32 or bf16 on their own; gradients of parameters and all
 * statistics f32. Arithmetic is f32, sums of losses double.
 * Each call returns a cudaError_t as int: 0; 801 (not supported) for types that it has no kernel
 * for; or what the launch gave. No call allocates, and none adds floats by atomics: the order of
 * every sum depends on shapes alone.
 * Addresses need the alignment of one element; where all are multiples of 16 bytes, rows are
 * moved in vectors of 16 bytes, with the same arithmetic.
 * Owner: device/cuda. Thread: EXEC. */
#ifndef MR_DEVICE_CUDA_KERNELS_KERNELS_H
#define MR_DEVICE_CUDA_KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/base/dtype.h"

#ifdef __cplusplus
extern "C" {
#endif

struct CUstream_st; /* what a cudaStream_t points to */
typedef struct CUstream_st *mr_cuda_stream;

typedef struct mr_cuda_array {
    void *data; /* NULL: none */
    mr_dtype dtype;
} mr_cuda_array;

/* A dropout mask in the form that kernels use; probability 0 is given as needed = false. */
typedef struct mr_cuda_mask {
    uint32_t k[2];
    uint32_t stream[2];
    uint32_t threshold; /* a word below it drops its element */
    float factor;       /* of those kept */
    bool needed;
} mr_cuda_mask;

/* The first index out of range that the device has seen, in its memory. */
typedef struct mr_cuda_bad_index {
    int32_t kind; /* 0: none, else mr_cuda_index_kind */
    int32_t value;
    uint64_t position;
    uint64_t bound;
} mr_cuda_bad_index;

typedef enum mr_cuda_index_kind { MR_CUDA_TOKEN = 1, MR_CUDA_LABEL = 2 } mr_cuda_index_kind;

typedef enum mr_cuda_pointwise { MR_CUDA_RELU, MR_CUDA_GELU_TANH, MR_CUDA_SILU } mr_cuda_pointwise;

enum {
    MR_CUDA_CHUNK = 16384,   /* elements of one partial sum of squares */
    MR_CUDA_SUM_ROWS = 128,  /* rows of one partial sum over rows */
    MR_CUDA_ADAMW_MAX = 24,  /* tensors of one launch */
    MR_CUDA_HEAD_MAX = 256   /* numbers of an attention head in our own kernels */
};

/* elementwise.cu */
int mr_cuda_pointwise_forward(mr_cuda_stream stream, mr_cuda_pointwise kind, mr_cuda_array x,
                              mr_cuda_array y, size_t n);
int mr_cuda_pointwise_backward(mr_cuda_stream stream, mr_cuda_pointwise kind, mr_cuda_array x,
                               mr_cuda_array dy, mr_cuda_array dx, size_t n);
/* out = a + mask(b); a.data NULL: out = mask(b). a and out of one type, b of its own, so that this
 * also casts. */
int mr_cuda_add(mr_cuda_stream stream, mr_cuda_array a, mr_cuda_array b, mr_cuda_mask mask,
                mr_cuda_array out, size_t n);
/* y [R, C] += bias [C]. */
int mr_cuda_bias_add(mr_cuda_stream stream, mr_cuda_array y, mr_cuda_array bias, size_t R,
                     size_t C);

/* norm.cu: branch.data NULL: y = norm(x), and sum is not written. */
int mr_cuda_layernorm_forward(mr_cuda_stream stream, mr_cuda_array x, mr_cuda_array branch,
                              mr_cuda_mask mask, mr_cuda_array w, mr_cuda_array b, float eps,
                              size_t R, size_t C, mr_cuda_array sum, mr_cuda_array y, float *mean,
                              float *rstd);
int mr_cuda_layernorm_backward_input(mr_cuda_stream stream, mr_cuda_array dy, mr_cuda_array x,
                                     mr_cuda_array w, const float *mean, const float *rstd,
                                     mr_cuda_array residual, size_t R, size_t C, mr_cuda_array dx);
/* Bytes of workspace for the next two. */
size_t mr_cuda_columns_bytes(size_t R, size_t C);
int mr_cuda_layernorm_backward_weight(mr_cuda_stream stream, mr_cuda_array dy, mr_cuda_array x,
                                      const float *mean, const float *rstd, size_t R, size_t C,
                                      void *workspace, float *dw, float *db);
/* out [C] += sums over the rows of dy [R, C]. */
int mr_cuda_columns_sum(mr_cuda_stream stream, mr_cuda_array dy, size_t R, size_t C,
                        void *workspace, float *out);

/* loss.cu: workspace of R or of one per MR_CUDA_CHUNK doubles. target has a type of its own. */
int mr_cuda_cross_entropy(mr_cuda_stream stream, mr_cuda_array logits, const int32_t *labels,
                          size_t R, size_t V, float scale, mr_cuda_array dlogits,
                          double *workspace, double *loss);
int mr_cuda_squared_error(mr_cuda_stream stream, mr_cuda_array y, mr_cuda_array target,
                          float factor, mr_cuda_array dy, size_t n, double *workspace,
                          double *loss);
int mr_cuda_sum_of_squares(mr_cuda_stream stream, mr_cuda_array x, size_t n, double *workspace,
                           double *out);

/* embedding.cu: notes the first of n indices outside [low, bound), unless one is noted already. */
int mr_cuda_indices_check(mr_cuda_stream stream, const int32_t *indices, size_t n, int32_t low,
                          size_t bound, mr_cuda_index_kind kind, mr_cuda_bad_index *bad);
int mr_cuda_embedding_forward(mr_cuda_stream stream, const int32_t *tokens, mr_cuda_array wte,
                              mr_cuda_array wpe, size_t B, size_t T, size_t C, size_t V,
                              mr_cuda_array y);
/* Bytes of workspace for the next; 0 where R is more than its sort can take. */
size_t mr_cuda_embedding_bytes(size_t R);
int mr_cuda_embedding_backward(mr_cuda_stream stream, const int32_t *tokens, mr_cuda_array dy,
                               size_t B, size_t T, size_t C, size_t V, void *workspace,
                               size_t workspace_bytes, float *dwte, float *dwpe);

/* optimizer.cu */
typedef struct mr_cuda_adamw_tensor {
    mr_cuda_array gradient;
    float *parameter;
    float *exp_avg;
    float *exp_avg_sq;
    size_t n;
    float weight_decay;
} mr_cuda_adamw_tensor;

typedef struct mr_cuda_adamw {
    float lr;
    float beta1;
    float beta2;
    float eps;
    float gradient_scale;
    float bias_correction1;
    float bias_correction2;
} mr_cuda_adamw;

/* count in [1, MR_CUDA_ADAMW_MAX] tensors in one launch. */
int mr_cuda_adamw_update(mr_cuda_stream stream, const mr_cuda_adamw *options,
                         const mr_cuda_adamw_tensor *tensors, size_t count);

/* attention.cu: what cuDNN does not take. qkv [B, T, 3 NH D], lse [B, NH, T]. */
typedef struct mr_cuda_attention {
    size_t B;
    size_t T;
    size_t NH;
    size_t D; /* at most MR_CUDA_HEAD_MAX */
    bool causal;
    mr_cuda_mask mask;
} mr_cuda_attention;

int mr_cuda_attention_forward(mr_cuda_stream stream, const mr_cuda_attention *shape,
                              mr_cuda_array qkv, mr_cuda_array out, float *lse);
/* workspace: B NH T floats. */
int mr_cuda_attention_backward(mr_cuda_stream stream, const mr_cuda_attention *shape,
                               mr_cuda_array dout, mr_cuda_array qkv, mr_cuda_array out,
                               const float *lse, float *workspace, mr_cuda_array dqkv);

/* product.cu: what cuBLASLt does not take. C [m, n] = A B (+ bias [n]) (+ C when accumulate),
 * rounded once; A [m, k] or, when a_transposed, stored [k, m]; B [k, n] or stored [n, k]. */
int mr_cuda_product(mr_cuda_stream stream, mr_cuda_array a, mr_cuda_array b, mr_cuda_array bias,
                    mr_cuda_array c, size_t m, size_t n, size_t k, bool a_transposed,
                    bool b_transposed, bool accumulate);

#ifdef __cplusplus
}
#endif

#endif
