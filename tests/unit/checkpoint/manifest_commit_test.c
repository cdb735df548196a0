/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a commit puts a whole checkpoint in place or changes nothing, and refuses what is old,
 * missing or somebody else's.
 * Method: saves into a temporary folder, with one thing wrong each. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/checkpoint/catalog.h"
#include "tests/unit/checkpoint/fixture.h"

#define TAG "step-000000000010"

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

static void check_latest(const char *line) {
    char path[FIXTURE_PATH_BYTES];
    size_t size = 0;
    fixture_path(path, dir, "latest", NULL);
    unsigned char *text = fixture_get(path, &size);
    assert_string_equal((char *)text, line);
    free(text);
}

static uint64_t committed_step(const char *tag) {
    char path[FIXTURE_PATH_BYTES];
    mr_manifest manifest;
    fixture_path(path, dir, tag, NULL);
    fixture_ok(mr_manifest_read(path, &manifest));
    uint64_t step = manifest.step;
    mr_manifest_deinit(&manifest);
    fixture_ok(mr_catalog_verify(path, NULL, NULL, NULL));
    return step;
}

static void test_commit_leaves_exactly_the_checkpoint(void **state) {
    (void)state;
    char path[FIXTURE_PATH_BYTES];
    fixture_ok(fixture_save_step(dir, 1, 10));
    assert_int_equal(fixture_count(dir, ""), 2); /* the tag and latest */
    fixture_path(path, dir, TAG, NULL);
    assert_int_equal(fixture_count(path, ""), FIXTURE_FILES + 1);
    assert_int_equal(committed_step(TAG), 10);
    check_latest(TAG "\n");
}

static void test_missing_folders_are_made(void **state) {
    (void)state;
    char deep[FIXTURE_PATH_BYTES];
    fixture_path(deep, dir, "a/b", "c");
    fixture_ok(fixture_save_step(deep, 1, 10));
    fixture_path(deep, dir, "a/b/c", TAG);
    fixture_ok(mr_catalog_verify(deep, NULL, NULL, NULL));
}

static void test_same_tag_is_exchanged(void **state) {
    (void)state;
    fixture_ok(fixture_save(dir, "best", 1, 10));
    fixture_ok(fixture_save(dir, "best", 1, 20));
    assert_int_equal(committed_step("best"), 20);
    fixture_ok(fixture_save(dir, "best", 2, 5));
    assert_int_equal(committed_step("best"), 5);
    assert_int_equal(fixture_count(dir, ""), 2);
    check_latest("best\n");
}

static void test_lower_epoch_is_refused(void **state) {
    (void)state;
    fixture_ok(fixture_save_step(dir, 5, 10));
    fixture_fails(fixture_save_step(dir, 4, 10), MR_CODE_FAILED_PRECONDITION,
                  "E_STALE_EPOCH got=4 current=5");
    char path[FIXTURE_PATH_BYTES];
    mr_manifest manifest;
    fixture_path(path, dir, TAG, NULL);
    fixture_ok(mr_manifest_read(path, &manifest));
    assert_int_equal(manifest.epoch, 5);
    mr_manifest_deinit(&manifest);
}

static void test_old_epoch_writer_cannot_touch_the_commit(void **state) {
    (void)state;
    mr_checkpoint_file files[FIXTURE_FILES];
    mr_manifest manifest;
    char path[FIXTURE_PATH_BYTES];
    fixture_ok(fixture_write(dir, TAG, 1, 10, files, &manifest)); /* epoch 1 dies here */
    fixture_ok(fixture_save_step(dir, 2, 10));
    fixture_ok(fixture_write(dir, TAG, 1, 10, files, &manifest)); /* and comes back */
    assert_int_equal(committed_step(TAG), 10);
    fixture_path(path, dir, TAG, NULL);
    assert_int_equal(fixture_count(path, ""), FIXTURE_FILES + 1);
    fixture_fails(mr_manifest_commit(dir, TAG, &manifest, NULL), MR_CODE_FAILED_PRECONDITION,
                  "E_STALE_EPOCH got=1 current=2");
}

static void test_other_job_keeps_its_checkpoint(void **state) {
    (void)state;
    mr_checkpoint_file files[FIXTURE_FILES];
    mr_manifest manifest;
    fixture_ok(fixture_save_step(dir, 1, 10));
    fixture_ok(fixture_write(dir, TAG, 9, 10, files, &manifest));
    (void)snprintf(manifest.job, sizeof(manifest.job), "other");
    fixture_fails(mr_manifest_commit(dir, TAG, &manifest, NULL), MR_CODE_ALREADY_EXISTS,
                  "belongs to job tiny, not to other");
}

static void test_repeated_commit_is_fine(void **state) {
    (void)state;
    mr_checkpoint_file files[FIXTURE_FILES];
    mr_manifest manifest;
    fixture_ok(fixture_write(dir, TAG, 1, 10, files, &manifest));
    fixture_ok(mr_manifest_commit(dir, TAG, &manifest, NULL));
    fixture_ok(mr_manifest_commit(dir, TAG, &manifest, NULL));
    assert_int_equal(committed_step(TAG), 10);
}

