/* SPDX-License-Identifier: Apache-2.0 */
/* device.h: what a stage needs of the thing that computes: memory and a fixed list of operations.
 * cpu/ implements it on oneDNN and own loops, cuda/ on cuBLASLt, cuDNN and own kernels; the
 * contract test runs on every implementation.
 * Owner: stage. Thread: EXEC. Operations are ordered as issued and return nothing: they cannot fail
 * on good arguments, and what can go wrong underneath (a library, a card) latches in the device and
 * is read by mr_device_check. Letters: B batch, T sequence, C width, R = B T rows, V vocabulary, NH
 * heads. Gradients of parameters accumulate (+=); gradients of activations overwrite unless said.
 * Types: an activation (x, y, dy, dx, branch, residual, sum, qkv, dqkv, out, dout, logits, dlogits,
 * a, b, out of add, rows, and from, to of transpose) is f32, bf16 or f16, all activations of one
 * call the same; so is a weight matrix that an activation is multiplied by or looked up in (w of
 * linear_*, wte, wpe), and it has the activations' type. Everything else is f32 always: biases,
 * norm weights, statistics (mean, rstd, lse), gradients of parameters, targets, and all that the
 * optimizer touches. In bf16 and f16 the arithmetic inside an operation runs in f32 (products in at
 * least that), and each element of an output is rounded once, to nearest even; in f16 what is too
 * large becomes infinite. An activation that one call writes and reads again is read rounded.
 * Determinism (law 1): the same call gives the same bits for any number of threads.
 * Not here: layers (layers/), what to compute when (stage/). */
#ifndef MR_DEVICE_DEVICE_H
#define MR_DEVICE_DEVICE_H

#include <stdint.h>

#include "daemon/base/random.h"
#include "daemon/base/status.h"
#include "daemon/device/tensor.h"
#include "daemon/model/layer_spec.h"

typedef struct mr_device mr_device;

/* Memory of the device, sized once. */
typedef struct mr_device_memory {
    void *base; /* 64-byte aligned at least */
    size_t bytes;
    void *handle; /* the implementation's */
} mr_device_memory;

typedef enum mr_pointwise {
    MR_POINTWISE_RELU,
    MR_POINTWISE_GELU_TANH,
    MR_POINTWISE_SILU,
    MR_POINTWISE_COUNT
} mr_pointwise;

/* A dropout mask: element i is kept when its word of the key's stream is >= probability x 2^32, and
 * then multiplied by 1/(1 - probability). probability 0 is the identity and draws nothing.
 * run > 0: the tensor is a model rank's share, of each stride elements of the whole the run that
 * begins at first; its elements take the words that they have in the whole. For devices with the
 * slots of the model axis, and not in residual_layernorm_forward and add, whose tensors are whole
 * on every rank. */
typedef struct mr_dropout {
    mr_random_key key;
    float probability;
    uint64_t run;
    uint64_t stride;
    uint64_t first;
} mr_dropout;

/* A square window that slides over the planes of [N, C, H, W], which are padded on all four sides.
 * Its last position is the last that lies within the padded plane. */
typedef struct mr_window {
    size_t kernel;
    size_t stride;
    size_t padding; /* less than kernel */
} mr_window;

/* How many positions the window has along size elements: OH for H, OW for W. */
static inline size_t mr_window_positions(const mr_window *window, size_t size) {
    return (size + 2 * window->padding - window->kernel) / window->stride + 1;
}

/* The place in the whole, and so in the key's stream, of an element of the tensor. */
static inline uint64_t mr_dropout_word(const mr_dropout *dropout, uint64_t element) {
    if (dropout->run == 0)
        return element;
    return element / dropout->run * dropout->stride + dropout->first + element % dropout->run;
}

/* The tokens [first, first + rows) of a vocabulary of whole, which are what one model rank has the
 * rows, or the logits, of. rows is the tensor's. */
typedef struct mr_vocabulary {
    size_t first;
    size_t whole;
} mr_vocabulary;

/* What logit_statistics gives for each of R rows, one after the other. */
typedef enum mr_logit_statistic {
    MR_LOGIT_MAX,
    MR_LOGIT_SUM,   /* of exp(logit - max) */
    MR_LOGIT_LABEL, /* the label's logit; 0 where another rank has it */
    MR_LOGIT_STATISTIC_COUNT
} mr_logit_statistic;

