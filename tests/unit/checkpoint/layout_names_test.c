/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: every name of a checkpoint has one spelling, is recognised again, and no tag or file
 * name leaves its folder.
 * Method: tables of names with the expected verdict. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/checkpoint/layout.h"
#include "tests/unit/checkpoint/fixture.h"

static void test_step_tag_has_twelve_digits(void **state) {
    (void)state;
    static const struct {
        uint64_t step;
        const char *tag;
    } cases[] = {{0, "step-000000000000"},
                 {100, "step-000000000100"},
                 {999999999999u, "step-999999999999"},
                 {1000000000000u, "step-1000000000000"},
                 {UINT64_MAX, "step-18446744073709551615"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char tag[MR_NAME_BYTES];
        uint64_t step = 7;
        mr_layout_step_tag(cases[i].step, tag);
        assert_string_equal(tag, cases[i].tag);
        assert_true(mr_layout_step_parse(tag, &step));
        assert_true(step == cases[i].step);
    }
}

static void test_other_spelling_is_no_step_tag(void **state) {
    (void)state;
    static const char *const bad[] = {"step-1",
                                      "step-00000000010",
                                      "step-0000000000100",
                                      "step-00000000010x",
                                      "step-",
                                      "step-+00000000001",
                                      "step- 00000000001",
                                      "Step-000000000001",
                                      "step-18446744073709551616",
                                      "step-000000000001 "};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(mr_layout_step_parse(bad[i], NULL));
}

static void test_bad_tag_is_refused_with_its_reason(void **state) {
    (void)state;
    static const struct {
        const char *tag;
        const char *text;
    } cases[] = {
        {"", "E_TAG reason=empty off=0"},
        {"a/b", "E_TAG reason=char off=1"},
        {".hidden", "E_TAG reason=char off=0"},
        {"-x", "E_TAG reason=char off=0"},
        {"a b", "E_TAG reason=char off=1"},
        {"a\n", "E_TAG reason=char off=1"},
        {"caf\xc3\xa9", "E_TAG reason=char off=3"},
        {"a..b", "E_TAG reason=dotdot off=1"},
        {"latest", "E_TAG reason=reserved"},
        {"LATEST", "E_TAG reason=reserved"},
        {"manifest.json", "E_TAG reason=reserved"},
        {"MANIFEST", "E_TAG reason=reserved"},
        {"trash-1", "E_TAG reason=reserved"},
        {"corrupt-1", "E_TAG reason=reserved"},
        {"step-1", "E_TAG reason=reserved"},
        {"x123456789012345678901234567890123456789012345678901234567890123",
         "E_TAG reason=len off=63"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        fixture_fails(mr_layout_tag_check(cases[i].tag), MR_CODE_INVALID_ARGUMENT, cases[i].text);
}

static void test_good_tag_is_taken(void **state) {
    (void)state;
    static const char *const good[] = {
        "best",
        "a",
        "0",
        "v1.2_x-Y",
        "step-000000000001",
        "latest2",
        "x12345678901234567890123456789012345678901234567890123456789012"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        fixture_ok(mr_layout_tag_check(good[i]));
    fixture_ok(mr_layout_user_tag_check("best"));
    fixture_fails(mr_layout_user_tag_check("step-000000000001"), MR_CODE_INVALID_ARGUMENT,
                  "E_TAG reason=reserved");
}

static void test_layer_name_round_trips(void **state) {
    (void)state;
    static const struct {
        uint32_t layer;
        uint32_t rank;
        uint32_t ranks;
        mr_layer_file kind;
        const char *name;
    } cases[] = {
        {0, 0, 1, MR_LAYER_FILE_MODEL, "layer_00-model_states.safetensors"},
        {7, 0, 1, MR_LAYER_FILE_OPTIM, "layer_07-optim_states.safetensors"},
        {100, 0, 1, MR_LAYER_FILE_MODEL, "layer_100-model_states.safetensors"},
        {0, 1, 2, MR_LAYER_FILE_MODEL, "layer_00-model_01-model_states.safetensors"},
        {16383, 1023, 1024, MR_LAYER_FILE_OPTIM, "layer_16383-model_1023-optim_states.safetensors"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char name[MR_NAME_BYTES];
        uint32_t layer = 99;
        uint32_t rank = 99;
        bool has_model = false;
        mr_layer_file kind = MR_LAYER_FILE_COUNT;
        mr_layout_layer_name(cases[i].layer, cases[i].rank, cases[i].ranks, cases[i].kind, name);
        assert_string_equal(name, cases[i].name);
        assert_true(mr_layout_layer_parse(name, &layer, &has_model, &rank, &kind));
        assert_int_equal(layer, cases[i].layer);
        assert_int_equal(rank, cases[i].rank);
        assert_int_equal(has_model, cases[i].ranks > 1);
        assert_int_equal(kind, cases[i].kind);
        assert_true(mr_layout_file_name_valid(name));
    }
}

static void test_other_layer_name_is_refused(void **state) {
    (void)state;
    static const char *const bad[] = {"layer_0-model_states.safetensors",
                                      "layer_000-model_states.safetensors",
                                      "layer_00-model_states.pt",
                                      "layer_-model_states.safetensors",
                                      "layer_00-model_1-model_states.safetensors",
                                      "layer_00-model_01.safetensors",
                                      "layer_4294967296-model_states.safetensors",
                                      "manifest.json",
                                      ""};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(mr_layout_layer_parse(bad[i], NULL, NULL, NULL, NULL));
}

static void test_listed_name_cannot_leave_the_folder(void **state) {
    (void)state;
    static const char *const bad[] = {"",       "..",   "../x",          "a/b", "/etc/passwd",
                                      ".tmp-1", "a..b", "manifest.json", "a\nb"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(mr_layout_file_name_valid(bad[i]));
}

static void test_join_checks_the_size(void **state) {
    (void)state;
    char out[8];
    fixture_ok(mr_layout_join("abc", "xyz", out, sizeof(out)));
    assert_string_equal(out, "abc/xyz");
    fixture_ok(mr_layout_join("abc/", "xyz", out, sizeof(out)));
    assert_string_equal(out, "abc/xyz");
    fixture_fails(mr_layout_join("abc", "wxyz", out, sizeof(out)), MR_CODE_INVALID_ARGUMENT,
                  "8 bytes is too long; the most is 7");
    fixture_fails(mr_layout_join("", "x", out, sizeof(out)), MR_CODE_INVALID_ARGUMENT, "empty");
}

static void test_save_folder_names_epoch_and_step(void **state) {
    (void)state;
    char name[MR_CHECKPOINT_SAVE_NAME_BYTES];
    uint64_t epoch = 0;
    uint64_t step = 0;
    fixture_ok(mr_layout_save_name("best", 3, 100, name));
    assert_string_equal(name, ".save-e0000000003-s000000000100-best");
    assert_true(mr_layout_save_parse(name, &epoch, &step));
    assert_int_equal(epoch, 3);
    assert_int_equal(step, 100);
    fixture_fails(mr_layout_save_name("../x", 3, 100, name), MR_CODE_INVALID_ARGUMENT, "E_TAG");
    assert_false(mr_layout_save_parse(".save-e3-s5-", &epoch, &step));
    assert_false(mr_layout_save_parse(".save-e-s5-x", &epoch, &step));
    assert_false(mr_layout_save_parse("best", &epoch, &step));
    /* The longest tag and numbers still fit. */
    fixture_ok(
        mr_layout_save_name("x12345678901234567890123456789012345678901234567890123456789012",
                            UINT64_MAX, UINT64_MAX, name));
    assert_true(mr_layout_save_parse(name, &epoch, &step));
    assert_true(epoch == UINT64_MAX && step == UINT64_MAX);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_step_tag_has_twelve_digits),
        cmocka_unit_test(test_other_spelling_is_no_step_tag),
        cmocka_unit_test(test_bad_tag_is_refused_with_its_reason),
        cmocka_unit_test(test_good_tag_is_taken),
        cmocka_unit_test(test_layer_name_round_trips),
        cmocka_unit_test(test_other_layer_name_is_refused),
        cmocka_unit_test(test_listed_name_cannot_leave_the_folder),
        cmocka_unit_test(test_join_checks_the_size),
        cmocka_unit_test(test_save_folder_names_epoch_and_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
