/* SPDX-License-Identifier: Apache-2.0 */
/* transformer_block, GPT-2 form (pre-norm):
 *
 *   residual = x + dropout(attn.proj(attention(attn.qkv(ln_1(x)))))
 *   y = residual + dropout(mlp.proj(gelu_tanh(mlp.fc(ln_2(residual)))))
 *
 * Forward keeps the input of every operation whose backward needs it (transformer_block_layout.h).
 * Backward-input walks back once and leaves the gradient of every operation's output in retained,
 * so that backward-weight is six independent sums with no chain between them and may run at any
 * later time. Memory passes are saved where two operations read the same rows: the first residual
 * sum and ln_2 are one pass, and each norm's backward adds the gradient that by-passes it.
 * A shard has some of the heads and some of the columns of mlp.fc, and the columns of the two
 * projections that belong to them: so both projections' outputs, and the gradients of ln_1's and
 * ln_2's outputs, are sums over the ranks of the model axis, and all else needs no other rank. */
#include "daemon/layers/layer_table.h"
#include "daemon/model/transformer_block_layout.h"

/* Views of the block's buffers; rows are B x T unless said. */
typedef struct block {
    mr_device *device;
    const mr_device_ops *ops;
    mr_tensor ln_1_out, ln_1_mean, ln_1_rstd;
    size_t T, NH;
    mr_tensor qkv;      /* [B, T, 3A], A = C in a whole block */
    mr_tensor attn_out; /* [B, T, A] */
    mr_tensor attn_lse; /* [B, NH, T] */
    mr_tensor residual, ln_2_out, ln_2_mean, ln_2_rstd;
    mr_tensor fc, activated;
    mr_tensor d_mlp_proj, d_fc, d_ln_2_out, d_residual, d_attn_proj;
    mr_tensor d_attn_out; /* [B, T, A]; in the place of d_ln_1_out */
    mr_tensor d_qkv;      /* [B, T, 3A] */
    mr_tensor d_ln_1_out;
} block;

static mr_tensor block_cube(void *buffer, size_t offset, mr_dtype dtype, size_t d0, size_t d1,
                            size_t d2) {
    return (mr_tensor){
        .data = (unsigned char *)buffer + offset,
        .shape = {.dtype = dtype, .dim_count = 3, .dims = {d0, d1, d2}},
    };
}

static void block_bind_saved(block *v, const mr_transformer_block_layout *l, void *saved) {
    v->ln_1_out = mr_layer_slice(saved, l->ln_1_out, l->dtype, l->N, l->C);
    v->ln_1_mean = mr_layer_slice(saved, l->ln_1_mean, MR_DTYPE_F32, l->N, 0);
    v->ln_1_rstd = mr_layer_slice(saved, l->ln_1_rstd, MR_DTYPE_F32, l->N, 0);
    v->qkv = block_cube(saved, l->qkv, l->dtype, l->B, l->T, l->qkv_width);
    v->attn_out = block_cube(saved, l->attn_out, l->dtype, l->B, l->T, l->A);
    v->attn_lse = block_cube(saved, l->attn_lse, MR_DTYPE_F32, l->B, l->NH, l->T);
    v->residual = mr_layer_slice(saved, l->residual, l->dtype, l->N, l->C);
    v->ln_2_out = mr_layer_slice(saved, l->ln_2_out, l->dtype, l->N, l->C);
    v->ln_2_mean = mr_layer_slice(saved, l->ln_2_mean, MR_DTYPE_F32, l->N, 0);
    v->ln_2_rstd = mr_layer_slice(saved, l->ln_2_rstd, MR_DTYPE_F32, l->N, 0);
    v->fc = mr_layer_slice(saved, l->fc, l->dtype, l->N, l->fc_width);
    v->activated = mr_layer_slice(saved, l->activated, l->dtype, l->N, l->F);
}

