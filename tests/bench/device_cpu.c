/* SPDX-License-Identifier: Apache-2.0 */
/* device_cpu [THREADS [REPEATS [bf16]]]: the time of every device operation in the benchmark model
 * (6 layers, C=384, 6 heads, T=256, B=8, V=256), its rate, its share of a training step, and
 * oneDNN's own matmul rate for the same products in the same run. The last lines predict what
 * tests/bench/train_cpu measures: model GFLOP/s of the sum of all operations over oneDNN's rate,
 * from medians and from best times. With bf16, activations and matrices are bf16 and a step ends
 * with the cast of its masters. The machine should be idle. Nothing is bound to a processor, so
 * that oneDNN's threads are as free as ours. No pass or fail. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/base/arena.h"
#include "daemon/base/half.h"
#include "daemon/base/clock.h"
#include "daemon/device/device.h"
#include "tests/bench/onednn_rate.h"

enum { L = 6, B = 8, T = 256, C = 384, NH = 6, V = 256, F = 4 * C, R = B * T, OPERATIONS_MAX = 64 };
/* Parameters of the model: blocks, embedding, positions, last norm. */
enum { PARAMETERS = L * (12 * C * C + 13 * C) + V * C + T * C + 2 * C };

typedef struct bench {
    mr_device *device;
    const mr_device_ops *ops;
    mr_arena arena;
    mr_dtype dtype; /* of activations and matrices */
    int repeats;
    double flops; /* of products and attention in a step */
    double product_flops;
    /* Seconds of a step, from medians [0] and best times [1]: */
    double step[2];
    double products[2];  /* of linear_* */
    double reference[2]; /* of the same products by oneDNN alone */
    mr_tensor x, y, w, wide, wide2, qkv, dqkv, lse, row1, row2, logits, tokens, table, positions;
    mr_tensor w_norm, b_norm, weight, dw, dtable, dpositions;
    mr_tensor parameter, compute, gradient, exp_avg, exp_avg_sq;
    double *scalar;
    mr_dropout dropout;
    mr_adamw adamw;
} bench;

static mr_tensor bench_tensor(bench *b, mr_dtype dtype, size_t d0, size_t d1, size_t d2) {
    mr_tensor t = {.shape = {.dtype = dtype, .dims = {d0, d1, d2}}};
    size_t n = 0;
    t.shape.dim_count = d2 != 0 ? 3 : d1 != 0 ? 2 : 1;
    MR_ASSERT(mr_shape_elements(&t.shape, &n));
    t.data = mr_arena_take(&b->arena, n * 4);
    MR_ASSERT(t.data != NULL);
    for (size_t i = 0; i < n; i++)
        if (dtype == MR_DTYPE_F32)
            ((float *)t.data)[i] = (float)(random() % 2001 - 1000) * 1e-3f;
        else if (dtype == MR_DTYPE_BF16)
            ((uint16_t *)t.data)[i] =
                mr_half_round(MR_DTYPE_BF16, (float)(random() % 2001 - 1000) * 1e-3f);
        else
            ((int32_t *)t.data)[i] = (int32_t)(random() % V);
    return t;
}

/* One operation of the list: what it is called, how often a step has it, flops or bytes of one. */
typedef struct operation {
    const char *name;
    void (*run)(bench *b);
    size_t count;
    double flops;
    double bytes;
} operation;

