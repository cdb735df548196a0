/* SPDX-License-Identifier: Apache-2.0 */
/* transformer_block_layout.h: where a transformer block keeps what its backward needs. The
 * description takes its byte counts from here and layers/ cuts its buffers by it.
 * Tensors have the type of the layer's activations (dtype), but for the statistics of norms and of
 * attention, which are always f32; N = B x T rows, row r = b T + t. Offsets are bytes from the
 * start of the buffer named by the struct's section and multiples of MR_SLICE_ALIGN. A tensor that
 * a form of the block does not have takes no bytes; its offset is then not to be used. Dropout
 * keeps no masks: they are drawn again from the counter-based generator (base/random.h).
 * Attention's own working memory (tiles of scores) belongs to the device, not to the layer. No
 * scratch is laid out here: forward computes both branches in y, and backward-input keeps the
 * gradient of attn_out in d_ln_1_out's place until that is due; what a shard's sums over the model
 * ranks need in bf16 is the description's.
 * A shard of a block (layer_spec.h) has its own share of heads and of F; C is the whole's.
 * Owner: model. Pure, any thread. */
#ifndef MR_MODEL_TRANSFORMER_BLOCK_LAYOUT_H
#define MR_MODEL_TRANSFORMER_BLOCK_LAYOUT_H

#include <stddef.h>

#include "daemon/base/status.h"
#include "daemon/model/layer_spec.h"
#include "daemon/model/shape.h"

typedef struct mr_transformer_block_layout {
    mr_dtype dtype; /* of activations and of their gradients */
    /* sizes, from spec and shape */
    size_t B;
    size_t T;
    size_t N; /* B T */
    size_t C;
    size_t F;
    size_t NH;          /* heads */
    size_t KVH;         /* key and value heads */
    size_t head_dim;    /* C / heads of the whole block */
    size_t A;           /* NH head_dim: C, or a shard's part of it */
    size_t qkv_width;   /* A + 2 KVH head_dim; 3A where KVH = NH */
    size_t fc_width;    /* F, or 2F with swiglu (gate, then up) */
    /* saved: written by forward, read by both halves of backward */
    size_t ln_1_out;  /* [N, C] */
    size_t ln_1_mean; /* [N]; layernorm only */
    size_t ln_1_rstd; /* [N] */
    size_t qkv;       /* [N, qkv_width]: Q, then K, then V; heads side by side within each */
    size_t attn_out;  /* [N, A]: heads side by side; the input of attn.proj */
    size_t attn_lse;  /* [B, NH, T]: log-sum-exp of each scaled, masked row of scores */
    size_t residual;  /* [N, C]: x + dropout(attn.proj) */
    size_t ln_2_out;  /* [N, C] */
    size_t ln_2_mean; /* [N]; layernorm only */
    size_t ln_2_rstd; /* [N] */
    size_t fc;        /* [N, fc_width]: before the activation */
    size_t activated; /* [N, F]: after it; the input of mlp.proj */
    size_t saved_bytes;
    /* retained: written by backward-input, read by backward-weight, which also has dy */
    size_t d_mlp_proj;  /* [N, C]: dy through dropout; only where dropout > 0, else dy serves */
    size_t d_fc;        /* [N, fc_width] */
    size_t d_ln_2_out;  /* [N, C] */
    size_t d_residual;  /* [N, C] */
    size_t d_attn_proj; /* [N, C]: d_residual through dropout; equals d_residual's offset
                           where dropout is 0 */
    size_t d_qkv;       /* [N, qkv_width] */
    size_t d_ln_1_out;  /* [N, C]; before it the gradient of attn_out */
    size_t retained_bytes;
} mr_transformer_block_layout;

/* input: [B, T, C] with C = spec->dim, checked by the caller (mr_layer_describe does).
 * INVALID_ARGUMENT: a size whose products overflow. */
MR_MUST_CHECK mr_status mr_transformer_block_layout_make(
    const mr_layer_spec *spec, const mr_shape *input, mr_transformer_block_layout *out_layout);

#endif
