/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: what is written is the format, to the byte, and comes back equal.
 * Method: a file against golden bytes written out by hand from the format's text; its hash
 * against the crypto tool's answer for those bytes; a reader in Python that knows only json and
 * struct; round trips. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/checkpoint/safetensors.h"
#include "tests/unit/checkpoint/fixture.h"

static const float weight[4] = {1.0f, -2.0f, 0.5f, 0.0f};
static const unsigned char flags[3] = {1, 2, 255};
static const mr_safetensors_tensor golden_tensors[] = {
    {.name = "weight", .dtype = MR_SAFETENSORS_F32, .dims = 2, .shape = {2, 2}, .data = weight},
    {.name = "none", .dtype = MR_SAFETENSORS_F32, .dims = 1, .shape = {0}},
    {.name = "flags", .dtype = MR_SAFETENSORS_U8, .dims = 1, .shape = {3}, .data = flags},
};
static const char golden_header[] =
    "{\"__metadata__\":{\"format\":\"pt\"},"
    "\"weight\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]},"
    "\"none\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[16,16]},"
    "\"flags\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[16,19]}}";
static const unsigned char golden_data[19] = {0, 0,    0x80, 0x3f, 0, 0, 0, 0xc0, 0,  0,
                                              0, 0x3f, 0,    0,    0, 0, 1, 2,    255};

static char dir[FIXTURE_PATH_BYTES];

static int setup(void **state) {
    (void)state;
    fixture_make(dir);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    fixture_remove(dir);
    return 0;
}

static void test_file_equals_golden_bytes(void **state) {
    (void)state;
    mr_checkpoint_file file;
    fixture_ok(mr_safetensors_write(dir, "golden.safetensors", golden_tensors, 3, &file));
    char path[FIXTURE_PATH_BYTES];
    fixture_path(path, dir, "golden.safetensors", NULL);
    size_t size = 0;
    unsigned char *bytes = fixture_get(path, &size);
    size_t header = (strlen(golden_header) + 7) / 8 * 8;
    assert_int_equal(size, 8 + header + sizeof(golden_data));
    assert_int_equal(bytes[0], header & 255);
    assert_int_equal(bytes[1], header >> 8);
    for (size_t i = 2; i < 8; i++)
        assert_int_equal(bytes[i], 0);
    assert_memory_equal(bytes + 8, golden_header, strlen(golden_header));
    for (size_t i = 8 + strlen(golden_header); i < 8 + header; i++)
        assert_int_equal(bytes[i], ' ');
    assert_memory_equal(bytes + 8 + header, golden_data, sizeof(golden_data));
    assert_string_equal(file.name, "golden.safetensors");
    assert_int_equal(file.bytes, size);
    /* sha256sum of the bytes above. */
    assert_string_equal(file.sha256,
                        "a6dd23b880f1500d31419a310cfef3ed5f8441f246b449b1365941867876f14c");
    assert_int_equal(fixture_count(dir, ".tmp-"), 0);
    free(bytes);
}

static void test_file_is_private_and_replaced_whole(void **state) {
    (void)state;
    mr_checkpoint_file first;
    mr_checkpoint_file second;
    fixture_ok(mr_safetensors_write(dir, "a.safetensors", golden_tensors, 3, &first));
    fixture_ok(mr_safetensors_write(dir, "a.safetensors", golden_tensors, 1, &second));
    char path[FIXTURE_PATH_BYTES];
    struct stat facts;
    fixture_path(path, dir, "a.safetensors", NULL);
    assert_int_equal(stat(path, &facts), 0);
    assert_int_equal(facts.st_mode & 0777, 0600);
    assert_int_equal(facts.st_size, second.bytes);
    assert_int_equal(fixture_count(dir, ""), 1);
}

static void test_pieces_give_the_same_file(void **state) {
    (void)state;
    mr_checkpoint_file whole;
    mr_checkpoint_file pieces;
    mr_safetensors_writer *writer = NULL;
    fixture_ok(mr_safetensors_write(dir, "whole.safetensors", golden_tensors, 3, &whole));
    fixture_ok(mr_safetensors_writer_open(dir, "pieces.safetensors", golden_tensors, 3, &writer));
    for (size_t i = 0; i < sizeof(golden_data); i++)
        fixture_ok(mr_safetensors_writer_append(writer, golden_data + i, 1));
    fixture_fails(mr_safetensors_writer_append(writer, golden_data, 1), MR_CODE_OUT_OF_RANGE,
                  "only 0 are left");
    fixture_ok(mr_safetensors_writer_finish(writer, &pieces));
    mr_safetensors_writer_close(writer);
    assert_int_equal(whole.bytes, pieces.bytes);
    assert_string_equal(whole.sha256, pieces.sha256);
}

