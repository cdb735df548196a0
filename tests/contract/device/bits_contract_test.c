/* SPDX-License-Identifier: Apache-2.0 */
/* Goal (law 1): every operation gives the same bits for any number of threads, at any address, and
 * when it is run again.
 * Method: one script runs every operation once, on sizes that give several tasks and tails, and
 * gathers every output, once with f32 and once with bf16 activations; its bytes are compared
 * between 1, 2, 3 and 5 threads, and between aligned tensors and tensors off by one float. */
#include "tests/contract/device/bench.h"

#include <stdlib.h>
#include <string.h>

enum { B = 2, T = 147, C = 100, NH = 5, V = 77, F = 450, R = B * T, OUTPUTS_MAX = 64 };

/* Every output of the script, in order. */
typedef struct outputs {
    size_t count;
    bench_tensor tensors[OUTPUTS_MAX];
    double scalars[8];
    size_t scalar_count;
} outputs;

static bench_tensor *keep(outputs *o, bench_tensor t) {
    assert_true(o->count < OUTPUTS_MAX);
    o->tensors[o->count] = t;
    return &o->tensors[o->count++];
}

static void script_linear(bench *b, outputs *o, bench_tensor *x) {
    bench_tensor w = bench_random(b, 1.0f, F, C, 0);
    bench_tensor bias = bench_random_f32(b, 1.0f, F, 0, 0);
    bench_tensor *y = keep(o, bench_poison(b, R, F, 0));
    bench_tensor *dx = keep(o, bench_poison(b, R, C, 0));
    bench_tensor *dw = keep(o, bench_random_f32(b, 1.0f, F, C, 0));
    bench_tensor *dbias = keep(o, bench_random_f32(b, 1.0f, F, 0, 0));
    b->ops->linear_forward(b->device, &x->on, &w.on, &bias.on, &y->on);
    b->ops->linear_backward_input(b->device, &y->on, &w.on, &dx->on);
    b->ops->linear_backward_weight(b->device, &y->on, &x->on, &dw->on, &dbias->on);
}

static void script_norm(bench *b, outputs *o, const mr_dropout *dropout, bench_tensor *x) {
    bench_tensor branch = bench_random(b, 1.0f, R, C, 0);
    bench_tensor w = bench_random_f32(b, 1.0f, C, 0, 0);
    bench_tensor shift = bench_random_f32(b, 1.0f, C, 0, 0);
    bench_tensor *sum = keep(o, bench_poison(b, R, C, 0));
    bench_tensor *y = keep(o, bench_poison(b, R, C, 0));
    bench_tensor *mean = keep(o, bench_poison_f32(b, R, 0, 0));
    bench_tensor *rstd = keep(o, bench_poison_f32(b, R, 0, 0));
    bench_tensor *dx = keep(o, bench_poison(b, R, C, 0));
    bench_tensor *dw = keep(o, bench_random_f32(b, 1.0f, C, 0, 0));
    bench_tensor *db = keep(o, bench_random_f32(b, 1.0f, C, 0, 0));
    b->ops->layernorm_forward(b->device, &x->on, &w.on, &shift.on, 1e-5f, &y->on, &mean->on,
                              &rstd->on);
    b->ops->residual_layernorm_forward(b->device, &y->on, &branch.on, dropout, &w.on, &shift.on,
                                       1e-5f, &sum->on, &y->on, &mean->on, &rstd->on);
    b->ops->layernorm_backward_input(b->device, &branch.on, &sum->on, &w.on, &mean->on, &rstd->on,
                                     &x->on, &dx->on);
    b->ops->layernorm_backward_weight(b->device, &branch.on, &sum->on, &mean->on, &rstd->on,
                                      &dw->on, &db->on);
}

static void script_attention(bench *b, outputs *o, const mr_dropout *dropout) {
    bench_tensor qkv = bench_random(b, 1.0f, B, T, 3 * C);
    bench_tensor dout = bench_random(b, 1.0f, B, T, C);
    for (int causal = 0; causal <= 1; causal++) {
        bench_tensor *out = keep(o, bench_poison(b, B, T, C));
        bench_tensor *lse = keep(o, bench_poison_f32(b, B, NH, T));
        bench_tensor *dqkv = keep(o, bench_poison(b, B, T, 3 * C));
        b->ops->attention_forward(b->device, &qkv.on, NH, causal, dropout, &out->on, &lse->on);
        b->ops->attention_backward(b->device, &dout.on, &qkv.on, &out->on, &lse->on, NH, causal,
                                   dropout, &dqkv->on);
    }
}

