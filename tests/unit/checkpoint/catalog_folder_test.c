/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the catalogue sees committed checkpoints and nothing else, in the order of their steps;
 * finds damage and names it; deletes only what it may.
 * Method: folders with good, damaged and foreign entries side by side. */
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
#include "daemon/checkpoint/catalog.h"
#include "tests/unit/checkpoint/fixture.h"

static char dir[FIXTURE_PATH_BYTES];

/* What report was told, one line each. */
static char reports[4096];

static void record(void *context, const char *tag, const char *file, mr_status why) {
    (void)context;
    size_t used = strlen(reports);
    (void)snprintf(reports + used, sizeof(reports) - used, "%s|%s|%s|%s\n", tag, file,
                   mr_code_name(why.code), why.text);
}

static int setup(void **state) {
    (void)state;
    fixture_make(dir);
    reports[0] = '\0';
    return 0;
}

static int teardown(void **state) {
    (void)state;
    fixture_remove(dir);
    return 0;
}

/* The listed tags, joined by spaces. */
static const char *listed(const char *job) {
    static char text[1024];
    mr_catalog_entry *entries = NULL;
    size_t count = 0;
    fixture_ok(mr_catalog_list(dir, job, record, NULL, &entries, &count));
    text[0] = '\0';
    for (size_t i = 0; i < count; i++) {
        size_t used = strlen(text);
        (void)snprintf(text + used, sizeof(text) - used, "%s%s", i == 0 ? "" : " ", entries[i].tag);
    }
    mr_free(entries);
    return text;
}

static void damage(const char *tag, const char *file, long offset) {
    char path[FIXTURE_PATH_BYTES];
    fixture_path(path, dir, tag, file);
    size_t size = 0;
    unsigned char *bytes = fixture_get(path, &size);
    bytes[offset < 0 ? size - (size_t)-offset : (size_t)offset] ^= 1;
    fixture_put(path, bytes, size);
    free(bytes);
}

static void test_list_is_in_order_of_steps(void **state) {
    (void)state;
    fixture_ok(fixture_save_step(dir, 1, 1000000000000u));
    fixture_ok(fixture_save_step(dir, 1, 9));
    fixture_ok(fixture_save_step(dir, 1, 10));
    fixture_ok(fixture_save(dir, "before-change", 1, 10));
    fixture_ok(fixture_save(dir, "a-later-one", 2, 9));
    assert_string_equal(listed(NULL), "step-000000000009 a-later-one before-change "
                                      "step-000000000010 step-1000000000000");
    assert_string_equal(reports, "");
}

static void test_list_says_what_a_checkpoint_holds(void **state) {
    (void)state;
    mr_catalog_entry *entries = NULL;
    size_t count = 0;
    fixture_ok(fixture_save_step(dir, 4, 9));
    fixture_ok(mr_catalog_list(dir, "tiny", NULL, NULL, &entries, &count));
    assert_int_equal(count, 1);
    assert_string_equal(entries[0].job, "tiny");
    assert_string_equal(entries[0].model_hash, "00ff");
    assert_int_equal(entries[0].step, 9);
    assert_int_equal(entries[0].epoch, 4);
    assert_int_equal(entries[0].file_count, FIXTURE_FILES);
    assert_true(entries[0].bytes > FIXTURE_FILES * 288);
    assert_true(entries[0].committed_ms > 1600000000000);
    mr_free(entries);
    fixture_ok(mr_catalog_list(dir, "other", NULL, NULL, &entries, &count));
    assert_int_equal(count, 0);
}

static void test_folder_without_manifest_is_no_checkpoint(void **state) {
    (void)state;
    char path[FIXTURE_PATH_BYTES];
    mr_checkpoint_file files[FIXTURE_FILES];
    mr_manifest manifest;
    fixture_ok(fixture_save_step(dir, 1, 10));
    fixture_ok(fixture_save_step(dir, 1, 20));
    fixture_ok(fixture_write(dir, "step-000000000030", 1, 30, files, &manifest));
    fixture_path(path, dir, "step-000000000020", "manifest.json");
    assert_int_equal(unlink(path), 0);
    fixture_path(path, dir, "notes.txt", NULL);
    fixture_put(path, "x", 1);
    fixture_path(path, dir, "link", NULL);
    assert_int_equal(symlink("step-000000000010", path), 0);
    assert_string_equal(listed(NULL), "step-000000000010");
    assert_string_equal(reports, "");
}

