/* SPDX-License-Identifier: Apache-2.0 */
/* product.h: matrix products by cuBLASLt. A plan is what one shape needs (descriptors and the
 * algorithm), made at its first use and kept, at most MR_DEVICE_PLANS_MAX of them (the one unused
 * for longest gives way).
 * Which algorithm: the library proposes PRODUCT_CANDIDATES. In deterministic mode the first that
 * works is taken, so that every process of one kind of card takes the same and a job's bits do not
 * depend on what a clock said. In fast mode each is timed once on the caller's own operands, into
 * memory of its own, and the fastest is kept on disk (choice.h).
 * Sums are f32; TF32 is never used.
 * Owner: device/cuda. Thread: EXEC.
 * Not here: what is multiplied with what (linear.c). */
#ifndef MR_DEVICE_CUDA_PRODUCT_H
#define MR_DEVICE_CUDA_PRODUCT_H

#include "daemon/base/status.h"
#include "daemon/device/cuda/kernels/kernels.h"

typedef struct mr_products mr_products;

/* C [m, n] (+)= A [m, k] B [k, n] (+ bias [n]), rows packed. A transposed matrix is stored with its
 * sides exchanged. */
typedef struct mr_product_shape {
    size_t m;
    size_t n;
    size_t k;
    bool a_transposed;
    bool b_transposed;
    bool bias;
    bool accumulate;
    mr_dtype operands;
    mr_dtype out;
    mr_dtype bias_dtype;
} mr_product_shape;

typedef struct mr_products_options {
    mr_cuda_stream stream;
    bool fast;
    const char *cache_folder; /* NULL: none */
    const char *device_name;  /* of the card; part of the file's name */
} mr_products_options;

/* With a workspace of its own, 32 MiB. UNAVAILABLE: cuBLASLt refuses. */
MR_MUST_CHECK mr_status mr_products_create(const mr_products_options *options,
                                           mr_products **out_products);
/* NULL is fine. */
void mr_products_destroy(mr_products *products);
/* UNIMPLEMENTED: cuBLASLt has nothing for the shape (nothing was done). INTERNAL: it refuses. */
MR_MUST_CHECK mr_status mr_products_run(mr_products *products, const mr_product_shape *shape,
                                        const void *a, const void *b, const void *bias, void *c);

#endif
