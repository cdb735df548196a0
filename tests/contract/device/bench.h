/* SPDX-License-Identifier: Apache-2.0 */
/* bench.h: a device on the test bench: tensors with copies on the host, random contents, poison,
 * and comparison with plain double-precision loops. One row of the table for each way to make a
 * device and to type activations; the table is a file of its own, linked beside this one:
 * rows_cpu.c, or on machines with a card tests/gpu/rows_cuda.c.
 * Every test makes activations and matrices with bench_random and bench_poison, which take the
 * row's type, and everything that is f32 in every precision (device.h says what) with
 * bench_random_f32 and bench_poison_f32; so each test of an operation is one of bf16 and f16, too.
 * Host copies are floats that the type can hold.
 * Owner: tests. Host copies and device memory are freed by bench_close. */
#ifndef MR_TESTS_CONTRACT_DEVICE_BENCH_H
#define MR_TESTS_CONTRACT_DEVICE_BENCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/device/device.h"

typedef struct bench_row {
    const char *kind;            /* of mr_device_options */
    const char *instruction_set; /* of a cpu device; NULL: the best */
    int threads;
    mr_dtype dtype; /* of activations and matrices; NONE counts as F32 */
    double tolerance; /* relative, of f32 tensors */
    bool aligned; /* other addresses may give other bits: a library of others looks at them */
} bench_row;

/* Relative, of what was rounded to bf16: half a unit in the last place of 8 bits is 2^-8 of the
 * smallest number of its binade, and f32 arithmetic adds its own. */
#define BENCH_TOLERANCE_BF16 4e-3
/* The same for the 11 bits of f16. */
#define BENCH_TOLERANCE_F16 5e-4

/* rows_cpu.c, or another table of the same names. */
extern const bench_row bench_rows[];
extern const size_t bench_row_count;

/* A tensor on the device with a copy on the host. */
typedef struct bench_tensor {
    mr_tensor on; /* the device */
    union {
        float *host; /* f32, and shorter ones widened */
        int32_t *host_i32;
    };
    size_t n;
} bench_tensor;

enum { BENCH_TENSORS_MAX = 256 };

typedef struct bench {
    mr_device *device;
    const mr_device_ops *ops;
    mr_dtype dtype;
    double tolerance; /* of f32 tensors; others: see bench_tolerance */
    mr_random_key key;
    uint64_t drawn;
    size_t skew; /* bytes by which tensors are off their alignment */
    size_t used;
    mr_device_memory memory[BENCH_TENSORS_MAX];
    float *hosts[BENCH_TENSORS_MAX];
} bench;

/* False when this machine has no such device: the row is skipped. */
bool bench_open(bench *b, const bench_row *row);
/* Asserts that the device latched nothing. */
void bench_close(bench *b);

/* Is it a type of two bytes? */
bool bench_is_half(mr_dtype dtype);
/* What a result of this type may be off, relative, where one of f32 may by of_f32. */
double bench_tolerance(mr_dtype dtype, double of_f32);
/* A uniform number in [-1, 1). */
float bench_draw(bench *b);
/* [dims...], as many dims as are not 0, of the row's type; every element a quiet not-a-number. */
bench_tensor bench_poison(bench *b, size_t d0, size_t d1, size_t d2);
bench_tensor bench_poison_f32(bench *b, size_t d0, size_t d1, size_t d2);
/* The same, uniform in [-scale, scale). */
bench_tensor bench_random(bench *b, float scale, size_t d0, size_t d1, size_t d2);
bench_tensor bench_random_f32(bench *b, float scale, size_t d0, size_t d1, size_t d2);
/* i32, uniform in [0, below). */
bench_tensor bench_integers(bench *b, int32_t below, size_t d0, size_t d1);
/* Copies to the host, and to the device, where shorter types are rounded: the host's copy
 * is rounded along. */
void bench_fetch(bench *b, bench_tensor *t);
void bench_push(bench *b, bench_tensor *t);
/* A copy of the host's elements in double precision; freed by the caller with free. */
double *bench_doubles(const bench_tensor *t);
/* Fetches t and compares each element with expected: error at most tolerance times (the root mean
 * square of expected + the element), that of the tensor's type. */
void bench_expect(bench *b, bench_tensor *t, const double *expected, const char *what);
/* One double on the device. */
double *bench_scalar(bench *b, double value);
double bench_scalar_fetch(bench *b, const double *at);
/* Bytes of a tensor on the device. */
size_t bench_bytes(const bench_tensor *t);
/* The factor of element i. */
double bench_mask(const mr_dropout *dropout, uint64_t i);

#endif