static void op_embedding_forward(bench *b) {
    b->ops->embedding_forward(b->device, &b->tokens, &b->table, &b->positions, &b->y);
}
static void op_embedding_backward(bench *b) {
    b->ops->embedding_backward(b->device, &b->tokens, &b->y, &b->dtable, &b->dpositions);
}
static void op_layernorm_forward(bench *b) {
    b->ops->layernorm_forward(b->device, &b->x, &b->w_norm, &b->b_norm, 1e-5f, &b->y, &b->row1,
                              &b->row2);
}
static void op_residual_layernorm(bench *b) {
    b->ops->residual_layernorm_forward(b->device, &b->x, &b->y, &b->dropout, &b->w_norm,
                                       &b->b_norm, 1e-5f, &b->w, &b->y, &b->row1, &b->row2);
}
static void op_layernorm_backward_input(bench *b) {
    b->ops->layernorm_backward_input(b->device, &b->x, &b->w, &b->w_norm, &b->row1, &b->row2,
                                     &b->x, &b->y);
}
static void op_layernorm_backward_weight(bench *b) {
    b->ops->layernorm_backward_weight(b->device, &b->x, &b->w, &b->row1, &b->row2, &b->w_norm,
                                      &b->b_norm);
}
static void op_attention_forward(bench *b) {
    b->ops->attention_forward(b->device, &b->qkv, NH, true, NULL, &b->y, &b->lse);
}
static void op_attention_backward(bench *b) {
    b->ops->attention_backward(b->device, &b->x, &b->qkv, &b->y, &b->lse, NH, true, NULL,
                               &b->dqkv);
}
static void op_gelu_forward(bench *b) {
    b->ops->pointwise_forward(b->device, MR_POINTWISE_GELU_TANH, &b->wide, &b->wide2);
}
static void op_gelu_backward(bench *b) {
    b->ops->pointwise_backward(b->device, MR_POINTWISE_GELU_TANH, &b->wide, &b->wide2, &b->wide2);
}
static void op_add(bench *b) {
    b->ops->add(b->device, &b->x, &b->y, NULL, &b->w);
}
static void op_dropout(bench *b) {
    mr_dropout dropout = b->dropout;
    dropout.probability = 0.1f;
    b->ops->dropout(b->device, &dropout, &b->x, &b->w);
}
static void op_cross_entropy(bench *b) {
    b->ops->cross_entropy(b->device, &b->logits, &b->tokens, 1e-3f, &b->logits, b->scalar);
}
static void op_sum_of_squares(bench *b) {
    b->ops->sum_of_squares(b->device, &b->gradient, b->scalar);
}
static void op_adamw(bench *b) {
    b->ops->adamw(b->device, &b->adamw, &b->gradient, &b->parameter, &b->exp_avg, &b->exp_avg_sq);
}
static void op_cast(bench *b) {
    b->ops->cast(b->device, &b->parameter, &b->compute);
}
static void op_zero(bench *b) {
    b->ops->zero(b->device, b->gradient.data, PARAMETERS * sizeof(float));
}

