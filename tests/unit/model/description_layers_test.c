/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: every layer type's description is DESIGN section 4's table: parameter names, shapes and
 * order, initial values, decay, cut; output shape; bytes kept; flops. And the memory layouts add
 * up. Method: descriptions for sizes that make every product distinct, against values written
 * out. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/model/description.h"
#include "daemon/model/norm_layout.h"
#include "daemon/model/transformer_block_layout.h"

enum { B = 3, T = 5, C = 8, NH = 4, F = 24, V = 7, BLOCKS = 2, N = B * T };

typedef struct row {
    const char *name;
    size_t rows;
    size_t columns; /* 0: a vector */
    mr_init init;
    mr_model_cut cut;
} row;

static const mr_shape tokens = {.dtype = MR_DTYPE_I32, .dim_count = 2, .dims = {B, T}};
static const mr_shape hidden = {
    .dtype = MR_DTYPE_F32, .dim_count = 3, .dims = {B, T, C}, .needs_gradient = true};

static mr_layer_spec block_spec(void) {
    return (mr_layer_spec){.type = MR_LAYER_TYPE_TRANSFORMER_BLOCK,
                           .dim = C,
                           .heads = NH,
                           .kv_heads = NH,
                           .ffn = F,
                           .bias = true,
                           .causal = true,
                           .eps = 1e-5};
}

static mr_layer_description describe(const mr_layer_spec *spec, const mr_shape *input) {
    mr_layer_description d;
    mr_status status = mr_layer_describe(spec, input, BLOCKS, &d);
    if (!mr_status_is_ok(status))
        fail_msg("%s", status.text);
    return d;
}

static void check_parameters(const mr_layer_description *d, const row *rows, size_t count) {
    size_t elements = 0;
    assert_int_equal(d->parameter_count, count);
    for (size_t i = 0; i < count; i++) {
        const mr_parameter *p = &d->parameters[i];
        assert_string_equal(p->name, rows[i].name);
        assert_int_equal(p->shape.dtype, MR_DTYPE_F32);
        assert_int_equal(p->shape.dims[0], rows[i].rows);
        assert_int_equal(p->shape.dim_count, rows[i].columns > 0 ? 2 : 1);
        if (rows[i].columns > 0)
            assert_int_equal(p->shape.dims[1], rows[i].columns);
        assert_true(p->decay == (rows[i].columns > 0));
        assert_int_equal(p->init, rows[i].init);
        assert_int_equal(p->cut, rows[i].cut);
        double deviation = rows[i].init == MR_INIT_NORMAL            ? 0.02
                           : rows[i].init == MR_INIT_NORMAL_RESIDUAL ? 0.02 / sqrt(2.0 * BLOCKS)
                                                                     : 0;
        assert_true(p->init_deviation == deviation);
        elements += rows[i].rows * (rows[i].columns > 0 ? rows[i].columns : 1);
    }
    assert_int_equal(d->parameter_elements, elements);
}

static void check_flops(const mr_layer_description *d, double forward, double input,
                        double weight) {
    assert_true(d->flops_forward == forward);
    assert_true(d->flops_backward_input == input);
    assert_true(d->flops_backward_weight == weight);
}

static void check_nothing_kept(const mr_layer_description *d) {
    assert_int_equal(d->saved_bytes, 0);
    assert_int_equal(d->retained_bytes, 0);
    assert_int_equal(d->scratch_bytes, 0);
}

static size_t padded_bytes(size_t bytes) {
    return (bytes + 63) / 64 * 64;
}

static size_t padded(size_t floats) {
    return padded_bytes(floats * 4);
}

#define ROWS(rows) rows, sizeof(rows) / sizeof((rows)[0])

