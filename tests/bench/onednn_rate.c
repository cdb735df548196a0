/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/onednn_rate.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdlib.h>

#include "daemon/base/arena.h"
#include "daemon/base/clock.h"

static void rate_check(dnnl_status_t status) {
    MR_ASSERT(status == dnnl_success);
}

static int rate_compare(const void *a, const void *b) {
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* A tensor of random numbers in memory of its own. */
static dnnl_memory_t rate_memory(dnnl_engine_t engine, size_t rows, size_t columns, int transposed,
                                 dnnl_memory_desc_t *out_layout, mr_arena *out_arena) {
    dnnl_dim_t m = (dnnl_dim_t)rows;
    dnnl_dim_t n = (dnnl_dim_t)columns;
    const dnnl_dims_t sizes = {m, n};
    const dnnl_dims_t strides = {transposed ? 1 : n, transposed ? m : 1};
    dnnl_memory_t memory;
    mr_status status = mr_arena_init(out_arena, rows * columns * sizeof(float));
    MR_ASSERT(mr_status_is_ok(status));
    for (size_t i = 0; i < rows * columns; i++)
        ((float *)(void *)out_arena->base)[i] = (float)(random() % 2001 - 1000) * 1e-3f;
    rate_check(dnnl_memory_desc_init_by_strides(out_layout, 2, sizes, dnnl_f32, strides));
    rate_check(dnnl_memory_create(&memory, out_layout, engine, out_arena->base));
    return memory;
}

static dnnl_primitive_t rate_primitive(dnnl_engine_t engine, const dnnl_memory_desc_t layouts[3],
                                       int accumulate) {
    dnnl_matmul_desc_t operation;
    dnnl_primitive_attr_t attributes;
    dnnl_post_ops_t post_ops;
    dnnl_primitive_desc_t description;
    dnnl_primitive_t primitive;
    rate_check(dnnl_primitive_attr_create(&attributes));
    rate_check(dnnl_post_ops_create(&post_ops));
    if (accumulate) {
        rate_check(dnnl_post_ops_append_sum(post_ops, 1.0f));
        rate_check(dnnl_primitive_attr_set_post_ops(attributes, post_ops));
    }
    rate_check(
        dnnl_matmul_desc_init(&operation, &layouts[0], &layouts[1], NULL, &layouts[2]));
    rate_check(dnnl_primitive_desc_create(&description, &operation, attributes, engine, NULL));
    rate_check(dnnl_primitive_create(&primitive, description));
    rate_check(dnnl_primitive_desc_destroy(description));
    rate_check(dnnl_post_ops_destroy(post_ops));
    rate_check(dnnl_primitive_attr_destroy(attributes));
    return primitive;
}

void onednn_rate_seconds(const onednn_rate_product *product, int threads, int repeats,
                         double out_median_and_best[2]) {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_memory_desc_t layouts[3];
    mr_arena arenas[3];
    omp_set_num_threads(threads);
    rate_check(dnnl_engine_create(&engine, dnnl_cpu, 0));
    rate_check(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags));
    dnnl_memory_t a = rate_memory(engine, product->m, product->k, product->a_transposed,
                                  &layouts[0], &arenas[0]);
    dnnl_memory_t b = rate_memory(engine, product->k, product->n, product->b_transposed,
                                  &layouts[1], &arenas[1]);
    dnnl_memory_t c = rate_memory(engine, product->m, product->n, 0, &layouts[2], &arenas[2]);
    dnnl_primitive_t primitive = rate_primitive(engine, layouts, product->accumulate);
    const dnnl_exec_arg_t arguments[] = {
        {DNNL_ARG_SRC, a}, {DNNL_ARG_WEIGHTS, b}, {DNNL_ARG_DST, c}};
    double *seconds = malloc((size_t)repeats * sizeof(double));
    MR_ASSERT(seconds != NULL);
    for (int i = -2; i < repeats; i++) { /* two to warm up */
        int64_t start = mr_clock_now_ns();
        rate_check(dnnl_primitive_execute(primitive, stream, 3, arguments));
        rate_check(dnnl_stream_wait(stream));
        if (i >= 0)
            seconds[i] = (double)(mr_clock_now_ns() - start) * 1e-9;
    }
    qsort(seconds, (size_t)repeats, sizeof(double), rate_compare);
    out_median_and_best[0] = seconds[repeats / 2];
    out_median_and_best[1] = seconds[0];
    free(seconds);
    rate_check(dnnl_primitive_destroy(primitive));
    rate_check(dnnl_memory_destroy(a));
    rate_check(dnnl_memory_destroy(b));
    rate_check(dnnl_memory_destroy(c));
    rate_check(dnnl_stream_destroy(stream));
    rate_check(dnnl_engine_destroy(engine));
    for (int i = 0; i < 3; i++)
        mr_arena_deinit(&arenas[i]);
    omp_set_num_threads(1);
}