static void test_missing_or_cut_file_is_refused(void **state) {
    (void)state;
    mr_checkpoint_file files[FIXTURE_FILES];
    mr_manifest manifest;
    char folder[FIXTURE_PATH_BYTES];
    char path[FIXTURE_PATH_BYTES];
    fixture_ok(fixture_write(dir, TAG, 1, 10, files, &manifest));
    fixture_ok(mr_layout_save_path(dir, TAG, 1, 10, folder, sizeof(folder)));
    fixture_path(path, folder, files[1].name, NULL);
    assert_int_equal(truncate(path, 40), 0);
    fixture_fails(mr_manifest_commit(dir, TAG, &manifest, NULL), MR_CODE_FAILED_PRECONDITION,
                  "E_CKPT_SIZE file=layer_00-optim_states.safetensors want=");
    assert_int_equal(unlink(path), 0);
    fixture_fails(mr_manifest_commit(dir, TAG, &manifest, NULL), MR_CODE_FAILED_PRECONDITION,
                  "E_CKPT_MISSING file=layer_00-optim_states.safetensors");
    assert_int_equal(symlink("layer_00-model_states.safetensors", path), 0);
    fixture_fails(mr_manifest_commit(dir, TAG, &manifest, NULL), MR_CODE_PERMISSION_DENIED,
                  "E_CKPT_FILE reason=symlink");
    fixture_path(path, dir, TAG, NULL);
    assert_false(fixture_exists(path));
    manifest.step = 11; /* nobody wrote that one */
    fixture_fails(mr_manifest_commit(dir, TAG, &manifest, NULL), MR_CODE_FAILED_PRECONDITION,
                  "E_CKPT_MISSING file=.save-e");
}

static void test_unknown_folder_is_kept_unless_it_is_a_step(void **state) {
    (void)state;
    char path[FIXTURE_PATH_BYTES];
    fixture_path(path, dir, "mine", NULL);
    assert_int_equal(mkdir(path, 0700), 0);
    fixture_path(path, dir, "mine", "notes");
    fixture_put(path, "x", 1);
    fixture_fails(fixture_save(dir, "mine", 1, 10), MR_CODE_ALREADY_EXISTS,
                  "is a folder, but no checkpoint");
    assert_true(fixture_exists(path));
    fixture_path(path, dir, TAG, NULL);
    assert_int_equal(mkdir(path, 0700), 0);
    fixture_path(path, dir, TAG, "layer_00-model_states.safetensors");
    fixture_put(path, "half", 4);
    fixture_ok(fixture_save_step(dir, 1, 10));
    assert_int_equal(committed_step(TAG), 10);
}

static void test_damaged_checkpoint_is_replaced(void **state) {
    (void)state;
    char path[FIXTURE_PATH_BYTES];
    fixture_ok(fixture_save_step(dir, 7, 10));
    fixture_path(path, dir, TAG, "manifest.json");
    fixture_put(path, "{", 1);
    fixture_ok(fixture_save_step(dir, 1, 10));
    assert_int_equal(committed_step(TAG), 10);
}

static void test_missing_dir_is_named(void **state) {
    (void)state;
    mr_checkpoint_file files[FIXTURE_FILES];
    mr_manifest manifest;
    char gone[FIXTURE_PATH_BYTES];
    fixture_ok(fixture_write(dir, TAG, 1, 10, files, &manifest));
    fixture_path(gone, dir, "gone", NULL);
    fixture_fails(mr_manifest_commit(gone, TAG, &manifest, NULL), MR_CODE_NOT_FOUND,
                  "No such file or directory");
    fixture_fails(mr_manifest_commit(dir, "a/b", &manifest, NULL), MR_CODE_INVALID_ARGUMENT,
                  "E_TAG reason=char");
}

static void test_folder_that_forbids_writing_is_named(void **state) {
    (void)state;
    char path[FIXTURE_PATH_BYTES];
    if (geteuid() == 0) {
        print_message("skipped: root may write everywhere\n");
        skip();
    }
    fixture_path(path, dir, "locked", NULL);
    assert_int_equal(mkdir(path, 0500), 0);
    fixture_fails(fixture_save_step(path, 1, 10), MR_CODE_PERMISSION_DENIED, "Permission denied");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_commit_leaves_exactly_the_checkpoint, setup, teardown),
        cmocka_unit_test_setup_teardown(test_missing_folders_are_made, setup, teardown),
        cmocka_unit_test_setup_teardown(test_same_tag_is_exchanged, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lower_epoch_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_old_epoch_writer_cannot_touch_the_commit, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_other_job_keeps_its_checkpoint, setup, teardown),
        cmocka_unit_test_setup_teardown(test_repeated_commit_is_fine, setup, teardown),
        cmocka_unit_test_setup_teardown(test_missing_or_cut_file_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unknown_folder_is_kept_unless_it_is_a_step, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_damaged_checkpoint_is_replaced, setup, teardown),
        cmocka_unit_test_setup_teardown(test_missing_dir_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(test_folder_that_forbids_writing_is_named, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
