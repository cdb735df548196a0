/* SPDX-License-Identifier: Apache-2.0 */
/* An address here is the real one and FAR_DISTANCE, which no processor of today can address: its
 * upper bits are not all alike. Every slot takes the distance off each address that it is given and
 * asserts that there is one. Optional slots are all there, as they are on the CPU device. */
#include "tests/far/far_device.h"

#include "daemon/base/alloc.h"
#include "daemon/device/cpu/create.h"

#define FAR_DISTANCE ((uintptr_t)1 << 62)

typedef struct far_device {
    mr_device base; /* first: what users hold */
    mr_device *cpu;
} far_device;

static mr_device *far_cpu(mr_device *device) {
    return ((far_device *)device)->cpu;
}

/* The real address; NULL stays NULL. */
static void *far_near(const void *address) {
    if (address == NULL)
        return NULL;
    MR_ASSERT((uintptr_t)address >= FAR_DISTANCE); /* else it is the host's */
    return (void *)((uintptr_t)address - FAR_DISTANCE);
}

/* A pointer of the host to tell from ours. */
static void far_check_host(const void *address) {
    MR_ASSERT((uintptr_t)address < FAR_DISTANCE);
}

static mr_tensor *far_near_tensor(const mr_tensor *tensor, mr_tensor *near) {
    if (tensor == NULL)
        return NULL;
    *near = (mr_tensor){.data = far_near(tensor->data), .shape = tensor->shape};
    return near;
}

#define NEAR(tensor) far_near_tensor((tensor), &(mr_tensor){0})

/* ---- memory ---- */

static void far_destroy(mr_device *device) {
    mr_device_destroy(far_cpu(device));
    mr_free(device);
}

static mr_status far_check(mr_device *device) {
    mr_device *near = far_cpu(device);
    return near->ops->check(near);
}

static mr_status far_memory_create(mr_device *device, size_t bytes, mr_device_memory *out_memory) {
    mr_device *near = far_cpu(device);
    mr_device_memory memory = {0};
    MR_TRY(near->ops->memory_create(near, bytes, &memory));
    if (memory.base != NULL)
        memory.base = (void *)((uintptr_t)memory.base + FAR_DISTANCE);
    *out_memory = memory;
    return MR_OK;
}

static void far_memory_destroy(mr_device *device, mr_device_memory *memory) {
    mr_device *near = far_cpu(device);
    memory->base = far_near(memory->base);
    near->ops->memory_destroy(near, memory);
}

static void far_copy_in(mr_device *device, void *to, const void *host_from, size_t bytes) {
    mr_device *near = far_cpu(device);
    far_check_host(host_from);
    near->ops->copy_in(near, far_near(to), host_from, bytes);
}

static void far_copy_out(mr_device *device, void *host_to, const void *from, size_t bytes) {
    mr_device *near = far_cpu(device);
    far_check_host(host_to);
    near->ops->copy_out(near, host_to, far_near(from), bytes);
}

static void far_copy(mr_device *device, void *to, const void *from, size_t bytes) {
    mr_device *near = far_cpu(device);
    near->ops->copy(near, far_near(to), far_near(from), bytes);
}

static void far_zero(mr_device *device, void *at, size_t bytes) {
    mr_device *near = far_cpu(device);
    near->ops->zero(near, far_near(at), bytes);
}

/* ---- operations ---- */

static void far_linear_forward(mr_device *device, const mr_tensor *x, const mr_tensor *w,
                               const mr_tensor *bias, mr_tensor *y) {
    mr_device *near = far_cpu(device);
    near->ops->linear_forward(near, NEAR(x), NEAR(w), NEAR(bias), NEAR(y));
}

static void far_linear_backward_input(mr_device *device, const mr_tensor *dy, const mr_tensor *w,
                                      mr_tensor *dx) {
    mr_device *near = far_cpu(device);
    near->ops->linear_backward_input(near, NEAR(dy), NEAR(w), NEAR(dx));
}

static void far_linear_backward_weight(mr_device *device, const mr_tensor *dy, const mr_tensor *x,
                                       mr_tensor *dw, mr_tensor *dbias) {
    mr_device *near = far_cpu(device);
    near->ops->linear_backward_weight(near, NEAR(dy), NEAR(x), NEAR(dw), NEAR(dbias));
}

