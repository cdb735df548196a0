/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: single values of a YAML text are replaced or added, everything else reads as before.
 * Method: texts compared as a whole where the form matters, searched where only the value does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/model/yaml_edit.h"

static char *edit(const char *text, const char *path, const char *value) {
    const mr_yaml_change change = {.path = path, .value = value};
    char *out = NULL;
    mr_status status = mr_yaml_edit(text, &change, 1, &out);
    assert_string_equal(status.text, "");
    return out;
}

static void expect(const char *text, const char *path, const char *value, const char *wanted) {
    char *out = edit(text, path, value);
    if (strstr(out, wanted) == NULL)
        fail_msg("\"%s\" is not in \"%s\"", wanted, out);
    mr_free(out);
}

static void test_value_is_replaced_in_any_form(void **state) {
    (void)state;
    expect("batch: {micro_batches: 8, size: 2}\n", "/batch/micro_batches", "4",
           "micro_batches: 4");
    expect("batch: {micro_batches: 8, size: 2}\n", "/batch/micro_batches", "4", "size: 2");
    expect("batch:\n  micro_batches: 8\n  size: 2\n", "/batch/micro_batches", "4",
           "  micro_batches: 4\n  size: 2");
    expect("{\"batch\": {\"micro_batches\": 8}}", "/batch/micro_batches", "4", "4");
}

static void test_missing_key_is_added(void **state) {
    (void)state;
    expect("batch: {size: 2}\n", "/batch/micro_batches", "4", "micro_batches: 4");
    expect("name: x\n", "/seed", "7", "seed: 7");
}

static void test_list_is_a_value(void **state) {
    (void)state;
    expect("pipeline:\n  partition: parameters\n", "/pipeline/partition", "[0, 3, 9]", "3");
}

static void test_missing_mapping_is_added_at_the_top_alone(void **state) {
    (void)state;
    expect("name: x\n", "/batch/size", "1", "size: 1");
    const mr_yaml_change deep = {.path = "/batch/more/size", .value = "1"};
    char *out = NULL;
    mr_status status = mr_yaml_edit("name: x\n", &deep, 1, &out);
    assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
    assert_non_null(strstr(status.text, "the text has no mapping /batch/more"));
    status = mr_yaml_edit("{a: [", &deep, 1, &out);
    assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_value_is_replaced_in_any_form),
        cmocka_unit_test(test_missing_key_is_added),
        cmocka_unit_test(test_list_is_a_value),
        cmocka_unit_test(test_missing_mapping_is_added_at_the_top_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
