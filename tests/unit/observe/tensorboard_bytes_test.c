/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: an event file is what TensorBoard reads, to the byte; every opening makes a file of its
 * own; a folder that cannot be used is named. Method: bytes that TensorBoard's own writer gives for
 * the same events; a fresh folder; a file in a folder's place. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/observe/tensorboard.h"

static const char version_record[] =
    "1800000000000000a37f4b2209000000000000f03f1a0d627261696e2e4576656e743a3286bf577a";
static const char step_record[] =
    "1a00000000000000129bd82d090000000000000040100a2a0d0a0b0a046c6f73731500002040097a8f44";

static char folder[512];

static void ok(mr_status status) {
    if (!mr_status_is_ok(status))
        fail_msg("%s: %s", mr_code_name(status.code), status.text);
}

static int setup(void **state) {
    (void)state;
    const char *base = getenv("TEST_TMPDIR");
    int bytes = snprintf(folder, sizeof(folder), "%s/tensorboard-XXXXXX",
                         base == NULL ? "/tmp" : base);
    if (bytes < 0 || (size_t)bytes >= sizeof(folder))
        return -1;
    return mkdtemp(folder) == NULL ? -1 : 0;
}

/* Deletes a folder of files. */
static void folder_delete(const char *path) {
    DIR *stream = opendir(path);
    const struct dirent *entry;
    while (stream != NULL && (entry = readdir(stream)) != NULL) {
        char name[1024];
        (void)snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
        (void)unlink(name); /* of . and .. it fails */
    }
    if (stream != NULL)
        (void)closedir(stream);
    (void)rmdir(path);
}

static int teardown(void **state) {
    (void)state;
    folder_delete(folder);
    return 0;
}

/* The file's bytes as hex digits. */
static void hex_read(const char *path, char *out_hex, size_t capacity) {
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t used = 0;
    for (int byte = fgetc(file); byte != EOF; byte = fgetc(file)) {
        assert_true(used + 3 <= capacity);
        (void)snprintf(out_hex + used, 3, "%02x", (unsigned)byte);
        used += 2;
    }
    (void)fclose(file);
}

static void test_records_equal_tensorboards_own(void **state) {
    (void)state;
    char hex[1024] = "";
    mr_tensorboard *board = NULL;
    ok(mr_tensorboard_open(folder, 1.0, 10, &board));
    const mr_tensorboard_scalar loss = {"loss", 2.5f};
    ok(mr_tensorboard_add(board, 2.0, 10, &loss, 1));
    ok(mr_tensorboard_flush(board));
    hex_read(mr_tensorboard_path(board), hex, sizeof(hex));
    assert_memory_equal(hex, version_record, strlen(version_record));
    /* Then the session's start: wall_time 1.0, step 10, session_log {status: START}. */
    assert_memory_equal(hex + strlen(version_record), "0f00000000000000", 16);
    assert_memory_equal(hex + strlen(version_record) + 24, "09000000000000f03f100a3a020801", 30);
    assert_string_equal(hex + strlen(hex) - strlen(step_record), step_record);
    mr_tensorboard_close(board);
}

static void test_many_steps_need_no_flush_by_the_caller(void **state) {
    (void)state;
    enum { STEPS = 3000 };
    mr_tensorboard *board = NULL;
    ok(mr_tensorboard_open(folder, 1.0, 1, &board));
    const mr_tensorboard_scalar loss = {"loss", 2.5f};
    for (uint64_t step = 1; step <= STEPS; step++)
        ok(mr_tensorboard_add(board, 2.0, step, &loss, 1));
    FILE *file = fopen(mr_tensorboard_path(board), "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    long early = ftell(file);
    assert_true(early > 0); /* the buffer was full and went to the file */
    ok(mr_tensorboard_flush(board));
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    assert_true(ftell(file) > early);
    assert_true(ftell(file) >= STEPS * (long)(strlen(step_record) / 2));
    (void)fclose(file);
    mr_tensorboard_close(board);
}

static void test_each_opening_has_a_file_of_its_own(void **state) {
    (void)state;
    mr_tensorboard *first = NULL;
    mr_tensorboard *second = NULL;
    ok(mr_tensorboard_open(folder, 7.0, 1, &first));
    ok(mr_tensorboard_open(folder, 7.0, 1, &second));
    assert_string_not_equal(mr_tensorboard_path(first), mr_tensorboard_path(second));
    assert_non_null(strstr(mr_tensorboard_path(first), "/events.out.tfevents.0000000007."));
    mr_tensorboard_close(first);
    mr_tensorboard_close(second);
    mr_tensorboard_close(NULL);
}

static void test_folder_is_made_with_its_parents(void **state) {
    (void)state;
    char deep[600];
    char middle[560];
    (void)snprintf(middle, sizeof(middle), "%s/a", folder);
    (void)snprintf(deep, sizeof(deep), "%s/b", middle);
    mr_tensorboard *board = NULL;
    ok(mr_tensorboard_open(deep, 1.0, 1, &board));
    assert_int_equal(strncmp(mr_tensorboard_path(board), deep, strlen(deep)), 0);
    mr_tensorboard_close(board);
    folder_delete(deep);
    folder_delete(middle);
}

static void test_folder_that_cannot_be_is_named(void **state) {
    (void)state;
    mr_tensorboard *board = NULL;
    mr_status status = mr_tensorboard_open("/dev/null/board", 1.0, 1, &board);
    assert_int_equal(status.code, MR_CODE_NOT_FOUND);
    assert_non_null(strstr(status.text, "/dev/null/board"));
    assert_null(board);
    char *longest = malloc(4096);
    assert_non_null(longest);
    memset(longest, 'x', 4095);
    longest[4095] = '\0';
    status = mr_tensorboard_open(longest, 1.0, 1, &board);
    assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
    assert_non_null(strstr(status.text, "4095"));
    free(longest);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_records_equal_tensorboards_own, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_steps_need_no_flush_by_the_caller, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_each_opening_has_a_file_of_its_own, setup, teardown),
        cmocka_unit_test_setup_teardown(test_folder_is_made_with_its_parents, setup, teardown),
        cmocka_unit_test(test_folder_that_cannot_be_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
