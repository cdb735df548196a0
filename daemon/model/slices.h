/* SPDX-License-Identifier: Apache-2.0 */
/* slices.h: laying out several tensors in one buffer, each at a multiple of MR_SLICE_ALIGN bytes.
 * Every layout of saved, retained and scratch memory is computed with it, so that the description
 * (bytes) and the code that cuts the buffer (offsets) cannot disagree.
 * Owner: model. Pure, any thread. */
#ifndef MR_MODEL_SLICES_H
#define MR_MODEL_SLICES_H

#include <stdbool.h>
#include <stddef.h>

#include "daemon/base/dtype.h"

enum { MR_SLICE_ALIGN = 64 };

typedef struct mr_slices {
    size_t bytes;    /* of all slices so far; a multiple of MR_SLICE_ALIGN */
    bool overflowed; /* a size did not fit size_t; bytes is then meaningless */
} mr_slices;

/* Takes a slice of rows x columns elements of a type and returns its offset in bytes. A slice
 * without elements takes no room. After an overflow every call returns 0. */
size_t mr_slices_take(mr_slices *slices, mr_dtype dtype, size_t rows, size_t columns);

#endif
