/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a manifest's text is a pure function of its contents, reads back equal, and no damaged
 * byte of it passes.
 * Method: golden text; every bit of it flipped and every cut; hand-written texts that break one
 * rule each. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/checkpoint/manifest.h"
#include "tests/unit/checkpoint/fixture.h"

#define HASH_A "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define HASH_B "5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9"

static mr_checkpoint_file files[] = {
    {.name = "layer_01-model_states.safetensors", .bytes = 12, .sha256 = HASH_B},
    {.name = "layer_00-model_states.safetensors", .bytes = 7, .sha256 = HASH_A},
};

static mr_manifest sample(void) {
    return (mr_manifest){.job = "tiny \"gpt\"",
                         .step = 100,
                         .epoch = 3,
                         .model_hash = HASH_A,
                         .data_cursor = {.step = 100, .sample = 6400},
                         .optimizer = {.type = "adamw", .steps = 99, .lr = 0.1},
                         .files = files,
                         .file_count = 2};
}

static const char golden[] =
    "{\n"
    "  \"schema\": \"millrace.checkpoint/v1\",\n"
    "  \"job\": \"tiny \\\"gpt\\\"\",\n"
    "  \"step\": 100,\n"
    "  \"epoch\": 3,\n"
    "  \"model_hash\": \"" HASH_A "\",\n"
    "  \"data_cursor\": {\"step\": 100, \"sample\": 6400},\n"
    "  \"optimizer\": {\"type\": \"adamw\", \"steps\": 99, \"lr\": 0.10000000000000001},\n"
    "  \"files\": [\n"
    "    {\"file\": \"layer_00-model_states.safetensors\", \"bytes\": 7, \"sha256\": \"" HASH_A
    "\"},\n"
    "    {\"file\": \"layer_01-model_states.safetensors\", \"bytes\": 12, \"sha256\": \"" HASH_B
    "\"}\n"
    "  ],\n"
    "  \"sha256\": \"";

static void test_text_equals_golden(void **state) {
    (void)state;
    mr_manifest manifest = sample();
    char *text = NULL;
    size_t bytes = 0;
    fixture_ok(mr_manifest_format(&manifest, &text, &bytes));
    assert_int_equal(bytes, strlen(golden) + 64 + strlen("\"\n}\n"));
    assert_memory_equal(text, golden, strlen(golden));
    mr_free(text);
}

static void test_text_reads_back_equal(void **state) {
    (void)state;
    mr_manifest manifest = sample();
    mr_manifest back;
    char *text = NULL;
    size_t bytes = 0;
    fixture_ok(mr_manifest_format(&manifest, &text, &bytes));
    fixture_ok(mr_manifest_parse(text, bytes, &back));
    assert_string_equal(back.job, manifest.job);
    assert_int_equal(back.step, 100);
    assert_int_equal(back.epoch, 3);
    assert_string_equal(back.model_hash, HASH_A);
    assert_int_equal(back.data_cursor.step, 100);
    assert_int_equal(back.data_cursor.sample, 6400);
    assert_string_equal(back.optimizer.type, "adamw");
    assert_int_equal(back.optimizer.steps, 99);
    assert_true(back.optimizer.lr == 0.1);
    assert_int_equal(back.file_count, 2);
    assert_int_equal(mr_manifest_bytes(&back), 19);
    assert_int_equal(mr_manifest_find(&back, files[0].name)->bytes, 12);
    assert_null(mr_manifest_find(&back, "other"));
    mr_manifest_deinit(&back);
    mr_free(text);
}

static void test_every_flip_and_cut_is_refused(void **state) {
    (void)state;
    mr_manifest manifest = sample();
    mr_manifest back;
    char *text = NULL;
    size_t bytes = 0;
    fixture_ok(mr_manifest_format(&manifest, &text, &bytes));
    for (size_t i = 0; i < bytes; i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            text[i] = (char)(text[i] ^ (1 << bit));
            fixture_fails(mr_manifest_parse(text, bytes, &back), MR_CODE_DATA_LOSS,
                          "E_CKPT_MANIFEST");
            text[i] = (char)(text[i] ^ (1 << bit));
        }
        fixture_fails(mr_manifest_parse(text, i, &back), MR_CODE_DATA_LOSS, "E_CKPT_MANIFEST");
    }
    mr_free(text);
}

#define TEXT(schema, step, hash, cursor, optimizer, entries)                                       \
    "{\"schema\":" schema ",\"job\":\"j\",\"step\":" step ",\"epoch\":1,\"model_hash\":" hash      \
    ",\"data_cursor\":" cursor ",\"optimizer\":" optimizer ",\"files\":" entries "}"
#define SCHEMA "\"millrace.checkpoint/v1\""
#define CURSOR "{\"step\":1,\"sample\":8}"
#define OPTIMIZER "{\"type\":\"adamw\",\"steps\":1,\"lr\":0}"
#define ENTRY(name, size) "{\"file\":\"" name "\",\"bytes\":" size ",\"sha256\":\"" HASH_A "\"}"

