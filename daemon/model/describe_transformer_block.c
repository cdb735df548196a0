/* SPDX-License-Identifier: Apache-2.0 */
/* transformer_block, pre-norm: h = x + dropout(attn.proj(attention(attn.qkv(norm_1(x))))),
 * y = h + dropout(mlp.proj(activation(mlp.fc(norm_2(h))))). GPT-2 form (Radford et al. 2019) by
 * default; rmsnorm (arXiv:1910.07467), swiglu (arXiv:2002.05202), fewer key and value heads
 * (arXiv:2305.13245) and linears without bias are described too. bias concerns the linears only: a
 * layernorm keeps its own.
 * The model axis cuts attention by heads and the other half by its F: a shard has A = NH head_dim
 * of attention's C and its share of F, and what both projections give is the sum of all shards.
 * Memory: transformer_block_layout.h. Flops: the four products, and attention's own: two products
 * of T x T x C forward, five backward, halved by causality. */
#include "daemon/model/describe.h"
#include "daemon/model/transformer_block_layout.h"

static mr_status block_check(const mr_describe_input *in) {
    const mr_layer_spec *spec = in->spec;
    char text[MR_SHAPE_TEXT_BYTES];
    if (in->input->dim_count != 3)
        return MR_ERROR(INVALID_ARGUMENT,
                        "the input is %s; a transformer_block needs f32 [B, T, C]",
                        mr_shape_text(in->input, text));
    MR_TRY(mr_describe_check_width(in, "dim", spec->dim));
    if (spec->heads == 0 || spec->dim % spec->heads != 0)
        return MR_ERROR(INVALID_ARGUMENT, "heads is %zu; it must divide dim, which is %zu",
                        spec->heads, spec->dim);
    if (spec->kv_heads == 0 || spec->heads % spec->kv_heads != 0)
        return MR_ERROR(INVALID_ARGUMENT, "kv_heads is %zu; it must divide heads, which is %zu",
                        spec->kv_heads, spec->heads);
    if (spec->ffn == 0)
        return MR_ERROR(INVALID_ARGUMENT, "ffn is 0; it must be at least 1");
    MR_TRY(mr_describe_check_divides(in, "heads", spec->heads));
    MR_TRY(mr_describe_check_divides(in, "kv_heads", spec->kv_heads));
    return mr_describe_check_divides(in, "ffn", spec->ffn);
}

static mr_status block_add_norm(const mr_describe_input *in, mr_layer_description *out,
                                const char *weight, const char *bias) {
    MR_TRY(mr_describe_add(in, out,
                           (mr_describe_parameter){weight, in->spec->dim, 0, MR_INIT_ONE,
                                                   MR_MODEL_CUT_NONE, false}));
    if (in->spec->norm == MR_NORM_RMSNORM)
        return MR_OK;
    return mr_describe_add(in, out,
                           (mr_describe_parameter){bias, in->spec->dim, 0, MR_INIT_ZERO,
                                                   MR_MODEL_CUT_NONE, false});
}

/* One linear of the block and its flops. A bias is cut with the rows it belongs to. */
static mr_status block_add_linear(const mr_describe_input *in, mr_layer_description *out,
                                  mr_describe_parameter weight, const char *bias,
                                  const mr_parameter_parts *parts) {
    mr_model_cut bias_cut =
        weight.cut == MR_MODEL_CUT_ROWS ? MR_MODEL_CUT_ROWS : MR_MODEL_CUT_NONE;
    bool by_rows = weight.cut == MR_MODEL_CUT_ROWS;
    MR_TRY(mr_describe_add(in, out, weight));
    mr_describe_parts(out, parts);
    mr_describe_add_product(in, out, by_rows ? weight.rows / in->model_width : weight.rows,
                            by_rows ? weight.columns : weight.columns / in->model_width);
    if (!in->spec->bias)
        return MR_OK;
    MR_TRY(mr_describe_add(
        in, out,
        (mr_describe_parameter){bias, weight.rows, 0, MR_INIT_ZERO, bias_cut, false}));
    if (bias_cut != MR_MODEL_CUT_NONE)
        mr_describe_parts(out, parts);
    return MR_OK;
}

mr_status mr_describe_transformer_block(const mr_describe_input *in, mr_layer_description *out) {
    mr_transformer_block_layout l;
    MR_TRY(block_check(in));
    MR_TRY(mr_transformer_block_layout_make(in->spec, in->input, &l));
    bool gated = in->spec->activation == MR_ACTIVATION_SWIGLU;
    const size_t kv_width = in->spec->kv_heads * l.head_dim;
    const size_t qkv_width = l.C + 2 * kv_width; /* of the whole block, as F is */
    const size_t F = in->spec->ffn;
    const size_t fc_width = gated ? 2 * F : F;
    const mr_parameter_parts qkv = {3, {l.C, kv_width, kv_width}, l.head_dim};
    const mr_parameter_parts heads = {.block = l.head_dim};
    const mr_parameter_parts gate_up = {2, {F, F}, 1};
    const mr_parameter_parts one = {0};
    MR_TRY(block_add_norm(in, out, "ln_1.weight", "ln_1.bias"));
    MR_TRY(block_add_linear(in, out,
                            (mr_describe_parameter){"attn.qkv.weight", qkv_width, l.C,
                                                    MR_INIT_NORMAL, MR_MODEL_CUT_ROWS, false},
                            "attn.qkv.bias", &qkv));
    MR_TRY(block_add_linear(in, out,
                            (mr_describe_parameter){"attn.proj.weight", l.C, l.C,
                                                    MR_INIT_NORMAL_RESIDUAL, MR_MODEL_CUT_COLUMNS,
                                                    false},
                            "attn.proj.bias", &heads));
    MR_TRY(block_add_norm(in, out, "ln_2.weight", "ln_2.bias"));
    MR_TRY(block_add_linear(in, out,
                            (mr_describe_parameter){gated ? "mlp.gate_up.weight" : "mlp.fc.weight",
                                                    fc_width, l.C, MR_INIT_NORMAL,
                                                    MR_MODEL_CUT_ROWS, false},
                            gated ? "mlp.gate_up.bias" : "mlp.fc.bias", gated ? &gate_up : &one));
    MR_TRY(block_add_linear(in, out,
                            (mr_describe_parameter){"mlp.proj.weight", l.C, F,
                                                    MR_INIT_NORMAL_RESIDUAL, MR_MODEL_CUT_COLUMNS,
                                                    false},
                            "mlp.proj.bias", &one));
    MR_TRY(mr_describe_output(in, out, l.C));
    MR_TRY(mr_describe_sum(in, out, l.C));
    double product = 2.0 * (double)l.N * (double)l.T * (double)l.A; /* one of T x T x A */
    if (in->spec->causal)
        product /= 2;
    out->flops_forward += 2 * product;
    out->flops_backward_input += 5 * product;
    out->saved_bytes = l.saved_bytes;
    out->retained_bytes = l.retained_bytes;
    return MR_OK;
}
