/* SPDX-License-Identifier: Apache-2.0 */
/* adapter.h: a layer type of one's own, as an example: y = x + dropout(f(x down^T)) up^T, a narrow
 * detour beside the stream (arXiv:1902.00751). This header is what both halves share: the keys in
 * the job file, and where a microbatch's memory lies.
 * Owner: this example. Pure, any thread. */
#ifndef MR_DEPLOY_EXAMPLES_USER_LAYER_ADAPTER_H
#define MR_DEPLOY_EXAMPLES_USER_LAYER_ADAPTER_H

#include "daemon/base/status.h"
#include "daemon/model/layer_spec.h"
#include "daemon/model/shape.h"

typedef enum adapter_activation {
    ADAPTER_RELU,
    ADAPTER_GELU,
    ADAPTER_SILU,
} adapter_activation;

/* The keys of a layer of type adapter. */
typedef struct adapter {
    size_t dim;  /* C: of the stream */
    size_t rank; /* R: of the detour */
    adapter_activation activation;
    double dropout;
} adapter;

/* N rows; offsets in bytes. */
typedef struct adapter_layout {
    mr_dtype dtype;
    size_t N;
    size_t narrow;    /* saved, [N, R]: x down^T */
    size_t activated; /* saved, [N, R]: dropout(f(narrow)) */
    size_t saved_bytes;
    size_t d_narrow; /* retained, [N, R]: gradient of narrow */
    size_t retained_bytes;
    size_t detour; /* scratch, [N, C]: what the detour adds */
    size_t scratch_bytes;
} adapter_layout;

/* INVALID_ARGUMENT: sizes that overflow. */
MR_MUST_CHECK mr_status adapter_layout_make(const mr_layer_spec *spec, const mr_shape *input,
                                            adapter_layout *out_layout);

#endif