/* Options of adamw and of adam. */
typedef struct mr_adamw {
    float lr;
    float beta1;
    float beta2;
    float eps;
    float weight_decay;     /* 0 where the parameter does not decay */
    float gradient_scale;   /* the clip factor */
    float bias_correction1; /* 1 - beta1^step */
    float bias_correction2; /* 1 - beta2^step */
} mr_adamw;

typedef struct mr_sgd {
    float lr;
    float momentum; /* 0: the operation has no momentum tensor */
    float weight_decay;
    float gradient_scale;
    bool nesterov;
} mr_sgd;

typedef struct mr_lion {
    float lr;
    float beta1;
    float beta2;
    float weight_decay;
    float gradient_scale;
} mr_lion;

/* Every slot is required unless marked optional. None blocks longer than its own computation. */
typedef struct mr_device_ops {
    const char *name;
    /* Its memory is the host's: addresses of one are addresses of the other, and nobody need copy.
     * Else only copy_in and copy_out take addresses of the host, and only for the host's side; both
     * return when the host's bytes may change. */
    bool host_memory;
    /* Frees the device; its memory and its tensors are gone before. */
    void (*destroy)(mr_device *device);
    /* The first error since creation; OK otherwise. Waits for issued work on a device that runs
     * ahead. */
    mr_status (*check)(mr_device *device);

    /* Optional: what orders the device's operations, as links and groups of its own kind take it: a
     * cudaStream_t, and the card's number. */
    void *(*stream)(mr_device *device, int *out_number);

    /* Zeroed memory, every page touched. RESOURCE_EXHAUSTED names the size. */
    mr_status (*memory_create)(mr_device *device, size_t bytes, mr_device_memory *out_memory);
    void (*memory_destroy)(mr_device *device, mr_device_memory *memory);
    void (*copy_in)(mr_device *device, void *to, const void *host_from, size_t bytes);
    /* Returns when the bytes are there. */
    void (*copy_out)(mr_device *device, void *host_to, const void *from, size_t bytes);
    void (*copy)(mr_device *device, void *to, const void *from, size_t bytes);
    void (*zero)(mr_device *device, void *at, size_t bytes);

    /* y [R, OUT] = x [R, IN] w^T + bias; w [OUT, IN]; bias f32 [OUT] or NULL. Where a device has
     * the slots of the model axis, y may be f32 while x and w are bf16: a part of a sum that is not
     * rounded yet. The same holds for dx of linear_backward_input. */
    void (*linear_forward)(mr_device *device, const mr_tensor *x, const mr_tensor *w,
                           const mr_tensor *bias, mr_tensor *y);
    /* dx [R, IN] = dy [R, OUT] w. */
    void (*linear_backward_input)(mr_device *device, const mr_tensor *dy, const mr_tensor *w,
                                  mr_tensor *dx);
    /* dw [OUT, IN] += dy^T x; dbias [OUT] += column sums of dy; NULL: none, of either. Both
     * are f32: a microbatch's sum over R is not rounded before it is added. */
    void (*linear_backward_weight)(mr_device *device, const mr_tensor *dy, const mr_tensor *x,
                                   mr_tensor *dw, mr_tensor *dbias);

    /* y [B, T, C] = wte[tokens] + wpe[t]; tokens i32 [B, T]; wpe NULL: none. A token outside
     * [0, V) latches INVALID_ARGUMENT naming position, id and V. */
    void (*embedding_forward)(mr_device *device, const mr_tensor *tokens, const mr_tensor *wte,
                              const mr_tensor *wpe, mr_tensor *y);
    /* dwte, dwpe (f32) += ; rows in ascending position order. NULL: none, of
     * either; V is dwte's, and without it any token that is not negative will do. */
    void (*embedding_backward)(mr_device *device, const mr_tensor *tokens, const mr_tensor *dy,
                               mr_tensor *dwte, mr_tensor *dwpe);

    /* Over the last dimension, biased variance (arXiv:1607.06450). x [R, C], mean and rstd [R]; w
     * and b, their gradients, mean and rstd are f32. */
    void (*layernorm_forward)(mr_device *device, const mr_tensor *x, const mr_tensor *w,
                              const mr_tensor *b, float eps, mr_tensor *y, mr_tensor *mean,
                              mr_tensor *rstd);
    /* sum = x + dropout(branch), y = layernorm(sum): one pass over the rows. In bf16 the norm is
     * that of the rounded sum, which is what backward will see. */
    void (*residual_layernorm_forward)(mr_device *device, const mr_tensor *x,
                                       const mr_tensor *branch, const mr_dropout *dropout,
                                       const mr_tensor *w, const mr_tensor *b, float eps,
                                       mr_tensor *sum, mr_tensor *y, mr_tensor *mean,
                                       mr_tensor *rstd);
    /* dx = gradient (+ residual when not NULL: the gradient that by-passes the norm). */
    void (*layernorm_backward_input)(mr_device *device, const mr_tensor *dy, const mr_tensor *x,
                                     const mr_tensor *w, const mr_tensor *mean,
                                     const mr_tensor *rstd, const mr_tensor *residual,
                                     mr_tensor *dx);
    void (*layernorm_backward_weight)(mr_device *device, const mr_tensor *dy, const mr_tensor *x,
                                      const mr_tensor *mean, const mr_tensor *rstd, mr_tensor *dw,
                                      mr_tensor *db);

    /* out [B, T, C] from qkv [B, T, 3C] (all of Q, then K, then V, each NH heads of C/NH); scale
     * 1/sqrt(C/NH); lse f32 [B, NH, T]: log-sum-exp of each row. dropout acts on the probabilities,
     * element ((b NH + h) T + i) T + j. */
    void (*attention_forward)(mr_device *device, const mr_tensor *qkv, size_t heads, bool causal,
                              const mr_dropout *dropout, mr_tensor *out, mr_tensor *lse);
    void (*attention_backward)(mr_device *device, const mr_tensor *dout, const mr_tensor *qkv,
                               const mr_tensor *out, const mr_tensor *lse, size_t heads,
                               bool causal, const mr_dropout *dropout, mr_tensor *dqkv);

    /* y = f(x), element by element; kind names f. */
    void (*pointwise_forward)(mr_device *device, mr_pointwise kind, const mr_tensor *x,
                              mr_tensor *y);
    /* dx = dy f'(x); dx may be dy. */
    void (*pointwise_backward)(mr_device *device, mr_pointwise kind, const mr_tensor *x,
                               const mr_tensor *dy, mr_tensor *dx);
    /* y = x with the mask; also the backward (y = dx, x = dy). y may be x. */
    void (*dropout)(mr_device *device, const mr_dropout *dropout, const mr_tensor *x, mr_tensor *y);
    /* out = a + dropout(b); out may be a or b. */
    void (*add)(mr_device *device, const mr_tensor *a, const mr_tensor *b,
                const mr_dropout *dropout, mr_tensor *out);

    /* Optional, all five; a stage refuses a job with a layer that needs what its device lacks.
     * rows [N OH OW, C K K]: for each position of the window, (n OH + oh) OW + ow, the elements of
     * x [N, C, H, W] under it, column (c K + i) K + j; 0 for padding. */
    void (*window_gather)(mr_device *device, const mr_window *window, const mr_tensor *x,
                          mr_tensor *rows);
    /* dx [N, C, H, W] = for each element the sum of all elements of rows that gather would take
     * from it, in ascending order of positions. */
    void (*window_scatter)(mr_device *device, const mr_window *window, const mr_tensor *rows,
                           mr_tensor *dx);
    /* y [N, C, OH, OW] = the largest element of x under each position; padding is none. */
    void (*max_pool_forward)(mr_device *device, const mr_window *window, const mr_tensor *x,
                             mr_tensor *y);
    /* dx [N, C, H, W] = for each element the sum of dy of the positions whose largest it is, the
     * first of equals. */
    void (*max_pool_backward)(mr_device *device, const mr_window *window, const mr_tensor *x,
                              const mr_tensor *dy, mr_tensor *dx);
    /* to [N, B, A] from [N, A, B]; they do not overlap. */
    void (*transpose)(mr_device *device, const mr_tensor *from, mr_tensor *to);

    /* Adds sum over rows of -log softmax(logits)[label] to *loss (device memory), and writes
     * dlogits = scale (softmax - onehot); dlogits may be logits, or NULL (evaluation). A label of
     * -1 counts as nothing; any other outside [0, V) latches INVALID_ARGUMENT. */
    void (*cross_entropy)(mr_device *device, const mr_tensor *logits, const mr_tensor *labels,
                          float scale, mr_tensor *dlogits, double *loss);
    /* target is f32. Adds the sum of (y - target)^2 to *loss; dy = 2 scale (y - target), may be y
     * or NULL. */
    void (*mean_squared_error)(mr_device *device, const mr_tensor *y, const mr_tensor *target,
                               float scale, mr_tensor *dy, double *loss);

    /* Of a model rank's share of a vocabulary. Optional, all four or none: a stage refuses a model
     * axis that its device does not compute. A token or label outside the whole latches as above.
     * y is zero where another rank has the token's row; its position has no gradient here, but
     * dwpe gets every position's. */
    void (*embedding_forward_share)(mr_device *device, const mr_tensor *tokens,
                                    const mr_vocabulary *vocabulary, const mr_tensor *wte,
                                    const mr_tensor *wpe, mr_tensor *y);
    void (*embedding_backward_share)(mr_device *device, const mr_tensor *tokens,
                                     const mr_vocabulary *vocabulary, const mr_tensor *dy,
                                     mr_tensor *dwte, mr_tensor *dwpe);
    /* statistics f32 [MR_LOGIT_STATISTIC_COUNT, R], of this rank's logits [R, own rows]. */
    void (*logit_statistics)(mr_device *device, const mr_tensor *logits, const mr_tensor *labels,
                             const mr_vocabulary *vocabulary, float *statistics);
    /* cross_entropy of the whole from this rank's logits and the statistics of all ranks, one after
     * the other: [width, MR_LOGIT_STATISTIC_COUNT, R]. They are combined in rank order, so that
     * every rank adds the same bits to its *loss. */
    void (*cross_entropy_share)(mr_device *device, const mr_tensor *logits, const mr_tensor *labels,
                                const mr_vocabulary *vocabulary, const float *statistics,
                                size_t width, float scale, mr_tensor *dlogits, double *loss);

    /* x f32. *out (device memory) = sum of squares, in blocks of a fixed size added in order. */
    void (*sum_of_squares)(mr_device *device, const mr_tensor *x, double *out);
    /* a += b, elementwise, f32. */
    void (*accumulate)(mr_device *device, mr_tensor *a, const mr_tensor *b);
    /* y = x in y's type, of which one is f32: rounded to nearest even, infinities kept,
     * not-a-number stays one. y does not overlap x. */
    void (*cast)(mr_device *device, const mr_tensor *x, mr_tensor *y);
    /* Optimizers: one operation for each kind, because each has its own state tensors and options,
     * and a slot that says so cannot be called with another's. All f32; g = gradient_scale gradient
     * before anything else, and decay is added after that. Those but adamw are optional: a stage
     * refuses a job whose optimizer its device lacks.
     * adamw: decoupled decay (arXiv:1711.05101): p -= lr wd p; then
     * p -= lr mhat / (sqrt(vhat) + eps). */
    void (*adamw)(mr_device *device, const mr_adamw *options, const mr_tensor *gradient,
                  mr_tensor *parameter, mr_tensor *exp_avg, mr_tensor *exp_avg_sq);
    /* Optional. g += wd p; then adamw's step without its decay (arXiv:1412.6980). */
    void (*adam)(mr_device *device, const mr_adamw *options, const mr_tensor *gradient,
                 mr_tensor *parameter, mr_tensor *exp_avg, mr_tensor *exp_avg_sq);
    /* Optional. g += wd p; m = momentum m + g; p -= lr m, or lr (g + momentum m) with nesterov.
     * Without momentum p -= lr g, and the tensor is NULL. */
    void (*sgd)(mr_device *device, const mr_sgd *options, const mr_tensor *gradient,
                mr_tensor *parameter, mr_tensor *momentum);
    /* Optional. p -= lr wd p; p -= lr sign(beta1 m + (1 - beta1) g), where sign(0) is 0; then
     * m = beta2 m + (1 - beta2) g (arXiv:2302.06675). */
    void (*lion)(mr_device *device, const mr_lion *options, const mr_tensor *gradient,
                 mr_tensor *parameter, mr_tensor *exp_avg);
} mr_device_ops;

/* An implementation embeds this as its first member. */
struct mr_device {
    const mr_device_ops *ops;
};

typedef struct mr_device_options {
    const char *kind; /* "cpu", "cuda:N", or one that was registered (kind.h) */
    int threads;      /* of a cpu device; 0: one for each processor */
    bool pin;         /* bind those threads to processors */
    /* Of a cuda device. fast: algorithms by measurement, sums in any order, so bits may change from
     * run to run; else the same bits every time. cache_folder: where measurements are kept; NULL:
     * nowhere. */
    bool fast;
    const char *cache_folder;
} mr_device_options;

/* INVALID_ARGUMENT: a kind that is none; UNAVAILABLE: no such device, no driver or no library for
 * it, named. FAILED_PRECONDITION: a library of another build.
 * Thread: the one that will run every operation (EXEC). */
MR_MUST_CHECK mr_status mr_device_create(const mr_device_options *options, mr_device **out_device);
/* NULL is fine. */
void mr_device_destroy(mr_device *device);

#endif