static int seconds_compare(const void *a, const void *b) {
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static void bench_operation(bench *b, const operation *op) {
    double all[1000];
    for (int i = -2; i < b->repeats; i++) { /* two to warm up */
        int64_t start = mr_clock_now_ns();
        op->run(b);
        if (i >= 0)
            all[i] = (double)(mr_clock_now_ns() - start) * 1e-9;
    }
    qsort(all, (size_t)b->repeats, sizeof(double), seconds_compare);
    double seconds = all[b->repeats / 2];
    printf("%-28s x%-3zu %9.1f us (best %9.1f)", op->name, op->count, seconds * 1e6,
           all[0] * 1e6);
    if (op->flops > 0.0)
        printf(" %8.1f GFLOP/s", op->flops / seconds * 1e-9);
    else
        printf(" %8.1f GB/s   ", op->bytes / seconds * 1e-9);
    printf(" %8.2f ms a step\n", seconds * (double)op->count * 1e3);
    b->step[0] += seconds * (double)op->count;
    b->step[1] += all[0] * (double)op->count;
    b->flops += op->flops * (double)op->count;
}

/* Seconds of each repeat of a product through the device, ascending. x: A or, for dw, what A is
 * turned from; w: B, or x of the layer. */
static void bench_linear(bench *b, const mr_onednn_shape *shape, double *seconds) {
    mr_tensor x = b->wide;
    mr_tensor w = b->weight;
    mr_tensor y = b->wide2;
    mr_tensor bias = b->row1;
    bool backward_weight = shape->a_transposed;
    x.shape.dims[0] = backward_weight ? shape->k : shape->m;
    x.shape.dims[1] = backward_weight ? shape->m : shape->k;
    w.shape.dims[0] = shape->b_transposed ? shape->n : shape->k;
    w.shape.dims[1] = shape->b_transposed ? shape->k : shape->n;
    if (backward_weight)
        y = b->dw;
    y.shape.dims[0] = shape->m;
    y.shape.dims[1] = shape->n;
    bias.shape.dims[0] = backward_weight ? shape->m : shape->n;
    if (backward_weight)
        w.data = b->qkv.data;
    for (int i = -2; i < b->repeats; i++) {
        int64_t start = mr_clock_now_ns();
        if (backward_weight)
            b->ops->linear_backward_weight(b->device, &x, &w, &y, &bias);
        else if (shape->b_transposed)
            b->ops->linear_forward(b->device, &x, &w, &bias, &y);
        else
            b->ops->linear_backward_input(b->device, &x, &w, &y);
        if (i >= 0)
            seconds[i] = (double)(mr_clock_now_ns() - start) * 1e-9;
    }
    qsort(seconds, (size_t)b->repeats, sizeof(double), seconds_compare);
}

/* A product through the device and by oneDNN alone. */
static mr_status bench_product(bench *b, const onednn_rate_product *product, int threads) {
    mr_onednn_shape in_type = product->shape;
    const mr_onednn_shape *shape = &in_type;
    double seconds[1000];
    double alone[2];
    in_type.bf16 = b->dtype == MR_DTYPE_BF16;
    in_type.bf16_out = in_type.bf16 && !in_type.accumulate;
    double count = (double)product->count;
    double flops = 2.0 * (double)shape->m * (double)shape->n * (double)shape->k;
    bench_linear(b, shape, seconds);
    MR_TRY(onednn_rate_seconds(shape, threads, b->repeats, alone));
    double ours = seconds[b->repeats / 2];
    printf("%-28s x%-3zu %9.1f us (best %9.1f) %8.1f GFLOP/s  %8.2f ms a step"
           " (oneDNN alone %8.1f, best %8.1f GFLOP/s)\n",
           product->name, product->count, ours * 1e6, seconds[0] * 1e6, flops / ours * 1e-9,
           ours * count * 1e3, flops / alone[0] * 1e-9, flops / alone[1] * 1e-9);
    for (int best = 0; best <= 1; best++) {
        double time = best ? seconds[0] : ours;
        b->step[best] += time * count;
        b->products[best] += time * count;
        b->reference[best] += alone[best] * count;
    }
    b->product_flops += flops * count;
    b->flops += flops * count;
    return MR_OK;
}

#define FORWARD(IN, OUT)                                                                           \
    {.m = R, .n = (OUT), .k = (IN), .a_stride = (IN), .b_stride = (IN), .c_stride = (OUT),         \
     .b_transposed = true}
#define BACKWARD_INPUT(IN, OUT)                                                                    \
    {.m = R, .n = (IN), .k = (OUT), .a_stride = (OUT), .b_stride = (IN), .c_stride = (IN)}
#define BACKWARD_WEIGHT(IN, OUT)                                                                   \
    {.m = (OUT), .n = (IN), .k = R, .a_stride = (OUT), .b_stride = (IN), .c_stride = (IN),         \
     .a_transposed = true, .accumulate = true}

static mr_status bench_products(bench *b, int threads) {
    static const onednn_rate_product products[] = {
        {"qkv forward", FORWARD(C, 3 * C), L},
        {"attn.proj forward", FORWARD(C, C), L},
        {"fc forward", FORWARD(C, F), L},
        {"mlp.proj forward", FORWARD(F, C), L},
        {"head forward", FORWARD(C, V), 1},
        {"qkv backward input", BACKWARD_INPUT(C, 3 * C), L},
        {"attn.proj backward input", BACKWARD_INPUT(C, C), L},
        {"fc backward input", BACKWARD_INPUT(C, F), L},
        {"mlp.proj backward input", BACKWARD_INPUT(F, C), L},
        {"head backward input", BACKWARD_INPUT(C, V), 1},
        {"qkv backward weight", BACKWARD_WEIGHT(C, 3 * C), L},
        {"attn.proj backward weight", BACKWARD_WEIGHT(C, C), L},
        {"fc backward weight", BACKWARD_WEIGHT(C, F), L},
        {"mlp.proj backward weight", BACKWARD_WEIGHT(F, C), L},
        {"head backward weight", BACKWARD_WEIGHT(C, V), 1},
    };
    for (size_t i = 0; i < sizeof(products) / sizeof(products[0]); i++)
        MR_TRY(bench_product(b, &products[i], threads));
    return MR_OK;
}

static void bench_others(bench *b) {
    const double x = (double)R * C * (double)mr_dtype_bytes(b->dtype); /* of one activation */
    const double p = (double)PARAMETERS * 4.0;
    const double logits = (double)R * V * (double)mr_dtype_bytes(b->dtype);
    const double attention = (double)B * T * T * C; /* one product, causal half */
    const operation operations[] = {
        {"embedding_forward", op_embedding_forward, 1, 0.0, 3.0 * x},
        {"embedding_backward", op_embedding_backward, 1, 0.0, 5.0 * x},
        {"layernorm_forward", op_layernorm_forward, 1, 0.0, 2.0 * x},
        {"residual_layernorm_forward", op_residual_layernorm, 2 * L, 0.0, 4.0 * x},
        {"layernorm_backward_input", op_layernorm_backward_input, 2 * L + 1, 0.0, 4.0 * x},
        {"layernorm_backward_weight", op_layernorm_backward_weight, 2 * L + 1, 0.0, 2.0 * x},
        {"attention_forward", op_attention_forward, L, 2.0 * attention, 0.0},
        {"attention_backward", op_attention_backward, L, 5.0 * attention, 0.0},
        {"gelu forward", op_gelu_forward, L, 0.0, 8.0 * x},
        {"gelu backward", op_gelu_backward, L, 0.0, 12.0 * x},
        {"add", op_add, L, 0.0, 3.0 * x},
        {"cross_entropy", op_cross_entropy, 1, 0.0, 2.0 * logits},
        {"sum_of_squares", op_sum_of_squares, 1, 0.0, p},
        {"adamw", op_adamw, 1, 0.0, 7.0 * p},
        {"cast of masters", op_cast, b->dtype == MR_DTYPE_BF16, 0.0, 1.5 * p},
        {"zero gradients", op_zero, 1, 0.0, p},
        {"dropout 0.1 (not in the step)", op_dropout, 0, 0.0, 2.0 * x},
    };
    for (size_t i = 0; i < sizeof(operations) / sizeof(operations[0]); i++)
        bench_operation(b, &operations[i]);
}

static void bench_tensors(bench *b) {
    b->x = bench_tensor(b, b->dtype, B, T, C);
    b->y = bench_tensor(b, b->dtype, B, T, C);
    b->w = bench_tensor(b, b->dtype, B, T, C);
    b->wide = bench_tensor(b, b->dtype, R, F, 0);
    b->wide2 = bench_tensor(b, b->dtype, R, F, 0);
    b->qkv = bench_tensor(b, b->dtype, B, T, 3 * C);
    b->dqkv = bench_tensor(b, b->dtype, B, T, 3 * C);
    (void)bench_tensor(b, MR_DTYPE_F32, R, F, 0); /* room behind qkv for [R, F] */
    b->lse = bench_tensor(b, MR_DTYPE_F32, B, NH, T);
    b->row1 = bench_tensor(b, MR_DTYPE_F32, R, 0, 0);
    b->row2 = bench_tensor(b, MR_DTYPE_F32, R, 0, 0);
    b->logits = bench_tensor(b, b->dtype, R, V, 0);
    b->tokens = bench_tensor(b, MR_DTYPE_I32, B, T, 0);
    b->table = bench_tensor(b, b->dtype, V, C, 0);
    b->positions = bench_tensor(b, b->dtype, T, C, 0);
    b->w_norm = bench_tensor(b, MR_DTYPE_F32, C, 0, 0);
    b->b_norm = bench_tensor(b, MR_DTYPE_F32, C, 0, 0);
    b->weight = bench_tensor(b, b->dtype, F, C, 0);
    b->dw = bench_tensor(b, MR_DTYPE_F32, F, F, 0); /* room for any of them */
    b->dtable = bench_tensor(b, MR_DTYPE_F32, V, C, 0);
    b->dpositions = bench_tensor(b, MR_DTYPE_F32, T, C, 0);
    b->parameter = bench_tensor(b, MR_DTYPE_F32, PARAMETERS, 0, 0);
    b->compute = bench_tensor(b, MR_DTYPE_BF16, PARAMETERS, 0, 0);
    b->gradient = bench_tensor(b, MR_DTYPE_F32, PARAMETERS, 0, 0);
    b->exp_avg = bench_tensor(b, MR_DTYPE_F32, PARAMETERS, 0, 0);
    b->exp_avg_sq = bench_tensor(b, MR_DTYPE_F32, PARAMETERS, 0, 0);
    b->scalar = mr_arena_take(&b->arena, sizeof(double));
    for (size_t i = 0; i < PARAMETERS; i++)
        ((float *)b->exp_avg_sq.data)[i] = 1e-3f;
    b->dropout = (mr_dropout){.key = mr_random_key_make(1, MR_RANDOM_DROPOUT, 1, 1, 1)};
    b->adamw = (mr_adamw){.lr = 1e-4f,
                          .beta1 = 0.9f,
                          .beta2 = 0.95f,
                          .eps = 1e-8f,
                          .gradient_scale = 1.0f,
                          .bias_correction1 = 1.0f,
                          .bias_correction2 = 1.0f};
}

int main(int argc, char **argv) {
    bool bf16 = argc > 3 && strcmp(argv[3], "bf16") == 0;
    bench b = {.repeats = argc > 2 ? (int)strtol(argv[2], NULL, 10) : 15,
               .dtype = bf16 ? MR_DTYPE_BF16 : MR_DTYPE_F32};
    int threads = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 2;
    mr_status status;
    MR_ASSERT(b.repeats >= 1 && b.repeats <= 1000);
    mr_device_options options = {.kind = "cpu", .threads = threads};
    status = mr_device_create(&options, &b.device);
    if (mr_status_is_ok(status))
        status = mr_arena_init(&b.arena, (size_t)512 << 20);
    if (!mr_status_is_ok(status)) {
        fprintf(stderr, "%s\n", status.text);
        return 1;
    }
    b.ops = b.device->ops;
    bench_tensors(&b);
    status = bench_products(&b, threads);
    bench_others(&b);
    if (mr_status_is_ok(status))
        status = b.ops->check(b.device);
    for (int best = 0; best <= 1; best++) {
        double rate = b.flops / b.step[best] * 1e-9;
        double alone = b.product_flops / b.reference[best] * 1e-9;
        printf("%d threads, %s: step %.1f ms (products %.1f, others %.1f): %.1f GFLOP/s;"
               " oneDNN alone %.1f GFLOP/s; ratio %.3f; %.0f tokens/s\n",
               threads, best ? "best" : "median", b.step[best] * 1e3, b.products[best] * 1e3,
               (b.step[best] - b.products[best]) * 1e3, rate, alone, rate / alone,
               (double)R / b.step[best]);
    }
    double load = 0.0;
    (void)getloadavg(&load, 1); /* only for the reader */
    printf("load average of the machine: %.2f\n", load);
    mr_device_destroy(b.device);
    mr_arena_deinit(&b.arena);
    if (!mr_status_is_ok(status))
        fprintf(stderr, "%s\n", status.text);
    return mr_status_is_ok(status) ? 0 : 1;
}