static void test_embedding(void **state) {
    static const row rows[] = {
        {"wte.weight", V, C, MR_INIT_NORMAL, MR_MODEL_CUT_ROWS},
        {"wpe.weight", 9, C, MR_INIT_NORMAL, MR_MODEL_CUT_NONE},
    };
    mr_layer_spec spec = {.type = MR_LAYER_TYPE_EMBEDDING, .vocab = V, .dim = C, .positions = 9};
    (void)state;
    mr_layer_description d = describe(&spec, &tokens);
    check_parameters(&d, ROWS(rows));
    assert_false(d.parameters[0].tied);
    assert_true(mr_shape_equal(&d.output, &hidden));
    assert_true(d.output.needs_gradient);
    check_nothing_kept(&d);
    check_flops(&d, N * C, 0, N * C);
    spec.positions = 0;
    (void)snprintf(spec.tie, sizeof(spec.tie), "embed");
    d = describe(&spec, &tokens);
    check_parameters(&d, rows, 1);
    assert_true(d.parameters[0].tied);
}

static void test_gpt2_block(void **state) {
    static const row rows[] = {
        {"ln_1.weight", C, 0, MR_INIT_ONE, MR_MODEL_CUT_NONE},
        {"ln_1.bias", C, 0, MR_INIT_ZERO, MR_MODEL_CUT_NONE},
        {"attn.qkv.weight", 3 * C, C, MR_INIT_NORMAL, MR_MODEL_CUT_ROWS},
        {"attn.qkv.bias", 3 * C, 0, MR_INIT_ZERO, MR_MODEL_CUT_ROWS},
        {"attn.proj.weight", C, C, MR_INIT_NORMAL_RESIDUAL, MR_MODEL_CUT_COLUMNS},
        {"attn.proj.bias", C, 0, MR_INIT_ZERO, MR_MODEL_CUT_NONE},
        {"ln_2.weight", C, 0, MR_INIT_ONE, MR_MODEL_CUT_NONE},
        {"ln_2.bias", C, 0, MR_INIT_ZERO, MR_MODEL_CUT_NONE},
        {"mlp.fc.weight", F, C, MR_INIT_NORMAL, MR_MODEL_CUT_ROWS},
        {"mlp.fc.bias", F, 0, MR_INIT_ZERO, MR_MODEL_CUT_ROWS},
        {"mlp.proj.weight", C, F, MR_INIT_NORMAL_RESIDUAL, MR_MODEL_CUT_COLUMNS},
        {"mlp.proj.bias", C, 0, MR_INIT_ZERO, MR_MODEL_CUT_NONE},
    };
    mr_layer_spec spec = block_spec();
    (void)state;
    mr_layer_description d = describe(&spec, &hidden);
    check_parameters(&d, ROWS(rows));
    assert_true(mr_shape_equal(&d.output, &hidden));
    assert_int_equal(d.saved_bytes, 4 * padded(N * C)         /* two norms, attention, residual */
                                        + 4 * padded(N)       /* their means and rstds */
                                        + padded(N * 3 * C)   /* qkv */
                                        + padded(N * NH)      /* log-sum-exp */
                                        + 2 * padded(N * F)); /* fc, activated */
    assert_int_equal(d.retained_bytes, 3 * padded(N * C) + padded(N * 3 * C) + padded(N * F));
    assert_int_equal(d.scratch_bytes, 0);
    double products = 2.0 * N * (3 * C * C + C * C + 2 * C * F);
    check_flops(&d, products + 2.0 * N * T * C, products + 5.0 * N * T * C, products);
    spec.dropout = 0.5;
    d = describe(&spec, &hidden);
    assert_int_equal(d.retained_bytes, 5 * padded(N * C) + padded(N * 3 * C) + padded(N * F));
    spec.causal = false;
    d = describe(&spec, &hidden);
    check_flops(&d, products + 4.0 * N * T * C, products + 10.0 * N * T * C, products);
}