static void block_bind_retained(block *v, const mr_transformer_block_layout *l, void *retained) {
    v->d_mlp_proj = mr_layer_slice(retained, l->d_mlp_proj, l->dtype, l->N, l->C);
    v->d_fc = mr_layer_slice(retained, l->d_fc, l->dtype, l->N, l->fc_width);
    v->d_ln_2_out = mr_layer_slice(retained, l->d_ln_2_out, l->dtype, l->N, l->C);
    v->d_residual = mr_layer_slice(retained, l->d_residual, l->dtype, l->N, l->C);
    v->d_attn_proj = mr_layer_slice(retained, l->d_attn_proj, l->dtype, l->N, l->C);
    v->d_qkv = block_cube(retained, l->d_qkv, l->dtype, l->B, l->T, l->qkv_width);
    v->d_ln_1_out = mr_layer_slice(retained, l->d_ln_1_out, l->dtype, l->N, l->C);
    v->d_attn_out = block_cube(retained, l->d_ln_1_out, l->dtype, l->B, l->T, l->A);
}

/* retained NULL: forward, which has none. */
static block block_bind(const mr_layer *layer, const mr_layer_call *call, void *retained) {
    mr_transformer_block_layout layout = {0};
    mr_status status = mr_transformer_block_layout_make(layer->spec, &layer->input, &layout);
    MR_ASSERT(mr_status_is_ok(status)); /* the description was made from the same sizes */
    block v = {.device = call->device, .ops = call->device->ops, .T = layout.T, .NH = layout.NH};
    block_bind_saved(&v, &layout, call->saved);
    if (retained != NULL)
        block_bind_retained(&v, &layout, retained);
    return v;
}

/* y = x w^T + bias of the block's linear called name. */
static void block_linear(const mr_layer *layer, const block *v, const char *weight,
                         const char *bias, const mr_tensor *x, mr_tensor *y) {
    mr_tensor x_rows = mr_layer_rows(x);
    mr_tensor y_rows = mr_layer_rows(y);
    v->ops->linear_forward(v->device, &x_rows, mr_layer_parameter(layer, weight),
                           mr_layer_parameter(layer, bias), &y_rows);
}

/* The same of a projection: of a shard, the sum over the ranks. */
static void block_projection(const mr_layer *layer, const mr_layer_call *call, const block *v,
                             const char *weight, const char *bias, const mr_tensor *x,
                             mr_tensor *y) {
    mr_tensor x_rows = mr_layer_rows(x);
    mr_tensor part = mr_layer_sum_begin(layer, call, y);
    v->ops->linear_forward(v->device, &x_rows, mr_layer_parameter(layer, weight),
                           mr_layer_sum_bias(layer, call, mr_layer_parameter(layer, bias)), &part);
    mr_layer_sum_end(layer, call, &part, y);
}

/* dx = dy w. */
static void block_projection_input(const mr_layer *layer, const block *v, const char *weight,
                                   const mr_tensor *dy, mr_tensor *dx) {
    mr_tensor dy_rows = mr_layer_rows(dy);
    mr_tensor dx_rows = mr_layer_rows(dx);
    v->ops->linear_backward_input(v->device, &dy_rows, mr_layer_parameter(layer, weight), &dx_rows);
}

/* The same of what reads a norm's output: of a shard, the sum over the ranks. */
static void block_linear_input(const mr_layer *layer, const mr_layer_call *call, const block *v,
                               const char *weight, const mr_tensor *dy, mr_tensor *dx) {
    mr_tensor dy_rows = mr_layer_rows(dy);
    mr_tensor part = mr_layer_sum_begin(layer, call, dx);
    v->ops->linear_backward_input(v->device, &dy_rows, mr_layer_parameter(layer, weight), &part);
    mr_layer_sum_end(layer, call, &part, dx);
}

