/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/contract/device/bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/base/half.h"
#include "daemon/device/cpu/create.h"

bool bench_open(bench *b, const bench_row *row) {
    mr_device_options options = {.kind = row->kind, .threads = row->threads};
    *b = (bench){.tolerance = row->tolerance};
    b->dtype = row->dtype == MR_DTYPE_NONE ? MR_DTYPE_F32 : row->dtype;
    mr_status status =
        row->instruction_set == NULL
            ? mr_device_create(&options, &b->device)
            : mr_device_cpu_create_with(&options, row->instruction_set, &b->device);
    if (status.code == MR_CODE_UNAVAILABLE) {
        print_message("skipped: %s\n", status.text);
        return false;
    }
    assert_string_equal(status.text, "");
    assert_int_equal(status.code, MR_CODE_OK);
    b->ops = b->device->ops;
    b->key = mr_random_key_make(7, MR_RANDOM_SAMPLE, 1, 2, 3);
    return true;
}

void bench_close(bench *b) {
    mr_status status = b->ops->check(b->device);
    assert_string_equal(status.text, "");
    for (size_t i = 0; i < b->used; i++) {
        b->ops->memory_destroy(b->device, &b->memory[i]);
        free(b->hosts[i]);
    }
    mr_device_destroy(b->device);
}

float bench_draw(bench *b) {
    return (float)((double)mr_random_word(&b->key, b->drawn++) / 2147483648.0 - 1.0);
}

/* New tensor with uninitialised host copy. Memory has a margin for the skew. */
static bench_tensor bench_tensor_make(bench *b, mr_dtype dtype, size_t d0, size_t d1, size_t d2) {
    bench_tensor t = {.on = {.shape = {.dtype = dtype, .dims = {d0, d1, d2}}}};
    t.on.shape.dim_count = d2 != 0 ? 3 : d1 != 0 ? 2 : 1;
    bool fits = mr_shape_elements(&t.on.shape, &t.n);
    assert_true(fits);
    assert_true(b->used < BENCH_TENSORS_MAX);
    mr_status status =
        b->ops->memory_create(b->device, t.n * 4 + 64, &b->memory[b->used]);
    assert_int_equal(status.code, MR_CODE_OK);
    t.on.data = (unsigned char *)b->memory[b->used].base + b->skew;
    t.host = malloc(t.n * 4);
    assert_non_null(t.host);
    b->hosts[b->used++] = t.host;
    return t;
}

size_t bench_bytes(const bench_tensor *t) {
    return t->n * mr_dtype_bytes(t->on.shape.dtype);
}

bool bench_is_half(mr_dtype dtype) {
    return dtype == MR_DTYPE_BF16 || dtype == MR_DTYPE_F16;
}

double bench_tolerance(mr_dtype dtype, double of_f32) {
    double half = dtype == MR_DTYPE_BF16  ? BENCH_TOLERANCE_BF16
                  : dtype == MR_DTYPE_F16 ? BENCH_TOLERANCE_F16
                                          : 0;
    return half > of_f32 ? half : of_f32;
}

/* Short elements lie in the first half of the host's copy while it is moved. */
void bench_fetch(bench *b, bench_tensor *t) {
    b->ops->copy_out(b->device, t->host, t->on.data, bench_bytes(t));
    for (size_t i = t->n; bench_is_half(t->on.shape.dtype) && i-- > 0;) {
        uint16_t half;
        memcpy(&half, (const unsigned char *)t->host + i * sizeof(half), sizeof(half));
        t->host[i] = mr_half_widen(t->on.shape.dtype, half);
    }
}

void bench_push(bench *b, bench_tensor *t) {
    bool short_elements = bench_is_half(t->on.shape.dtype);
    for (size_t i = 0; short_elements && i < t->n; i++) {
        uint16_t half = mr_half_round(t->on.shape.dtype, t->host[i]);
        memcpy((unsigned char *)t->host + i * sizeof(half), &half, sizeof(half));
    }
    b->ops->copy_in(b->device, t->on.data, t->host, bench_bytes(t));
    if (short_elements)
        bench_fetch(b, t);
}

