/* SPDX-License-Identifier: Apache-2.0 */
/* device_cpu.h: the CPU device seen from inside: its parts, and what the operation families share.
 * Owner: device/cpu; not for others. Thread: EXEC unless said. */
#ifndef MR_DEVICE_CPU_DEVICE_CPU_H
#define MR_DEVICE_CPU_DEVICE_CPU_H

#include "daemon/base/arena.h"
#include "daemon/device/cpu/kernels/kernels.h"
#include "daemon/device/cpu/onednn.h"
#include "daemon/device/cpu/pool.h"
#include "daemon/device/cpu/processors.h"
#include "daemon/device/device.h"

typedef struct mr_device_cpu {
    mr_device base;
    mr_pool *pool;
    mr_onednn *onednn;
    const mr_cpu_kernels *kernels;
    mr_arena workspace; /* of the operation that runs */
    mr_arena staging;   /* of its tasks: floats of bf16 and f16 tensors, a part for each thread */
    bool bf16_products; /* oneDNN multiplies bf16; else products of it run in f32 */
    mr_processors processors;
    mr_status error; /* the first */
} mr_device_cpu;

enum {
    /* Borders of tasks. They decide the order of sums, so changing one changes bits. */
    CPU_CHUNK = 16384,   /* elements of an elementwise task, and of a partial sum */
    CPU_SUM_ROWS = 64,   /* rows of a partial sum over rows */
    CPU_ROW_TASK = 16384 /* elements, about, in the rows of one task; no sum crosses rows here */
};

/* The whole device behind the base that operations get; it must be a CPU device. */
mr_device_cpu *mr_device_cpu_of(mr_device *device);
/* Keeps the first error. */
void mr_device_cpu_latch(mr_device_cpu *cpu, mr_status status);
/* bytes of memory, valid until the next call; grows only when a shape needs more than any before.
 * NULL (and an error latched) when there is none. */
void *mr_device_cpu_workspace(mr_device_cpu *cpu, size_t bytes);

/* The same for tasks: room for `floats` of each thread, thread t's at t times the returned
 * stride. */
typedef struct mr_device_cpu_stage {
    float *base; /* NULL when there is none; the error is latched */
    size_t stride;
} mr_device_cpu_stage;
mr_device_cpu_stage mr_device_cpu_staging(mr_device_cpu *cpu, size_t floats);
float *mr_device_cpu_stage_of(const mr_device_cpu_stage *stage, int thread);

/* A tensor's f32 elements, or its bf16 or f16 ones; each asserts the type. */
float *mr_device_cpu_floats(const mr_tensor *tensor);
uint16_t *mr_device_cpu_halves(const mr_tensor *tensor);
/* Is it bf16 or f16? Asserts that it is f32 otherwise. */
bool mr_device_cpu_is_half(const mr_tensor *tensor);
/* The kernels for an operation on activations of the tensor's type: they differ in conversions. */
const mr_cpu_kernels *mr_device_cpu_kernels(const mr_device_cpu *cpu, const mr_tensor *tensor);
/* Whole tensors: to = from, widened or rounded, by the kernels of the narrow type. */
void mr_device_cpu_widen(mr_device_cpu *cpu, const mr_cpu_kernels *kernels, const uint16_t *from,
                         float *to, size_t n);
void mr_device_cpu_narrow(mr_device_cpu *cpu, const mr_cpu_kernels *kernels, const float *from,
                          uint16_t *to, size_t n);
/* Elements; of the last dimension; and of all before it. */
size_t mr_device_cpu_count(const mr_tensor *tensor);
size_t mr_device_cpu_width(const mr_tensor *tensor);
size_t mr_device_cpu_rows(const mr_tensor *tensor);
size_t mr_device_cpu_parts(size_t n, size_t part);
/* Rows of one task of a row-wise operation. */
size_t mr_device_cpu_task_rows(size_t width);

/* The slots, by family. */
void mr_device_cpu_linear_forward(mr_device *device, const mr_tensor *x, const mr_tensor *w,
                                  const mr_tensor *bias, mr_tensor *y);
void mr_device_cpu_linear_backward_input(mr_device *device, const mr_tensor *dy,
                                         const mr_tensor *w, mr_tensor *dx);
void mr_device_cpu_linear_backward_weight(mr_device *device, const mr_tensor *dy,
                                          const mr_tensor *x, mr_tensor *dw, mr_tensor *dbias);
void mr_device_cpu_embedding_forward(mr_device *device, const mr_tensor *tokens,
                                     const mr_tensor *wte, const mr_tensor *wpe, mr_tensor *y);
void mr_device_cpu_embedding_backward(mr_device *device, const mr_tensor *tokens,
                                      const mr_tensor *dy, mr_tensor *dwte, mr_tensor *dwpe);
void mr_device_cpu_embedding_forward_share(mr_device *device, const mr_tensor *tokens,
                                           const mr_vocabulary *vocabulary, const mr_tensor *wte,
                                           const mr_tensor *wpe, mr_tensor *y);
void mr_device_cpu_embedding_backward_share(mr_device *device, const mr_tensor *tokens,
                                            const mr_vocabulary *vocabulary, const mr_tensor *dy,
                                            mr_tensor *dwte, mr_tensor *dwpe);
