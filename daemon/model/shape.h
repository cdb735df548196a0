/* SPDX-License-Identifier: Apache-2.0 */
/* shape.h: the shape and element type of a tensor, known before anything is built.
 * Owner: model. Plain data. */
#ifndef MR_MODEL_SHAPE_H
#define MR_MODEL_SHAPE_H

#include <stdbool.h>
#include <stddef.h>

#include "daemon/base/dtype.h"
#include "daemon/base/limits.h"

typedef struct mr_shape {
    mr_dtype dtype;
    size_t dim_count;
    size_t dims[MR_TENSOR_DIMS_MAX];
    bool needs_gradient;
    /* The last dimension is one model rank's share of this many elements (shard.h); 0: it is whole,
     * and the same on all of them. */
    size_t cut_from;
} mr_shape;

/* Elements; false on overflow (out untouched). A shape without dims has one element. */
bool mr_shape_elements(const mr_shape *shape, size_t *out_elements);
/* Bytes; false on overflow. */
bool mr_shape_bytes(const mr_shape *shape, size_t *out_bytes);
/* Same type and sizes; neither the need for a gradient nor the cut is compared. */
bool mr_shape_equal(const mr_shape *a, const mr_shape *b);

enum { MR_SHAPE_TEXT_BYTES = 160 };
/* "f32 [8, 256]", for errors. Returns out_text. */
const char *mr_shape_text(const mr_shape *shape, char out_text[MR_SHAPE_TEXT_BYTES]);

#endif