static void test_damaged_manifest_is_reported_and_passed_over(void **state) {
    (void)state;
    mr_catalog_entry newest;
    fixture_ok(fixture_save_step(dir, 1, 10));
    fixture_ok(fixture_save_step(dir, 1, 20));
    damage("step-000000000020", "manifest.json", 60);
    fixture_ok(mr_catalog_newest(dir, NULL, record, NULL, &newest));
    assert_string_equal(newest.tag, "step-000000000010");
    assert_non_null(strstr(reports, "step-000000000020|manifest.json|DATA_LOSS|E_CKPT_MANIFEST"));
}

static void test_newest_has_all_its_files(void **state) {
    (void)state;
    char path[FIXTURE_PATH_BYTES];
    mr_catalog_entry newest;
    fixture_ok(fixture_save_step(dir, 1, 10));
    fixture_ok(fixture_save_step(dir, 1, 20));
    fixture_ok(fixture_save_step(dir, 1, 30));
    fixture_path(path, dir, "step-000000000030", "layer_01-model_states.safetensors");
    assert_int_equal(unlink(path), 0);
    fixture_path(path, dir, "step-000000000020", "layer_01-model_states.safetensors");
    assert_int_equal(truncate(path, 10), 0);
    fixture_ok(mr_catalog_newest(dir, "tiny", record, NULL, &newest));
    assert_string_equal(newest.tag, "step-000000000010");
    assert_non_null(strstr(reports, "step-000000000030|layer_01-model_states.safetensors|DATA_LOSS|"
                                    "E_CKPT_MISSING"));
    assert_non_null(strstr(reports, "step-000000000020|layer_01-model_states.safetensors|DATA_LOSS|"
                                    "E_CKPT_SIZE"));
}

static void test_newest_does_not_believe_latest(void **state) {
    (void)state;
    char path[FIXTURE_PATH_BYTES];
    mr_catalog_entry newest;
    fixture_ok(fixture_save_step(dir, 1, 10));
    fixture_ok(fixture_save_step(dir, 1, 20));
    fixture_path(path, dir, "latest", NULL);
    fixture_put(path, "../../etc\n", 10);
    fixture_ok(mr_catalog_newest(dir, NULL, NULL, NULL, &newest));
    assert_string_equal(newest.tag, "step-000000000020");
}

static void test_empty_and_missing_folder_have_none(void **state) {
    (void)state;
    char gone[FIXTURE_PATH_BYTES];
    mr_catalog_entry newest;
    mr_catalog_entry *entries = NULL;
    size_t count = 9;
    uint64_t epoch = 9;
    fixture_fails(mr_catalog_newest(dir, NULL, NULL, NULL, &newest), MR_CODE_NOT_FOUND,
                  "no committed checkpoint in");
    fixture_ok(mr_catalog_list(dir, NULL, NULL, NULL, &entries, &count));
    assert_int_equal(count, 0);
    fixture_path(gone, dir, "gone", NULL);
    fixture_fails(mr_catalog_list(gone, NULL, NULL, NULL, &entries, &count), MR_CODE_NOT_FOUND,
                  "gone");
    fixture_ok(mr_catalog_epoch(gone, &epoch));
    assert_int_equal(epoch, 0);
    fixture_ok(mr_catalog_sweep(gone, 9, NULL));
    fixture_ok(mr_catalog_discard(gone, "best", 1, 1));
}

