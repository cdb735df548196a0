/* SPDX-License-Identifier: Apache-2.0 */
/* linear.c: products of activations and weights. C is cut into blocks whose sizes depend on its
 * shape alone; each block is one single-threaded oneDNN product over the whole of k, so neither
 * the number of threads nor their timing can change a bit. The largest sizes of blocks were
 * measured: small enough that every thread gets several, large enough that copying the operands
 * into oneDNN's own layout, once per block, stays below a few percent.
 * bf16 is multiplied as it is where the processor can, C rounded or, for gradients of weights,
 * added in f32. Elsewhere, and in f16, the operands are widened first and C is rounded last, so
 * that the product is the one of f32: the same to the last bits, slower.
 * A bias gradient is summed in rows of CPU_SUM_ROWS, whose sums are added in order. */
#include <stdatomic.h>
#include <string.h>

#include "daemon/device/cpu/device_cpu.h"

enum {
    LINEAR_ROWS = 256,         /* forward and dx: C is [R, width] */
    LINEAR_COLUMNS = 1536,
    LINEAR_WEIGHT_ROWS = 128,  /* dw: C is [OUT, IN], k is long */
    LINEAR_WEIGHT_COLUMNS = 192,
    LINEAR_GRAIN = 16          /* blocks are multiples of this, but for the last */
};

/* One product, and its blocks: rows and columns of a full one, and a plan for each kind of block:
 * [last row of blocks][last column of blocks]. */
typedef struct linear_product {
    mr_onednn_shape shape; /* its bf16 stands for f16, too, until the operands are widened */
    mr_dtype dtype;        /* of the operands */
    const void *a;
    const void *b;
    const float *bias;
    void *c;
    size_t block_rows;
    size_t block_columns;
    size_t row_blocks;
    size_t column_blocks;
    mr_onednn_plan *plans[2][2];
    _Atomic(const char *) failure;
} linear_product;

/* Sides of equal blocks of at most max, rounded up to the grain. */
static size_t linear_block(size_t n, size_t max) {
    size_t parts = mr_device_cpu_parts(n, max);
    size_t size = mr_device_cpu_parts(n, parts);
    return mr_device_cpu_parts(size, LINEAR_GRAIN) * LINEAR_GRAIN;
}

static const void *linear_at(const void *base, size_t element, bool bf16) {
    size_t bytes = mr_dtype_bytes(bf16 ? MR_DTYPE_BF16 : MR_DTYPE_F32);
    return (const unsigned char *)base + element * bytes;
}

static void linear_task(void *context, size_t task, int thread) {
    linear_product *product = context;
    const mr_onednn_shape *shape = &product->shape;
    size_t row = task % product->row_blocks;
    size_t column = task / product->row_blocks;
    size_t i = row * product->block_rows;
    size_t j = column * product->block_columns;
    mr_onednn_plan *plan = product->plans[row + 1 == product->row_blocks]
                                         [column + 1 == product->column_blocks];
    size_t a = shape->a_transposed ? i : i * shape->a_stride;
    size_t b = shape->b_transposed ? j * shape->b_stride : j;
    void *c = (void *)linear_at(product->c, i * shape->c_stride + j, shape->bf16_out);
    const char *failure = mr_onednn_run(plan, thread, linear_at(product->a, a, shape->bf16),
                                        linear_at(product->b, b, shape->bf16),
                                        product->bias == NULL ? NULL : product->bias + j, c);
    if (failure != NULL)
        atomic_store(&product->failure, failure);
}

static mr_status linear_plan(mr_device_cpu *cpu, linear_product *product) {
    for (int last_row = 0; last_row <= 1; last_row++)
        for (int last_column = 0; last_column <= 1; last_column++) {
            mr_onednn_shape shape = product->shape;
            size_t rows_before = (product->row_blocks - 1) * product->block_rows;
            size_t columns_before = (product->column_blocks - 1) * product->block_columns;
            if ((last_row == 0 && rows_before == 0) || (last_column == 0 && columns_before == 0))
                continue;
            shape.m = last_row ? shape.m - rows_before : product->block_rows;
            shape.n = last_column ? shape.n - columns_before : product->block_columns;
            MR_TRY(mr_onednn_plan_get(cpu->onednn, &shape, &product->plans[last_row][last_column]));
        }
    return MR_OK;
}

