/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/model/slices.h"

#include "daemon/base/alloc.h"

size_t mr_slices_take(mr_slices *slices, mr_dtype dtype, size_t rows, size_t columns) {
    size_t offset = slices->bytes;
    size_t bytes = 0;
    bool fits = mr_size_mul(rows, columns, &bytes) &&
                mr_size_mul(bytes, mr_dtype_bytes(dtype), &bytes) &&
                mr_size_add(bytes, MR_SLICE_ALIGN - 1, &bytes);
    bytes -= bytes % MR_SLICE_ALIGN;
    if (!fits || slices->overflowed || !mr_size_add(offset, bytes, &slices->bytes)) {
        slices->overflowed = true;
        return 0;
    }
    return offset;
}