static void test_sound_checkpoint_is_verified(void **state) {
    (void)state;
    char path[FIXTURE_PATH_BYTES];
    mr_catalog_verdict verdict;
    fixture_ok(fixture_save_step(dir, 1, 10));
    fixture_path(path, dir, "step-000000000010/", NULL);
    fixture_ok(mr_catalog_verify(path, record, NULL, &verdict));
    assert_int_equal(verdict.files, FIXTURE_FILES);
    assert_int_equal(verdict.problems, 0);
    fixture_fails(mr_catalog_verify(dir, NULL, NULL, NULL), MR_CODE_NOT_FOUND,
                  "no committed checkpoint");
}

static void test_every_problem_is_reported(void **state) {
    (void)state;
    char path[FIXTURE_PATH_BYTES];
    mr_catalog_verdict verdict;
    fixture_ok(fixture_save_step(dir, 1, 10));
    damage("step-000000000010", "layer_00-model_states.safetensors", -5);
    fixture_path(path, dir, "step-000000000010", "layer_00-optim_states.safetensors");
    assert_int_equal(truncate(path, 20), 0);
    fixture_path(path, dir, "step-000000000010", "layer_01-model_states.safetensors");
    assert_int_equal(unlink(path), 0);
    fixture_path(path, dir, "step-000000000010", NULL);
    fixture_fails(mr_catalog_verify(path, record, NULL, &verdict), MR_CODE_DATA_LOSS,
                  "(and 2 more problems)");
    assert_int_equal(verdict.problems, 3);
    assert_non_null(strstr(reports, "step-000000000010|layer_00-model_states.safetensors|DATA_LOSS|"
                                    "E_CKPT_SHA256 file=layer_00-model_states.safetensors"));
    assert_non_null(strstr(reports, "|layer_00-optim_states.safetensors|DATA_LOSS|E_CKPT_TRUNC"));
    assert_non_null(strstr(reports, "|layer_01-model_states.safetensors|DATA_LOSS|E_CKPT_MISSING"));
}

static void test_loading_checks_the_bytes(void **state) {
    (void)state;
    char path[FIXTURE_PATH_BYTES];
    mr_manifest manifest;
    mr_safetensors_reader *reader = NULL;
    fixture_ok(fixture_save_step(dir, 1, 10));
    fixture_path(path, dir, "step-000000000010", NULL);
    fixture_ok(mr_manifest_read(path, &manifest));
    fixture_ok(mr_catalog_open_file(path, &manifest, "layer_01-model_states.safetensors", &reader));
    float bias[8];
    const mr_safetensors_tensor wanted = {
        .name = "bias", .dtype = MR_SAFETENSORS_F32, .dims = 1, .shape = {8}};
    fixture_ok(mr_safetensors_load(reader, &wanted, bias));
    assert_true(bias[1] == 10.0f + 1.0f / 64.0f);
    mr_safetensors_close(reader);
    damage("step-000000000010", "layer_01-model_states.safetensors", -1);
    fixture_fails(
        mr_catalog_open_file(path, &manifest, "layer_01-model_states.safetensors", &reader),
        MR_CODE_DATA_LOSS, "E_CKPT_SHA256");
    fixture_fails(
        mr_catalog_open_file(path, &manifest, "layer_07-model_states.safetensors", &reader),
        MR_CODE_FAILED_PRECONDITION, "E_CKPT_MISSING");
    mr_manifest_deinit(&manifest);
}

static void test_retention_keeps_the_newest_and_the_users(void **state) {
    (void)state;
    size_t removed = 9;
    char path[FIXTURE_PATH_BYTES];
    mr_checkpoint_file files[FIXTURE_FILES];
    mr_manifest manifest;
    for (uint64_t step = 8; step <= 12; step++)
        fixture_ok(fixture_save_step(dir, 1, step));
    fixture_ok(fixture_save(dir, "best", 1, 1));
    fixture_ok(fixture_write(dir, "step-000000000013", 1, 13, files, &manifest));
    damage("step-000000000011", "manifest.json", 60); /* neither counts nor goes */
    fixture_ok(mr_catalog_retain(dir, "tiny", 2, NULL, &removed));
    assert_int_equal(removed, 2);
    assert_string_equal(listed(NULL), "best step-000000000010 step-000000000012");
    fixture_path(path, dir, "step-000000000011", NULL);
    assert_true(fixture_exists(path));
    assert_int_equal(fixture_count(dir, ".save-"), 1);
    assert_int_equal(fixture_count(dir, "trash-"), 0);
    fixture_ok(mr_catalog_retain(dir, "tiny", 1, "step-000000000010", &removed));
    assert_int_equal(removed, 0);
    fixture_ok(mr_catalog_retain(dir, "other", 1, NULL, &removed));
    assert_int_equal(removed, 0);
    fixture_fails(mr_catalog_retain(dir, "tiny", 0, NULL, &removed), MR_CODE_INVALID_ARGUMENT,
                  "keep is 0");
}

