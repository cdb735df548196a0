/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/model/transformer_block_layout.h"

#include "daemon/base/alloc.h"
#include "daemon/model/slices.h"

static bool layout_sizes(const mr_layer_spec *spec, const mr_shape *input,
                         mr_transformer_block_layout *l) {
    size_t width = mr_layer_spec_is_shard(spec) ? spec->model_width : 1; /* divides these sizes */
    l->dtype = mr_layer_spec_activation(spec);
    l->B = input->dims[0];
    l->T = input->dims[1];
    l->C = spec->dim;
    l->F = spec->ffn / width;
    l->NH = spec->heads / width;
    l->KVH = spec->kv_heads / width;
    l->head_dim = l->C / spec->heads;
    l->A = l->NH * l->head_dim;
    l->qkv_width = l->A + 2 * l->KVH * l->head_dim; /* below 3 MR_DIMENSION_MAX */
    l->fc_width = spec->activation == MR_ACTIVATION_SWIGLU ? 2 * l->F : l->F;
    return mr_size_mul(l->B, l->T, &l->N);
}

static mr_slices layout_saved(const mr_layer_spec *spec, mr_transformer_block_layout *l) {
    size_t mean = spec->norm == MR_NORM_LAYERNORM ? 1 : 0;
    mr_slices s = {0};
    l->ln_1_out = mr_slices_take(&s, l->dtype, l->N, l->C);
    l->ln_1_mean = mr_slices_take(&s, MR_DTYPE_F32, l->N, mean);
    l->ln_1_rstd = mr_slices_take(&s, MR_DTYPE_F32, l->N, 1);
    l->qkv = mr_slices_take(&s, l->dtype, l->N, l->qkv_width);
    l->attn_out = mr_slices_take(&s, l->dtype, l->N, l->A);
    l->attn_lse = mr_slices_take(&s, MR_DTYPE_F32, l->N, l->NH);
    l->residual = mr_slices_take(&s, l->dtype, l->N, l->C);
    l->ln_2_out = mr_slices_take(&s, l->dtype, l->N, l->C);
    l->ln_2_mean = mr_slices_take(&s, MR_DTYPE_F32, l->N, mean);
    l->ln_2_rstd = mr_slices_take(&s, MR_DTYPE_F32, l->N, 1);
    l->fc = mr_slices_take(&s, l->dtype, l->N, l->fc_width);
    l->activated = mr_slices_take(&s, l->dtype, l->N, l->F);
    l->saved_bytes = s.bytes;
    return s;
}

static mr_slices layout_retained(const mr_layer_spec *spec, mr_transformer_block_layout *l) {
    bool dropout = spec->dropout > 0;
    mr_slices s = {0};
    l->d_mlp_proj = mr_slices_take(&s, l->dtype, dropout ? l->N : 0, l->C);
    l->d_fc = mr_slices_take(&s, l->dtype, l->N, l->fc_width);
    l->d_ln_2_out = mr_slices_take(&s, l->dtype, l->N, l->C);
    l->d_residual = mr_slices_take(&s, l->dtype, l->N, l->C);
    l->d_attn_proj = dropout ? mr_slices_take(&s, l->dtype, l->N, l->C) : l->d_residual;
    l->d_qkv = mr_slices_take(&s, l->dtype, l->N, l->qkv_width);
    l->d_ln_1_out = mr_slices_take(&s, l->dtype, l->N, l->C);
    l->retained_bytes = s.bytes;
    return s;
}

mr_status mr_transformer_block_layout_make(const mr_layer_spec *spec, const mr_shape *input,
                                           mr_transformer_block_layout *out_layout) {
    MR_ASSERT(input->dim_count == 3);
    MR_ASSERT(spec->heads > 0 && spec->kv_heads > 0);
    mr_transformer_block_layout layout = {0};
    bool fits = layout_sizes(spec, input, &layout);
    fits = fits && !layout_saved(spec, &layout).overflowed &&
           !layout_retained(spec, &layout).overflowed;
    if (!fits)
        return MR_ERROR(INVALID_ARGUMENT,
                        "a transformer_block of dim %zu and ffn %zu for %zu x %zu tokens needs "
                        "more bytes than can be counted",
                        layout.C, layout.F, layout.B, layout.T);
    *out_layout = layout;
    return MR_OK;
}
