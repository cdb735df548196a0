/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: windows gathered into rows and scattered back, pooling, transposition.
 * Method: every device that has them against double loops by index, over kernels, strides and
 * paddings that leave edges, overlap and gaps; equal and not-a-number elements in pooling. A device
 * that lacks them is passed over: a stage refuses such a job (layers/layer.h). */
#include "tests/contract/device/bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct geometry {
    size_t N;
    size_t C;
    size_t H;
    size_t W;
    mr_window window;
} geometry;

static const geometry geometries[] = {
    {1, 1, 1, 1, {1, 1, 0}},  {2, 3, 5, 4, {3, 1, 1}},   {1, 2, 7, 9, {3, 2, 0}},
    {3, 1, 6, 5, {2, 2, 1}},  {2, 2, 8, 3, {2, 3, 0}},   {1, 4, 4, 11, {5, 1, 2}},
    {5, 7, 17, 13, {3, 1, 1}},
};
enum { GEOMETRIES = sizeof(geometries) / sizeof(geometries[0]) };

/* Four dimensions from a bench tensor of as many elements. */
static void as_planes(bench_tensor *t, const geometry *g, size_t H, size_t W) {
    t->on.shape.dim_count = 4;
    t->on.shape.dims[0] = g->N;
    t->on.shape.dims[1] = g->C;
    t->on.shape.dims[2] = H;
    t->on.shape.dims[3] = W;
}

/* The index in x of what lies at (i, j) of the window at (oh, ow) of plane; SIZE_MAX: padding. */
static size_t under(const geometry *g, size_t plane, size_t oh, size_t ow, size_t i, size_t j) {
    size_t h = oh * g->window.stride + i;
    size_t w = ow * g->window.stride + j;
    size_t p = g->window.padding;
    if (h < p || w < p || h - p >= g->H || w - p >= g->W)
        return SIZE_MAX;
    return (plane * g->H + h - p) * g->W + w - p;
}

/* Calls visit for every element of rows: its index there, and in x. */
static void walk(const geometry *g, void (*visit)(void *, size_t, size_t), void *context) {
    size_t K = g->window.kernel;
    size_t OH = mr_window_positions(&g->window, g->H);
    size_t OW = mr_window_positions(&g->window, g->W);
    size_t at = 0;
    for (size_t position = 0; position < g->N * OH * OW; position++)
        for (size_t column = 0; column < g->C * K * K; column++) {
            size_t plane = position / (OH * OW) * g->C + column / (K * K);
            visit(context, at++,
                  under(g, plane, position / OW % OH, position % OW, column / K % K, column % K));
        }
}

typedef struct pair {
    double *rows;
    double *planes;
} pair;

static void gather_one(void *context, size_t row, size_t plane) {
    pair *p = context;
    p->rows[row] = plane == SIZE_MAX ? 0 : p->planes[plane];
}

static void scatter_one(void *context, size_t row, size_t plane) {
    pair *p = context;
    if (plane != SIZE_MAX)
        p->planes[plane] += p->rows[row];
}

static void window_case(bench *b, const geometry *g) {
    size_t K = g->window.kernel;
    size_t positions =
        mr_window_positions(&g->window, g->H) * mr_window_positions(&g->window, g->W);
    size_t n = g->N * g->C * g->H * g->W;
    bench_tensor x = bench_random(b, 1, n, 0, 0);
    bench_tensor dx = bench_poison(b, n, 0, 0);
    bench_tensor rows = bench_poison(b, g->N * positions, g->C * K * K, 0);
    bench_tensor drows = bench_random(b, 1, g->N * positions, g->C * K * K, 0);
    as_planes(&x, g, g->H, g->W);
    as_planes(&dx, g, g->H, g->W);
    pair forward = {.rows = bench_doubles(&rows), .planes = bench_doubles(&x)};
    pair backward = {.rows = bench_doubles(&drows), .planes = calloc(n, sizeof(double))};
    walk(g, gather_one, &forward);
    walk(g, scatter_one, &backward);
    b->ops->window_gather(b->device, &g->window, &x.on, &rows.on);
    b->ops->window_scatter(b->device, &g->window, &drows.on, &dx.on);
    bench_expect(b, &rows, forward.rows, "rows");
    bench_expect(b, &dx, backward.planes, "dx");
    free(forward.rows);
    free(forward.planes);
    free(backward.rows);
    free(backward.planes);
}

