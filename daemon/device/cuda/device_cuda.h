/* SPDX-License-Identifier: Apache-2.0 */
/* device_cuda.h: the CUDA device seen from inside: its parts, and what the operation families
 * share. The folder in short:
 *   load, entry    the program's side: finding the library; the one symbol that it has
 *   create, driver options, the vtable, is there a driver and a card
 *   memory         memory, copies through pinned slots, the workspace
 *   fault          what an error of CUDA means
 *   product, choice, linear         cuBLASLt, what was fastest, and what it is used for
 *   sdpa_graph, sdpa, attention     cuDNN's attention, and our own for what it does not take
 *   embedding, norm, pointwise, loss, optimizer   one operation family each, on kernels/
 *   kernels/       our own kernels behind plain C calls
 * Everything is issued on one stream in the order of calls; nothing waits but check and copy_out.
 * The first error is kept; after one that loses the card, every call fails the same way.
 * Owner: device/cuda; not for others. Thread: EXEC. */
#ifndef MR_DEVICE_CUDA_DEVICE_CUDA_H
#define MR_DEVICE_CUDA_DEVICE_CUDA_H

#include "daemon/device/cuda/kernels/kernels.h"
#include "daemon/device/cuda/product.h"
#include "daemon/device/cuda/sdpa.h"
#include "daemon/device/device.h"

struct CUevent_st; /* what a cudaEvent_t points to */

enum {
    CUDA_SLOTS = 2, /* of pinned memory: one is filled while the other is copied */
    CUDA_SLOT_BYTES = 4 << 20
};

typedef struct mr_device_cuda {
    mr_device base;
    int number;
    bool fast;
    mr_cuda_stream stream;
    mr_products *products;
    mr_sdpa *sdpa;
    void *workspace; /* of the operation that runs; grows when a shape needs more than any before */
    size_t workspace_bytes;
    unsigned char *slots[CUDA_SLOTS]; /* pinned */
    struct CUevent_st *slot_free[CUDA_SLOTS];
    int slot;               /* the next one to use */
    mr_cuda_bad_index *bad; /* on the device */
    mr_status error;        /* the first */
} mr_device_cuda;

/* The whole device behind the base that operations get; it must be a CUDA device. */
mr_device_cuda *mr_device_cuda_of(mr_device *device);
/* Keeps the first error. */
void mr_device_cuda_latch(mr_device_cuda *cuda, mr_status status);
/* Latches a cudaError_t that is not 0; false then. what: the operation. */
bool mr_device_cuda_passed(mr_device_cuda *cuda, int code, const char *what);
/* bytes of device memory, valid until the next call. NULL (and an error latched): none. */
void *mr_device_cuda_workspace(mr_device_cuda *cuda, size_t bytes);

/* A tensor as kernels take it; NULL gives no data, of the given type. */
mr_cuda_array mr_device_cuda_array(const mr_tensor *tensor, mr_dtype absent);
/* A tensor's f32 elements; asserts the type. NULL gives NULL. */
float *mr_device_cuda_floats(const mr_tensor *tensor);
/* Elements; of the last dimension; and of all before it. */
size_t mr_device_cuda_count(const mr_tensor *tensor);
size_t mr_device_cuda_width(const mr_tensor *tensor);
size_t mr_device_cuda_rows(const mr_tensor *tensor);
/* The mask as kernels take it; dropout may be NULL. */
mr_cuda_mask mr_device_cuda_mask(const mr_dropout *dropout);

/* memory.c: the pinned slots; what of them was made so far is freed by the second. */
MR_MUST_CHECK mr_status mr_device_cuda_slots_create(mr_device_cuda *cuda);
void mr_device_cuda_slots_destroy(mr_device_cuda *cuda);

/* The slots of the vtable, by family. */
mr_status mr_device_cuda_memory_create(mr_device *device, size_t bytes,
                                       mr_device_memory *out_memory);
void mr_device_cuda_memory_destroy(mr_device *device, mr_device_memory *memory);
void mr_device_cuda_copy_in(mr_device *device, void *to, const void *host_from, size_t bytes);
void mr_device_cuda_copy_out(mr_device *device, void *host_to, const void *from, size_t bytes);
void mr_device_cuda_copy(mr_device *device, void *to, const void *from, size_t bytes);
void mr_device_cuda_zero(mr_device *device, void *at, size_t bytes);
void mr_device_cuda_linear_forward(mr_device *device, const mr_tensor *x, const mr_tensor *w,
                                   const mr_tensor *bias, mr_tensor *y);