static void test_unfinished_file_does_not_appear(void **state) {
    (void)state;
    mr_checkpoint_file file;
    mr_safetensors_writer *writer = NULL;
    fixture_ok(mr_safetensors_writer_open(dir, "half.safetensors", golden_tensors, 3, &writer));
    fixture_ok(mr_safetensors_writer_append(writer, golden_data, 5));
    fixture_fails(mr_safetensors_writer_finish(writer, &file), MR_CODE_FAILED_PRECONDITION,
                  "5 of 19 bytes");
    mr_safetensors_writer_close(writer);
    assert_int_equal(fixture_count(dir, ""), 0);
}

static void test_tensors_come_back_equal(void **state) {
    (void)state;
    mr_checkpoint_file file;
    char path[FIXTURE_PATH_BYTES];
    mr_safetensors_reader *reader = NULL;
    fixture_path(path, dir, "a.safetensors", NULL);
    fixture_ok(mr_safetensors_write(dir, "a.safetensors", golden_tensors, 3, &file));
    fixture_ok(mr_safetensors_open(path, &reader));
    assert_int_equal(mr_safetensors_count(reader), 3);
    assert_string_equal(mr_safetensors_metadata(reader, "format"), "pt");
    assert_null(mr_safetensors_metadata(reader, "other"));
    assert_null(mr_safetensors_find(reader, "other"));
    float out[4] = {9, 9, 9, 9};
    fixture_ok(mr_safetensors_load(reader, &golden_tensors[0], out));
    assert_memory_equal(out, weight, sizeof(weight));
    unsigned char tail[2] = {0, 0};
    const mr_safetensors_tensor *found = mr_safetensors_find(reader, "flags");
    assert_non_null(found);
    fixture_ok(mr_safetensors_read(reader, found, 1, tail, 2));
    assert_memory_equal(tail, flags + 1, 2);
    fixture_fails(mr_safetensors_read(reader, found, 2, tail, 2), MR_CODE_OUT_OF_RANGE, "flags");
    mr_safetensors_close(reader);
}

static void test_other_dtype_or_shape_is_not_loaded(void **state) {
    (void)state;
    mr_checkpoint_file file;
    char path[FIXTURE_PATH_BYTES];
    mr_safetensors_reader *reader = NULL;
    float out[4] = {9, 9, 9, 9};
    fixture_path(path, dir, "a.safetensors", NULL);
    fixture_ok(mr_safetensors_write(dir, "a.safetensors", golden_tensors, 3, &file));
    fixture_ok(mr_safetensors_open(path, &reader));
    mr_safetensors_tensor wanted = golden_tensors[0];
    wanted.dtype = MR_SAFETENSORS_BF16;
    fixture_fails(mr_safetensors_load(reader, &wanted, out), MR_CODE_DATA_LOSS,
                  "E_CKPT_DTYPE tensor=weight want=BF16 have=F32");
    wanted = golden_tensors[0];
    wanted.shape[1] = 3;
    fixture_fails(mr_safetensors_load(reader, &wanted, out), MR_CODE_DATA_LOSS,
                  "E_CKPT_SHAPE tensor=weight want=[2,3] have=[2,2]");
    wanted.name = "gone";
    fixture_fails(mr_safetensors_load(reader, &wanted, out), MR_CODE_DATA_LOSS,
                  "E_CKPT_MISSING tensor=gone");
    assert_true(out[0] == 9.0f); /* written only on success */
    mr_safetensors_close(reader);
}

