/* SPDX-License-Identifier: Apache-2.0 */
/* token_file_fuzz.c: any bytes at all are a token file: the first says the format, the rest are the
 * file, or for megatron its index beside a .bin of ten tokens. What is accepted must lie within the
 * file, and all of its tokens must be readable or refused as outside the vocabulary. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "client/token_files.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PATH_BYTES = 512, BIN_BYTES = 20, TOKENS_MAX = 1 << 16 };

/* Two files in memory with names in a folder, so that nothing is written to a disk. */
static char folder[PATH_BYTES];
static int files_fd[2];
static const char *const file_names[2] = {"t.bin", "t.idx"};

static const char *path_of(size_t file) {
    static char path[PATH_BYTES + 16];
    snprintf(path, sizeof(path), "%s/%s", folder, file_names[file]);
    return path;
}

static void remove_folder(void) {
    for (size_t i = 0; i < 2; i++)
        (void)unlink(path_of(i)); /* best effort at the end */
    (void)rmdir(folder);
}

static void make_folder(void) {
    const char *base = getenv("TEST_TMPDIR");
    char target[64];
    snprintf(folder, sizeof(folder), "%s/tokens-XXXXXX", base ? base : "/tmp");
    MR_ASSERT(mkdtemp(folder) != NULL);
    MR_ASSERT(atexit(remove_folder) == 0);
    for (size_t i = 0; i < 2; i++) {
        files_fd[i] = memfd_create(file_names[i], MFD_CLOEXEC);
        MR_ASSERT(files_fd[i] >= 0);
        snprintf(target, sizeof(target), "/proc/self/fd/%d", files_fd[i]);
        MR_ASSERT(symlink(target, path_of(i)) == 0);
    }
}

static void put(size_t file, const void *bytes, size_t size) {
    MR_ASSERT(ftruncate(files_fd[file], 0) == 0);
    MR_ASSERT(pwrite(files_fd[file], bytes, size, 0) == (ssize_t)size);
}

static void check_accepted(mr_token_files *files) {
    static int32_t tokens[TOKENS_MAX];
    const mr_token_layout *layout = mr_token_files_layout(files, 0);
    uint64_t count = mr_token_files_count(files);
    MR_ASSERT(count >= 1);
    MR_ASSERT(layout->width >= 1 && layout->width <= 8);
    MR_ASSERT(layout->offset <= layout->bytes);
    MR_ASSERT(count <= (layout->bytes - layout->offset) / layout->width);
    MR_ASSERT(count <= TOKENS_MAX);
    mr_status status =
        mr_token_files_read(files, 0, (size_t)count, MR_TOKEN_VOCABULARY_MAX, tokens);
    MR_ASSERT(mr_status_is_ok(status) || status.code == MR_CODE_INVALID_ARGUMENT);
    for (uint64_t i = 0; i < count && mr_status_is_ok(status); i++)
        MR_ASSERT(tokens[i] >= 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const uint8_t bin[BIN_BYTES] = {1, 0, 2, 0, 3, 0, 4, 0, 5, 0};
    mr_token_files *files = NULL;
    mr_data_format format = MR_DATA_BYTES;
    if (size == 0)
        return 0;
    if (folder[0] == '\0')
        make_folder();
    format = (mr_data_format)(data[0] % MR_DATA_FORMAT_COUNT);
    put(0, format == MR_DATA_MEGATRON ? bin : data + 1,
        format == MR_DATA_MEGATRON ? sizeof(bin) : size - 1);
    if (format == MR_DATA_MEGATRON)
        put(1, data + 1, size - 1);
    mr_status status = mr_token_files_open(path_of(0), format, &files);
    if (mr_status_is_ok(status))
        check_accepted(files);
    else
        MR_ASSERT(status.code == MR_CODE_INVALID_ARGUMENT);
    mr_token_files_close(files);
    return 0;
}
