/* SPDX-License-Identifier: Apache-2.0 */
/* dtype.h: element types of tensors, with their numbers on the wire (proto millrace.v1.DataType).
 * Owner: base. Plain data. */
#ifndef MR_BASE_DTYPE_H
#define MR_BASE_DTYPE_H

#include <stddef.h>

typedef enum mr_dtype {
    MR_DTYPE_NONE = 0,
    MR_DTYPE_F32 = 1,
    MR_DTYPE_BF16 = 2,
    MR_DTYPE_F16 = 3,
    MR_DTYPE_I32 = 4,
    MR_DTYPE_I64 = 5,
    MR_DTYPE_U8 = 6,
    MR_DTYPE_COUNT
} mr_dtype;

/* Bytes of one element; 0 for an unknown type. */
static inline size_t mr_dtype_bytes(mr_dtype dtype) {
    static const unsigned char bytes[MR_DTYPE_COUNT] = {0, 4, 2, 2, 4, 8, 1};
    return (unsigned)dtype < MR_DTYPE_COUNT ? bytes[dtype] : 0;
}

/* The safetensors name ("F32"); "?" for an unknown type. */
static inline const char *mr_dtype_name(mr_dtype dtype) {
    static const char *const names[MR_DTYPE_COUNT] = {"?",   "F32", "BF16", "F16",
                                                      "I32", "I64", "U8"};
    return (unsigned)dtype < MR_DTYPE_COUNT ? names[dtype] : "?";
}

#endif
