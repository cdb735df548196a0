/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: samples are cut as DESIGN says, labels are inputs shifted by one, files join in the order
 * of their names, and every damaged or missing file is an error that names file, field and value.
 * Method: small files in a temporary folder, with one thing wrong each. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/data.h"
#include "client/token_files.h"

enum { PATH_BYTES = 512 };

static char folder[PATH_BYTES];

static int setup(void **state) {
    (void)state;
    const char *base = getenv("TEST_TMPDIR");
    snprintf(folder, sizeof(folder), "%s/data-XXXXXX", base ? base : "/tmp");
    return mkdtemp(folder) == NULL ? -1 : 0;
}

static const char *const file_names[] = {"a.txt", "b.txt", "c.txt", "t.bin", "u.bin", "[1].txt"};

static int teardown(void **state) {
    (void)state;
    char path[PATH_BYTES * 2];
    for (size_t i = 0; i < sizeof(file_names) / sizeof(file_names[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", folder, file_names[i]);
        (void)unlink(path); /* a test makes only some of them */
    }
    snprintf(path, sizeof(path), "%s/dir", folder);
    (void)rmdir(path);
    return rmdir(folder);
}

static void put(const char *name, const void *bytes, size_t size) {
    char path[PATH_BYTES * 2];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

/* An llm.c file of these header words and token bytes. */
static void put_llmc(const char *name, int32_t magic, int32_t version, int32_t tokens,
                     const void *bytes, size_t size) {
    unsigned char file[2048] = {0};
    const int32_t words[3] = {magic, version, tokens};
    memcpy(file, words, sizeof(words));
    assert_true(1024 + size <= sizeof(file));
    memcpy(file + 1024, bytes, size);
    put(name, file, 1024 + size);
}

static mr_status open_files(const char *pattern, mr_data_format format, mr_token_files **out) {
    char path[PATH_BYTES * 2];
    snprintf(path, sizeof(path), "%s/%s", folder, pattern);
    return mr_token_files_open(path, format, out);
}

static void check_ok(mr_status status) {
    if (!mr_status_is_ok(status))
        fail_msg("%s: %s", mr_code_name(status.code), status.text);
}

/* Opening must fail with this code and a text that has these words. */
static void check_refused(const char *pattern, mr_data_format format, mr_code code,
                          const char *first, const char *second) {
    mr_token_files *files = NULL;
    mr_status status = open_files(pattern, format, &files);
    assert_null(files);
    if (status.code != code || strstr(status.text, first) == NULL ||
        strstr(status.text, second) == NULL)
        fail_msg("%s: %s", mr_code_name(status.code), status.text);
}

static void test_files_join_in_the_order_of_their_names(void **state) {
    (void)state;
    put("c.txt", "efg", 3);
    put("a.txt", "ab", 2);
    put("b.txt", "cd", 2);
    mr_token_files *files = NULL;
    check_ok(open_files("*.txt", MR_DATA_BYTES, &files));
    assert_int_equal(mr_token_files_count(files), 7);
    for (uint64_t first = 0; first < 7; first++) {
        int32_t tokens[7];
        check_ok(mr_token_files_read(files, first, (size_t)(7 - first), 256, tokens));
        for (uint64_t i = first; i < 7; i++)
            assert_int_equal(tokens[i - first], 'a' + (int)i);
    }
    int32_t token;
    assert_int_equal(mr_token_files_read(files, 6, 2, 256, &token).code, MR_CODE_OUT_OF_RANGE);
    assert_int_equal(mr_token_files_read(files, UINT64_MAX, 2, 256, &token).code,
                     MR_CODE_OUT_OF_RANGE);
    mr_token_files_close(files);
}

static void test_a_file_with_pattern_letters_in_its_name_is_found(void **state) {
    (void)state;
    put("[1].txt", "xy", 2);
    mr_token_files *files = NULL;
    check_ok(open_files("[1].txt", MR_DATA_BYTES, &files));
    assert_int_equal(mr_token_files_count(files), 2);
    mr_token_files_close(files);
}

static void test_missing_empty_and_odd_files_are_refused(void **state) {
    (void)state;
    put("a.txt", "", 0);
    char path[PATH_BYTES * 2];
    snprintf(path, sizeof(path), "%s/dir", folder);
    assert_int_equal(mkdir(path, 0700), 0);
    check_refused("none.txt", MR_DATA_BYTES, MR_CODE_NOT_FOUND, "none.txt", "no such file");
    check_refused("none*.txt", MR_DATA_BYTES, MR_CODE_NOT_FOUND, "none*.txt", "no such file");
    check_refused("a.txt", MR_DATA_BYTES, MR_CODE_INVALID_ARGUMENT, "a.txt", "empty");
    check_refused("dir", MR_DATA_BYTES, MR_CODE_INVALID_ARGUMENT, "dir", "folder");
    put("a.txt", "some", 4);
    put("b.txt", "", 0);
    check_refused("?.txt", MR_DATA_BYTES, MR_CODE_INVALID_ARGUMENT, "b.txt", "empty");
}

static void test_llmc_tokens_of_both_widths_are_read(void **state) {
    (void)state;
    static const uint16_t narrow[3] = {0, 65535, 7};
    static const uint32_t wide[2] = {128255, 1};
    int32_t tokens[3];
    mr_token_files *files = NULL;
    put_llmc("t.bin", 20240520, 1, 3, narrow, sizeof(narrow));
    check_ok(open_files("t.bin", MR_DATA_LLMC, &files));
    check_ok(mr_token_files_read(files, 0, 3, 65536, tokens));
    assert_int_equal(tokens[0], 0);
    assert_int_equal(tokens[1], 65535);
    assert_int_equal(tokens[2], 7);
    mr_token_files_close(files);
    put_llmc("t.bin", 20240801, 7, 2, wide, sizeof(wide));
    check_ok(open_files("t.bin", MR_DATA_LLMC, &files));
    assert_int_equal(mr_token_files_count(files), 2);
    check_ok(mr_token_files_read(files, 0, 2, 128256, tokens));
    assert_int_equal(tokens[0], 128255);
    mr_token_files_close(files);
}

static void test_damaged_llmc_headers_are_refused_by_field(void **state) {
    (void)state;
    static const uint16_t tokens[3] = {1, 2, 3};
    const mr_code invalid = MR_CODE_INVALID_ARGUMENT;
    put("t.bin", "short", 5);
    check_refused("t.bin", MR_DATA_LLMC, invalid, "t.bin", "5 bytes");
    put_llmc("t.bin", 20240326, 3, 3, tokens, 6);
    check_refused("t.bin", MR_DATA_LLMC, invalid, "magic", "20240326");
    put_llmc("t.bin", 20240520, 7, 3, tokens, 6);
    check_refused("t.bin", MR_DATA_LLMC, invalid, "version", "7");
    put_llmc("t.bin", 20240801, 1, 3, tokens, 6);
    check_refused("t.bin", MR_DATA_LLMC, invalid, "version", "must be 7");
    put_llmc("t.bin", 20240520, 1, 0, tokens, 0);
    check_refused("t.bin", MR_DATA_LLMC, invalid, "token count", "is 0");
    put_llmc("t.bin", 20240520, 1, -3, tokens, 6);
    check_refused("t.bin", MR_DATA_LLMC, invalid, "token count", "is -3");
    put_llmc("t.bin", 20240520, 1, 4, tokens, 6);
    check_refused("t.bin", MR_DATA_LLMC, invalid, "1030 bytes", "1032");
    put_llmc("t.bin", 20240520, 1, 2, tokens, 6);
    check_refused("t.bin", MR_DATA_LLMC, invalid, "1030 bytes", "1028");
}

static void test_a_token_outside_the_vocabulary_is_named(void **state) {
    (void)state;
    static const uint16_t first[3] = {1, 2, 3};
    static const uint16_t second[3] = {4, 500, 6};
    int32_t tokens[6];
    mr_token_files *files = NULL;
    put_llmc("t.bin", 20240520, 1, 3, first, 6);
    put_llmc("u.bin", 20240520, 1, 3, second, 6);
    check_ok(open_files("?.bin", MR_DATA_LLMC, &files));
    check_ok(mr_token_files_read(files, 0, 4, 500, tokens));
    mr_status status = mr_token_files_read(files, 0, 6, 500, tokens);
    assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
    assert_non_null(strstr(status.text, "u.bin: token 1 is 500"));
    assert_non_null(strstr(status.text, "499"));
    mr_token_files_close(files);
}

static void test_a_file_that_shrinks_is_an_error(void **state) {
    (void)state;
    int32_t tokens[8];
    mr_token_files *files = NULL;
    put("a.txt", "abcdefgh", 8);
    check_ok(open_files("a.txt", MR_DATA_BYTES, &files));
    put("a.txt", "abc", 3);
    mr_status status = mr_token_files_read(files, 0, 8, 256, tokens);
    assert_int_equal(status.code, MR_CODE_DATA_LOSS);
    assert_non_null(strstr(status.text, "a.txt"));
    mr_token_files_close(files);
}

/* ---- data over a job --------------------------------------------------------------------------
 */

static mr_job *make_job(const char *train, bool shuffle) {
    char text[2048];
    mr_job *job = NULL;
    int length = snprintf(
        text, sizeof(text),
        "schema: millrace.job/v1\nname: t\nseed: 5\nmodel:\n  layers:\n"
        "    - {type: embedding, tie: e, vocab: 256, dim: 8, positions: 4}\n"
        "    - {type: transformer_block, repeat: 2, dim: 8, heads: 2}\n"
        "    - {type: lm_head, tie: e}\n  loss: cross_entropy\n"
        "pipeline: {topology: {pipe: 2, data: 1, model: 1}, partition: uniform, schedule: 1f1b}\n"
        "batch: {micro_batch_size: 2, micro_batches: 3, sequence_length: 4}\n"
        "optimizer: {type: adamw, lr: 1e-3}\n"
        "lr_schedule: {type: constant, total_steps: 5}\n"
        "data: {format: bytes, train: \"%s\", shuffle: %s}\n",
        train, shuffle ? "true" : "false");
    check_ok(mr_job_parse(text, (size_t)length, &job, NULL));
    return job;
}

/* Bytes 0, 1, 2, ... make a sample's first token tell its number. */
static void put_counting(size_t size) {
    unsigned char bytes[256];
    for (size_t i = 0; i < size; i++)
        bytes[i] = (unsigned char)i;
    put("a.txt", bytes, size);
}

static void test_labels_are_inputs_shifted_by_one(void **state) {
    (void)state;
    put_counting(50); /* (50 - 1) / 4 = 12 whole samples */
    mr_job *job = make_job("a.txt", false);
    mr_data *data = NULL;
    check_ok(mr_data_open(job, folder, &data));
    assert_int_equal(mr_data_samples(data), 12);
    assert_int_equal(mr_data_micro_batch_tokens(data), 8);
    for (uint64_t step = 0; step < 5; step++)
        for (size_t m = 0; m < 3; m++) {
            int32_t inputs[8];
            int32_t labels[8];
            check_ok(mr_data_read(data, step, 0, m, inputs, labels));
            for (size_t b = 0; b < 2; b++)
                for (size_t t = 0; t < 4; t++) {
                    uint64_t k = ((step * 3 + m) * 2 + b) % 12;
                    assert_int_equal(inputs[b * 4 + t], k * 4 + t);
                    assert_int_equal(labels[b * 4 + t], k * 4 + t + 1);
                }
        }
    mr_data_close(data);
    mr_job_destroy(job);
}

static void test_two_epochs_of_shuffled_data_take_every_sample_twice(void **state) {
    (void)state;
    put_counting(50);
    mr_job *job = make_job("a.txt", true);
    mr_data *data = NULL;
    unsigned taken[12] = {0};
    check_ok(mr_data_open(job, folder, &data));
    for (uint64_t step = 0; step < 4; step++)
        for (size_t m = 0; m < 3; m++) {
            int32_t inputs[8];
            int32_t labels[8];
            check_ok(mr_data_read(data, step, 0, m, inputs, labels));
            taken[inputs[0] / 4]++;
            taken[inputs[4] / 4]++;
            assert_int_equal(labels[7], inputs[7] + 1);
        }
    for (size_t k = 0; k < 12; k++)
        assert_int_equal(taken[k], 2);
    mr_data_close(data);
    mr_job_destroy(job);
}

static void test_less_than_one_sample_is_refused(void **state) {
    (void)state;
    mr_data *data = NULL;
    put_counting(4);
    mr_job *job = make_job("a.txt", false);
    mr_status status = mr_data_open(job, folder, &data);
    assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
    assert_non_null(strstr(status.text, "has 4 tokens"));
    assert_non_null(strstr(status.text, "at least 5"));
    put_counting(5);
    check_ok(mr_data_open(job, folder, &data));
    assert_int_equal(mr_data_samples(data), 1);
    mr_data_close(data);
    mr_job_destroy(job);
}

static void test_a_long_path_does_not_push_out_what_is_wrong(void **state) {
    (void)state;
    char path[300];
    memset(path, 'p', sizeof(path));
    path[0] = '/';
    memcpy(path + 290, "/end.bin", 9);
    mr_token_files *files = NULL;
    mr_status status = mr_token_files_open(path, MR_DATA_BYTES, &files);
    assert_int_not_equal(status.code, MR_CODE_OK);
    assert_true(strlen(status.text) < 150);
    assert_non_null(strstr(status.text, "pp/end.bin: "));
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_files_join_in_the_order_of_their_names),
        TEST(test_a_file_with_pattern_letters_in_its_name_is_found),
        TEST(test_missing_empty_and_odd_files_are_refused),
        TEST(test_llmc_tokens_of_both_widths_are_read),
        TEST(test_damaged_llmc_headers_are_refused_by_field),
        TEST(test_a_token_outside_the_vocabulary_is_named),
        TEST(test_a_file_that_shrinks_is_an_error),
        TEST(test_labels_are_inputs_shifted_by_one),
        TEST(test_two_epochs_of_shuffled_data_take_every_sample_twice),
        TEST(test_less_than_one_sample_is_refused),
        TEST(test_a_long_path_does_not_push_out_what_is_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