static void far_embedding_forward(mr_device *device, const mr_tensor *tokens, const mr_tensor *wte,
                                  const mr_tensor *wpe, mr_tensor *y) {
    mr_device *near = far_cpu(device);
    near->ops->embedding_forward(near, NEAR(tokens), NEAR(wte), NEAR(wpe), NEAR(y));
}

static void far_embedding_backward(mr_device *device, const mr_tensor *tokens, const mr_tensor *dy,
                                   mr_tensor *dwte, mr_tensor *dwpe) {
    mr_device *near = far_cpu(device);
    near->ops->embedding_backward(near, NEAR(tokens), NEAR(dy), NEAR(dwte), NEAR(dwpe));
}

static void far_layernorm_forward(mr_device *device, const mr_tensor *x, const mr_tensor *w,
                                  const mr_tensor *b, float eps, mr_tensor *y, mr_tensor *mean,
                                  mr_tensor *rstd) {
    mr_device *near = far_cpu(device);
    near->ops->layernorm_forward(near, NEAR(x), NEAR(w), NEAR(b), eps, NEAR(y), NEAR(mean),
                                 NEAR(rstd));
}

static void far_residual_layernorm_forward(mr_device *device, const mr_tensor *x,
                                           const mr_tensor *branch, const mr_dropout *dropout,
                                           const mr_tensor *w, const mr_tensor *b, float eps,
                                           mr_tensor *sum, mr_tensor *y, mr_tensor *mean,
                                           mr_tensor *rstd) {
    mr_device *near = far_cpu(device);
    near->ops->residual_layernorm_forward(near, NEAR(x), NEAR(branch), dropout, NEAR(w), NEAR(b),
                                          eps, NEAR(sum), NEAR(y), NEAR(mean), NEAR(rstd));
}

static void far_layernorm_backward_input(mr_device *device, const mr_tensor *dy, const mr_tensor *x,
                                         const mr_tensor *w, const mr_tensor *mean,
                                         const mr_tensor *rstd, const mr_tensor *residual,
                                         mr_tensor *dx) {
    mr_device *near = far_cpu(device);
    near->ops->layernorm_backward_input(near, NEAR(dy), NEAR(x), NEAR(w), NEAR(mean), NEAR(rstd),
                                        NEAR(residual), NEAR(dx));
}

static void far_layernorm_backward_weight(mr_device *device, const mr_tensor *dy,
                                          const mr_tensor *x, const mr_tensor *mean,
                                          const mr_tensor *rstd, mr_tensor *dw, mr_tensor *db) {
    mr_device *near = far_cpu(device);
    near->ops->layernorm_backward_weight(near, NEAR(dy), NEAR(x), NEAR(mean), NEAR(rstd), NEAR(dw),
                                         NEAR(db));
}

static void far_attention_forward(mr_device *device, const mr_tensor *qkv, size_t heads,
                                  bool causal, const mr_dropout *dropout, mr_tensor *out,
                                  mr_tensor *lse) {
    mr_device *near = far_cpu(device);
    near->ops->attention_forward(near, NEAR(qkv), heads, causal, dropout, NEAR(out), NEAR(lse));
}

static void far_attention_backward(mr_device *device, const mr_tensor *dout, const mr_tensor *qkv,
                                   const mr_tensor *out, const mr_tensor *lse, size_t heads,
                                   bool causal, const mr_dropout *dropout, mr_tensor *dqkv) {
    mr_device *near = far_cpu(device);
    near->ops->attention_backward(near, NEAR(dout), NEAR(qkv), NEAR(out), NEAR(lse), heads, causal,
                                  dropout, NEAR(dqkv));
}

static void far_pointwise_forward(mr_device *device, mr_pointwise kind, const mr_tensor *x,
                                  mr_tensor *y) {
    mr_device *near = far_cpu(device);
    near->ops->pointwise_forward(near, kind, NEAR(x), NEAR(y));
}

static void far_pointwise_backward(mr_device *device, mr_pointwise kind, const mr_tensor *x,
                                   const mr_tensor *dy, mr_tensor *dx) {
    mr_device *near = far_cpu(device);
    near->ops->pointwise_backward(near, kind, NEAR(x), NEAR(dy), NEAR(dx));
}

