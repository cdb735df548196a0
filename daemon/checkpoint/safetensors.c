/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/checkpoint/safetensors.h"

#include <inttypes.h>

#include "daemon/checkpoint/safetensors_internal.h"

static const struct {
    const char *name;
    size_t bytes;
} dtype_table[MR_SAFETENSORS_DTYPE_COUNT] = {
#define DTYPE_ROW(name, bytes) [MR_SAFETENSORS_##name] = {#name, bytes},
    MR_SAFETENSORS_DTYPES(DTYPE_ROW)
#undef DTYPE_ROW
};

const char *mr_safetensors_dtype_name(mr_safetensors_dtype dtype) {
    MR_ASSERT((unsigned)dtype < MR_SAFETENSORS_DTYPE_COUNT);
    return dtype_table[dtype].name;
}

size_t mr_safetensors_dtype_bytes(mr_safetensors_dtype dtype) {
    MR_ASSERT((unsigned)dtype < MR_SAFETENSORS_DTYPE_COUNT);
    return dtype_table[dtype].bytes;
}

bool mr_safetensors_size(const mr_safetensors_tensor *tensor, uint64_t *out_bytes) {
    MR_ASSERT(tensor->dims <= MR_TENSOR_DIMS_MAX);
    uint64_t bytes = 1;
    for (uint32_t i = 0; i < tensor->dims; i++)
        if (__builtin_mul_overflow(bytes, tensor->shape[i], &bytes))
            return false;
    if (__builtin_mul_overflow(bytes, mr_safetensors_dtype_bytes(tensor->dtype), &bytes))
        return false;
    *out_bytes = bytes;
    return true;
}

mr_status mr_safetensors_tensor_bytes(const mr_safetensors_tensor *tensor, uint64_t *out_bytes) {
    if (tensor->dims > MR_TENSOR_DIMS_MAX)
        return MR_ERROR(INVALID_ARGUMENT, "tensor %s has %" PRIu32 " dimensions; the most is %d",
                        tensor->name, tensor->dims, MR_TENSOR_DIMS_MAX);
    if (!mr_safetensors_size(tensor, out_bytes))
        return MR_ERROR(INVALID_ARGUMENT, "E_CKPT_OVERFLOW tensor=%s: its size passes 64 bits",
                        tensor->name);
    return MR_OK;
}
