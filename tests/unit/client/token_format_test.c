/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: what the writer writes the reader reads, in every format, with the very bytes that the
 * format's own tools write; every field of a header that is wrong is refused by name; no damaged
 * header, whatever its bytes, does worse than be refused. Method: small files in a temporary
 * folder, golden bytes, one field wrong at a time, and every byte of a header changed in turn. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/token_files.h"
#include "client/token_layout.h"
#include "client/token_writer.h"
#include "daemon/base/alloc.h"

enum { PATH_BYTES = 512, INDEX_BYTES = 34 + 3 * 12 + 3 * 8 };

static char folder[PATH_BYTES];
static const char *const names[] = {"t.bin", "t.idx", "t.npy", "u.bin", "u.idx", "out",
                                    "out.bin", "out.idx", "out.npy"};

static int setup(void **state) {
    (void)state;
    const char *base = getenv("TEST_TMPDIR");
    snprintf(folder, sizeof(folder), "%s/tokens-XXXXXX", base ? base : "/tmp");
    return mkdtemp(folder) == NULL ? -1 : 0;
}

static const char *path_of(const char *name) {
    static char paths[4][PATH_BYTES * 2];
    static size_t next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
    return path;
}

static int teardown(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        (void)unlink(path_of(names[i])); /* a test makes only some of them */
    return rmdir(folder);
}