static void far_dropout(mr_device *device, const mr_dropout *dropout, const mr_tensor *x,
                        mr_tensor *y) {
    mr_device *near = far_cpu(device);
    near->ops->dropout(near, dropout, NEAR(x), NEAR(y));
}

static void far_add(mr_device *device, const mr_tensor *a, const mr_tensor *b,
                    const mr_dropout *dropout, mr_tensor *out) {
    mr_device *near = far_cpu(device);
    near->ops->add(near, NEAR(a), NEAR(b), dropout, NEAR(out));
}

static void far_window_gather(mr_device *device, const mr_window *window, const mr_tensor *x,
                              mr_tensor *rows) {
    mr_device *near = far_cpu(device);
    near->ops->window_gather(near, window, NEAR(x), NEAR(rows));
}

static void far_window_scatter(mr_device *device, const mr_window *window, const mr_tensor *rows,
                               mr_tensor *dx) {
    mr_device *near = far_cpu(device);
    near->ops->window_scatter(near, window, NEAR(rows), NEAR(dx));
}

static void far_max_pool_forward(mr_device *device, const mr_window *window, const mr_tensor *x,
                                 mr_tensor *y) {
    mr_device *near = far_cpu(device);
    near->ops->max_pool_forward(near, window, NEAR(x), NEAR(y));
}

static void far_max_pool_backward(mr_device *device, const mr_window *window, const mr_tensor *x,
                                  const mr_tensor *dy, mr_tensor *dx) {
    mr_device *near = far_cpu(device);
    near->ops->max_pool_backward(near, window, NEAR(x), NEAR(dy), NEAR(dx));
}

static void far_transpose(mr_device *device, const mr_tensor *from, mr_tensor *to) {
    mr_device *near = far_cpu(device);
    near->ops->transpose(near, NEAR(from), NEAR(to));
}

static void far_cross_entropy(mr_device *device, const mr_tensor *logits, const mr_tensor *labels,
                              float scale, mr_tensor *dlogits, double *loss) {
    mr_device *near = far_cpu(device);
    near->ops->cross_entropy(near, NEAR(logits), NEAR(labels), scale, NEAR(dlogits),
                             far_near(loss));
}

static void far_mean_squared_error(mr_device *device, const mr_tensor *y, const mr_tensor *target,
                                   float scale, mr_tensor *dy, double *loss) {
    mr_device *near = far_cpu(device);
    near->ops->mean_squared_error(near, NEAR(y), NEAR(target), scale, NEAR(dy), far_near(loss));
}

static void far_embedding_forward_share(mr_device *device, const mr_tensor *tokens,
                                        const mr_vocabulary *vocabulary, const mr_tensor *wte,
                                        const mr_tensor *wpe, mr_tensor *y) {
    mr_device *near = far_cpu(device);
    near->ops->embedding_forward_share(near, NEAR(tokens), vocabulary, NEAR(wte), NEAR(wpe),
                                       NEAR(y));
}

static void far_embedding_backward_share(mr_device *device, const mr_tensor *tokens,
                                         const mr_vocabulary *vocabulary, const mr_tensor *dy,
                                         mr_tensor *dwte, mr_tensor *dwpe) {
    mr_device *near = far_cpu(device);
    near->ops->embedding_backward_share(near, NEAR(tokens), vocabulary, NEAR(dy), NEAR(dwte),
                                        NEAR(dwpe));
}

static void far_logit_statistics(mr_device *device, const mr_tensor *logits,
                                 const mr_tensor *labels, const mr_vocabulary *vocabulary,
                                 float *statistics) {
    mr_device *near = far_cpu(device);
    near->ops->logit_statistics(near, NEAR(logits), NEAR(labels), vocabulary, far_near(statistics));
}

static void far_cross_entropy_share(mr_device *device, const mr_tensor *logits,
                                    const mr_tensor *labels, const mr_vocabulary *vocabulary,
                                    const float *statistics, size_t width, float scale,
                                    mr_tensor *dlogits, double *loss) {
    mr_device *near = far_cpu(device);
    near->ops->cross_entropy_share(near, NEAR(logits), NEAR(labels), vocabulary,
                                   far_near(statistics), width, scale, NEAR(dlogits),
                                   far_near(loss));
}