static void test_delete_removes_one(void **state) {
    (void)state;
    fixture_ok(fixture_save_step(dir, 1, 10));
    fixture_ok(fixture_save(dir, "best", 1, 11));
    fixture_ok(mr_catalog_delete(dir, "best"));
    assert_string_equal(listed(NULL), "step-000000000010");
    assert_int_equal(fixture_count(dir, ""), 2);
    fixture_fails(mr_catalog_delete(dir, "best"), MR_CODE_NOT_FOUND, "best");
    fixture_fails(mr_catalog_delete(dir, ".."), MR_CODE_INVALID_ARGUMENT, "E_TAG");
}

static void test_sweep_removes_only_the_dead(void **state) {
    (void)state;
    char path[FIXTURE_PATH_BYTES];
    size_t removed = 0;
    uint64_t epoch = 0;
    mr_checkpoint_file files[FIXTURE_FILES];
    mr_manifest manifest;
    fixture_ok(fixture_save_step(dir, 1, 10));
    fixture_ok(fixture_write(dir, "step-000000000020", 1, 20, files, &manifest));
    fixture_ok(fixture_write(dir, "best", 3, 20, files, &manifest));
    static const char *const leftovers[] = {"trash-0123456789abcdef",
                                            ".tmp-0123456789abcdef-latest"};
    static const char *const foreign[] = {"trash-mine", ".tmp-other", ".save-x",
                                          "trash-0123456789abcdeF"};
    fixture_path(path, dir, leftovers[0], NULL);
    assert_int_equal(mkdir(path, 0700), 0);
    fixture_path(path, dir, leftovers[0], "manifest.json");
    fixture_put(path, "x", 1);
    fixture_path(path, dir, leftovers[1], NULL);
    fixture_put(path, "x", 1);
    for (size_t i = 0; i < 4; i++) {
        fixture_path(path, dir, foreign[i], NULL);
        fixture_put(path, "x", 1);
    }
    fixture_ok(mr_catalog_epoch(dir, &epoch));
    assert_int_equal(epoch, 3);
    fixture_ok(mr_catalog_sweep(dir, 3, &removed));
    assert_int_equal(removed, 3);
    /* step 10, latest, best's save of epoch 3, and the four that are not ours. */
    assert_int_equal(fixture_count(dir, ""), 7);
    fixture_ok(mr_manifest_commit(dir, "best", &manifest, NULL));
    assert_string_equal(listed(NULL), "step-000000000010 best");
    fixture_ok(fixture_write(dir, "best", 4, 30, files, &manifest));
    fixture_ok(mr_catalog_discard(dir, "best", 4, 30));
    assert_int_equal(fixture_count(dir, ".save-e"), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_list_is_in_order_of_steps, setup, teardown),
        cmocka_unit_test_setup_teardown(test_list_says_what_a_checkpoint_holds, setup, teardown),
        cmocka_unit_test_setup_teardown(test_folder_without_manifest_is_no_checkpoint, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_damaged_manifest_is_reported_and_passed_over, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_newest_has_all_its_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_newest_does_not_believe_latest, setup, teardown),
        cmocka_unit_test_setup_teardown(test_empty_and_missing_folder_have_none, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sound_checkpoint_is_verified, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_problem_is_reported, setup, teardown),
        cmocka_unit_test_setup_teardown(test_loading_checks_the_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_retention_keeps_the_newest_and_the_users, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_delete_removes_one, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sweep_removes_only_the_dead, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
