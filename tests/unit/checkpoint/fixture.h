/* SPDX-License-Identifier: Apache-2.0 */
/* fixture.h: what the checkpoint tests share: a temporary folder, one small checkpoint of two
 * layers whose contents are a function of its step, and plain file access that fails the test on
 * error.
 * Owner: tests. Thread: one.
 * Not here: assertions about the code under test. */
#ifndef MR_TESTS_UNIT_CHECKPOINT_FIXTURE_H
#define MR_TESTS_UNIT_CHECKPOINT_FIXTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/base/status.h"
#include "daemon/checkpoint/manifest.h"

enum { FIXTURE_PATH_BYTES = 1024, FIXTURE_FILES = 3 };

/* A fresh folder under TEST_TMPDIR (or /tmp); fixture_remove deletes it with all that is in it. */
void fixture_make(char out_dir[FIXTURE_PATH_BYTES]);
void fixture_remove(const char *dir);
/* Lays a tmpfs of this size over dir, in a mount namespace of this process that dies with it. False
 * where that is not allowed. */
bool fixture_mount(const char *dir, const char *size);
/* dir/name, or dir/a/b. */
void fixture_path(char out[FIXTURE_PATH_BYTES], const char *dir, const char *a, const char *b);
void fixture_put(const char *path, const void *bytes, size_t size);
/* The file's bytes, malloc'ed; *out_size. */
unsigned char *fixture_get(const char *path, size_t *out_size);
bool fixture_exists(const char *path);
/* Names in dir that begin with prefix. */
size_t fixture_count(const char *dir, const char *prefix);

/* The stages' half: writes the layer files of a save. Fills manifest (job "tiny"), whose files
 * point into files. */
mr_status fixture_write(const char *dir, const char *tag, uint64_t epoch, uint64_t step,
                        mr_checkpoint_file files[FIXTURE_FILES], mr_manifest *manifest);
/* Both halves: write and commit. */
mr_status fixture_save(const char *dir, const char *tag, uint64_t epoch, uint64_t step);
/* The same under step's own tag. */
mr_status fixture_save_step(const char *dir, uint64_t epoch, uint64_t step);

/* cmocka assertions with the status' text in the output. */
void fixture_ok(mr_status status);
void fixture_fails(mr_status status, mr_code code, const char *text);

#endif