static void test_writer_refuses_bad_lists(void **state) {
    (void)state;
    mr_checkpoint_file file;
    mr_safetensors_tensor pair[2] = {golden_tensors[0], golden_tensors[0]};
    fixture_fails(mr_safetensors_write(dir, "x", pair, 2, &file), MR_CODE_INVALID_ARGUMENT,
                  "E_CKPT_DUP tensor=weight");
    pair[0].name = "a\"b";
    fixture_fails(mr_safetensors_write(dir, "x", pair, 2, &file), MR_CODE_INVALID_ARGUMENT,
                  "byte 34 at 1");
    pair[0].name = "__metadata__";
    fixture_fails(mr_safetensors_write(dir, "x", pair, 2, &file), MR_CODE_INVALID_ARGUMENT,
                  "__metadata__");
    pair[0].name = "big";
    pair[0].shape[0] = UINT64_MAX / 2;
    fixture_fails(mr_safetensors_write(dir, "x", pair, 2, &file), MR_CODE_INVALID_ARGUMENT,
                  "E_CKPT_OVERFLOW tensor=big");
    fixture_fails(mr_safetensors_write(dir, "../x", golden_tensors, 3, &file),
                  MR_CODE_INVALID_ARGUMENT, "cannot name a file");
    assert_int_equal(fixture_count(dir, ""), 0);
}

static void test_missing_memory_is_a_status(void **state) {
    (void)state;
    char path[FIXTURE_PATH_BYTES];
    mr_checkpoint_file file;
    fixture_path(path, dir, "a.safetensors", NULL);
    bool all_passed = false;
    for (uint64_t n = 1; !all_passed && n < 100; n++) {
        mr_alloc_fail_at(n);
        mr_status status = mr_safetensors_write(dir, "a.safetensors", golden_tensors, 3, &file);
        mr_safetensors_reader *reader = NULL;
        if (mr_status_is_ok(status))
            status = mr_safetensors_open(path, &reader);
        mr_alloc_fail_at(0);
        mr_safetensors_close(reader);
        all_passed = mr_status_is_ok(status);
        if (!all_passed)
            assert_int_equal(status.code, MR_CODE_RESOURCE_EXHAUSTED);
    }
    assert_true(all_passed);
    assert_int_equal(fixture_count(dir, ".tmp-"), 0);
}

/* A reader that shares nothing with ours. */
static void test_python_reads_the_same(void **state) {
    (void)state;
    static const char script[] =
        "import json, struct, sys\n"
        "b = open(sys.argv[1], 'rb').read()\n"
        "n, = struct.unpack('<Q', b[:8])\n"
        "assert n % 8 == 0 and b[8:9] == b'{'\n"
        "h = json.loads(b[8:8 + n])\n"
        "assert h.pop('__metadata__') == {'format': 'pt'}\n"
        "assert list(h) == ['weight', 'none', 'flags'], h\n"
        "d = lambda k: b[8 + n + h[k]['data_offsets'][0]:8 + n + h[k]['data_offsets'][1]]\n"
        "assert struct.unpack('<4f', d('weight')) == (1.0, -2.0, 0.5, 0.0)\n"
        "assert h['weight']['shape'] == [2, 2] and h['weight']['dtype'] == 'F32'\n"
        "assert d('none') == b'' and list(d('flags')) == [1, 2, 255]\n"
        "assert len(b) == 8 + n + 19\n";
    if (access("/usr/bin/python3", X_OK) != 0) {
        print_message("skipped: no /usr/bin/python3\n");
        skip();
    }
    mr_checkpoint_file file;
    char path[FIXTURE_PATH_BYTES];
    char program[FIXTURE_PATH_BYTES];
    char command[2 * FIXTURE_PATH_BYTES + 64];
    fixture_ok(mr_safetensors_write(dir, "a.safetensors", golden_tensors, 3, &file));
    fixture_path(path, dir, "a.safetensors", NULL);
    fixture_path(program, dir, "read.py", NULL);
    fixture_put(program, script, strlen(script));
    (void)snprintf(command, sizeof(command), "/usr/bin/python3 '%s' '%s'", program, path);
    assert_int_equal(system(command), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_file_equals_golden_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_file_is_private_and_replaced_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pieces_give_the_same_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unfinished_file_does_not_appear, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tensors_come_back_equal, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_dtype_or_shape_is_not_loaded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_writer_refuses_bad_lists, setup, teardown),
        cmocka_unit_test_setup_teardown(test_missing_memory_is_a_status, setup, teardown),
        cmocka_unit_test_setup_teardown(test_python_reads_the_same, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
