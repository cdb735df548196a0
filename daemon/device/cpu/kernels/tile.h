/* SPDX-License-Identifier: Apache-2.0 */
/* tile.h: products of small matrices inside one attention head, in registers. An element of C is
 * the sum over steps in ascending order, whatever tile it falls into.
 * Owner: device/cpu/kernels; not for others. */
#ifndef MR_DEVICE_CPU_KERNELS_TILE_H
#define MR_DEVICE_CPU_KERNELS_TILE_H

#include <stdbool.h>

#include "daemon/device/cpu/kernels/vector.h"

/* A tile: as many rows of C as leave registers for two vectors of B and a broadcast of A. */
#if defined(MR_ISA_AVX512)
enum { TILE_ROWS = 8, TILE_VECTORS = 2 };
#else
enum { TILE_ROWS = 4, TILE_VECTORS = 2 };
#endif
enum { TILE_COLUMNS = TILE_VECTORS * V_LANES };

/* Which part of a product the causal mask leaves; row i of C stands at position first + i.
 * The last rows of a group of TILE_ROWS decide for the whole group; what is too much has zeros. */
typedef enum tile_part {
    TILE_ALL,
    TILE_COLUMNS_BELOW, /* only columns up to the row's position are needed */
    TILE_STEPS_BELOW,   /* only steps up to the row's position count */
    TILE_STEPS_FROM     /* only steps from the row's own number on count; first is 0 */
} tile_part;

/* C [m, n] (+)= A [m, k] B [k, n]. */
typedef struct tile_product {
    size_t m;
    size_t n;
    size_t k;
    const float *a; /* (i, p) at a + i a_row + p a_step */
    size_t a_row;
    size_t a_step;
    const float *b; /* row p of columns [j TILE_COLUMNS, ..) at b + j b_panel + p b_step */
    size_t b_step;
    size_t b_panel;
    float *c; /* (i, j) at c + i c_row + j */
    size_t c_row;
    bool accumulate;
    tile_part part;
    size_t first;
} tile_product;

/* rows and whole are constants at every call, so that the loops unroll into registers. columns:
 * those of this tile that exist, where it is not whole. */
