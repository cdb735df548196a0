/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the generator is Philox 4x32-10 to the bit, and its numbers are a pure function of key and
 * position. Method: the known answers that its authors publish with Random123 (kat_vectors, three
 * lines of philox4x32 10); our key puts the stream into the upper half of the counter. Normal
 * numbers: any split of a range gives the same bits, and their moments are right. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/random.h"

typedef struct known_answer {
    uint32_t counter[4];
    uint32_t key[2];
    uint32_t words[4];
} known_answer;

static const known_answer known_answers[] = {
    {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
    {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
     {0xffffffff, 0xffffffff},
     {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
    /* The digits of pi. */
    {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
     {0xa4093822, 0x299f31d0},
     {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
};

static void test_published_vectors_are_met(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(known_answers) / sizeof(known_answers[0]); i++) {
        const known_answer *answer = &known_answers[i];
        const mr_random_key key = {
            .k = {answer->key[0], answer->key[1]},
            .stream = {answer->counter[2], answer->counter[3]},
        };
        uint64_t block = (uint64_t)answer->counter[1] << 32 | answer->counter[0];
        uint32_t words[4];
        mr_random_block(&key, block, words);
        assert_memory_equal(words, answer->words, sizeof(words));
    }
}

static void test_word_is_its_place_in_its_block(void **state) {
    (void)state;
    mr_random_key key = mr_random_key_make(1234, MR_RANDOM_DROPOUT, 5, 6, 7);
    for (uint64_t index = 0; index < 40; index++) {
        uint64_t far = index + ((uint64_t)1 << 40);
        uint32_t words[4];
        mr_random_block(&key, far / 4, words);
        assert_int_equal(mr_random_word(&key, far), words[far % 4]);
    }
}

static void test_every_part_of_a_name_gives_another_stream(void **state) {
    (void)state;
    enum { NAMES = 6 };
    const mr_random_key keys[NAMES] = {
        mr_random_key_make(1, MR_RANDOM_INIT, 2, 3, 4),
        mr_random_key_make(2, MR_RANDOM_INIT, 2, 3, 4),
        mr_random_key_make(1, MR_RANDOM_DROPOUT, 2, 3, 4),
        mr_random_key_make(1, MR_RANDOM_INIT, 3, 3, 4),
        mr_random_key_make(1, MR_RANDOM_INIT, 2, 4, 4),
        mr_random_key_make(1, MR_RANDOM_INIT, 2, 3, 5),
    };
    uint32_t words[NAMES][4];
    for (size_t i = 0; i < NAMES; i++) {
        mr_random_block(&keys[i], 0, words[i]);
        for (size_t j = 0; j < i; j++)
            assert_memory_not_equal(words[i], words[j], sizeof(words[i]));
    }
    mr_random_key again = mr_random_key_make(1, MR_RANDOM_INIT, 2, 3, 4);
    assert_memory_equal(&again, &keys[0], sizeof(again));
}

static void test_normal_numbers_do_not_depend_on_how_a_range_is_cut(void **state) {
    (void)state;
    enum { LENGTH = 41 };
    mr_random_key key = mr_random_key_make(9, MR_RANDOM_INIT, 0, 0, 0);
    float whole[LENGTH];
    mr_random_normal(&key, 3, LENGTH, 0.02f, whole);
    for (size_t cut = 0; cut <= LENGTH; cut++) {
        float parts[LENGTH + 1];
        parts[LENGTH] = 7;
        mr_random_normal(&key, 3, cut, 0.02f, parts);
        mr_random_normal(&key, 3 + cut, LENGTH - cut, 0.02f, parts + cut);
        assert_memory_equal(parts, whole, sizeof(whole));
        assert_true(parts[LENGTH] == 7);
    }
}

/* Standard errors of n draws: mean 1/sqrt(n), variance sqrt(2/n); five of each. */
static void test_normal_numbers_have_mean_zero_and_the_deviation(void **state) {
    (void)state;
    enum { LENGTH = 40000 };
    static float values[LENGTH];
    mr_random_key key = mr_random_key_make(1234, MR_RANDOM_INIT, 1, 0, 0);
    mr_random_normal(&key, 0, LENGTH, 0.02f, values);
    double sum = 0;
    double squares = 0;
    for (size_t i = 0; i < LENGTH; i++) {
        double z = (double)values[i] / 0.02;
        assert_true(isfinite(z) && fabs(z) < 7);
        sum += z;
        squares += z * z;
    }
    assert_true(fabs(sum / LENGTH) < 5 / sqrt(LENGTH));
    assert_true(fabs(squares / LENGTH - 1) < 5 * sqrt(2.0 / LENGTH));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_vectors_are_met),
        cmocka_unit_test(test_word_is_its_place_in_its_block),
        cmocka_unit_test(test_every_part_of_a_name_gives_another_stream),
        cmocka_unit_test(test_normal_numbers_do_not_depend_on_how_a_range_is_cut),
        cmocka_unit_test(test_normal_numbers_have_mean_zero_and_the_deviation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
