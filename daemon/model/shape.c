/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/model/shape.h"

#include <ctype.h>
#include <stdio.h>

#include "daemon/base/alloc.h"

bool mr_shape_elements(const mr_shape *shape, size_t *out_elements) {
    size_t elements = 1;
    for (size_t i = 0; i < shape->dim_count; i++)
        if (!mr_size_mul(elements, shape->dims[i], &elements))
            return false;
    *out_elements = elements;
    return true;
}

bool mr_shape_bytes(const mr_shape *shape, size_t *out_bytes) {
    size_t elements = 0;
    return mr_shape_elements(shape, &elements) &&
           mr_size_mul(elements, mr_dtype_bytes(shape->dtype), out_bytes);
}

bool mr_shape_equal(const mr_shape *a, const mr_shape *b) {
    if (a->dtype != b->dtype || a->dim_count != b->dim_count)
        return false;
    for (size_t i = 0; i < a->dim_count; i++)
        if (a->dims[i] != b->dims[i])
            return false;
    return true;
}

const char *mr_shape_text(const mr_shape *shape, char out_text[MR_SHAPE_TEXT_BYTES]) {
    /* Six numbers of at most 20 digits, separators and a type fit. */
    int used = snprintf(out_text, MR_SHAPE_TEXT_BYTES, "%s [", mr_dtype_name(shape->dtype));
    for (char *c = out_text; *c != '\0'; c++)
        *c = (char)tolower((unsigned char)*c);
    for (size_t i = 0; i < shape->dim_count && i < MR_TENSOR_DIMS_MAX; i++)
        used += snprintf(out_text + used, MR_SHAPE_TEXT_BYTES - (size_t)used, "%s%zu",
                         i > 0 ? ", " : "", shape->dims[i]);
    (void)snprintf(out_text + used, MR_SHAPE_TEXT_BYTES - (size_t)used, "]");
    return out_text;
}
