/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: every rule of the format is checked, each violation with its own words; and what the
 * rules allow is taken.
 * Method: headers written by hand, each with one thing wrong, opened from memory; links and
 * pipes opened from a folder. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/checkpoint/safetensors.h"
#include "tests/unit/checkpoint/fixture.h"

enum { FILE_BYTES = 4096 };

/* length (0: the header's own), header, data bytes: as a file in memory. */
static mr_status open_parts(const char *header, size_t data_bytes, uint64_t length,
                            mr_safetensors_reader **out_reader) {
    static unsigned char file[FILE_BYTES];
    size_t header_bytes = strlen(header);
    uint64_t n = length == 0 ? header_bytes : length;
    assert_true(8 + header_bytes + data_bytes <= sizeof(file));
    memset(file, 0, sizeof(file));
    for (size_t i = 0; i < 8; i++)
        file[i] = (unsigned char)(n >> (8 * i));
    memcpy(file + 8, header, header_bytes);
    return mr_safetensors_open_memory(file, 8 + header_bytes + data_bytes, "it", out_reader);
}

/* One broken rule each; length: what the file claims of its header, 0: the truth. */
static const struct {
    const char *header;
    size_t data_bytes;
    uint64_t length;
    const char *text;
} broken[] = {
    {"{}", 0, 1, "E_CKPT_HDR: a header of 1 bytes"},
    {"{}", 0, 100000001, "E_CKPT_HDR: a header of 100000001 bytes"},
    {"{}", 0, UINT64_MAX, "E_CKPT_HDR: a header of 18446744073709551615 bytes"},
    {"{}", 0, 1000, "E_CKPT_TRUNC want=1008 have=10"},
    {"[]", 0, 0, "E_CKPT_HDR: the header is not a JSON object"},
    {"{\"a\":", 0, 0, "E_CKPT_HDR: header, byte"},
    {"{}x", 0, 0, "E_CKPT_HDR: header, byte"},
    {"{\"a\xff\":1}", 0, 0, "E_CKPT_HDR: header, byte"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
     "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
     1, 0, "E_CKPT_DUP"},
    {"{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, 0,
     "E_CKPT_DUP"},
    {"{\"a\":7}", 0, 0, "E_CKPT_HDR tensor=a: the entry is not an object"},
    {"{\"\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, 0,
     "E_CKPT_HDR: a tensor's name has 0 bytes"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"x\":0}}", 1, 0,
     "E_CKPT_HDR tensor=a: the entry has 4 fields"},
    {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1, 0,
     "E_CKPT_HDR tensor=a: dtype is not a string"},
    {"{\"a\":{\"dtype\":\"F8_E4M3\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, 0,
     "E_CKPT_DTYPE tensor=a: unknown dtype 'F8_E4M3'"},
    {"{\"a\":{\"dtype\":\"f32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, 0,
     "E_CKPT_DTYPE tensor=a: unknown dtype 'f32'"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":1,\"data_offsets\":[0,1]}}", 1, 0,
     "E_CKPT_HDR tensor=a: shape is not an array"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[-1],\"data_offsets\":[0,1]}}", 1, 0,
     "E_CKPT_HDR tensor=a: shape[0]"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1.0],\"data_offsets\":[0,1]}}", 1, 0,
     "E_CKPT_HDR tensor=a: shape[0]"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}", 1, 0,
     "E_CKPT_HDR tensor=a: 7 dimensions; the most is 6"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]}}", 1, 0,
     "E_CKPT_HDR tensor=a: data_offsets"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,\"1\"]}}", 1, 0,
     "E_CKPT_HDR tensor=a: data_offsets"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,0]}}", 1, 0,
     "E_CKPT_LAYOUT tensor=a: ends at 0 before it begins at 1"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, 0,
     "E_CKPT_LAYOUT tensor=a: 4 bytes, where dtype and shape need 8"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
     "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[3,7]}}",
     7, 0, "E_CKPT_LAYOUT tensor=b: overlap: begins at 3, where 4 is next"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
     "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[5,9]}}",
     9, 0, "E_CKPT_LAYOUT tensor=b: hole: begins at 5, where 4 is next"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[1,5]}}", 5, 0,
     "E_CKPT_LAYOUT tensor=a: hole: begins at 1, where 0 is next"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 5, 0,
     "E_CKPT_LAYOUT: 1 bytes are left over"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 3, 0, "E_CKPT_TRUNC"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,0]}}", 0,
     0, "E_CKPT_OVERFLOW tensor=a"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,99999999999999999999]}}", 1, 0,
     "E_CKPT_OVERFLOW"},
    {"{\"__metadata__\":[]}", 0, 0, "E_CKPT_HDR: __metadata__ is not an object"},
    {"{\"__metadata__\":{\"x\":1}}", 0, 0, "E_CKPT_HDR: __metadata__.x is not a string"},
};

static void test_broken_rule_is_named(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
        mr_safetensors_reader *reader = NULL;
        mr_status status =
            open_parts(broken[i].header, broken[i].data_bytes, broken[i].length, &reader);
        fixture_fails(status, MR_CODE_DATA_LOSS, broken[i].text);
        assert_null(reader);
    }
}