void mr_device_cuda_linear_backward_input(mr_device *device, const mr_tensor *dy,
                                          const mr_tensor *w, mr_tensor *dx);
void mr_device_cuda_linear_backward_weight(mr_device *device, const mr_tensor *dy,
                                           const mr_tensor *x, mr_tensor *dw, mr_tensor *dbias);
void mr_device_cuda_embedding_forward(mr_device *device, const mr_tensor *tokens,
                                      const mr_tensor *wte, const mr_tensor *wpe, mr_tensor *y);
void mr_device_cuda_embedding_backward(mr_device *device, const mr_tensor *tokens,
                                       const mr_tensor *dy, mr_tensor *dwte, mr_tensor *dwpe);
void mr_device_cuda_layernorm_forward(mr_device *device, const mr_tensor *x, const mr_tensor *w,
                                      const mr_tensor *b, float eps, mr_tensor *y, mr_tensor *mean,
                                      mr_tensor *rstd);
void mr_device_cuda_residual_layernorm_forward(mr_device *device, const mr_tensor *x,
                                               const mr_tensor *branch, const mr_dropout *dropout,
                                               const mr_tensor *w, const mr_tensor *b, float eps,
                                               mr_tensor *sum, mr_tensor *y, mr_tensor *mean,
                                               mr_tensor *rstd);
void mr_device_cuda_layernorm_backward_input(mr_device *device, const mr_tensor *dy,
                                             const mr_tensor *x, const mr_tensor *w,
                                             const mr_tensor *mean, const mr_tensor *rstd,
                                             const mr_tensor *residual, mr_tensor *dx);
void mr_device_cuda_layernorm_backward_weight(mr_device *device, const mr_tensor *dy,
                                              const mr_tensor *x, const mr_tensor *mean,
                                              const mr_tensor *rstd, mr_tensor *dw, mr_tensor *db);
void mr_device_cuda_attention_forward(mr_device *device, const mr_tensor *qkv, size_t heads,
                                      bool causal, const mr_dropout *dropout, mr_tensor *out,
                                      mr_tensor *lse);
void mr_device_cuda_attention_backward(mr_device *device, const mr_tensor *dout,
                                       const mr_tensor *qkv, const mr_tensor *out,
                                       const mr_tensor *lse, size_t heads, bool causal,
                                       const mr_dropout *dropout, mr_tensor *dqkv);
void mr_device_cuda_pointwise_forward(mr_device *device, mr_pointwise kind, const mr_tensor *x,
                                      mr_tensor *y);
void mr_device_cuda_pointwise_backward(mr_device *device, mr_pointwise kind, const mr_tensor *x,
                                       const mr_tensor *dy, mr_tensor *dx);
void mr_device_cuda_dropout(mr_device *device, const mr_dropout *dropout, const mr_tensor *x,
                            mr_tensor *y);
void mr_device_cuda_add(mr_device *device, const mr_tensor *a, const mr_tensor *b,
                        const mr_dropout *dropout, mr_tensor *out);
void mr_device_cuda_cast(mr_device *device, const mr_tensor *x, mr_tensor *y);
void mr_device_cuda_accumulate(mr_device *device, mr_tensor *a, const mr_tensor *b);
void mr_device_cuda_cross_entropy(mr_device *device, const mr_tensor *logits,
                                  const mr_tensor *labels, float scale, mr_tensor *dlogits,
                                  double *loss);
void mr_device_cuda_mean_squared_error(mr_device *device, const mr_tensor *y,
                                       const mr_tensor *target, float scale, mr_tensor *dy,
                                       double *loss);
void mr_device_cuda_sum_of_squares(mr_device *device, const mr_tensor *x, double *out);
void mr_device_cuda_adamw(mr_device *device, const mr_adamw *options, const mr_tensor *gradient,
                          mr_tensor *parameter, mr_tensor *exp_avg, mr_tensor *exp_avg_sq);

#endif
