/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: what a device computes for one rank of a model axis: an embedding's and a cross-entropy's
 * share of a vocabulary, masks of a share, and products whose f32 result is part of a sum.
 * Method: every device that has these slots, on odd sizes and uneven shares: shares of all ranks,
 * one after the other on one device, against the whole's operation on the same device (whose own
 * contract is tested beside this one), or against double loops. */
#include "tests/contract/device/bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { V = 11, C = 13, B = 2, T = 7, R = B * T, WIDTH = 3 };

static const size_t firsts[WIDTH + 1] = {0, 4, 8, V}; /* tokens of the ranks */

/* Rows [first, last) of t, as a tensor of its own on the same memory. */
static mr_tensor rows_of(const bench_tensor *t, size_t first, size_t last) {
    mr_tensor rows = t->on;
    size_t width = rows.shape.dims[rows.shape.dim_count - 1];
    rows.shape.dims[0] = last - first;
    rows.data = (unsigned char *)rows.data + first * width * mr_dtype_bytes(rows.shape.dtype);
    return rows;
}

static void embedding_case(bench *b, bool positions) {
    bench_tensor tokens = bench_integers(b, V, B, T);
    bench_tensor wte = bench_random(b, 1.0f, V, C, 0);
    bench_tensor wpe = bench_random(b, 1.0f, T, C, 0);
    bench_tensor whole = bench_poison(b, B, T, C);
    b->ops->embedding_forward(b->device, &tokens.on, &wte.on, positions ? &wpe.on : NULL,
                              &whole.on);
    bench_fetch(b, &whole);
    for (size_t rank = 0; rank < WIDTH; rank++) {
        mr_vocabulary vocabulary = {.first = firsts[rank], .whole = V};
        bench_tensor y = bench_poison(b, B, T, C);
        mr_tensor rows = rows_of(&wte, firsts[rank], firsts[rank + 1]);
        b->ops->embedding_forward_share(b->device, &tokens.on, &vocabulary, &rows,
                                        positions ? &wpe.on : NULL, &y.on);
        bench_fetch(b, &y);
        for (size_t i = 0; i < y.n; i++) {
            size_t token = (size_t)tokens.host_i32[i / C];
            bool here = token >= firsts[rank] && token < firsts[rank + 1];
            assert_true(y.host[i] == (here ? whole.host[i] : 0.0f));
        }
    }
}

static void embedding_backward_case(bench *b) {
    bench_tensor tokens = bench_integers(b, V, B, T);
    bench_tensor dy = bench_random(b, 1.0f, B, T, C);
    bench_tensor dwte = bench_random_f32(b, 1.0f, V, C, 0);
    bench_tensor shares = bench_random_f32(b, 1.0f, V, C, 0);
    bench_tensor dwpe = bench_random_f32(b, 1.0f, T, C, 0);
    memcpy(shares.host, dwte.host, dwte.n * sizeof *dwte.host);
    bench_push(b, &shares);
    bench_tensor position = bench_random_f32(b, 1.0f, T, C, 0);
    float *kept = dwpe.host;
    b->ops->embedding_backward(b->device, &tokens.on, &dy.on, &dwte.on, &dwpe.on);
    for (size_t rank = 0; rank < WIDTH; rank++) {
        mr_vocabulary vocabulary = {.first = firsts[rank], .whole = V};
        mr_tensor rows = rows_of(&shares, firsts[rank], firsts[rank + 1]);
        memcpy(position.host, kept, dwpe.n * sizeof *kept);
        bench_push(b, &position);
        b->ops->embedding_backward_share(b->device, &tokens.on, &vocabulary, &dy.on, &rows,
                                         &position.on);
    }
    bench_fetch(b, &dwte);
    bench_fetch(b, &shares);
    assert_memory_equal(shares.host, dwte.host, dwte.n * sizeof *dwte.host);
    bench_fetch(b, &dwpe);
    bench_fetch(b, &position);
    assert_memory_equal(position.host, dwpe.host, dwpe.n * sizeof *dwpe.host);
}

/* The columns [first, last) of a matrix. */
static bench_tensor columns_of(bench *b, const bench_tensor *t, size_t first, size_t last) {
    bench_tensor columns = bench_poison(b, R, last - first, 0);
    for (size_t r = 0; r < R; r++)
        memcpy(columns.host + r * (last - first), t->host + r * V + first,
               (last - first) * sizeof *t->host);
    bench_push(b, &columns);
    return columns;
}

static void entropy_case(bench *b) {
    bench_tensor logits = bench_random(b, 5.0f, R, V, 0);
    bench_tensor labels = bench_integers(b, V, R, 0);
    bench_tensor whole = bench_poison(b, R, V, 0);
    bench_tensor statistics = bench_poison_f32(b, WIDTH, MR_LOGIT_STATISTIC_COUNT, R);
    bench_tensor shares[WIDTH];
    labels.host_i32[1] = -1;
    bench_push(b, &labels);
    double *loss = bench_scalar(b, 3.0);
    b->ops->cross_entropy(b->device, &logits.on, &labels.on, 0.125f, &whole.on, loss);
    double wanted = bench_scalar_fetch(b, loss);
    bench_fetch(b, &whole);
    for (size_t rank = 0; rank < WIDTH; rank++) {
        mr_vocabulary vocabulary = {.first = firsts[rank], .whole = V};
        shares[rank] = columns_of(b, &logits, firsts[rank], firsts[rank + 1]);
        b->ops->logit_statistics(b->device, &shares[rank].on, &labels.on, &vocabulary,
                                 (float *)statistics.on.data +
                                     rank * MR_LOGIT_STATISTIC_COUNT * R);
    }
    for (size_t rank = 0; rank < WIDTH; rank++) {
        mr_vocabulary vocabulary = {.first = firsts[rank], .whole = V};
        double *of_rank = bench_scalar(b, 3.0);
        b->ops->cross_entropy_share(b->device, &shares[rank].on, &labels.on, &vocabulary,
                                    statistics.on.data, WIDTH, 0.125f, &shares[rank].on, of_rank);
        double found = bench_scalar_fetch(b, of_rank);
        assert_true(fabs(found - wanted) <= b->tolerance * (1.0 + fabs(wanted)));
        bench_tensor columns = columns_of(b, &whole, firsts[rank], firsts[rank + 1]);
        double *expected = bench_doubles(&columns);
        bench_expect(b, &shares[rank], expected, "dlogits of a share");
        free(expected);
    }
}

