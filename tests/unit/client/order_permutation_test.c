/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the order of data is the formula of DESIGN without shuffling, and with it a permutation in
 * each epoch, different between epochs and seeds, and a pure function. Method: whole epochs of many
 * sizes are counted; the formula is computed again by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "client/order.h"

enum { SAMPLES_MAX = 1500 };

static void check_permutation(uint64_t samples, uint64_t seed, uint64_t epoch) {
    unsigned char seen[SAMPLES_MAX] = {0};
    for (uint64_t p = 0; p < samples; p++) {
        uint64_t k = mr_order_permute(samples, seed, epoch, p);
        assert_true(k < samples);
        assert_int_equal(seen[k], 0);
        seen[k] = 1;
    }
}

static void test_every_size_gives_a_permutation(void **state) {
    (void)state;
    for (uint64_t samples = 1; samples <= 70; samples++)
        check_permutation(samples, samples * 7, samples % 3);
    check_permutation(1023, 1, 0);
    check_permutation(1024, 1, 0);
    check_permutation(1025, 1, 0);
    check_permutation(SAMPLES_MAX, UINT64_MAX, UINT64_MAX);
}

static size_t count_equal(uint64_t samples, uint64_t seed, uint64_t epoch, uint64_t other_seed,
                          uint64_t other_epoch) {
    size_t equal = 0;
    for (uint64_t p = 0; p < samples; p++)
        equal += mr_order_permute(samples, seed, epoch, p) ==
                 mr_order_permute(samples, other_seed, other_epoch, p);
    return equal;
}

static void test_epochs_and_seeds_give_other_permutations(void **state) {
    (void)state;
    /* Two independent permutations agree in one place on average. */
    assert_true(count_equal(1000, 1, 0, 1, 1) < 12);
    assert_true(count_equal(1000, 1, 0, 2, 0) < 12);
    assert_int_equal(count_equal(1000, 1, 5, 1, 5), 1000);
}

static void test_a_permutation_is_not_near_the_identity(void **state) {
    (void)state;
    size_t fixed = 0;
    size_t neighbours = 0;
    for (uint64_t p = 0; p + 1 < 1000; p++) {
        uint64_t k = mr_order_permute(1000, 1234, 0, p);
        fixed += k == p;
        neighbours += mr_order_permute(1000, 1234, 0, p + 1) == k + 1;
    }
    assert_true(fixed < 12);
    assert_true(neighbours < 12);
}

static void test_without_shuffle_the_formula_holds(void **state) {
    (void)state;
    const mr_order order = {
        .samples = 37, .seed = 9, .replicas = 3, .micro_batches = 4, .micro_batch_size = 5};
    for (uint64_t s = 0; s < 7; s++)
        for (size_t d = 0; d < 3; d++)
            for (size_t m = 0; m < 4; m++)
                for (size_t b = 0; b < 5; b++)
                    assert_int_equal(mr_order_sample(&order, s, d, m, b),
                                     (((s * 3 + d) * 4 + m) * 5 + b) % 37);
}

static void test_with_shuffle_an_epoch_takes_every_sample_once(void **state) {
    (void)state;
    /* 5 steps x 2 replicas x 3 microbatches x 4 rows = 120 rows: 3 epochs of 40 samples. */
    const mr_order order = {.samples = 40,
                            .seed = 3,
                            .shuffle = true,
                            .replicas = 2,
                            .micro_batches = 3,
                            .micro_batch_size = 4};
    unsigned taken[40] = {0};
    uint64_t n = 0;
    for (uint64_t s = 0; s < 5; s++)
        for (size_t d = 0; d < 2; d++)
            for (size_t m = 0; m < 3; m++)
                for (size_t b = 0; b < 4; b++, n++) {
                    uint64_t k = mr_order_sample(&order, s, d, m, b);
                    assert_int_equal(k, mr_order_permute(40, 3, n / 40, n % 40));
                    assert_int_equal(taken[k]++, n / 40);
                }
}

static void test_stored_values_stay(void **state) {
    (void)state;
    /* The order is a promise to resumed runs. The values come from a second implementation, written
     * in Python from the description in order.h alone. */
    static const uint64_t expected[8] = {867, 959, 204, 922, 886, 673, 232, 705};
    for (uint64_t p = 0; p < 8; p++)
        assert_int_equal(mr_order_permute(1000, 1234, 0, p), expected[p]);
    assert_int_equal(mr_order_permute((uint64_t)1 << 40, 1, 2, 3), 1007612282764);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_size_gives_a_permutation),
        cmocka_unit_test(test_epochs_and_seeds_give_other_permutations),
        cmocka_unit_test(test_a_permutation_is_not_near_the_identity),
        cmocka_unit_test(test_without_shuffle_the_formula_holds),
        cmocka_unit_test(test_with_shuffle_an_epoch_takes_every_sample_once),
        cmocka_unit_test(test_stored_values_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
