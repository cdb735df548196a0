/* SPDX-License-Identifier: Apache-2.0 */
/* safetensors_internal.h: what writer and reader share.
 * Owner: checkpoint; private to this folder. Thread: any.
 * Not here: anything for others. */
#ifndef MR_CHECKPOINT_SAFETENSORS_INTERNAL_H
#define MR_CHECKPOINT_SAFETENSORS_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/checkpoint/safetensors.h"

#define MR_SAFETENSORS_METADATA "__metadata__"

enum {
    MR_SAFETENSORS_PREFIX_BYTES = 8, /* the header's length */
    MR_SAFETENSORS_ALIGN = 8,        /* of the first data byte */
};

/* Bytes of a tensor of at most MR_TENSOR_DIMS_MAX dimensions; false past 64 bits. */
bool mr_safetensors_size(const mr_safetensors_tensor *tensor, uint64_t *out_bytes);

#endif