static void test_short_file_is_named(void **state) {
    (void)state;
    mr_safetensors_reader *reader = NULL;
    fixture_fails(mr_safetensors_open_memory("", 0, "it", &reader), MR_CODE_DATA_LOSS,
                  "E_CKPT_TRUNC want=8 have=0");
    fixture_fails(mr_safetensors_open_memory("1234567", 7, "it", &reader), MR_CODE_DATA_LOSS,
                  "E_CKPT_TRUNC want=8 have=7");
}

static void test_nested_header_is_refused(void **state) {
    (void)state;
    char header[3000];
    memset(header, '[', sizeof(header));
    memcpy(header, "{\"a\":", 5);
    header[sizeof(header) - 1] = '\0';
    mr_safetensors_reader *reader = NULL;
    fixture_fails(open_parts(header, 0, 0, &reader), MR_CODE_DATA_LOSS, "E_CKPT_HDR");
}

static void test_allowed_forms_are_taken(void **state) {
    (void)state;
    static const struct {
        const char *header;
        size_t data_bytes;
        size_t count;
    } cases[] = {
        {"{}", 0, 0},
        {" \n{}   ", 0, 0}, /* white space before, padding after */
        {"{\"__metadata__\":{\"a\":\"b\"}}", 0, 0},
        {"{\"s\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]}}", 8, 1}, /* scalar */
        {"{\"e\":{\"dtype\":\"F32\",\"shape\":[0,9],\"data_offsets\":[0,0]},"
         "\"f\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}",
         0, 2},
        /* In any order in the header. */
        {"{\"b\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[4,8]},"
         "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
         8, 2},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        mr_safetensors_reader *reader = NULL;
        fixture_ok(open_parts(cases[i].header, cases[i].data_bytes, 0, &reader));
        assert_int_equal(mr_safetensors_count(reader), cases[i].count);
        for (size_t k = 1; k < cases[i].count; k++)
            assert_true(mr_safetensors_at(reader, k - 1)->end ==
                        mr_safetensors_at(reader, k)->begin);
        mr_safetensors_close(reader);
    }
}

/* Every shorter file and every flipped header byte is refused or still a consistent file: the
 * reader must survive all of them. */
static void test_every_cut_and_flip_is_survived(void **state) {
    (void)state;
    static const char header[] =
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
        "\"b\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[24,32]}}";
    unsigned char file[8 + sizeof(header) - 1 + 32] = {sizeof(header) - 1};
    memcpy(file + 8, header, sizeof(header) - 1);
    mr_safetensors_reader *reader = NULL;
    fixture_ok(mr_safetensors_open_memory(file, sizeof(file), "it", &reader));
    mr_safetensors_close(reader);
    for (size_t cut = 0; cut < sizeof(file); cut++)
        fixture_fails(mr_safetensors_open_memory(file, cut, "it", &reader), MR_CODE_DATA_LOSS,
                      "E_CKPT_TRUNC");
    for (size_t i = 0; i < 8 + sizeof(header) - 1; i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            file[i] ^= (unsigned char)(1u << bit);
            reader = NULL;
            mr_status status = mr_safetensors_open_memory(file, sizeof(file), "it", &reader);
            if (mr_status_is_ok(status))
                assert_int_equal(mr_safetensors_count(reader), 2);
            else
                assert_int_equal(status.code, MR_CODE_DATA_LOSS);
            mr_safetensors_close(mr_status_is_ok(status) ? reader : NULL);
            file[i] ^= (unsigned char)(1u << bit);
        }
    }
}

static void test_only_plain_files_are_opened(void **state) {
    (void)state;
    char dir[FIXTURE_PATH_BYTES];
    char plain[FIXTURE_PATH_BYTES];
    char link[FIXTURE_PATH_BYTES];
    char fifo[FIXTURE_PATH_BYTES];
    mr_safetensors_reader *reader = NULL;
    fixture_make(dir);
    fixture_path(plain, dir, "plain", NULL);
    fixture_path(link, dir, "link", NULL);
    fixture_path(fifo, dir, "fifo", NULL);
    fixture_put(plain, "\2\0\0\0\0\0\0\0{}", 10);
    fixture_ok(mr_safetensors_open(plain, &reader));
    mr_safetensors_close(reader);
    assert_int_equal(symlink(plain, link), 0);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    fixture_fails(mr_safetensors_open(link, &reader), MR_CODE_PERMISSION_DENIED,
                  "E_CKPT_FILE reason=symlink");
    fixture_fails(mr_safetensors_open(fifo, &reader), MR_CODE_PERMISSION_DENIED,
                  "E_CKPT_FILE reason=type");
    fixture_fails(mr_safetensors_open(dir, &reader), MR_CODE_PERMISSION_DENIED,
                  "E_CKPT_FILE reason=type");
    fixture_path(link, dir, "gone", NULL);
    fixture_fails(mr_safetensors_open(link, &reader), MR_CODE_NOT_FOUND,
                  "No such file or directory");
    fixture_remove(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_broken_rule_is_named),
        cmocka_unit_test(test_short_file_is_named),
        cmocka_unit_test(test_nested_header_is_refused),
        cmocka_unit_test(test_allowed_forms_are_taken),
        cmocka_unit_test(test_every_cut_and_flip_is_survived),
        cmocka_unit_test(test_only_plain_files_are_opened),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
