/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the factor of fp16 gradients follows its rule: halved after hysteresis overflows, doubled
 * after window good steps, never below its least, never at all where it is fixed. Method: sequences
 * of good and bad steps, the state written down after each. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "daemon/model/loss_scale.h"

static const mr_loss_scale_rule rule = {
    .initial = 1024, .window = 3, .hysteresis = 2, .least = 256};

static void run(mr_loss_scale *state, const char *steps) {
    for (; *steps != '\0'; steps++)
        assert_true(mr_loss_scale_update(state, &rule, *steps == 'g'));
}

static void test_good_steps_in_a_row_double_it(void **context) {
    (void)context;
    mr_loss_scale state = mr_loss_scale_begin(&rule);
    run(&state, "gg");
    assert_true(state.scale == 1024);
    run(&state, "g");
    assert_true(state.scale == 2048);
    run(&state, "ggxgg"); /* the overflow starts the count again; hysteresis spares the factor */
    assert_true(state.scale == 2048);
    run(&state, "g");
    assert_true(state.scale == 4096);
}

static void test_repeated_overflows_halve_it(void **context) {
    (void)context;
    mr_loss_scale state = mr_loss_scale_begin(&rule);
    run(&state, "x");
    assert_true(state.scale == 1024);
    run(&state, "x");
    assert_true(state.scale == 512);
    run(&state, "x"); /* until good steps restore it, there is no more hysteresis */
    assert_true(state.scale == 256);
    assert_false(mr_loss_scale_update(&state, &rule, false));
    run(&state, "gggx");
    assert_true(state.scale == 512);
}

static void test_fixed_one_stays(void **context) {
    (void)context;
    const mr_loss_scale_rule fixed = {.fixed = 128, .initial = 1, .window = 1, .hysteresis = 1,
                                      .least = 1};
    mr_loss_scale state = mr_loss_scale_begin(&fixed);
    for (int i = 0; i < 10; i++) {
        assert_true(mr_loss_scale_update(&state, &fixed, i % 2 == 0));
        assert_true(state.scale == 128);
    }
}

static void test_it_does_not_grow_for_ever(void **context) {
    (void)context;
    const mr_loss_scale_rule eager = {.initial = 1, .window = 1, .hysteresis = 1, .least = 1};
    mr_loss_scale state = mr_loss_scale_begin(&eager);
    for (int i = 0; i < 2000; i++)
        assert_true(mr_loss_scale_update(&state, &eager, true));
    assert_true(state.scale == 0x1p40);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_steps_in_a_row_double_it),
        cmocka_unit_test(test_repeated_overflows_halve_it),
        cmocka_unit_test(test_fixed_one_stays),
        cmocka_unit_test(test_it_does_not_grow_for_ever),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