/* The first of the largest, and the first that is not a number before all. */
static size_t largest(const geometry *g, const double *x, size_t plane, size_t oh, size_t ow) {
    size_t found = SIZE_MAX;
    for (size_t k = 0; k < g->window.kernel * g->window.kernel; k++) {
        size_t at = under(g, plane, oh, ow, k / g->window.kernel, k % g->window.kernel);
        if (at != SIZE_MAX && (found == SIZE_MAX || x[at] > x[found] ||
                               (isnan(x[at]) && !isnan(x[found]))))
            found = at;
    }
    return found;
}

/* Few different numbers, so that many are equal. */
static void pool_case(bench *b, const geometry *g) {
    size_t OH = mr_window_positions(&g->window, g->H);
    size_t OW = mr_window_positions(&g->window, g->W);
    size_t n = g->N * g->C * g->H * g->W;
    bench_tensor x = bench_random(b, 1, n, 0, 0);
    bench_tensor dx = bench_poison(b, n, 0, 0);
    bench_tensor y = bench_poison(b, g->N * g->C * OH * OW, 0, 0);
    bench_tensor dy = bench_random(b, 1, g->N * g->C * OH * OW, 0, 0);
    for (size_t i = 0; i < n; i++)
        x.host[i] = floorf(3 * x.host[i]);
    bench_push(b, &x);
    as_planes(&x, g, g->H, g->W);
    as_planes(&dx, g, g->H, g->W);
    as_planes(&y, g, OH, OW);
    as_planes(&dy, g, OH, OW);
    double *from = bench_doubles(&x);
    double *out = bench_doubles(&y);
    double *back = calloc(n, sizeof(double));
    for (size_t i = 0; i < y.n; i++) {
        size_t at = largest(g, from, i / (OH * OW), i / OW % OH, i % OW);
        out[i] = from[at];
        back[at] += (double)dy.host[i];
    }
    b->ops->max_pool_forward(b->device, &g->window, &x.on, &y.on);
    b->ops->max_pool_backward(b->device, &g->window, &x.on, &dy.on, &dx.on);
    bench_expect(b, &y, out, "y");
    bench_expect(b, &dx, back, "dx");
    free(from);
    free(out);
    free(back);
}

static void transpose_case(bench *b, size_t N, size_t A, size_t B) {
    bench_tensor from = bench_random(b, 1, N, A, B);
    bench_tensor to = bench_poison(b, N, B, A);
    double *given = bench_doubles(&from);
    double *expected = bench_doubles(&to);
    for (size_t i = 0; i < N * A * B; i++)
        expected[(i / (A * B) * B + i % B) * A + i / B % A] = given[i];
    b->ops->transpose(b->device, &from.on, &to.on);
    bench_expect(b, &to, expected, "to");
    free(given);
    free(expected);
}

static bool open_with_windows(bench *b, size_t row) {
    if (!bench_open(b, &bench_rows[row]))
        return false;
    if (b->ops->window_gather != NULL)
        return true;
    bench_close(b);
    return false;
}

static void test_windows_pools_and_transpositions_match_loops_by_index(void **state) {
    (void)state;
    for (size_t row = 0; row < bench_row_count; row++)
        for (size_t i = 0; i < GEOMETRIES; i++) {
            bench b;
            if (!open_with_windows(&b, row))
                continue;
            window_case(&b, &geometries[i]);
            if (geometries[i].window.padding <= geometries[i].window.kernel / 2)
                pool_case(&b, &geometries[i]);
            transpose_case(&b, geometries[i].N, geometries[i].H, geometries[i].W);
            bench_close(&b);
        }
}

static void test_a_window_with_no_number_in_it_gives_none(void **state) {
    (void)state;
    const geometry g = {1, 1, 2, 4, {2, 2, 0}};
    for (size_t row = 0; row < bench_row_count; row++) {
        bench b;
        if (!open_with_windows(&b, row))
            continue;
        bench_tensor x = bench_random(&b, 1, 8, 0, 0);
        bench_tensor y = bench_poison(&b, 2, 0, 0);
        x.host[5] = NAN;
        bench_push(&b, &x);
        as_planes(&x, &g, 2, 4);
        as_planes(&y, &g, 1, 2);
        b.ops->max_pool_forward(b.device, &g.window, &x.on, &y.on);
        bench_fetch(&b, &y);
        assert_true(isnan(y.host[0]) != 0);
        assert_true(isnan(y.host[1]) == 0);
        bench_close(&b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_windows_pools_and_transpositions_match_loops_by_index),
        cmocka_unit_test(test_a_window_with_no_number_in_it_gives_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
