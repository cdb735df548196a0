/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/onednn_rate.h"

#include <stdlib.h>

#include "daemon/base/alloc.h"
#include "daemon/base/arena.h"
#include "daemon/base/half.h"
#include "daemon/base/clock.h"

/* The three matrices of a product, and the times. */
typedef struct rate {
    mr_onednn *onednn;
    mr_onednn_plan *plan;
    mr_arena arena;
    void *a;
    void *b;
    void *c;
    double *seconds;
} rate;

static void *rate_matrix(mr_arena *arena, bool bf16, size_t rows, size_t columns) {
    float *matrix = mr_arena_take(arena, rows * columns * sizeof(float));
    MR_ASSERT(matrix != NULL);
    for (size_t i = 0; i < rows * columns; i++) {
        float value = (float)(random() % 2001 - 1000) * 1e-3f;
        if (bf16)
            ((uint16_t *)(void *)matrix)[i] = mr_half_round(MR_DTYPE_BF16, value);
        else
            matrix[i] = value;
    }
    return matrix;
}

static int rate_compare(const void *a, const void *b) {
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static mr_status rate_open(rate *r, const mr_onednn_shape *shape, int threads, int repeats) {
    size_t floats = shape->m * shape->k + shape->k * shape->n + shape->m * shape->n;
    r->seconds = mr_alloc_array((size_t)repeats, sizeof(double));
    if (r->seconds == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %d times", repeats);
    MR_TRY(mr_onednn_create(1, threads, &r->onednn));
    MR_TRY(mr_onednn_plan_get(r->onednn, shape, &r->plan));
    MR_TRY(mr_arena_init(&r->arena, floats * sizeof(float) + (size_t)3 * MR_ARENA_ALIGN));
    r->a = rate_matrix(&r->arena, shape->bf16, shape->m, shape->k);
    r->b = rate_matrix(&r->arena, shape->bf16, shape->k, shape->n);
    r->c = rate_matrix(&r->arena, shape->bf16_out, shape->m, shape->n);
    return MR_OK;
}

static mr_status rate_measure(rate *r, int repeats, double out_median_and_best[2]) {
    for (int i = -2; i < repeats; i++) { /* two to warm up */
        int64_t start = mr_clock_now_ns();
        const char *failure = mr_onednn_run(r->plan, 0, r->a, r->b, NULL, r->c);
        if (failure != NULL)
            return MR_ERROR(INTERNAL, "oneDNN fails: %s", failure);
        if (i >= 0)
            r->seconds[i] = (double)(mr_clock_now_ns() - start) * 1e-9;
    }
    qsort(r->seconds, (size_t)repeats, sizeof(double), rate_compare);
    out_median_and_best[0] = r->seconds[repeats / 2];
    out_median_and_best[1] = r->seconds[0];
    return MR_OK;
}

mr_status onednn_rate_seconds(const mr_onednn_shape *shape, int threads, int repeats,
                              double out_median_and_best[2]) {
    rate r = {0};
    mr_status status = rate_open(&r, shape, threads, repeats);
    if (mr_status_is_ok(status))
        status = rate_measure(&r, repeats, out_median_and_best);
    mr_onednn_destroy(r.onednn);
    mr_arena_deinit(&r.arena);
    mr_free(r.seconds);
    mr_onednn_thread_start(); /* the caller's products are single-threaded again */
    return status;
}
