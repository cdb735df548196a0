/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a gradient that nobody wants (NULL: its parameter is frozen) is not computed, and the one
 * beside it has the bits that it has otherwise.
 * Method: every device, once with both gradients and once with each alone. */
#include "tests/contract/device/bench.h"

#include <string.h>

static void assert_same(bench *b, bench_tensor *alone, bench_tensor *beside) {
    bench_fetch(b, alone);
    bench_fetch(b, beside);
    assert_memory_equal(alone->host, beside->host, alone->n * sizeof(*alone->host));
}

/* Two f32 tensors of the same numbers. */
static void same_start(bench *b, bench_tensor *one, bench_tensor *other) {
    memcpy(other->host, one->host, one->n * sizeof(*one->host));
    bench_push(b, other);
}

static void linear_case(bench *b, size_t R, size_t OUT, size_t IN) {
    bench_tensor x = bench_random(b, 1, R, IN, 0);
    bench_tensor dy = bench_random(b, 1, R, OUT, 0);
    bench_tensor dw = bench_random_f32(b, 1, OUT, IN, 0);
    bench_tensor dbias = bench_random_f32(b, 1, OUT, 0, 0);
    bench_tensor dw_alone = bench_poison_f32(b, OUT, IN, 0);
    bench_tensor dbias_alone = bench_poison_f32(b, OUT, 0, 0);
    same_start(b, &dw, &dw_alone);
    same_start(b, &dbias, &dbias_alone);
    b->ops->linear_backward_weight(b->device, &dy.on, &x.on, &dw.on, &dbias.on);
    b->ops->linear_backward_weight(b->device, &dy.on, &x.on, NULL, &dbias_alone.on);
    b->ops->linear_backward_weight(b->device, &dy.on, &x.on, &dw_alone.on, NULL);
    b->ops->linear_backward_weight(b->device, &dy.on, &x.on, NULL, NULL);
    assert_same(b, &dw_alone, &dw);
    assert_same(b, &dbias_alone, &dbias);
}

static void embedding_case(bench *b, size_t B, size_t T, size_t C, size_t V) {
    bench_tensor tokens = bench_integers(b, (int32_t)V, B, T);
    bench_tensor dy = bench_random(b, 1, B, T, C);
    bench_tensor dwte = bench_random_f32(b, 1, V, C, 0);
    bench_tensor dwpe = bench_random_f32(b, 1, T, C, 0);
    bench_tensor dwte_alone = bench_poison_f32(b, V, C, 0);
    bench_tensor dwpe_alone = bench_poison_f32(b, T, C, 0);
    same_start(b, &dwte, &dwte_alone);
    same_start(b, &dwpe, &dwpe_alone);
    b->ops->embedding_backward(b->device, &tokens.on, &dy.on, &dwte.on, &dwpe.on);
    b->ops->embedding_backward(b->device, &tokens.on, &dy.on, NULL, &dwpe_alone.on);
    b->ops->embedding_backward(b->device, &tokens.on, &dy.on, &dwte_alone.on, NULL);
    assert_same(b, &dwte_alone, &dwte);
    assert_same(b, &dwpe_alone, &dwpe);
}

static void test_a_gradient_alone_has_the_bits_that_it_has_beside_another(void **state) {
    (void)state;
    for (size_t row = 0; row < bench_row_count; row++) {
        bench b;
        if (!bench_open(&b, &bench_rows[row]))
            continue;
        linear_case(&b, 67, 33, 19);
        linear_case(&b, 5, 1, 3);
        embedding_case(&b, 3, 7, 13, 11);
        bench_close(&b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_gradient_alone_has_the_bits_that_it_has_beside_another),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