/* product: shape and pointers filled in; rows and columns: the most of a block. */
static void linear_run(mr_device_cpu *cpu, linear_product *product, size_t rows, size_t columns) {
    const mr_onednn_shape *shape = &product->shape;
    if (shape->m == 0 || shape->n == 0 || shape->k == 0)
        return;
    product->block_rows = linear_block(shape->m, rows);
    product->block_columns = linear_block(shape->n, columns);
    product->row_blocks = mr_device_cpu_parts(shape->m, product->block_rows);
    product->column_blocks = mr_device_cpu_parts(shape->n, product->block_columns);
    mr_status status = linear_plan(cpu, product);
    if (!mr_status_is_ok(status)) {
        mr_device_cpu_latch(cpu, status);
        return;
    }
    mr_pool_run(cpu->pool, product->row_blocks * product->column_blocks, linear_task, product);
    const char *failure = atomic_load(&product->failure);
    if (failure != NULL)
        mr_device_cpu_latch(cpu, MR_ERROR(INTERNAL,
                                          "oneDNN fails at a product m=%zu n=%zu k=%zu: %s",
                                          shape->m, shape->n, shape->k, failure));
}

/* The product of a type that the processor does not multiply: in f32 between copies. A, B and C are
 * packed, so their elements count as one row. */
static void linear_run_wide(mr_device_cpu *cpu, linear_product *product, size_t rows,
                            size_t columns) {
    mr_onednn_shape *shape = &product->shape;
    size_t a = shape->m * shape->k;
    size_t b = shape->k * shape->n;
    size_t c = shape->bf16_out ? shape->m * shape->n : 0;
    uint16_t *rounded = product->c;
    float *wide = mr_device_cpu_workspace(cpu, (a + b + c) * sizeof(float));
    if (wide == NULL)
        return;
    const mr_cpu_kernels *kernels =
        product->dtype == MR_DTYPE_F16 ? cpu->kernels->f16 : cpu->kernels;
    mr_device_cpu_widen(cpu, kernels, product->a, wide, a);
    mr_device_cpu_widen(cpu, kernels, product->b, wide + a, b);
    product->a = wide;
    product->b = wide + a;
    if (shape->bf16_out)
        product->c = wide + a + b;
    bool round = shape->bf16_out;
    shape->bf16 = false;
    shape->bf16_out = false;
    linear_run(cpu, product, rows, columns);
    if (round)
        mr_device_cpu_narrow(cpu, kernels, wide + a + b, rounded, c);
}

/* Runs a product by what the processor has. */
static void linear_multiply(mr_device_cpu *cpu, linear_product *product, size_t rows,
                            size_t columns) {
    bool multiplies = product->dtype == MR_DTYPE_BF16 && cpu->bf16_products;
    if (product->shape.bf16 && !multiplies)
        linear_run_wide(cpu, product, rows, columns);
    else
        linear_run(cpu, product, rows, columns);
}

void mr_device_cpu_linear_forward(mr_device *device, const mr_tensor *x, const mr_tensor *w,
                                  const mr_tensor *bias, mr_tensor *y) {
    size_t R = mr_device_cpu_rows(x);
    size_t IN = mr_device_cpu_width(x);
    size_t OUT = mr_device_cpu_rows(w);
    MR_ASSERT(mr_device_cpu_width(w) == IN);
    MR_ASSERT(mr_device_cpu_count(y) == R * OUT);
    MR_ASSERT(bias == NULL || mr_device_cpu_count(bias) == OUT);
    bool half = mr_device_cpu_is_half(x);
    MR_ASSERT(w->shape.dtype == x->shape.dtype);
    MR_ASSERT(y->shape.dtype == x->shape.dtype || y->shape.dtype == MR_DTYPE_F32);
    linear_product product = {
        .shape = {.m = R, .n = OUT, .k = IN, .a_stride = IN, .b_stride = IN, .c_stride = OUT,
                  .b_transposed = true, .bias = bias != NULL, .bf16 = half,
                  .bf16_out = mr_device_cpu_is_half(y)},
        .dtype = x->shape.dtype,
        .a = x->data,
        .b = w->data,
        .bias = bias == NULL ? NULL : mr_device_cpu_floats(bias),
        .c = y->data,
    };
    linear_multiply(mr_device_cpu_of(device), &product, LINEAR_ROWS, LINEAR_COLUMNS);
}

void mr_device_cpu_linear_backward_input(mr_device *device, const mr_tensor *dy,
                                         const mr_tensor *w, mr_tensor *dx) {
    size_t R = mr_device_cpu_rows(dy);
    size_t OUT = mr_device_cpu_width(dy);
    size_t IN = mr_device_cpu_width(w);
    MR_ASSERT(mr_device_cpu_rows(w) == OUT);
    MR_ASSERT(mr_device_cpu_count(dx) == R * IN);
    bool half = mr_device_cpu_is_half(dy);
    MR_ASSERT(w->shape.dtype == dy->shape.dtype);
    MR_ASSERT(dx->shape.dtype == dy->shape.dtype || dx->shape.dtype == MR_DTYPE_F32);
    linear_product product = {
        .shape = {.m = R, .n = IN, .k = OUT, .a_stride = OUT, .b_stride = IN, .c_stride = IN,
                  .bf16 = half, .bf16_out = mr_device_cpu_is_half(dx)},
        .dtype = dy->shape.dtype,
        .a = dy->data,
        .b = w->data,
        .c = dx->data,
    };
    linear_multiply(mr_device_cpu_of(device), &product, LINEAR_ROWS, LINEAR_COLUMNS);
}