/* bf16 halves what is kept but for statistics; parameters are described as they are in fp32. */
static void test_bf16_block_keeps_half(void **state) {
    mr_shape narrow = hidden;
    mr_layer_spec spec = block_spec();
    (void)state;
    mr_layer_description wide = describe(&spec, &hidden);
    narrow.dtype = MR_DTYPE_BF16;
    spec.precision = MR_DTYPE_BF16;
    mr_layer_description d = describe(&spec, &narrow);
    assert_true(mr_shape_equal(&d.output, &narrow));
    assert_false(d.casts_input);
    assert_int_equal(d.saved_bytes, 4 * padded_bytes(2 * N * C) + 4 * padded(N) +
                                        padded_bytes(2 * N * 3 * C) + padded(N * NH) +
                                        2 * padded_bytes(2 * N * F));
    assert_int_equal(d.retained_bytes, 3 * padded_bytes(2 * N * C) +
                                           padded_bytes(2 * N * 3 * C) +
                                           padded_bytes(2 * N * F));
    assert_int_equal(d.parameter_count, wide.parameter_count);
    for (size_t i = 0; i < d.parameter_count; i++) {
        const mr_parameter *p = &d.parameters[i];
        assert_true(mr_shape_equal(&p->shape, &wide.parameters[i].shape));
        assert_int_equal(mr_parameter_compute_dtype(p, MR_DTYPE_BF16),
                         p->shape.dim_count == 2 ? MR_DTYPE_BF16 : MR_DTYPE_F32);
        assert_int_equal(mr_parameter_compute_dtype(p, MR_DTYPE_F32), MR_DTYPE_F32);
    }
}

/* A feed's numbers are f32; the layer that takes them keeps a copy in its own type. */
static void test_bf16_layer_keeps_a_cast_copy_of_f32_input(void **state) {
    mr_shape input = {.dtype = MR_DTYPE_F32, .dim_count = 2, .dims = {N, C}};
    mr_layer_spec spec = {.type = MR_LAYER_TYPE_LAYERNORM, .dim = C, .eps = 1e-5,
                          .precision = MR_DTYPE_BF16};
    (void)state;
    mr_layer_description d = describe(&spec, &input);
    assert_true(d.casts_input);
    assert_int_equal(d.input_cast, 2 * padded(N));
    assert_int_equal(d.saved_bytes, 2 * padded(N) + padded_bytes(2 * N * C));
    assert_int_equal(d.output.dtype, MR_DTYPE_BF16);
    spec = (mr_layer_spec){.type = MR_LAYER_TYPE_EMBEDDING, .vocab = V, .dim = C,
                           .precision = MR_DTYPE_BF16};
    d = describe(&spec, &tokens);
    assert_false(d.casts_input);
    assert_int_equal(d.saved_bytes, 0);
    assert_int_equal(d.output.dtype, MR_DTYPE_BF16);
}

static void test_llama_block(void **state) {
    static const row rows[] = {
        {"ln_1.weight", C, 0, MR_INIT_ONE, MR_MODEL_CUT_NONE},
        {"attn.qkv.weight", 2 * C, C, MR_INIT_NORMAL, MR_MODEL_CUT_ROWS},
        {"attn.proj.weight", C, C, MR_INIT_NORMAL_RESIDUAL, MR_MODEL_CUT_COLUMNS},
        {"ln_2.weight", C, 0, MR_INIT_ONE, MR_MODEL_CUT_NONE},
        {"mlp.gate_up.weight", 2 * F, C, MR_INIT_NORMAL, MR_MODEL_CUT_ROWS},
        {"mlp.proj.weight", C, F, MR_INIT_NORMAL_RESIDUAL, MR_MODEL_CUT_COLUMNS},
    };
    mr_layer_spec spec = block_spec();
    (void)state;
    spec.kv_heads = 2; /* K and V have half of Q's rows each */
    spec.norm = MR_NORM_RMSNORM;
    spec.activation = MR_ACTIVATION_SWIGLU;
    spec.position = MR_POSITION_ROPE;
    spec.bias = false;
    mr_layer_description d = describe(&spec, &hidden);
    check_parameters(&d, ROWS(rows));
    assert_int_equal(d.saved_bytes, 4 * padded(N * C) + 2 * padded(N) + padded(N * 2 * C) +
                                        padded(N * NH) + padded(N * 2 * F) + padded(N * F));
}

