/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: whatever bytes come as a job file, the answer is a clear error within bounded time and
 * memory: no expansion, no deep recursion, nothing leaked when memory ends.
 * Method: documents that are not one plain mapping; documents built to grow; every allocation
 * failing in turn. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "tests/unit/model/job_text.h"

static void test_documents_that_are_no_mapping_are_refused(void **state) {
    (void)state;
    job_text_refuse("", 0, "the file is empty");
    job_text_refuse("# nothing\n\n", 0, "the file is empty");
    job_text_refuse("---\n", 0, "the file is empty");
    job_text_refuse("- a\n- b\n", 1,
                    "the file is a list; it must be a mapping that starts with schema: "
                    "millrace.job/v1");
    job_text_refuse("\njust words\n", 2, "the file is just words; it must be a mapping");
    job_text_refuse("name: a\n---\nname: b\n", 2,
                    "a second document starts here; a job file is one document");
}

static void test_bytes_that_are_no_text_are_refused(void **state) {
    mr_job *job = NULL;
    mr_job_errors errors;
    (void)state;
    job_text_refuse("name: a\nseed: \xff\n", 2,
                    "byte 0xff is not UTF-8; a job file is UTF-8 text");
    job_text_refuse("name: \xc0\xaf\n", 1, "byte 0xc0 is not UTF-8");        /* not the shortest */
    job_text_refuse("name: \xed\xa0\x80\n", 1, "byte 0xed is not UTF-8");    /* a surrogate */
    job_text_refuse("name: \xf4\x90\x80\x80\n", 1, "byte 0xf4 is not UTF-8"); /* too large */
    job_text_refuse("name: \xe2\x82", 1, "byte 0xe2 is not UTF-8");          /* cut off */
    job_text_refuse("\n\nname: \x01\n", 3, "byte 0x01 is a control character");
    job_text_refuse("name: \"a\\u0000b\"\n", 1, "a text contains the control character 0x00");
    job_text_refuse("name: |\n  a\n  b\n", 2,
                    "texts after | or > are not supported; write the text on one line");
    job_text_refuse("name: a\n  b\n", 1, "a text goes on over the end of its line; write it on");
    job_text_refuse("name: 'a\n  b'\n", 1, "a text goes on over the end of its line; write it");
    job_text_refuse("name: \"a\\tb\"\n", 1, "a text contains the control character 0x09");
    job_text_refuse("name: \"a\\u007fb\"\n", 1, "a text contains the control character 0x7f");
    job_text_refuse("name: \"a\\x41b\"\n", 1, "a text has an escape that JSON does not have");
    mr_status status = mr_job_parse("name: a\0b", 9, &job, &errors);
    assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
    assert_string_equal(status.text,
                        "line 1: byte 0x00 is a control character; a job file is UTF-8 text");
}

static void test_text_that_is_no_yaml_is_refused(void **state) {
    (void)state;
    job_text_refuse_first("name: [a\n", 2, "this is not YAML: ");
    job_text_refuse_first("name: a: b\n", 1, "this is not YAML: ");
    job_text_refuse_first("a:\n\t- b\n", 2, "this is not YAML: tab character");
}

static void test_references_and_tags_are_refused(void **state) {
    (void)state;
    job_text_refuse("a: &x [1]\nb: [*x, *x]\n", 1,
                    "anchors (&) and aliases (*) are not supported; write the value out");
    job_text_refuse("a: 1\nb: *x\n", 2, "anchors (&) and aliases (*) are not supported");
    job_text_refuse("name: !!str 5\n", 1, "tags (!) are not supported; write the value alone");
    job_text_refuse("? [a, b]\n: c\n", 1, "a key is a list; it must be a word");
}

static void test_byte_order_mark_and_directive_are_read_over(void **state) {
    (void)state;
    char text[8192];
    int bytes = snprintf(text, sizeof(text), "\xef\xbb\xbf%%YAML 1.1\n---\n%s", job_text_good);
    assert_true(bytes > 0 && (size_t)bytes < sizeof(text));
    mr_job_destroy(job_text_parse(text));
}

