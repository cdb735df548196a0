/* SPDX-License-Identifier: Apache-2.0 */
/* norm_layout.h: what a layernorm or rmsnorm layer keeps from forward for its backward: per row the
 * mean (layernorm only) and the reciprocal deviation, both f32 in every precision. Nothing is
 * retained between the halves of backward, and no scratch is needed.
 * The rule for the other layers, by type: embedding, lm_head, linear, relu, gelu, silu, dropout and
 * identity save, retain and need no bytes beyond the input and the output gradient that the
 * executor keeps (a dropout mask is drawn again from the counter-based generator).
 * transformer_block: see transformer_block_layout.h. Any layer whose input comes from the feed in
 * f32 and is computed in another type saves a cast copy of it behind the rest (description.h).
 * Owner: model. Pure, any thread. */
#ifndef MR_MODEL_NORM_LAYOUT_H
#define MR_MODEL_NORM_LAYOUT_H

#include <stddef.h>

#include "daemon/base/status.h"
#include "daemon/model/layer_spec.h"
#include "daemon/model/shape.h"

typedef struct mr_norm_layout {
    size_t rows;    /* N: product of all dimensions but the last */
    size_t columns; /* C: the last dimension */
    size_t mean;    /* offset in saved, [N]; layernorm only */
    size_t rstd;    /* offset in saved, [N] */
    size_t saved_bytes;
} mr_norm_layout;

/* spec: of type layernorm or rmsnorm; input: [..., C], at least one dimension.
 * INVALID_ARGUMENT: a size whose products overflow. */
MR_MUST_CHECK mr_status mr_norm_layout_make(const mr_layer_spec *spec, const mr_shape *input,
                                            mr_norm_layout *out_layout);

#endif
