/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: type:REGEX finds what a reader of the pattern expects, in type and name, whatever the case,
 * and never costs more than its bound.
 * Method: patterns against a few layers, with the layers they must find; patterns that blow up; the
 * field's defect (deepspeed.md 14: the pattern was lower-cased, so \D became \d). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/model/layer_pattern.h"

static const mr_layer_spec layers[] = {
    {.type = MR_LAYER_TYPE_EMBEDDING, .name = "tokens:no"}, /* no job file can say ':' */
    {.type = MR_LAYER_TYPE_TRANSFORMER_BLOCK, .name = "Body.1"},
    {.type = MR_LAYER_TYPE_TRANSFORMER_BLOCK, .name = "Body.1"},
    {.type = MR_LAYER_TYPE_TRANSFORMER_BLOCK},
    {.type = MR_LAYER_TYPE_LM_HEAD, .name = "HEAD"},
};
enum { LAYERS = sizeof(layers) / sizeof(layers[0]) };

/* found: a digit for each layer. */
static void check(const char *pattern, const char *found) {
    double weights[LAYERS];
    char text[LAYERS + 1] = "";
    mr_status status = mr_layer_pattern_weigh(pattern, layers, LAYERS, weights);
    if (!mr_status_is_ok(status))
        fail_msg("%s: %s", pattern, status.text);
    for (size_t i = 0; i < LAYERS; i++)
        text[i] = weights[i] == 0 ? '0' : '1';
    if (strcmp(text, found) != 0)
        fail_msg("%s finds %s, expected %s", pattern, text, found);
}

static void test_a_pattern_is_searched_in_type_and_name(void **state) {
    (void)state;
    check("transformer", "01110");
    check("^body\\.\\d$", "01100");
    check("^emb|head$", "10001");
    check("", "11111");
    check("e", "11111");
    check("k$", "01110");
}

static void test_case_is_ignored_in_texts_and_kept_in_the_pattern(void **state) {
    (void)state;
    check("BODY", "01100");
    check("LM_Head", "00001");
    check("^\\D+$", "11111"); /* every type; lower-cased it would find nothing */
    check("^body\\W\\d$", "01100");
}

static void test_all_behind_the_first_colon_is_the_pattern(void **state) {
    (void)state;
    check("tokens:no", "10000");
    check("block:|head", "00001");
}

static void test_characters_of_utf_8_are_characters(void **state) {
    (void)state;
    check("^.$|[\xc3\xa9\xc3\xa8]|lm_", "00001");
    check("\xe2\x84\xaa", "11110"); /* the Kelvin sign is a k in another case */
}

static void check_refused(const char *pattern, mr_code code, const char *text) {
    double weights[LAYERS];
    mr_status status = mr_layer_pattern_weigh(pattern, layers, LAYERS, weights);
    assert_int_equal(status.code, code);
    if (strstr(status.text, text) == NULL)
        fail_msg("%s: \"%s\" lacks \"%s\"", pattern, status.text, text);
}

static void test_patterns_that_are_none_name_the_byte(void **state) {
    (void)state;
    check_refused("a(b", MR_CODE_INVALID_ARGUMENT,
                  "pattern a(b: missing closing parenthesis (byte 3)");
    check_refused("\xff", MR_CODE_INVALID_ARGUMENT, "UTF-8 error");
    check_refused("(?1000000)", MR_CODE_INVALID_ARGUMENT, "(byte ");
    check_refused("conv2d", MR_CODE_INVALID_ARGUMENT,
                  "pattern conv2d is in no layer's type or name");
    assert_int_equal(mr_layer_pattern_check("a(b").code, MR_CODE_INVALID_ARGUMENT);
    assert_true(mr_status_is_ok(mr_layer_pattern_check("conv2d")));
}

static void test_patterns_that_blow_up_are_refused_in_bounded_time(void **state) {
    (void)state;
    static const char *const patterns[] = {
        "((((\\w+)+)+)+)+[-!]$",
        "(\\w|\\w\\w|\\w?)+(\\w|\\w)*[-!]$",
        "(?:(?:(?:\\w*)*)*)*[-!]",
        "(*LIMIT_MATCH=4000000000)(*LIMIT_DEPTH=4000000000)((((\\w+)+)+)+)+[-!]$",
        "^(\\w*+\\w?|(?R))*[-!]",
    };
    for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++) {
        double weights[LAYERS];
        mr_status status = mr_layer_pattern_weigh(patterns[i], layers, LAYERS, weights);
        assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
    }
    check_refused(patterns[0], MR_CODE_INVALID_ARGUMENT, "needs over 10000 steps in ");
    check_refused(patterns[3], MR_CODE_INVALID_ARGUMENT, "needs over 10000 steps in ");
    /* what would be compiled into too much is refused as a pattern */
    check_refused("(((\\w{1000}){1000}){1000})", MR_CODE_INVALID_ARGUMENT,
                  "regular expression is too large");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_pattern_is_searched_in_type_and_name),
        cmocka_unit_test(test_case_is_ignored_in_texts_and_kept_in_the_pattern),
        cmocka_unit_test(test_all_behind_the_first_colon_is_the_pattern),
        cmocka_unit_test(test_characters_of_utf_8_are_characters),
        cmocka_unit_test(test_patterns_that_are_none_name_the_byte),
        cmocka_unit_test(test_patterns_that_blow_up_are_refused_in_bounded_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
