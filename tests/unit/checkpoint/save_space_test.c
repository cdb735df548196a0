/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a full disk or a forbidden size is a status with path and reason, leaves no checkpoint
 * and no half file, does not harm the older one, and is over when there is room again.
 * Method: a tmpfs of one MiB in a private mount namespace where we may make one; a file size
 * limit everywhere. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/checkpoint/catalog.h"
#include "tests/unit/checkpoint/fixture.h"

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

/* Half of the file fits the limit. */
static void test_size_limit_is_a_status(void **state) {
    (void)state;
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    const struct rlimit old = limit;
    (void)signal(SIGXFSZ, SIG_IGN);
    fixture_ok(fixture_save_step(dir, 1, 10));
    limit.rlim_cur = 300;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    mr_status status = fixture_save_step(dir, 1, 20);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    fixture_fails(status, MR_CODE_RESOURCE_EXHAUSTED, "File too large");
    mr_catalog_entry newest;
    fixture_ok(mr_catalog_newest(dir, NULL, NULL, NULL, &newest));
    assert_int_equal(newest.step, 10);
    fixture_ok(fixture_save_step(dir, 1, 20));
    fixture_ok(mr_catalog_newest(dir, NULL, NULL, NULL, &newest));
    assert_int_equal(newest.step, 20);
}

/* Fills the file system but for left bytes. */
static void fill(const char *folder, size_t total, size_t left) {
    char path[FIXTURE_PATH_BYTES];
    fixture_path(path, folder, "ballast", NULL);
    int written = 0;
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    static const char block[4096];
    for (size_t done = 0; done + sizeof(block) + left <= total; done += sizeof(block))
        written += fwrite(block, 1, sizeof(block), file) == sizeof(block);
    (void)fclose(file); /* a full disk is what we want */
    assert_true(written > 0);
}

static void test_full_disk_leaves_no_checkpoint(void **state) {
    (void)state;
    enum { TOTAL = 1 << 20 };
    char path[FIXTURE_PATH_BYTES];
    if (!fixture_mount(dir, "1m")) {
        print_message("skipped: may not mount here (%s)\n", strerror(errno));
        skip();
    }
    fixture_ok(fixture_save_step(dir, 1, 10));
    /* From no room at all to all but enough: the save fails at another file each time. */
    size_t failures = 0;
    bool saved = false;
    for (size_t left = 0; !saved && left < 16; left++) {
        fill(dir, TOTAL, (left + 5) * 4096);
        mr_status status = fixture_save_step(dir, 1, 20);
        saved = mr_status_is_ok(status);
        if (!saved) {
            failures++;
            fixture_fails(status, MR_CODE_RESOURCE_EXHAUSTED, "No space left on device");
            fixture_path(path, dir, "step-000000000020", NULL);
            bool committed = fixture_exists(path);
            if (committed) /* only what follows the commit may have failed */
                fixture_ok(mr_catalog_verify(path, NULL, NULL, NULL));
            fixture_path(path, dir, "step-000000000010", NULL);
            fixture_ok(mr_catalog_verify(path, NULL, NULL, NULL));
            fixture_ok(mr_catalog_discard(dir, "step-000000000020", 1, 20));
            if (committed)
                fixture_ok(mr_catalog_delete(dir, "step-000000000020"));
        }
        fixture_path(path, dir, "ballast", NULL);
        assert_int_equal(unlink(path), 0);
    }
    assert_true(failures >= 3);
    assert_true(saved);
    fixture_path(path, dir, "step-000000000020", NULL);
    fixture_ok(mr_catalog_verify(path, NULL, NULL, NULL));
    assert_int_equal(umount(dir), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_size_limit_is_a_status, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full_disk_leaves_no_checkpoint, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