static void test_norms(void **state) {
    static const row rows[] = {
        {"weight", C, 0, MR_INIT_ONE, MR_MODEL_CUT_NONE},
        {"bias", C, 0, MR_INIT_ZERO, MR_MODEL_CUT_NONE},
    };
    mr_layer_spec spec = {.type = MR_LAYER_TYPE_LAYERNORM, .dim = C, .eps = 1e-5};
    (void)state;
    mr_layer_description d = describe(&spec, &hidden);
    check_parameters(&d, ROWS(rows));
    assert_true(mr_shape_equal(&d.output, &hidden));
    assert_int_equal(d.saved_bytes, 2 * padded(N));
    assert_int_equal(d.retained_bytes, 0);
    check_flops(&d, N * C, N * C, N * C);
    spec.type = MR_LAYER_TYPE_RMSNORM;
    d = describe(&spec, &hidden);
    check_parameters(&d, rows, 1);
    assert_int_equal(d.saved_bytes, padded(N));
}

static void test_lm_head(void **state) {
    static const row own[] = {{"weight", V, C, MR_INIT_NORMAL, MR_MODEL_CUT_ROWS}};
    static const row tied[] = {{"wte.weight", V, C, MR_INIT_NORMAL, MR_MODEL_CUT_ROWS}};
    mr_layer_spec spec = {.type = MR_LAYER_TYPE_LM_HEAD, .vocab = V, .dim = C};
    (void)state;
    mr_layer_description d = describe(&spec, &hidden);
    check_parameters(&d, ROWS(own));
    assert_false(d.parameters[0].tied);
    assert_int_equal(d.output.dim_count, 3);
    assert_int_equal(d.output.dims[2], V);
    check_nothing_kept(&d);
    check_flops(&d, 2.0 * N * V * C, 2.0 * N * V * C, 2.0 * N * V * C);
    (void)snprintf(spec.tie, sizeof(spec.tie), "embed");
    d = describe(&spec, &hidden);
    check_parameters(&d, ROWS(tied));
    assert_true(d.parameters[0].tied);
}

static void test_linear(void **state) {
    static const row plain[] = {
        {"weight", 6, C, MR_INIT_NORMAL, MR_MODEL_CUT_NONE},
        {"bias", 6, 0, MR_INIT_ZERO, MR_MODEL_CUT_NONE},
    };
    static const row column[] = {
        {"weight", 6, C, MR_INIT_NORMAL, MR_MODEL_CUT_ROWS},
        {"bias", 6, 0, MR_INIT_ZERO, MR_MODEL_CUT_ROWS},
    };
    static const row along_row[] = {{"weight", 6, C, MR_INIT_NORMAL, MR_MODEL_CUT_COLUMNS}};
    mr_layer_spec spec = {.type = MR_LAYER_TYPE_LINEAR, .in = C, .out = 6, .bias = true};
    mr_shape first = hidden;
    (void)state;
    mr_layer_description d = describe(&spec, &hidden);
    check_parameters(&d, ROWS(plain));
    assert_int_equal(d.output.dims[2], 6);
    check_nothing_kept(&d);
    check_flops(&d, 2.0 * N * 6 * C, 2.0 * N * 6 * C, 2.0 * N * 6 * C);
    spec.parallel = MR_PARALLEL_COLUMN;
    d = describe(&spec, &hidden);
    check_parameters(&d, ROWS(column));
    spec.parallel = MR_PARALLEL_ROW;
    spec.bias = false;
    first.needs_gradient = false;
    d = describe(&spec, &first);
    check_parameters(&d, ROWS(along_row));
    assert_true(d.output.needs_gradient);
    assert_true(d.flops_backward_input == 0);
}