static void put(const char *name, const void *bytes, size_t size) {
    FILE *file = fopen(path_of(name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static size_t get(const char *name, unsigned char *out, size_t bytes) {
    FILE *file = fopen(path_of(name), "rb");
    assert_non_null(file);
    size_t got = fread(out, 1, bytes, file);
    assert_int_equal(fclose(file), 0);
    return got;
}

static void check_ok(mr_status status) {
    if (!mr_status_is_ok(status))
        fail_msg("%s: %s", mr_code_name(status.code), status.text);
}

static void check_refused(const char *name, mr_data_format format, const char *wanted) {
    mr_token_layout layout;
    mr_status status = mr_token_layout_read(path_of(name), format, &layout);
    assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
    if (strstr(status.text, wanted) == NULL)
        fail_msg("%s lacks: %s", status.text, wanted);
}

/* Three sequences of 2, 0 and 3 tokens of two bytes; documents {0, 1} and {2}. */
static size_t make_index(unsigned char out[INDEX_BYTES]) {
    static const unsigned char head[] = {'M', 'M', 'I', 'D', 'I', 'D', 'X', 0, 0, 1, 0, 0,
                                         0,   0,   0,   0,   0,   8,   3,   0, 0, 0, 0, 0,
                                         0,   0,   3,   0,   0,   0,   0,   0, 0, 0};
    static const unsigned char lengths[] = {2, 0, 0, 3};
    memset(out, 0, INDEX_BYTES);
    memcpy(out, head, sizeof(head));
    out[34] = lengths[0];
    out[42] = lengths[3];
    out[46 + 8] = 4;
    out[46 + 16] = 4;
    out[70 + 8] = 2;
    out[70 + 16] = 3;
    return INDEX_BYTES;
}

static const unsigned char tokens_u16[] = {1, 0, 2, 0, 3, 0, 0xff, 0xff, 5, 0};

static void put_pair(void) {
    unsigned char index[INDEX_BYTES];
    put("t.idx", index, make_index(index));
    put("t.bin", tokens_u16, sizeof(tokens_u16));
}

static void check_tokens(const char *pattern, mr_data_format format, const int32_t *wanted,
                         size_t count) {
    int32_t tokens[32];
    mr_token_files *files = NULL;
    assert_true(count <= sizeof(tokens) / sizeof(tokens[0]));
    check_ok(mr_token_files_open(path_of(pattern), format, &files));
    assert_int_equal(mr_token_files_count(files), count);
    check_ok(mr_token_files_read(files, 0, count, MR_TOKEN_VOCABULARY_MAX, tokens));
    assert_memory_equal(tokens, wanted, count * sizeof(*wanted));
    mr_token_files_close(files);
}

static void test_a_megatron_pair_is_read_by_any_of_its_names(void **state) {
    (void)state;
    static const int32_t wanted[] = {1, 2, 3, 65535, 5};
    static const char *const ways[] = {"t", "t.bin", "t.idx", "t.*", "?.bin", "?.idx"};
    mr_token_layout layout;
    mr_data_format format = MR_DATA_BYTES;
    put_pair();
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
        check_tokens(ways[i], MR_DATA_MEGATRON, wanted, 5);
    check_ok(mr_token_layout_read(path_of("t"), MR_DATA_MEGATRON, &layout));
    assert_int_equal(layout.sequences, 3);
    assert_int_equal(layout.documents, 2);
    assert_string_equal(mr_token_layout_type(&layout), "uint16");
    mr_free(layout.path);
    check_ok(mr_token_layout_guess(path_of("t.bin"), &format));
    assert_int_equal(format, MR_DATA_MEGATRON);
}

/* Changes one byte of the good index and says what the error must have. */
static void check_index(size_t at, unsigned char value, const char *wanted) {
    unsigned char index[INDEX_BYTES];
    size_t size = make_index(index);
    index[at] = value;
    put("t.idx", index, size);
    check_refused("t", MR_DATA_MEGATRON, wanted);
}

static void test_every_wrong_field_of_an_index_is_named(void **state) {
    (void)state;
    unsigned char index[INDEX_BYTES + 4];
    put_pair();
    check_index(0, 'X', "magic is not MMIDIDX");
    check_index(9, 2, "version is 2; it must be 1");
    check_index(17, 7, "dtype is 7; it must be 1 (uint8)");
    check_index(17, 9, "dtype is 9");
    check_index(17, 5, "byte_ptr[1] is 4; it must be 16");
    check_index(18, 0, "sequence count is 0");
    check_index(18, 99, "sequence count is 99; 94 bytes have room for 1 to 7");
    check_index(25, 0xff, "sequence count is");
    check_index(26, 9, "document count is 9; with 3 sequences it must be 2 to 4");
    check_index(26, 4, "size is 94 bytes; 3 sequences and 4 documents need 102, or 105 with modes");
    check_index(37, 0x80, "length[0] is -2147483646; it must be at least 0");
    check_index(46, 1, "byte_ptr[0] is 1; it must be 0");
    check_index(54, 6, "byte_ptr[1] is 6; it must be 4");
    check_index(42, 4, "t.bin: size is 10 bytes; the sequences of its index end at 12");
    check_index(70, 1, "document[0] is 1; it must be 0 to 0");
    check_index(78, 7, "document[1] is 7; it must be 0 to 3");
    check_index(86, 2, "document[2] is 2; it must be 3 to 3");
    size_t size = make_index(index);
    put("t.idx", index, 20);
    check_refused("t", MR_DATA_MEGATRON, "size is 20 bytes; an index has a header of 34 bytes");
    memset(index + size, 0, 3);
    put("t.idx", index, size + 3); /* with modes */
    mr_token_layout layout;
    check_ok(mr_token_layout_read(path_of("t"), MR_DATA_MEGATRON, &layout));
    mr_free(layout.path);
}

static void put_npy(const char *header, const void *bytes, size_t size) {
    unsigned char file[512] = "\x93NUMPY\x01";
    size_t length = strlen(header);
    file[8] = (unsigned char)length;
    memcpy(file + 10, header, length);
    memcpy(file + 10 + length, bytes, size);
    put("t.npy", file, 10 + length + size);
}

static void test_npy_of_every_type_is_read(void **state) {
    (void)state;
    static const int32_t wanted[] = {1, 2};
    static const struct {
        const char *descr;
        unsigned char bytes[16];
        size_t size;
    } types[] = {
        {"|u1", {1, 2}, 2},
        {"<u2", {1, 0, 2}, 4},
        {"<i2", {1, 0, 2}, 4},
        {"<u4", {1, 0, 0, 0, 2}, 8},
        {"<i4", {1, 0, 0, 0, 2}, 8},
        {"<i8", {1, 0, 0, 0, 0, 0, 0, 0, 2}, 16},
    };
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        char header[128];
        snprintf(header, sizeof(header),
                 "{'shape': (2,), \"descr\": '%s', 'fortran_order': False}   \n", types[i].descr);
        put_npy(header, types[i].bytes, types[i].size);
        check_tokens("t.npy", MR_DATA_NPY, wanted, 2);
    }
}

static void test_every_wrong_part_of_an_npy_header_is_named(void **state) {
    (void)state;
    static const struct {
        const char *header;
        const char *wanted;
    } faults[] = {
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", "descr is <f4; it must be |u1"},
        {"{'descr': '>u2', 'fortran_order': False, 'shape': (2,)}", "descr is >u2"},
        {"{'descr': '|O', 'fortran_order': False, 'shape': (2,)}", "descr is |O"},
        {"{'descr': [('a', '<u2')], 'shape': (2,)}", "descr is a list of fields"},
        {"{'descr': '<u2', 'fortran_order': True, 'shape': (2,)}", "fortran_order is True"},
        {"{'descr': '<u2', 'fortran_order': 1, 'shape': (2,)}", "where True or False must stand"},
        {"{'descr': '<u2', 'fortran_order': False, 'shape': (1, 2)}", "shape has 2 dimensions"},
        {"{'descr': '<u2', 'fortran_order': False, 'shape': ()}", "shape has 0 dimensions"},
        {"{'descr': '<u2', 'fortran_order': False, 'shape': (0,)}", "shape is (0,)"},
        {"{'descr': '<u2', 'fortran_order': False, 'shape': (3,)}", "size is 69 bytes"},
        {"{'descr': '<u2', 'fortran_order': False, 'shape': (-2,)}", "where a size must stand"},
        {"{'descr': '<u2', 'fortran_order': False, 'shape': (99999999999999999999,)}", "a size"},
        {"{'descr': '<u2', 'fortran_order': False}", "the header lacks shape"},
        {"{'descr': '<u2', 'x': False}", "the header has key x"},
        {"{'descr' '<u2'}", "where ':' must stand"},
        {"{'descr': '<u2'", "where ',' or '}' must stand"},
        {"'descr'", "where '{' must stand"},
        {"{'descr': '<u2', 'fortran_order': False, 'shape': (2,)} x", "where the end must stand"},
    };
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        put_npy(faults[i].header, "\1\0\2\0", 4);
        check_refused("t.npy", MR_DATA_NPY, faults[i].wanted);
    }
    put("t.npy", "\x93NUMPY\x04\0\x0a\0{}          ", 20);
    check_refused("t.npy", MR_DATA_NPY, "version is 4.0");
    put("t.npy", "\x93NUMPY\x02\0\xff\xff\xff\xff{}      ", 20);
    check_refused("t.npy", MR_DATA_NPY, "header length is 4294967295");
    put("t.npy", "no array file at all", 20);
    check_refused("t.npy", MR_DATA_NPY, "magic is not");
}

static void test_a_negative_token_is_refused_with_its_place(void **state) {
    (void)state;
    mr_token_files *files = NULL;
    int32_t tokens[2];
    put_npy("{'descr': '<i2', 'fortran_order': False, 'shape': (2,)}", "\1\0\xfe\xff", 4);
    check_ok(mr_token_files_open(path_of("t.npy"), MR_DATA_NPY, &files));
    mr_status status = mr_token_files_read(files, 0, 2, 100, tokens);
    assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
    assert_non_null(strstr(status.text, "token 1 is -2; the vocabulary goes from 0 to 99"));
    mr_token_files_close(files);
}

static void write_tokens(const char *name, mr_data_format format, const int32_t *tokens,
                         size_t count, int64_t document_end) {
    mr_token_writer *writer = NULL;
    int32_t largest = 0;
    for (size_t i = 0; i < count; i++)
        largest = tokens[i] > largest ? tokens[i] : largest;
    const mr_token_writer_options options = {
        .path = path_of(name),
        .format = format,
        .tokens = count,
        .largest = largest,
        .document_end = document_end,
        .replace = true,
    };
    check_ok(mr_token_writer_open(&options, &writer));
    check_ok(mr_token_writer_put(writer, tokens, 1));
    check_ok(mr_token_writer_put(writer, tokens + 1, count - 1));
    check_ok(mr_token_writer_commit(writer));
    mr_token_writer_close(writer);
}

static void test_what_is_written_in_any_format_is_read_again(void **state) {
    (void)state;
    static const int32_t small[] = {7, 0, 255, 3};
    static const int32_t narrow[] = {7, 0, 65499, 3};
    static const int32_t wide[] = {7, 0, 128255, 3};
    static const int32_t *const all[] = {small, narrow, wide};
    static const mr_data_format formats[] = {MR_DATA_LLMC, MR_DATA_MEGATRON, MR_DATA_NPY};
    for (size_t f = 0; f < 3; f++)
        for (size_t i = 0; i < 3; i++) {
            mr_data_format guess = MR_DATA_BYTES;
            const char *name = formats[f] == MR_DATA_NPY ? "out.npy" : "out.bin";
            write_tokens(name, formats[f], all[i], 4, 0);
            check_tokens(name, formats[f], all[i], 4);
            check_ok(mr_token_layout_guess(path_of(name), &guess));
            assert_int_equal(guess, formats[f]);
            (void)unlink(path_of("out.idx")); /* only Megatron's */
        }
    write_tokens("out", MR_DATA_BYTES, small, 4, -1);
    check_tokens("out", MR_DATA_BYTES, small, 4);
}

static void test_the_written_bytes_are_those_of_the_formats_own_tools(void **state) {
    (void)state;
    static const int32_t tokens[] = {1, 2, 0, 65499, 0, 5};
    static const unsigned char llmc[] = {0x88, 0xd8, 0x34, 0x01, 1, 0, 0, 0, 6, 0, 0, 0};
    static const char npy[] = "{'descr': '<u2', 'fortran_order': False, 'shape': (6,), }";
    unsigned char file[2048];
    write_tokens("out.bin", MR_DATA_LLMC, tokens, 6, -1);
    assert_int_equal(get("out.bin", file, sizeof(file)), 1024 + 12);
    assert_memory_equal(file, llmc, sizeof(llmc));
    write_tokens("out.npy", MR_DATA_NPY, tokens, 6, -1);
    assert_int_equal(get("out.npy", file, sizeof(file)), 128 + 12);
    assert_memory_equal(file, "\x93NUMPY\x01\0\x76\0", 10);
    assert_memory_equal(file + 10, npy, sizeof(npy) - 1);
    assert_int_equal(file[127], '\n');
    write_tokens("out", MR_DATA_MEGATRON, tokens, 6, 0);
    assert_int_equal(get("out.idx", file, sizeof(file)), 34 + 3 * 12 + 4 * 8);
    assert_int_equal(file[17], 8);
    assert_int_equal(file[34], 3); /* 1 2 0 */
    assert_int_equal(file[38], 2); /* 65499 0 */
    assert_int_equal(file[42], 1); /* 5 */
    assert_int_equal(file[46 + 8], 6);
    assert_int_equal(file[46 + 16], 10);
    assert_int_equal(file[70 + 24], 3);
}

static void test_what_does_not_fit_or_would_be_lost_is_refused(void **state) {
    (void)state;
    mr_token_writer *writer = NULL;
    mr_token_writer_options options = {
        .path = path_of("out"), .format = MR_DATA_BYTES, .tokens = 1, .largest = 256};
    mr_status status = mr_token_writer_open(&options, &writer);
    assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
    assert_non_null(strstr(status.text, "the largest token is 256; format bytes has 0 to 255"));
    options.format = MR_DATA_LLMC;
    options.tokens = UINT64_C(1) << 31;
    status = mr_token_writer_open(&options, &writer);
    assert_non_null(strstr(status.text, "2147483648 tokens are too many"));
    put("out", "precious", 8);
    options.tokens = 1;
    status = mr_token_writer_open(&options, &writer);
    assert_int_equal(status.code, MR_CODE_ALREADY_EXISTS);
    unsigned char bytes[16];
    assert_int_equal(get("out", bytes, sizeof(bytes)), 8);
}

static void test_no_change_of_a_header_byte_does_worse_than_be_refused(void **state) {
    (void)state;
    unsigned char index[INDEX_BYTES];
    unsigned char file[256];
    static const unsigned char values[] = {0, 1, 0x7f, 0x80, 0xff};
    static const int32_t tokens[] = {1, 2, 3};
    mr_token_layout layout;
    put_pair();
    for (size_t at = 0; at < INDEX_BYTES; at++)
        for (size_t v = 0; v < sizeof(values); v++) {
            size_t size = make_index(index);
            index[at] = values[v];
            put("t.idx", index, size);
            mr_status status = mr_token_layout_read(path_of("t"), MR_DATA_MEGATRON, &layout);
            assert_true(mr_status_is_ok(status) || status.code == MR_CODE_INVALID_ARGUMENT);
            if (mr_status_is_ok(status))
                mr_free(layout.path);
        }
    write_tokens("out.npy", MR_DATA_NPY, tokens, 3, -1);
    size_t size = get("out.npy", file, sizeof(file));
    for (size_t at = 0; at < size - 6; at++)
        for (size_t v = 0; v < sizeof(values); v++) {
            unsigned char before = file[at];
            file[at] = values[v];
            put("t.npy", file, size);
            file[at] = before;
            mr_status status = mr_token_layout_read(path_of("t.npy"), MR_DATA_NPY, &layout);
            assert_true(mr_status_is_ok(status) || status.code == MR_CODE_INVALID_ARGUMENT);
            if (mr_status_is_ok(status))
                mr_free(layout.path);
        }
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_a_megatron_pair_is_read_by_any_of_its_names),
        TEST(test_every_wrong_field_of_an_index_is_named),
        TEST(test_npy_of_every_type_is_read),
        TEST(test_every_wrong_part_of_an_npy_header_is_named),
        TEST(test_a_negative_token_is_refused_with_its_place),
        TEST(test_what_is_written_in_any_format_is_read_again),
        TEST(test_the_written_bytes_are_those_of_the_formats_own_tools),
        TEST(test_what_does_not_fit_or_would_be_lost_is_refused),
        TEST(test_no_change_of_a_header_byte_does_worse_than_be_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