static bench_tensor bench_poison_of(bench *b, mr_dtype dtype, size_t d0, size_t d1, size_t d2) {
    bench_tensor t = bench_tensor_make(b, dtype, d0, d1, d2);
    for (size_t i = 0; i < t.n; i++)
        t.host[i] = NAN;
    bench_push(b, &t);
    return t;
}

bench_tensor bench_poison(bench *b, size_t d0, size_t d1, size_t d2) {
    return bench_poison_of(b, b->dtype, d0, d1, d2);
}

bench_tensor bench_poison_f32(bench *b, size_t d0, size_t d1, size_t d2) {
    return bench_poison_of(b, MR_DTYPE_F32, d0, d1, d2);
}

static bench_tensor bench_random_of(bench *b, mr_dtype dtype, float scale, size_t d0, size_t d1,
                                    size_t d2) {
    bench_tensor t = bench_tensor_make(b, dtype, d0, d1, d2);
    for (size_t i = 0; i < t.n; i++)
        t.host[i] = scale * bench_draw(b);
    bench_push(b, &t);
    return t;
}

bench_tensor bench_random(bench *b, float scale, size_t d0, size_t d1, size_t d2) {
    return bench_random_of(b, b->dtype, scale, d0, d1, d2);
}

bench_tensor bench_random_f32(bench *b, float scale, size_t d0, size_t d1, size_t d2) {
    return bench_random_of(b, MR_DTYPE_F32, scale, d0, d1, d2);
}

bench_tensor bench_integers(bench *b, int32_t below, size_t d0, size_t d1) {
    bench_tensor t = bench_tensor_make(b, MR_DTYPE_I32, d0, d1, 0);
    for (size_t i = 0; i < t.n; i++)
        t.host_i32[i] = (int32_t)(mr_random_word(&b->key, b->drawn++) % (uint32_t)below);
    bench_push(b, &t);
    return t;
}

double *bench_doubles(const bench_tensor *t) {
    double *values = malloc(t->n * sizeof(double));
    assert_non_null(values);
    for (size_t i = 0; i < t->n; i++)
        values[i] = (double)t->host[i];
    return values;
}

void bench_expect(bench *b, bench_tensor *t, const double *expected, const char *what) {
    double squares = 0.0;
    for (size_t i = 0; i < t->n; i++)
        squares += expected[i] * expected[i];
    double typical = sqrt(squares / (double)t->n);
    double tolerance = bench_tolerance(t->on.shape.dtype, b->tolerance);
    /* Half of f16's smallest number: below it there is only zero. */
    double smallest = t->on.shape.dtype == MR_DTYPE_F16 ? 0x1p-25 : 0;
    bench_fetch(b, t);
    for (size_t i = 0; i < t->n; i++) {
        double error = fabs((double)t->host[i] - expected[i]);
        double bound = tolerance * (typical + fabs(expected[i])) + smallest;
        if (!(error <= bound))
            fail_msg("%s[%zu] is %.9g; it must be %.9g within %.3g", what, i, (double)t->host[i],
                     expected[i], bound);
    }
}

double *bench_scalar(bench *b, double value) {
    bench_tensor t = bench_tensor_make(b, MR_DTYPE_I64, 2, 0, 0);
    double *at = b->memory[b->used - 1].base; /* never skewed */
    (void)t;
    b->ops->copy_in(b->device, at, &value, sizeof(value));
    return at;
}

double bench_scalar_fetch(bench *b, const double *at) {
    double value = 0.0;
    b->ops->copy_out(b->device, &value, at, sizeof(value));
    return value;
}

double bench_mask(const mr_dropout *dropout, uint64_t i) {
    if (dropout == NULL || dropout->probability == 0.0f)
        return 1.0;
    bool kept = (double)mr_random_word(&dropout->key, i) >=
                (double)dropout->probability * 4294967296.0;
    return kept ? 1.0 / (1.0 - (double)dropout->probability) : 0.0;
}