static void script_elements(bench *b, outputs *o, const mr_dropout *dropout, bench_tensor *x) {
    bench_tensor other = bench_random(b, 1.0f, R, C, 0);
    bench_tensor summand = bench_random_f32(b, 1.0f, R, C, 0);
    for (int kind = 0; kind < MR_POINTWISE_COUNT; kind++) {
        bench_tensor *y = keep(o, bench_poison(b, R, C, 0));
        bench_tensor *dx = keep(o, bench_poison(b, R, C, 0));
        b->ops->pointwise_forward(b->device, (mr_pointwise)kind, &x->on, &y->on);
        b->ops->pointwise_backward(b->device, (mr_pointwise)kind, &x->on, &other.on, &dx->on);
    }
    bench_tensor *dropped = keep(o, bench_poison(b, R, C, 0));
    bench_tensor *sum = keep(o, bench_poison(b, R, C, 0));
    bench_tensor *total = keep(o, bench_random_f32(b, 1.0f, R, C, 0));
    b->ops->dropout(b->device, dropout, &x->on, &dropped->on);
    b->ops->add(b->device, &x->on, &other.on, dropout, &sum->on);
    bench_tensor *narrow = keep(o, bench_poison(b, R, C, 0));
    b->ops->accumulate(b->device, &total->on, &summand.on);
    b->ops->cast(b->device, &summand.on, &narrow->on);
}

static void script_loss(bench *b, outputs *o, bench_tensor *x) {
    bench_tensor tokens = bench_integers(b, V, B, T);
    bench_tensor labels = bench_integers(b, C, R, 0);
    bench_tensor wte = bench_random(b, 1.0f, V, C, 0);
    bench_tensor wpe = bench_random(b, 1.0f, T, C, 0);
    bench_tensor target = bench_random_f32(b, 1.0f, R, C, 0);
    bench_tensor *y = keep(o, bench_poison(b, B, T, C));
    bench_tensor *dwte = keep(o, bench_random_f32(b, 1.0f, V, C, 0));
    bench_tensor *dwpe = keep(o, bench_random_f32(b, 1.0f, T, C, 0));
    bench_tensor *dlogits = keep(o, bench_poison(b, R, C, 0));
    bench_tensor *dy = keep(o, bench_poison(b, R, C, 0));
    double *entropy = bench_scalar(b, 0.0);
    double *error = bench_scalar(b, 0.0);
    double *squares = bench_scalar(b, 0.0);
    b->ops->embedding_forward(b->device, &tokens.on, &wte.on, &wpe.on, &y->on);
    b->ops->embedding_backward(b->device, &tokens.on, &y->on, &dwte->on, &dwpe->on);
    b->ops->cross_entropy(b->device, &x->on, &labels.on, 0.1f, &dlogits->on, entropy);
    b->ops->mean_squared_error(b->device, &x->on, &target.on, 0.1f, &dy->on, error);
    b->ops->sum_of_squares(b->device, &target.on, squares);
    o->scalars[o->scalar_count++] = bench_scalar_fetch(b, entropy);
    o->scalars[o->scalar_count++] = bench_scalar_fetch(b, error);
    o->scalars[o->scalar_count++] = bench_scalar_fetch(b, squares);
}

static void script_adamw(bench *b, outputs *o) {
    bench_tensor gradient = bench_random_f32(b, 1.0f, R, C, 0);
    bench_tensor *p = keep(o, bench_random_f32(b, 1.0f, R, C, 0));
    bench_tensor *m = keep(o, bench_random_f32(b, 1.0f, R, C, 0));
    bench_tensor *v = keep(o, bench_random_f32(b, 0.0f, R, C, 0));
    mr_adamw options = {.lr = 1e-3f,
                        .beta1 = 0.9f,
                        .beta2 = 0.95f,
                        .eps = 1e-8f,
                        .weight_decay = 0.1f,
                        .gradient_scale = 0.7f,
                        .bias_correction1 = 0.1f,
                        .bias_correction2 = 0.05f};
    b->ops->adamw(b->device, &options, &gradient.on, &p->on, &m->on, &v->on);
}