static void test_pointwise_layers(void **state) {
    static const mr_layer_type types[] = {MR_LAYER_TYPE_RELU, MR_LAYER_TYPE_GELU,
                                          MR_LAYER_TYPE_SILU, MR_LAYER_TYPE_DROPOUT,
                                          MR_LAYER_TYPE_IDENTITY};
    mr_shape first = hidden;
    (void)state;
    first.needs_gradient = false;
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        mr_layer_spec spec = {.type = types[i]};
        mr_layer_description d = describe(&spec, &hidden);
        check_parameters(&d, NULL, 0);
        assert_true(mr_shape_equal(&d.output, &hidden));
        assert_true(d.output.needs_gradient);
        check_nothing_kept(&d);
        check_flops(&d, N * C, N * C, 0);
        d = describe(&spec, &first);
        assert_false(d.output.needs_gradient);
        assert_true(d.flops_backward_input == 0);
    }
}

static void refuse(const mr_layer_spec *spec, const mr_shape *input, const char *text) {
    mr_layer_description d;
    mr_status status = mr_layer_describe(spec, input, BLOCKS, &d);
    assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
    if (strncmp(status.text, text, strlen(text)) != 0)
        fail_msg("\"%s\" should start with \"%s\"", status.text, text);
}

static void test_misfits_are_refused(void **state) {
    mr_layer_spec spec = block_spec();
    mr_layer_spec head = {.type = MR_LAYER_TYPE_LM_HEAD, .vocab = V, .dim = C + 1};
    mr_layer_spec embedding = {.type = MR_LAYER_TYPE_EMBEDDING, .vocab = V, .dim = C,
                               .positions = T - 1};
    mr_layer_spec norm = {.type = MR_LAYER_TYPE_LAYERNORM, .dim = C};
    mr_shape flat = {.dtype = MR_DTYPE_F32, .dim_count = 2, .dims = {B, C}};
    mr_shape huge = hidden;
    (void)state;
    refuse(&spec, &flat, "the input is f32 [3, 8]; a transformer_block needs f32 [B, T, C]");
    refuse(&spec, &tokens, "the input is i32 [3, 5]; a transformer_block needs f32");
    refuse(&norm, &tokens, "the input is i32 [3, 5]; a layernorm needs f32");
    refuse(&head, &hidden, "dim is 9 but the input is f32 [3, 5, 8]; it must be 8");
    refuse(&embedding, &tokens, "positions is 4; it must be at least the sequence length, 5");
    refuse(&embedding, &flat, "the input is f32 [3, 8]; an embedding needs tokens, i32 [B, T]");
    spec.heads = 3;
    refuse(&spec, &hidden, "heads is 3; it must divide dim, which is 8");
    spec.heads = 0;
    refuse(&spec, &hidden, "heads is 0; it must divide dim, which is 8");
    spec.heads = NH;
    spec.kv_heads = 3;
    refuse(&spec, &hidden, "kv_heads is 3; it must divide heads, which is 4");
    huge.dims[0] = SIZE_MAX / 4;
    refuse(&norm, &huge, "the input f32 [4611686018427387903, 5, 8] has more bytes than can be");
    huge.dims[0] = SIZE_MAX / (T * C * 4);
    spec = block_spec();
    refuse(&spec, &huge, "a transformer_block of dim 8 and ffn 24 for");
    embedding.positions = 0;
    embedding.vocab = embedding.dim = 1 << 24;
    refuse(&embedding, &tokens, "wte.weight of 16777216 x 16777216 elements is too large");
}

