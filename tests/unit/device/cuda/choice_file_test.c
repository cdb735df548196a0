/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: choices outlive the process, a damaged file costs its damaged lines only, and a folder that
 * cannot be written costs nothing but the file.
 * Method: tables opened one after another on one folder; the file written to in between. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/device/cuda/choice.h"

static const uint64_t one[MR_CHOICE_WORDS] = {1, 2, 3, UINT64_MAX};
static const uint64_t two[MR_CHOICE_WORDS] = {9, 8, 7};

static void folder_make(char out_folder[256]) {
    const char *base = getenv("TEST_TMPDIR");
    snprintf(out_folder, 256, "%s/choices-XXXXXX", base == NULL ? "." : base);
    assert_non_null(mkdtemp(out_folder));
}

static mr_choices *open_good(const char *folder) {
    mr_choices *choices = NULL;
    mr_status status = mr_choices_open(folder, "file", &choices);
    assert_int_equal(status.code, MR_CODE_OK);
    return choices;
}

static void put_good(mr_choices *choices, const char *key, const uint64_t *words) {
    mr_status status = mr_choices_put(choices, key, words);
    assert_string_equal(status.text, "");
}

static void test_choices_are_there_when_opened_again(void **state) {
    (void)state;
    char folder[256];
    folder_make(folder);
    mr_choices *choices = open_good(folder);
    assert_null(mr_choices_find(choices, "a"));
    put_good(choices, "a", two);
    put_good(choices, "b", two);
    put_good(choices, "a", one);
    mr_choices_close(choices);
    choices = open_good(folder);
    assert_memory_equal(mr_choices_find(choices, "a"), one, sizeof(one));
    assert_memory_equal(mr_choices_find(choices, "b"), two, sizeof(two));
    assert_null(mr_choices_find(choices, "c"));
    mr_choices_close(choices);
}

static void test_damaged_lines_are_passed_over(void **state) {
    (void)state;
    char folder[256];
    char path[512];
    char text[2048] = {0};
    folder_make(folder);
    mr_choices *choices = open_good(folder);
    put_good(choices, "a", one);
    put_good(choices, "b", two);
    mr_choices_close(choices);
    snprintf(path, sizeof(path), "%s/file", folder);
    FILE *file = fopen(path, "r+");
    assert_non_null(file);
    assert_true(fread(text, 1, sizeof(text) - 1, file) > 0);
    *strstr(text, "0000000000000001") = '1'; /* of a's first word */
    rewind(file);
    fprintf(file, "%snot a line\n", text);
    fclose(file);
    choices = open_good(folder);
    assert_null(mr_choices_find(choices, "a"));
    assert_memory_equal(mr_choices_find(choices, "b"), two, sizeof(two));
    mr_choices_close(choices);
}

static void test_without_a_folder_choices_live_in_memory(void **state) {
    (void)state;
    mr_choices *choices = open_good(NULL);
    put_good(choices, "a", one);
    assert_memory_equal(mr_choices_find(choices, "a"), one, sizeof(one));
    mr_choices_close(choices);
    choices = open_good("/proc/no such folder");
    mr_status status = mr_choices_put(choices, "a", one);
    assert_int_equal(status.code, MR_CODE_UNAVAILABLE);
    assert_memory_equal(mr_choices_find(choices, "a"), one, sizeof(one));
    mr_choices_close(choices);
}

static void test_a_full_table_refuses(void **state) {
    (void)state;
    mr_choices *choices = open_good(NULL);
    mr_status status = MR_OK;
    char key[32];
    int kept = 0;
    for (; mr_status_is_ok(status); kept++) {
        snprintf(key, sizeof(key), "key-%d", kept);
        status = mr_choices_put(choices, key, one);
    }
    assert_int_equal(status.code, MR_CODE_RESOURCE_EXHAUSTED);
    assert_string_equal(status.text, "256 choices are kept at most");
    assert_int_equal(kept, 257);
    mr_choices_close(choices);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_choices_are_there_when_opened_again),
        cmocka_unit_test(test_damaged_lines_are_passed_over),
        cmocka_unit_test(test_without_a_folder_choices_live_in_memory),
        cmocka_unit_test(test_a_full_table_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