static void block_linear_weight(const mr_layer *layer, const block *v, const char *weight,
                                const char *bias, const mr_tensor *dy, const mr_tensor *x) {
    mr_tensor dy_rows = mr_layer_rows(dy);
    mr_tensor x_rows = mr_layer_rows(x);
    v->ops->linear_backward_weight(v->device, &dy_rows, &x_rows, mr_layer_gradient(layer, weight),
                                   mr_layer_gradient(layer, bias));
}

/* Every head has the mask that it has in the whole block. */
static mr_dropout block_attention_mask(const mr_layer *layer, const mr_layer_call *call,
                                       const block *v) {
    mr_dropout mask = mr_layer_mask(layer, call, MR_DROPOUT_SITE_ATTENTION);
    if (!mr_layer_spec_is_shard(layer->spec))
        return mask;
    uint64_t plane = (uint64_t)v->T * v->T; /* of one head of one sequence */
    mask.run = v->NH * plane;
    mask.stride = layer->spec->heads * plane;
    mask.first = layer->spec->model_rank * mask.run; /* the width divides the heads */
    return mask;
}

/* y first holds attn.proj's output, then mlp.proj's, and last their sum: no buffer besides. */
static void block_forward(const mr_layer *layer, const mr_layer_call *call, const mr_tensor *x,
                          mr_tensor *y) {
    block v = block_bind(layer, call, NULL);
    float eps = (float)layer->spec->eps;
    mr_dropout on_attention = block_attention_mask(layer, call, &v);
    mr_dropout on_attn_branch = mr_layer_mask(layer, call, MR_DROPOUT_SITE_ATTN_BRANCH);
    mr_dropout on_mlp_branch = mr_layer_mask(layer, call, MR_DROPOUT_SITE_MLP_BRANCH);
    mr_tensor x_rows = mr_layer_rows(x);
    mr_tensor y_rows = mr_layer_rows(y);
    MR_ASSERT(x->data != y->data);

    v.ops->layernorm_forward(v.device, &x_rows, mr_layer_parameter(layer, "ln_1.weight"),
                             mr_layer_parameter(layer, "ln_1.bias"), eps, &v.ln_1_out,
                             &v.ln_1_mean, &v.ln_1_rstd);
    block_linear(layer, &v, "attn.qkv.weight", "attn.qkv.bias", &v.ln_1_out, &v.qkv);
    v.ops->attention_forward(v.device, &v.qkv, v.NH, layer->spec->causal,
                             &on_attention, &v.attn_out, &v.attn_lse);
    block_projection(layer, call, &v, "attn.proj.weight", "attn.proj.bias", &v.attn_out, &y_rows);
    v.ops->residual_layernorm_forward(
        v.device, &x_rows, &y_rows, &on_attn_branch, mr_layer_parameter(layer, "ln_2.weight"),
        mr_layer_parameter(layer, "ln_2.bias"), eps, &v.residual, &v.ln_2_out, &v.ln_2_mean,
        &v.ln_2_rstd);
    block_linear(layer, &v, "mlp.fc.weight", "mlp.fc.bias", &v.ln_2_out, &v.fc);
    v.ops->pointwise_forward(v.device, MR_POINTWISE_GELU_TANH, &v.fc, &v.activated);
    block_projection(layer, call, &v, "mlp.proj.weight", "mlp.proj.bias", &v.activated, &y_rows);
    v.ops->add(v.device, &v.residual, &y_rows, &on_mlp_branch, &y_rows);
}

/* The gradient that enters mlp.proj: without dropout it is dy itself and takes no memory. */
static mr_tensor block_d_mlp_proj(const mr_layer *layer, const block *v, const mr_tensor *dy) {
    return layer->spec->dropout > 0 ? v->d_mlp_proj : mr_layer_rows(dy);
}