static void script_other_optimizers(bench *b, outputs *o) {
    bench_tensor gradient = bench_random_f32(b, 1.0f, R, C, 0);
    mr_adamw adam = {.lr = 1e-3f,
                     .beta1 = 0.9f,
                     .beta2 = 0.95f,
                     .eps = 1e-8f,
                     .weight_decay = 0.1f,
                     .gradient_scale = 0.7f,
                     .bias_correction1 = 0.1f,
                     .bias_correction2 = 0.05f};
    mr_sgd sgd = {.lr = 1e-3f,
                  .momentum = 0.9f,
                  .weight_decay = 0.1f,
                  .gradient_scale = 0.7f,
                  .nesterov = true};
    mr_lion lion = {
        .lr = 1e-3f, .beta1 = 0.9f, .beta2 = 0.99f, .weight_decay = 0.1f, .gradient_scale = 0.7f};
    bench_tensor *p = keep(o, bench_random_f32(b, 1.0f, R, C, 0));
    bench_tensor *m = keep(o, bench_random_f32(b, 1.0f, R, C, 0));
    bench_tensor *v = keep(o, bench_random_f32(b, 0.0f, R, C, 0));
    if (b->ops->adam != NULL)
        b->ops->adam(b->device, &adam, &gradient.on, &p->on, &m->on, &v->on);
    if (b->ops->sgd != NULL)
        b->ops->sgd(b->device, &sgd, &gradient.on, &p->on, &m->on);
    if (b->ops->lion != NULL)
        b->ops->lion(b->device, &lion, &gradient.on, &p->on, &m->on);
}

static void script_run(bench *b, outputs *o) {
    mr_dropout dropout = {.key = mr_random_key_make(1, MR_RANDOM_DROPOUT, 2, 3, 4),
                          .probability = 0.1f};
    bench_tensor x = bench_random(b, 1.0f, R, C, 0);
    memset(o, 0, sizeof(*o));
    script_linear(b, o, &x);
    script_norm(b, o, &dropout, &x);
    script_attention(b, o, &dropout);
    script_elements(b, o, &dropout, &x);
    script_loss(b, o, &x);
    script_adamw(b, o);
    script_other_optimizers(b, o);
    for (size_t i = 0; i < o->count; i++)
        bench_fetch(b, &o->tensors[i]);
}

static void expect_equal(const outputs *a, const outputs *b, const char *what, int number) {
    assert_int_equal(a->count, b->count);
    for (size_t i = 0; i < a->count; i++)
        if (memcmp(a->tensors[i].host, b->tensors[i].host, a->tensors[i].n * 4) != 0)
            fail_msg("output %zu differs with %s %d", i, what, number);
    assert_memory_equal(a->scalars, b->scalars, sizeof(a->scalars));
}

static void test_any_number_of_threads_gives_the_same_bits(void **state) {
    (void)state;
    static const int threads[] = {1, 2, 3, 5};
    for (size_t row = 0; row < bench_row_count; row++) {
        bench first;
        outputs expected;
        if (bench_rows[row].threads != 1 || !bench_open(&first, &bench_rows[row]))
            continue;
        script_run(&first, &expected);
        for (size_t i = 0; i < 4; i++) {
            bench b;
            outputs o;
            bench_row other = bench_rows[row];
            other.threads = threads[i];
            assert_true(bench_open(&b, &other));
            script_run(&b, &o);
            expect_equal(&expected, &o, "threads:", threads[i]);
            bench_close(&b);
        }
        bench_close(&first);
    }
}

static void test_any_address_gives_the_same_bits(void **state) {
    (void)state;
    for (size_t row = 0; row < bench_row_count; row++) {
        bench first;
        bench skewed;
        outputs expected;
        outputs o;
        if (bench_rows[row].aligned || !bench_open(&first, &bench_rows[row]))
            continue;
        assert_true(bench_open(&skewed, &bench_rows[row]));
        skewed.skew = 4;
        script_run(&first, &expected);
        script_run(&skewed, &o);
        expect_equal(&expected, &o, "bytes off:", 4);
        bench_close(&first);
        bench_close(&skewed);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_number_of_threads_gives_the_same_bits),
        cmocka_unit_test(test_any_address_gives_the_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