/* ---- Gradient of a bias. */

typedef struct linear_sums {
    const mr_cpu_kernels *kernels;
    const mr_tensor *dy;
    size_t R;
    size_t OUT;
    float *partial; /* [tasks, OUT] */
    mr_device_cpu_stage stage; /* bf16: [CPU_SUM_ROWS, LINEAR_SUM_COLUMNS] */
} linear_sums;

enum { LINEAR_SUM_COLUMNS = 256 }; /* staged at once */

/* The sums of rows [first, first + rows) of bf16, strip by strip of columns. */
static void linear_sums_staged(const linear_sums *sums, size_t first, size_t rows, float *out,
                               float *stage) {
    const uint16_t *dy = mr_device_cpu_halves(sums->dy) + first * sums->OUT;
    for (size_t column = 0; column < sums->OUT; column += LINEAR_SUM_COLUMNS) {
        size_t left = sums->OUT - column;
        size_t columns = left < LINEAR_SUM_COLUMNS ? left : LINEAR_SUM_COLUMNS;
        for (size_t r = 0; r < rows; r++)
            sums->kernels->widen(dy + r * sums->OUT + column, stage + r * columns, columns);
        sums->kernels->column_sums(stage, rows, columns, out + column);
    }
}

static void linear_sums_task(void *context, size_t task, int thread) {
    const linear_sums *sums = context;
    size_t first = task * CPU_SUM_ROWS;
    size_t rows = sums->R - first < CPU_SUM_ROWS ? sums->R - first : CPU_SUM_ROWS;
    float *out = sums->partial + task * sums->OUT;
    if (sums->stage.base != NULL)
        linear_sums_staged(sums, first, rows, out, mr_device_cpu_stage_of(&sums->stage, thread));
    else
        sums->kernels->column_sums(mr_device_cpu_floats(sums->dy) + first * sums->OUT, rows,
                                   sums->OUT, out);
}

static void linear_bias(mr_device_cpu *cpu, const mr_tensor *dy, size_t R, size_t OUT,
                        float *dbias) {
    size_t tasks = mr_device_cpu_parts(R, CPU_SUM_ROWS);
    linear_sums sums = {
        .kernels = mr_device_cpu_kernels(cpu, dy),
        .dy = dy,
        .R = R,
        .OUT = OUT,
        .partial = mr_device_cpu_workspace(cpu, (tasks + 1) * OUT * sizeof(float)),
    };
    if (sums.partial == NULL)
        return;
    if (mr_device_cpu_is_half(dy)) {
        sums.stage = mr_device_cpu_staging(cpu, CPU_SUM_ROWS * LINEAR_SUM_COLUMNS);
        if (sums.stage.base == NULL)
            return;
    }
    mr_pool_run(cpu->pool, tasks, linear_sums_task, &sums);
    float *total = sums.partial + tasks * OUT;
    cpu->kernels->column_sums(sums.partial, tasks, OUT, total);
    cpu->kernels->accumulate(dbias, total, OUT);
}

void mr_device_cpu_linear_backward_weight(mr_device *device, const mr_tensor *dy,
                                          const mr_tensor *x, mr_tensor *dw, mr_tensor *dbias) {
    mr_device_cpu *cpu = mr_device_cpu_of(device);
    size_t R = mr_device_cpu_rows(dy);
    size_t OUT = mr_device_cpu_width(dy);
    size_t IN = mr_device_cpu_width(x);
    MR_ASSERT(mr_device_cpu_rows(x) == R);
    MR_ASSERT(dw == NULL || mr_device_cpu_count(dw) == OUT * IN);
    MR_ASSERT(dbias == NULL || mr_device_cpu_count(dbias) == OUT);
    bool half = mr_device_cpu_is_half(dy);
    MR_ASSERT(x->shape.dtype == dy->shape.dtype);
    linear_product product = {
        .shape = {.m = OUT, .n = IN, .k = R, .a_stride = OUT, .b_stride = IN, .c_stride = IN,
                  .a_transposed = true, .accumulate = true, .bf16 = half},
        .dtype = dy->shape.dtype,
        .a = dy->data,
        .b = x->data,
        .c = dw == NULL ? NULL : mr_device_cpu_floats(dw),
    };
    if (dw != NULL)
        linear_multiply(cpu, &product, LINEAR_WEIGHT_ROWS, LINEAR_WEIGHT_COLUMNS);
    if (dbias != NULL)
        linear_bias(cpu, dy, R, OUT, mr_device_cpu_floats(dbias));
}