void mr_device_cpu_layernorm_forward(mr_device *device, const mr_tensor *x, const mr_tensor *w,
                                     const mr_tensor *b, float eps, mr_tensor *y, mr_tensor *mean,
                                     mr_tensor *rstd);
void mr_device_cpu_residual_layernorm_forward(mr_device *device, const mr_tensor *x,
                                              const mr_tensor *branch, const mr_dropout *dropout,
                                              const mr_tensor *w, const mr_tensor *b, float eps,
                                              mr_tensor *sum, mr_tensor *y, mr_tensor *mean,
                                              mr_tensor *rstd);
void mr_device_cpu_layernorm_backward_input(mr_device *device, const mr_tensor *dy,
                                            const mr_tensor *x, const mr_tensor *w,
                                            const mr_tensor *mean, const mr_tensor *rstd,
                                            const mr_tensor *residual, mr_tensor *dx);
void mr_device_cpu_layernorm_backward_weight(mr_device *device, const mr_tensor *dy,
                                             const mr_tensor *x, const mr_tensor *mean,
                                             const mr_tensor *rstd, mr_tensor *dw, mr_tensor *db);
void mr_device_cpu_attention_forward(mr_device *device, const mr_tensor *qkv, size_t heads,
                                     bool causal, const mr_dropout *dropout, mr_tensor *out,
                                     mr_tensor *lse);
void mr_device_cpu_attention_backward(mr_device *device, const mr_tensor *dout,
                                      const mr_tensor *qkv, const mr_tensor *out,
                                      const mr_tensor *lse, size_t heads, bool causal,
                                      const mr_dropout *dropout, mr_tensor *dqkv);
void mr_device_cpu_pointwise_forward(mr_device *device, mr_pointwise kind, const mr_tensor *x,
                                     mr_tensor *y);
void mr_device_cpu_pointwise_backward(mr_device *device, mr_pointwise kind, const mr_tensor *x,
                                      const mr_tensor *dy, mr_tensor *dx);
void mr_device_cpu_dropout(mr_device *device, const mr_dropout *dropout, const mr_tensor *x,
                           mr_tensor *y);
void mr_device_cpu_add(mr_device *device, const mr_tensor *a, const mr_tensor *b,
                       const mr_dropout *dropout, mr_tensor *out);
void mr_device_cpu_accumulate(mr_device *device, mr_tensor *a, const mr_tensor *b);
void mr_device_cpu_window_gather(mr_device *device, const mr_window *window, const mr_tensor *x,
                                 mr_tensor *rows);
void mr_device_cpu_window_scatter(mr_device *device, const mr_window *window,
                                  const mr_tensor *rows, mr_tensor *dx);
void mr_device_cpu_max_pool_forward(mr_device *device, const mr_window *window, const mr_tensor *x,
                                    mr_tensor *y);
void mr_device_cpu_max_pool_backward(mr_device *device, const mr_window *window,
                                     const mr_tensor *x, const mr_tensor *dy, mr_tensor *dx);
void mr_device_cpu_transpose(mr_device *device, const mr_tensor *from, mr_tensor *to);
void mr_device_cpu_cross_entropy(mr_device *device, const mr_tensor *logits,
                                 const mr_tensor *labels, float scale, mr_tensor *dlogits,
                                 double *loss);
void mr_device_cpu_logit_statistics(mr_device *device, const mr_tensor *logits,
                                    const mr_tensor *labels, const mr_vocabulary *vocabulary,
                                    float *statistics);
void mr_device_cpu_cross_entropy_share(mr_device *device, const mr_tensor *logits,
                                       const mr_tensor *labels, const mr_vocabulary *vocabulary,
                                       const float *statistics, size_t width, float scale,
                                       mr_tensor *dlogits, double *loss);
void mr_device_cpu_mean_squared_error(mr_device *device, const mr_tensor *y,
                                      const mr_tensor *target, float scale, mr_tensor *dy,
                                      double *loss);
void mr_device_cpu_sum_of_squares(mr_device *device, const mr_tensor *x, double *out);
void mr_device_cpu_adamw(mr_device *device, const mr_adamw *options, const mr_tensor *gradient,
                         mr_tensor *parameter, mr_tensor *exp_avg, mr_tensor *exp_avg_sq);
void mr_device_cpu_adam(mr_device *device, const mr_adamw *options, const mr_tensor *gradient,
                        mr_tensor *parameter, mr_tensor *exp_avg, mr_tensor *exp_avg_sq);
void mr_device_cpu_sgd(mr_device *device, const mr_sgd *options, const mr_tensor *gradient,
                       mr_tensor *parameter, mr_tensor *momentum);
void mr_device_cpu_lion(mr_device *device, const mr_lion *options, const mr_tensor *gradient,
                        mr_tensor *parameter, mr_tensor *exp_avg);
void mr_device_cpu_cast(mr_device *device, const mr_tensor *x, mr_tensor *y);
void mr_device_cpu_copy(mr_device *device, void *to, const void *from, size_t bytes);
void mr_device_cpu_zero(mr_device *device, void *at, size_t bytes);

#endif
