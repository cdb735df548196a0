/* SPDX-License-Identifier: Apache-2.0 */
/* onednn_rate.h: how fast oneDNN alone multiplies the matrices of a GPT-2-form model on this
 * machine at this moment: its own threads, its own partition, one primitive per shape. The measure
 * that our benchmarks divide by.
 * Owner: tests. */
#ifndef MR_TESTS_BENCH_ONEDNN_RATE_H
#define MR_TESTS_BENCH_ONEDNN_RATE_H

#include <stddef.h>

#include "daemon/device/cpu/onednn.h"

typedef struct onednn_rate_product {
    const char *name;
    mr_onednn_shape shape;
    size_t count; /* in one step of the model */
} onednn_rate_product;

/* Seconds of one execution with that many of oneDNN's own threads, on random data: the median over
 * repeats, and the best. The calling thread must not be bound to a processor: oneDNN's threads
 * inherit that. */
MR_MUST_CHECK mr_status onednn_rate_seconds(const mr_onednn_shape *shape, int threads, int repeats,
                                            double out_median_and_best[2]);

#endif