static void far_sum_of_squares(mr_device *device, const mr_tensor *x, double *out) {
    mr_device *near = far_cpu(device);
    near->ops->sum_of_squares(near, NEAR(x), far_near(out));
}

static void far_accumulate(mr_device *device, mr_tensor *a, const mr_tensor *b) {
    mr_device *near = far_cpu(device);
    near->ops->accumulate(near, NEAR(a), NEAR(b));
}

static void far_cast(mr_device *device, const mr_tensor *x, mr_tensor *y) {
    mr_device *near = far_cpu(device);
    near->ops->cast(near, NEAR(x), NEAR(y));
}

static void far_adamw(mr_device *device, const mr_adamw *options, const mr_tensor *gradient,
                      mr_tensor *parameter, mr_tensor *exp_avg, mr_tensor *exp_avg_sq) {
    mr_device *near = far_cpu(device);
    near->ops->adamw(near, options, NEAR(gradient), NEAR(parameter), NEAR(exp_avg),
                     NEAR(exp_avg_sq));
}

static void far_adam(mr_device *device, const mr_adamw *options, const mr_tensor *gradient,
                     mr_tensor *parameter, mr_tensor *exp_avg, mr_tensor *exp_avg_sq) {
    mr_device *near = far_cpu(device);
    near->ops->adam(near, options, NEAR(gradient), NEAR(parameter), NEAR(exp_avg),
                    NEAR(exp_avg_sq));
}

static void far_sgd(mr_device *device, const mr_sgd *options, const mr_tensor *gradient,
                    mr_tensor *parameter, mr_tensor *momentum) {
    mr_device *near = far_cpu(device);
    near->ops->sgd(near, options, NEAR(gradient), NEAR(parameter), NEAR(momentum));
}

static void far_lion(mr_device *device, const mr_lion *options, const mr_tensor *gradient,
                     mr_tensor *parameter, mr_tensor *exp_avg) {
    mr_device *near = far_cpu(device);
    near->ops->lion(near, options, NEAR(gradient), NEAR(parameter), NEAR(exp_avg));
}

static const mr_device_ops far_ops = {
    .name = "far",
    .destroy = far_destroy,
    .check = far_check,
    .memory_create = far_memory_create,
    .memory_destroy = far_memory_destroy,
    .copy_in = far_copy_in,
    .copy_out = far_copy_out,
    .copy = far_copy,
    .zero = far_zero,
    .linear_forward = far_linear_forward,
    .linear_backward_input = far_linear_backward_input,
    .linear_backward_weight = far_linear_backward_weight,
    .embedding_forward = far_embedding_forward,
    .embedding_backward = far_embedding_backward,
    .layernorm_forward = far_layernorm_forward,
    .residual_layernorm_forward = far_residual_layernorm_forward,
    .layernorm_backward_input = far_layernorm_backward_input,
    .layernorm_backward_weight = far_layernorm_backward_weight,
    .attention_forward = far_attention_forward,
    .attention_backward = far_attention_backward,
    .pointwise_forward = far_pointwise_forward,
    .pointwise_backward = far_pointwise_backward,
    .dropout = far_dropout,
    .add = far_add,
    .window_gather = far_window_gather,
    .window_scatter = far_window_scatter,
    .max_pool_forward = far_max_pool_forward,
    .max_pool_backward = far_max_pool_backward,
    .transpose = far_transpose,
    .cross_entropy = far_cross_entropy,
    .mean_squared_error = far_mean_squared_error,
    .embedding_forward_share = far_embedding_forward_share,
    .embedding_backward_share = far_embedding_backward_share,
    .logit_statistics = far_logit_statistics,
    .cross_entropy_share = far_cross_entropy_share,
    .sum_of_squares = far_sum_of_squares,
    .accumulate = far_accumulate,
    .cast = far_cast,
    .adamw = far_adamw,
    .adam = far_adam,
    .sgd = far_sgd,
    .lion = far_lion,
};

mr_status mr_far_device_create(const mr_device_options *options, mr_device **out_device) {
    far_device *far = mr_alloc(sizeof(*far));
    if (far == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a far device");
    mr_status status = mr_device_cpu_create(options, &far->cpu);
    if (!mr_status_is_ok(status)) {
        mr_free(far);
        return status;
    }
    far->base.ops = &far_ops;
    *out_device = &far->base;
    return MR_OK;
}