static void test_escapes_stand_for_their_characters(void **state) {
    (void)state;
    mr_job *job = job_text_parse(
        job_text_edit("train: corpus.txt",
                      "train: \"a\\\"\\\\\\/\\u00e9\\u4E2D\\u0041\xc3\xa9'\""));
    assert_string_equal(job->data_train, "a\"\\/\xc3\xa9\xe4\xb8\xad"
                                         "A\xc3\xa9'");
    mr_job_destroy(job);
    /* Many of them: what libfyaml's own reading loses memory on. */
    job = job_text_parse(job_text_edit("train: corpus.txt", "train: 'it''s '''''''''''''''''''''"));
    assert_string_equal(job->data_train, "it's ''''''''''");
    mr_job_destroy(job);
}

/* count copies of part between head and tail. */
static char *repeated(const char *head, const char *part, size_t count, const char *tail) {
    size_t part_bytes = strlen(part);
    size_t head_bytes = strlen(head);
    size_t tail_bytes = strlen(tail) + 1;
    char *text = malloc(head_bytes + part_bytes * count + tail_bytes);
    assert_non_null(text);
    memcpy(text, head, head_bytes);
    char *at = text + head_bytes;
    for (size_t i = 0; i < count; i++, at += part_bytes)
        memcpy(at, part, part_bytes);
    memcpy(at, tail, tail_bytes);
    return text;
}

static void check_large(const char *head, const char *part, size_t count, const char *tail,
                        const char *start) {
    char *text = repeated(head, part, count, tail);
    mr_job *job = NULL;
    mr_job_errors errors;
    mr_status status = mr_job_parse(text, strlen(text), &job, &errors);
    assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
    if (strncmp(errors.items[0].text, start, strlen(start)) != 0)
        fail_msg("\"%s\" should start with \"%s\"", errors.items[0].text, start);
    free(text);
}

static void test_documents_that_grow_hit_a_limit(void **state) {
    (void)state;
    check_large("", "#", MR_JOB_FILE_BYTES_MAX + 1, "",
                "the file has 1048577 bytes; it may have at most 1048576");
    check_large("", "[", 500000, "", "the file is nested more than 16 deep");
    check_large("", "- ", 500000, "", "the file is nested more than 16 deep");
    check_large("", "{a: ", 200000, "", "the file is nested more than 16 deep");
    check_large("a: [", "1,", 300000, "]", "the file has more than 262144 entries");
    check_large("", "x: 1\n", 65, "", "a mapping has more than 64 keys");
    check_large("model:\n  layers:\n", "  - {type: gelu}\n", 16385, "",
                "schema is missing"); /* file order; the list's length is among the others */
}

static void test_largest_model_is_read(void **state) {
    char *text = repeated("schema: millrace.job/v1\nname: a\nmodel:\n  loss: none\n  layers:\n"
                          "    - {type: linear, in: 8, out: 8}\n",
                          "    - {type: linear, in: 8, out: 8}\n", MR_LAYERS_MAX - 1,
                          "batch: {micro_batch_size: 1, sequence_length: 1}\n");
    (void)state;
    mr_job *job = job_text_parse(text);
    assert_int_equal(job->layer_count, MR_LAYERS_MAX);
    mr_job_destroy(job);
    free(text);
}

static void test_every_failing_allocation_is_a_status(void **state) {
    const char *text =
        job_text_edit("partition: parameters",
                      "partition: weights\n  layer_weights: [1, 1, 1, 1, 1, 1, 1, 1, 1]");
    bool failed = true;
    (void)state;
    for (uint64_t n = 1; failed; n++) {
        mr_job *job = NULL;
        assert_in_range(n, 1, 100);
        mr_alloc_fail_at(n);
        mr_status status = mr_job_parse(text, strlen(text), &job, NULL);
        mr_alloc_fail_at(0);
        failed = !mr_status_is_ok(status);
        assert_true(failed == (job == NULL));
        if (failed)
            assert_non_null(strstr(status.text, "no memory"));
        mr_job_destroy(job);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_documents_that_are_no_mapping_are_refused),
        cmocka_unit_test(test_bytes_that_are_no_text_are_refused),
        cmocka_unit_test(test_text_that_is_no_yaml_is_refused),
        cmocka_unit_test(test_references_and_tags_are_refused),
        cmocka_unit_test(test_byte_order_mark_and_directive_are_read_over),
        cmocka_unit_test(test_escapes_stand_for_their_characters),
        cmocka_unit_test(test_documents_that_grow_hit_a_limit),
        cmocka_unit_test(test_largest_model_is_read),
        cmocka_unit_test(test_every_failing_allocation_is_a_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
