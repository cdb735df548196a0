/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a step prints as DESIGN section 5 promises, to the letter, also where a number is not
 * finite; sizes, counts and foreign text are shown safely. Method: fixed steps against fixed texts.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <string.h>

#include <cmocka.h>

#include "client/progress.h"
#include "client/render.h"
#include "client/terminal.h"

static Millrace__V1__StepResult make_step(void) {
    Millrace__V1__StepResult step = MILLRACE__V1__STEP_RESULT__INIT;
    step.step = 12;
    step.loss = 3.14159265358979;
    step.gradient_norm = 0.7123456789123;
    step.learning_rate = 0.001;
    step.tokens = 16384;
    step.tokens_per_second = 95000.25;
    step.bubble = 0.125;
    step.step_seconds = 0.5;
    return step;
}

static void test_a_step_is_one_json_object_with_nine_digits(void **state) {
    (void)state;
    char text[512];
    Millrace__V1__StepResult step = make_step();
    mr_progress_json(&step, text, sizeof(text));
    assert_string_equal(text, "{\"step\":12,\"loss\":3.14159265,\"grad_norm\":0.712345679,"
                              "\"lr\":0.001,\"tokens\":16384,\"tokens_per_second\":95000.25,"
                              "\"bubble\":0.125,\"step_seconds\":0.5}");
}

static void test_a_number_that_is_not_finite_is_null(void **state) {
    (void)state;
    char text[512];
    Millrace__V1__StepResult step = make_step();
    step.loss = NAN;
    step.gradient_norm = INFINITY;
    mr_progress_json(&step, text, sizeof(text));
    assert_non_null(strstr(text, "\"loss\":null,\"grad_norm\":null,"));
    json_t *object = json_loads(text, 0, NULL);
    assert_non_null(object);
    json_decref(object);
}

static void test_the_line_for_people_has_everything(void **state) {
    (void)state;
    char text[256];
    Millrace__V1__StepResult step = make_step();
    mr_progress_line(&step, 300, 0.5, text, sizeof(text));
    assert_string_equal(text, "step 12/300  loss 3.1416  |g| 0.71  lr 1.0e-03  95 k tok/s  "
                              "bubble 12%  ETA 2m24s");
    mr_progress_line(&step, 300, NAN, text, sizeof(text));
    assert_non_null(strstr(text, "ETA ?"));
    step.step = 300;
    mr_progress_line(&step, 300, 0.5, text, sizeof(text));
    assert_non_null(strstr(text, "ETA 0s"));
}

static void test_sizes_and_times_are_readable(void **state) {
    (void)state;
    char text[64];
    mr_render_bytes(1023, text, sizeof(text));
    assert_string_equal(text, "1023 B");
    mr_render_bytes(1536, text, sizeof(text));
    assert_string_equal(text, "1.5 KiB");
    mr_render_count(999, text, sizeof(text));
    assert_string_equal(text, "999");
    mr_render_count(4936000, text, sizeof(text));
    assert_string_equal(text, "4.936 M");
    mr_render_time(0, text, sizeof(text));
    assert_string_equal(text, "-");
    mr_render_time(1700000000123, text, sizeof(text));
    assert_string_equal(text, "2023-11-14T22:13:20Z");
}

static void test_foreign_text_cannot_steer_the_terminal(void **state) {
    (void)state;
    char text[16];
    mr_terminal_clean("a\033[2Jb\x7f\n", text, sizeof(text));
    assert_string_equal(text, "a?[2Jb??");
    mr_terminal_clean("0123456789abcdefgh", text, sizeof(text));
    assert_string_equal(text, "0123456789abcde");
}

static void test_bytes_that_are_no_utf8_become_the_replacement_letter(void **state) {
    (void)state;
    json_t *text = mr_render_text("a\xff\xc3\xa9z\xc3", 6);
    assert_non_null(text);
    assert_string_equal(json_string_value(text), "a\xef\xbf\xbd\xc3\xa9z\xef\xbf\xbd");
    json_decref(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_step_is_one_json_object_with_nine_digits),
        cmocka_unit_test(test_a_number_that_is_not_finite_is_null),
        cmocka_unit_test(test_the_line_for_people_has_everything),
        cmocka_unit_test(test_sizes_and_times_are_readable),
        cmocka_unit_test(test_foreign_text_cannot_steer_the_terminal),
        cmocka_unit_test(test_bytes_that_are_no_utf8_become_the_replacement_letter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
