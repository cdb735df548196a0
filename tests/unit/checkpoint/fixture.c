/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/checkpoint/fixture.h"

#include <dirent.h>
#include <ftw.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/checkpoint/safetensors.h"

void fixture_make(char out_dir[FIXTURE_PATH_BYTES]) {
    const char *base = getenv("TEST_TMPDIR");
    (void)snprintf(out_dir, FIXTURE_PATH_BYTES, "%s/checkpoint-XXXXXX",
                   base == NULL ? "/tmp" : base);
    assert_non_null(mkdtemp(out_dir));
}

static int fixture_unlink(const char *path, const struct stat *facts, int kind, struct FTW *where) {
    (void)facts;
    (void)kind;
    (void)where;
    return remove(path);
}

void fixture_remove(const char *dir) {
    assert_int_equal(nftw(dir, fixture_unlink, 16, FTW_DEPTH | FTW_PHYS), 0);
}

bool fixture_mount(const char *dir, const char *size) {
    char options[64];
    (void)snprintf(options, sizeof(options), "size=%s", size);
    return unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("tmpfs", dir, "tmpfs", 0, options) == 0;
}

void fixture_path(char out[FIXTURE_PATH_BYTES], const char *dir, const char *a, const char *b) {
    int n = snprintf(out, FIXTURE_PATH_BYTES, "%s/%s%s%s", dir, a, b == NULL ? "" : "/",
                     b == NULL ? "" : b);
    assert_in_range(n, 1, FIXTURE_PATH_BYTES - 1);
}

void fixture_put(const char *path, const void *bytes, size_t size) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

unsigned char *fixture_get(const char *path, size_t *out_size) {
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    size_t size = (size_t)ftell(file);
    rewind(file);
    unsigned char *bytes = malloc(size + 1);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, size, file), size);
    bytes[size] = '\0';
    (void)fclose(file); /* opened for reading */
    *out_size = size;
    return bytes;
}

bool fixture_exists(const char *path) {
    struct stat facts;
    return lstat(path, &facts) == 0;
}

size_t fixture_count(const char *dir, const char *prefix) {
    DIR *stream = opendir(dir);
    assert_non_null(stream);
    size_t count = 0;
    struct dirent *entry;
    while ((entry = readdir(stream)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            strncmp(entry->d_name, prefix, strlen(prefix)) == 0)
            count++;
    (void)closedir(stream);
    return count;
}

mr_status fixture_write(const char *dir, const char *tag, uint64_t epoch, uint64_t step,
                        mr_checkpoint_file files[FIXTURE_FILES], mr_manifest *manifest) {
    char folder[FIXTURE_PATH_BYTES];
    MR_TRY(mr_layout_save_path(dir, tag, epoch, step, folder, sizeof(folder)));
    float values[64];
    for (size_t i = 0; i < 64; i++)
        values[i] = (float)step + (float)i / 64.0f;
    for (uint32_t i = 0; i < FIXTURE_FILES; i++) {
        char name[MR_NAME_BYTES];
        mr_layout_layer_name(i / 2, 0, 1, i % 2 == 0 ? MR_LAYER_FILE_MODEL : MR_LAYER_FILE_OPTIM,
                             name);
        const mr_safetensors_tensor tensors[] = {
            {.name = "weight",
             .dtype = MR_SAFETENSORS_F32,
             .dims = 2,
             .shape = {8, 8},
             .data = values},
            {.name = "bias", .dtype = MR_SAFETENSORS_F32, .dims = 1, .shape = {8}, .data = values}};
        MR_TRY(mr_safetensors_write(folder, name, tensors, 2, &files[i]));
    }
    *manifest = (mr_manifest){.job = "tiny",
                              .step = step,
                              .epoch = epoch,
                              .model_hash = "00ff",
                              .data_cursor = {.step = step, .sample = 8 * step},
                              .optimizer = {.type = "adamw", .steps = step, .lr = 1e-3},
                              .files = files,
                              .file_count = FIXTURE_FILES};
    return MR_OK;
}

mr_status fixture_save(const char *dir, const char *tag, uint64_t epoch, uint64_t step) {
    mr_checkpoint_file files[FIXTURE_FILES];
    mr_manifest manifest;
    MR_TRY(fixture_write(dir, tag, epoch, step, files, &manifest));
    mr_status advisory = MR_OK;
    MR_TRY(mr_manifest_commit(dir, tag, &manifest, &advisory));
    return advisory;
}

mr_status fixture_save_step(const char *dir, uint64_t epoch, uint64_t step) {
    char tag[MR_NAME_BYTES];
    mr_layout_step_tag(step, tag);
    return fixture_save(dir, tag, epoch, step);
}

void fixture_ok(mr_status status) {
    if (!mr_status_is_ok(status))
        fail_msg("%s: %s", mr_code_name(status.code), status.text);
}

void fixture_fails(mr_status status, mr_code code, const char *text) {
    if (status.code != code || strstr(status.text, text) == NULL)
        fail_msg("wanted %s '%s', got %s '%s'", mr_code_name(code), text, mr_code_name(status.code),
                 status.text);
}