V_INLINE void tile_run(const tile_product *product, const float *a, const float *b, float *c,
                       size_t steps, size_t rows, bool whole, size_t columns) {
    vf acc[TILE_ROWS][TILE_VECTORS];
    size_t a_row = product->a_row;
    size_t lanes[TILE_VECTORS];
#pragma GCC unroll 2
    for (size_t v = 0; v < TILE_VECTORS; v++) {
        size_t left = columns > v * V_LANES ? columns - v * V_LANES : 0;
        lanes[v] = left < V_LANES ? left : V_LANES;
    }
#pragma GCC unroll 8
    for (size_t r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (size_t v = 0; v < TILE_VECTORS; v++)
            acc[r][v] = (vf){0};
    for (size_t p = 0; p < steps; p++) {
        vf right[TILE_VECTORS];
#pragma GCC unroll 2
        for (size_t v = 0; v < TILE_VECTORS; v++) {
            const float *at = b + v * V_LANES;
            right[v] = whole || lanes[v] == V_LANES ? v_load(at)
                       : lanes[v] > 0               ? v_load_n(at, lanes[v])
                                                    : (vf){0};
        }
#pragma GCC unroll 8
        for (size_t r = 0; r < rows; r++) {
            vf left = v_set(a[r * a_row]);
#pragma GCC unroll 2
            for (size_t v = 0; v < TILE_VECTORS; v++)
                acc[r][v] = v_fma(left, right[v], acc[r][v]);
        }
        a += product->a_step;
        b += product->b_step;
    }
#pragma GCC unroll 8
    for (size_t r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (size_t v = 0; v < TILE_VECTORS; v++) {
            float *at = c + r * product->c_row + v * V_LANES;
            if (whole || lanes[v] == V_LANES)
                v_store(at, product->accumulate ? v_load(at) + acc[r][v] : acc[r][v]);
            else if (lanes[v] > 0)
                v_store_n(at, product->accumulate ? v_load_n(at, lanes[v]) + acc[r][v] : acc[r][v],
                          lanes[v]);
        }
}

/* One group of rows in one panel of columns: picks the compiled size. */
V_INLINE void tile_group(const tile_product *product, const float *a, const float *b, float *c,
                         size_t steps, size_t rows, size_t columns) {
    bool whole = columns >= TILE_COLUMNS;
    if (rows == TILE_ROWS && whole) {
        tile_run(product, a, b, c, steps, TILE_ROWS, true, TILE_COLUMNS);
        return;
    }
    if (rows == TILE_ROWS) {
        tile_run(product, a, b, c, steps, TILE_ROWS, false, columns);
        return;
    }
    for (size_t r = 0; r < rows; r++)
        tile_run(product, a + r * product->a_row, b, c + r * product->c_row, steps, 1, false,
                 whole ? TILE_COLUMNS : columns);
}

static void tile_multiply(const tile_product *product) {
    for (size_t j = 0; j < product->n; j += TILE_COLUMNS) {
        const float *b = product->b + j / TILE_COLUMNS * product->b_panel;
        for (size_t i = 0; i < product->m; i += TILE_ROWS) {
            size_t rows = product->m - i < TILE_ROWS ? product->m - i : TILE_ROWS;
            size_t below = product->first + i + rows;
            size_t from = 0;
            size_t to = product->k;
            if (product->part == TILE_COLUMNS_BELOW && j >= below)
                continue;
            if (product->part == TILE_STEPS_BELOW && below < to)
                to = below;
            if (product->part == TILE_STEPS_FROM)
                from = i;
            tile_group(product, product->a + i * product->a_row + from * product->a_step,
                       b + from * product->b_step, product->c + i * product->c_row + j, to - from,
                       rows, product->n - j);
        }
    }
}

/* The V_LANES x V_LANES block in rows, turned: each round interleaves the first half of the rows
 * with the second, and after log2(V_LANES) rounds rows are columns. */
V_INLINE void tile_transpose(vf rows[V_LANES]) {
#pragma GCC unroll 4
    for (size_t round = 1; round < V_LANES; round *= 2) {
        vf next[V_LANES];
#pragma GCC unroll 8
        for (size_t i = 0; i < V_LANES / 2; i++) {
            next[2 * i] = v_zip_low(rows[i], rows[i + V_LANES / 2]);
            next[2 * i + 1] = v_zip_high(rows[i], rows[i + V_LANES / 2]);
        }
#pragma GCC unroll 16
        for (size_t i = 0; i < V_LANES; i++)
            rows[i] = next[i];
    }
}

/* x [T, D] with rows at stride, turned into panels of TILE_COLUMNS columns: out holds, for each
 * panel, D rows of TILE_COLUMNS floats; columns from T on are zero. */
static void tile_pack_transposed(const float *x, size_t T, size_t D, size_t stride, float *out) {
    for (size_t t = 0; t < T; t += V_LANES) {
        float *panel = out + t / TILE_COLUMNS * TILE_COLUMNS * D + t % TILE_COLUMNS;
        for (size_t d = 0; d < D; d += V_LANES) {
            size_t n = D - d < V_LANES ? D - d : V_LANES;
            vf rows[V_LANES];
#pragma GCC unroll 16
            for (size_t r = 0; r < V_LANES; r++) {
                const float *at = x + (t + r) * stride + d;
                rows[r] = t + r >= T ? (vf){0} : n == V_LANES ? v_load(at) : v_load_n(at, n);
            }
            tile_transpose(rows);
            for (size_t r = 0; r < n; r++)
                v_store(panel + (d + r) * TILE_COLUMNS, rows[r]);
        }
    }
    size_t end = (T + V_LANES - 1) / V_LANES * V_LANES;
    for (size_t t = end; t % TILE_COLUMNS != 0; t += V_LANES)
        for (size_t d = 0; d < D; d++)
            v_store(out + t / TILE_COLUMNS * TILE_COLUMNS * D + t % TILE_COLUMNS +
                        d * TILE_COLUMNS,
                    (vf){0});
}

#endif