static void block_backward_input(const mr_layer *layer, const mr_layer_call *call,
                                 const mr_tensor *x, const mr_tensor *dy, mr_tensor *dx) {
    block v = block_bind(layer, call, call->retained);
    mr_dropout on_attention = block_attention_mask(layer, call, &v);
    mr_dropout on_attn_branch = mr_layer_mask(layer, call, MR_DROPOUT_SITE_ATTN_BRANCH);
    mr_dropout on_mlp_branch = mr_layer_mask(layer, call, MR_DROPOUT_SITE_MLP_BRANCH);
    mr_tensor dy_rows = mr_layer_rows(dy);
    mr_tensor d_mlp_proj = block_d_mlp_proj(layer, &v, dy);

    if (layer->spec->dropout > 0)
        v.ops->dropout(v.device, &on_mlp_branch, &dy_rows, &d_mlp_proj);
    block_projection_input(layer, &v, "mlp.proj.weight", &d_mlp_proj, &v.d_fc);
    v.ops->pointwise_backward(v.device, MR_POINTWISE_GELU_TANH, &v.fc, &v.d_fc, &v.d_fc);
    block_linear_input(layer, call, &v, "mlp.fc.weight", &v.d_fc, &v.d_ln_2_out);
    v.ops->layernorm_backward_input(v.device, &v.d_ln_2_out, &v.residual,
                                    mr_layer_parameter(layer, "ln_2.weight"), &v.ln_2_mean,
                                    &v.ln_2_rstd, &dy_rows, &v.d_residual);
    if (layer->spec->dropout > 0)
        v.ops->dropout(v.device, &on_attn_branch, &v.d_residual, &v.d_attn_proj);
    block_projection_input(layer, &v, "attn.proj.weight", &v.d_attn_proj, &v.d_attn_out);
    v.ops->attention_backward(v.device, &v.d_attn_out, &v.qkv, &v.attn_out, &v.attn_lse,
                              v.NH, layer->spec->causal, &on_attention, &v.d_qkv);
    block_linear_input(layer, call, &v, "attn.qkv.weight", &v.d_qkv, &v.d_ln_1_out);
    if (dx == NULL)
        return;
    mr_tensor x_rows = mr_layer_rows(x);
    mr_tensor dx_rows = mr_layer_rows(dx);
    v.ops->layernorm_backward_input(v.device, &v.d_ln_1_out, &x_rows,
                                    mr_layer_parameter(layer, "ln_1.weight"), &v.ln_1_mean,
                                    &v.ln_1_rstd, &v.d_residual, &dx_rows);
}

static void block_backward_weight(const mr_layer *layer, const mr_layer_call *call,
                                  const mr_tensor *x, const mr_tensor *dy) {
    block v = block_bind(layer, call, call->retained);
    mr_tensor x_rows = mr_layer_rows(x);
    mr_tensor d_mlp_proj = block_d_mlp_proj(layer, &v, dy);

    block_linear_weight(layer, &v, "mlp.proj.weight", "mlp.proj.bias", &d_mlp_proj, &v.activated);
    block_linear_weight(layer, &v, "mlp.fc.weight", "mlp.fc.bias", &v.d_fc, &v.ln_2_out);
    v.ops->layernorm_backward_weight(v.device, &v.d_ln_2_out, &v.residual, &v.ln_2_mean,
                                     &v.ln_2_rstd, mr_layer_gradient(layer, "ln_2.weight"),
                                     mr_layer_gradient(layer, "ln_2.bias"));
    block_linear_weight(layer, &v, "attn.proj.weight", "attn.proj.bias", &v.d_attn_proj,
                        &v.attn_out);
    block_linear_weight(layer, &v, "attn.qkv.weight", "attn.qkv.bias", &v.d_qkv, &v.ln_1_out);
    v.ops->layernorm_backward_weight(v.device, &v.d_ln_1_out, &x_rows, &v.ln_1_mean, &v.ln_1_rstd,
                                     mr_layer_gradient(layer, "ln_1.weight"),
                                     mr_layer_gradient(layer, "ln_1.bias"));
}

const mr_layer_functions mr_layer_transformer_block = {
    .forward = block_forward,
    .backward_input = block_backward_input,
    .backward_weight = block_backward_weight,
};