static void test_text_by_hand_is_taken(void **state) {
    (void)state;
    static const char text[] =
        TEXT(SCHEMA, "1", "\"ab\"", CURSOR, OPTIMIZER, "[" ENTRY("a", "1") "]");
    mr_manifest back;
    fixture_ok(mr_manifest_parse(text, strlen(text), &back));
    assert_int_equal(back.file_count, 1);
    mr_manifest_deinit(&back);
}

static void test_broken_rule_is_named(void **state) {
    (void)state;
    static const struct {
        const char *json;
        const char *text;
    } cases[] = {
        {"", "field=manifest: line"},
        {"[]", "field=manifest: must be an object"},
        {"{\"schema\":1}", "field=schema"},
        {TEXT("\"millrace.checkpoint/v2\"", "1", "\"ab\"", CURSOR, OPTIMIZER, "[]"),
         "field=schema: is 'millrace.checkpoint/v2'; this build reads millrace.checkpoint/v1"},
        {TEXT(SCHEMA, "-1", "\"ab\"", CURSOR, OPTIMIZER, "[]"), "field=step"},
        {TEXT(SCHEMA, "1.5", "\"ab\"", CURSOR, OPTIMIZER, "[]"), "field=step"},
        {TEXT(SCHEMA, "99999999999999999999", "\"ab\"", CURSOR, OPTIMIZER, "[]"),
         "field=manifest: line"},
        {TEXT(SCHEMA, "1", "\"XY\"", CURSOR, OPTIMIZER, "[]"), "field=model_hash"},
        {TEXT(SCHEMA, "1", "\"ab\"", "{\"step\":1}", OPTIMIZER, "[]"), "field=data_cursor.sample"},
        {TEXT(SCHEMA, "1", "\"ab\"", "{\"step\":1,\"sample\":1,\"x\":0}", OPTIMIZER, "[]"),
         "field=data_cursor: unknown key 'x'"},
        {TEXT(SCHEMA, "1", "\"ab\"", CURSOR, "{\"type\":\"a\",\"steps\":1,\"lr\":\"1\"}", "[]"),
         "field=optimizer.lr"},
        {TEXT(SCHEMA, "1", "\"ab\"", CURSOR, OPTIMIZER, "[]"), "field=files: must be an array"},
        {TEXT(SCHEMA, "1", "\"ab\"", CURSOR, OPTIMIZER, "[" ENTRY("../a", "1") "]"),
         "field=files: '../a' cannot name a file"},
        {TEXT(SCHEMA, "1", "\"ab\"", CURSOR, OPTIMIZER,
              "[" ENTRY("a", "1") "," ENTRY("a", "1") "]"),
         "field=files: a is listed twice"},
        {TEXT(SCHEMA, "1", "\"ab\"", CURSOR, OPTIMIZER,
              "[" ENTRY("a", "9223372036854775807") "," ENTRY("b", "1") "]"),
         "field=files: the sum of sizes overflows"},
        {TEXT(SCHEMA, "1", "\"ab\"", CURSOR, OPTIMIZER,
              "[{\"file\":\"a\",\"bytes\":1,\"sha256\":\"12\"}]"),
         "field=files: a: sha256 is not 64 hex digits"},
        {"{\"job\":\"a\",\"job\":\"b\"}", "field=manifest: line 1: duplicate object key"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        mr_manifest back;
        fixture_fails(mr_manifest_parse(cases[i].json, strlen(cases[i].json), &back),
                      MR_CODE_DATA_LOSS, cases[i].text);
    }
}

static void test_bad_contents_are_not_written(void **state) {
    (void)state;
    char *text = NULL;
    size_t bytes = 0;
    mr_manifest manifest = sample();
    manifest.file_count = 0;
    fixture_fails(mr_manifest_format(&manifest, &text, &bytes), MR_CODE_INVALID_ARGUMENT,
                  "lists 0 files");
    manifest = sample();
    manifest.optimizer.lr = 0.0 / (manifest.optimizer.lr - 0.1);
    fixture_fails(mr_manifest_format(&manifest, &text, &bytes), MR_CODE_INVALID_ARGUMENT,
                  "optimizer.lr is not finite");
    manifest = sample();
    manifest.step = UINT64_MAX;
    fixture_fails(mr_manifest_format(&manifest, &text, &bytes), MR_CODE_INVALID_ARGUMENT,
                  "step is 18446744073709551615");
    manifest = sample();
    manifest.job[0] = (char)0xff;
    fixture_fails(mr_manifest_format(&manifest, &text, &bytes), MR_CODE_INVALID_ARGUMENT,
                  "not UTF-8");
    manifest = sample();
    manifest.model_hash[0] = '\0';
    fixture_fails(mr_manifest_format(&manifest, &text, &bytes), MR_CODE_INVALID_ARGUMENT,
                  "model_hash");
    assert_null(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_equals_golden),
        cmocka_unit_test(test_text_reads_back_equal),
        cmocka_unit_test(test_every_flip_and_cut_is_refused),
        cmocka_unit_test(test_text_by_hand_is_taken),
        cmocka_unit_test(test_broken_rule_is_named),
        cmocka_unit_test(test_bad_contents_are_not_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