static void test_layouts_are_aligned_and_disjoint(void **state) {
    mr_transformer_block_layout l;
    mr_norm_layout n;
    mr_layer_spec spec = block_spec();
    mr_layer_spec norm = {.type = MR_LAYER_TYPE_LAYERNORM, .dim = C};
    (void)state;
    spec.dropout = 0.1;
    assert_true(mr_status_is_ok(mr_transformer_block_layout_make(&spec, &hidden, &l)));
    const size_t saved[] = {l.ln_1_out, l.ln_1_mean, l.ln_1_rstd, l.qkv,       l.attn_out,
                            l.attn_lse, l.residual,  l.ln_2_out,  l.ln_2_mean, l.ln_2_rstd,
                            l.fc,       l.activated, l.saved_bytes};
    const size_t saved_floats[] = {N * C, N,     N, N * 3 * C, N * C, N * NH,
                                   N * C, N * C, N, N,         N * F, N * F};
    for (size_t i = 0; i + 1 < sizeof(saved) / sizeof(saved[0]); i++) {
        assert_int_equal(saved[i] % 64, 0);
        assert_int_equal(saved[i + 1] - saved[i], padded(saved_floats[i]));
    }
    const size_t retained[] = {l.d_mlp_proj,  l.d_fc,  l.d_ln_2_out, l.d_residual,
                               l.d_attn_proj, l.d_qkv, l.d_ln_1_out, l.retained_bytes};
    const size_t retained_floats[] = {N * C, N * F, N * C, N * C, N * C, N * 3 * C, N * C};
    for (size_t i = 0; i + 1 < sizeof(retained) / sizeof(retained[0]); i++)
        assert_int_equal(retained[i + 1] - retained[i], padded(retained_floats[i]));
    spec.dropout = 0; /* then attn.proj's gradient is the residual's */
    assert_true(mr_status_is_ok(mr_transformer_block_layout_make(&spec, &hidden, &l)));
    assert_int_equal(l.d_attn_proj, l.d_residual);
    assert_true(mr_status_is_ok(mr_norm_layout_make(&norm, &hidden, &n)));
    assert_int_equal(n.rows, N);
    assert_int_equal(n.columns, C);
    assert_int_equal(n.mean, 0);
    assert_int_equal(n.rstd, padded(N));
}

static void test_shapes_count_and_print(void **state) {
    mr_shape shape = {.dtype = MR_DTYPE_F32, .dim_count = 2, .dims = {SIZE_MAX, 2}};
    mr_shape scalar = {.dtype = MR_DTYPE_I64};
    char text[MR_SHAPE_TEXT_BYTES];
    size_t n = 77;
    (void)state;
    assert_false(mr_shape_elements(&shape, &n));
    assert_false(mr_shape_bytes(&shape, &n));
    assert_int_equal(n, 77);
    shape.dims[0] = SIZE_MAX / 4;
    assert_true(mr_shape_elements(&shape, &n));
    n = 77;
    assert_false(mr_shape_bytes(&shape, &n));
    assert_int_equal(n, 77);
    assert_true(mr_shape_elements(&scalar, &n));
    assert_int_equal(n, 1);
    assert_true(mr_shape_bytes(&scalar, &n));
    assert_int_equal(n, 8);
    assert_string_equal(mr_shape_text(&scalar, text), "i64 []");
    assert_string_equal(mr_shape_text(&hidden, text), "f32 [3, 5, 8]");
    assert_false(mr_shape_equal(&hidden, &tokens));
    shape = hidden;
    shape.needs_gradient = false;
    assert_true(mr_shape_equal(&shape, &hidden));
    shape.dims[1]++;
    assert_false(mr_shape_equal(&shape, &hidden));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_embedding),
        cmocka_unit_test(test_gpt2_block),
        cmocka_unit_test(test_bf16_block_keeps_half),
        cmocka_unit_test(test_bf16_layer_keeps_a_cast_copy_of_f32_input),
        cmocka_unit_test(test_llama_block),
        cmocka_unit_test(test_norms),
        cmocka_unit_test(test_lm_head),
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_pointwise_layers),
        cmocka_unit_test(test_misfits_are_refused),
        cmocka_unit_test(test_layouts_are_aligned_and_disjoint),
        cmocka_unit_test(test_shapes_count_and_print),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