/* Columns [4, 8) of a whole of V. */
static void dropout_case(bench *b) {
    bench_tensor x = bench_random(b, 1.0f, R, 4, 0);
    bench_tensor y = bench_poison(b, R, 4, 0);
    mr_dropout dropout = {
        .key = mr_random_key_make(7, MR_RANDOM_DROPOUT, 1, 2, 3),
        .probability = 0.375f,
        .run = 4,
        .stride = V,
        .first = 4,
    };
    mr_dropout whole = {.key = dropout.key, .probability = dropout.probability};
    double *expected = bench_doubles(&x);
    for (size_t i = 0; i < x.n; i++)
        expected[i] *= bench_mask(&whole, i / 4 * V + 4 + i % 4);
    b->ops->dropout(b->device, &dropout, &x.on, &y.on);
    bench_expect(b, &y, expected, "y of a share");
    free(expected);
}

/* Heads [1, 3) of 5: their masks are those of the whole attention. */
static void attention_case(bench *b) {
    enum { HEADS = 5, D = 4, FIRST = 1, OWN = 2 };
    bench_tensor qkv = bench_random(b, 1.0f, B, T, (size_t)3 * HEADS * D);
    bench_tensor part = bench_poison(b, B, T, (size_t)3 * OWN * D);
    bench_tensor out = bench_poison(b, B, T, (size_t)HEADS * D);
    bench_tensor out_part = bench_poison(b, B, T, (size_t)OWN * D);
    bench_tensor lse = bench_poison_f32(b, B, HEADS, T);
    bench_tensor lse_part = bench_poison_f32(b, B, OWN, T);
    for (size_t i = 0; i < part.n; i++) {
        size_t row = i / (3 * OWN * D);
        size_t third = i / (OWN * D) % 3;
        part.host[i] =
            qkv.host[row * 3 * HEADS * D + third * HEADS * D + FIRST * D + i % (OWN * D)];
    }
    bench_push(b, &part);
    mr_dropout dropout = {
        .key = mr_random_key_make(9, MR_RANDOM_DROPOUT, 1, 2, 3),
        .probability = 0.25f,
    };
    mr_dropout of_part = dropout;
    of_part.run = (uint64_t)OWN * T * T;
    of_part.stride = (uint64_t)HEADS * T * T;
    of_part.first = (uint64_t)FIRST * T * T;
    b->ops->attention_forward(b->device, &qkv.on, HEADS, true, &dropout, &out.on, &lse.on);
    b->ops->attention_forward(b->device, &part.on, OWN, true, &of_part, &out_part.on,
                              &lse_part.on);
    bench_fetch(b, &out);
    double *expected = bench_doubles(&out_part);
    for (size_t i = 0; i < out_part.n; i++)
        expected[i] =
            (double)out.host[i / (OWN * D) * HEADS * D + FIRST * D + i % (OWN * D)];
    bench_expect(b, &out_part, expected, "out of two heads");
    free(expected);
}

/* Products of bf16 whose result is not rounded; of f32 they are the plain ones. */
static void product_case(bench *b) {
    bench_tensor x = bench_random(b, 1.0f, R, C, 0);
    bench_tensor w = bench_random(b, 1.0f, V, C, 0);
    bench_tensor bias = bench_random_f32(b, 1.0f, V, 0, 0);
    bench_tensor dy = bench_random(b, 1.0f, R, V, 0);
    bench_tensor y = bench_poison_f32(b, R, V, 0);
    bench_tensor dx = bench_poison_f32(b, R, C, 0);
    double *forward = bench_doubles(&y);
    double *backward = bench_doubles(&dx);
    for (size_t i = 0; i < y.n; i++) {
        forward[i] = (double)bias.host[i % V];
        for (size_t k = 0; k < C; k++)
            forward[i] += (double)x.host[i / V * C + k] * (double)w.host[i % V * C + k];
    }
    for (size_t i = 0; i < dx.n; i++) {
        backward[i] = 0;
        for (size_t k = 0; k < V; k++)
            backward[i] += (double)dy.host[i / C * V + k] * (double)w.host[k * C + i % C];
    }
    b->ops->linear_forward(b->device, &x.on, &w.on, &bias.on, &y.on);
    b->ops->linear_backward_input(b->device, &dy.on, &w.on, &dx.on);
    bench_expect(b, &y, forward, "y in f32");
    bench_expect(b, &dx, backward, "dx in f32");
    free(forward);
    free(backward);
}

static void test_shares_are_parts_of_the_whole(void **state) {
    (void)state;
    for (size_t i = 0; i < bench_row_count; i++) {
        bench b;
        if (!bench_open(&b, &bench_rows[i]))
            continue;
        if (b.ops->embedding_forward_share != NULL) {
            embedding_case(&b, true);
            embedding_case(&b, false);
            embedding_backward_case(&b);
            entropy_case(&b);
            dropout_case(&b);
            attention_case(&b);
            product_case(&b);
        }
        bench_close(&b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shares_are_parts_of_the_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
