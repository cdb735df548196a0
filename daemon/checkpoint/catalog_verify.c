/* SPDX-License-Identifier: Apache-2.0 */
/* catalog_verify.c: reads checkpoints back: each listed file's size, hash and structure. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/checkpoint/catalog.h"
#include "daemon/checkpoint/file.h"
#include "daemon/checkpoint/layer_files.h"

#define SAFETENSORS_SUFFIX ".safetensors"

/* Opens one listed file and compares its size, and its hash if asked; *out_fd is the caller's on
 * success. */
static mr_status verify_bytes(int folder_fd, const char *folder, const mr_checkpoint_file *file,
                              bool hash, int *out_fd) {
    int fd = -1;
    uint64_t bytes = 0;
    mr_status status = mr_file_open_plain(folder_fd, folder, file->name, &fd, &bytes);
    if (status.code == MR_CODE_NOT_FOUND)
        return MR_ERROR(DATA_LOSS, "E_CKPT_MISSING file=%s", file->name);
    MR_TRY(status);
    char hex[MR_SHA256_HEX_BYTES] = "";
    if (bytes < file->bytes)
        status = MR_ERROR(DATA_LOSS,
                          "E_CKPT_TRUNC want=%" PRIu64 " have=%" PRIu64 ": file %s is "
                          "shorter than its manifest says",
                          file->bytes, bytes, file->name);
    else if (bytes > file->bytes)
        status = MR_ERROR(DATA_LOSS, "E_CKPT_SIZE file=%s want=%" PRIu64 " have=%" PRIu64,
                          file->name, file->bytes, bytes);
    else if (hash)
        status = mr_file_sha256(fd, bytes, file->name, hex);
    if (mr_status_is_ok(status) && hash && strcmp(hex, file->sha256) != 0)
        status = MR_ERROR(DATA_LOSS,
                          "E_CKPT_SHA256 file=%s want=%.12s... have=%.12s...: its bytes "
                          "are not those that were saved",
                          file->name, file->sha256, hex);
    if (!mr_status_is_ok(status)) {
        mr_file_close(&fd);
        return status;
    }
    *out_fd = fd;
    return MR_OK;
}

static bool verify_is_safetensors(const char *name) {
    size_t bytes = strlen(name);
    size_t suffix = strlen(SAFETENSORS_SUFFIX);
    return bytes > suffix && strcmp(name + bytes - suffix, SAFETENSORS_SUFFIX) == 0;
}

static mr_status verify_file(int folder_fd, const char *folder, const mr_checkpoint_file *file) {
    int fd = -1;
    MR_TRY(verify_bytes(folder_fd, folder, file, true, &fd));
    if (!verify_is_safetensors(file->name)) {
        mr_file_close(&fd);
        return MR_OK;
    }
    mr_safetensors_reader *reader = NULL;
    MR_TRY(mr_safetensors_open_fd(fd, file->name, &reader));
    mr_safetensors_close(reader);
    return MR_OK;
}

/* The last part of a path, for reports. */
static const char *verify_tag(const char *path, char out[MR_NAME_BYTES]) {
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/')
        end--;
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/')
        begin--;
    (void)snprintf(out, MR_NAME_BYTES, "%.*s", (int)(end - begin), path + begin);
    return out;
}

/* Are all model ranks' files of every layer listed? A checkpoint of no layers is none of ours, but
 * no damage. */
static mr_status verify_ranks(const mr_manifest *manifest) {
    mr_layer_files files = {0};
    size_t width = 0;
    MR_TRY(mr_layer_files_list(manifest, &files));
    mr_status status = mr_layer_files_width(&files, &width);
    mr_layer_files_deinit(&files);
    return status.code == MR_CODE_FAILED_PRECONDITION ? MR_OK : status;
}

mr_status mr_catalog_verify(const char *path, mr_catalog_report report, void *context,
                            mr_catalog_verdict *out_verdict) {
    mr_catalog_verdict verdict = {0};
    mr_status first = MR_OK;
    mr_manifest manifest = {0};
    char tag[MR_NAME_BYTES];
    int fd = -1;
    MR_TRY(mr_file_open_folder(path, true, &fd));
    mr_status status = mr_manifest_read_at(fd, path, &manifest);
    if (status.code == MR_CODE_NOT_FOUND) {
        mr_file_close(&fd);
        return MR_ERROR(NOT_FOUND, "%s is no committed checkpoint: it has no " MR_LAYOUT_MANIFEST,
                        path);
    }
    if (mr_status_is_ok(status))
        status = verify_ranks(&manifest);
    if (!mr_status_is_ok(status)) {
        verdict.problems++;
        first = status;
        if (report != NULL)
            report(context, verify_tag(path, tag), MR_LAYOUT_MANIFEST, status);
    }
    for (size_t i = 0; i < manifest.file_count; i++) {
        verdict.files++;
        verdict.bytes += manifest.files[i].bytes;
        status = verify_file(fd, path, &manifest.files[i]);
        if (mr_status_is_ok(status))
            continue;
        if (verdict.problems++ == 0)
            first = status;
        if (report != NULL)
            report(context, verify_tag(path, tag), manifest.files[i].name, status);
    }
    mr_manifest_deinit(&manifest);
    mr_file_close(&fd);
    if (out_verdict != NULL)
        *out_verdict = verdict;
    if (verdict.problems > 1)
        return mr_status_make(MR_CODE_DATA_LOSS, __FILE__, __LINE__,
                              "%.180s (and %" PRIu64 " more problems)", first.text,
                              verdict.problems - 1);
    return first;
}

static mr_status catalog_open(const char *path, const mr_manifest *manifest, const char *name,
                              bool hash, mr_safetensors_reader **out_reader) {
    const mr_checkpoint_file *file = mr_manifest_find(manifest, name);
    if (file == NULL)
        return MR_ERROR(FAILED_PRECONDITION,
                        "E_CKPT_MISSING file=%s: not listed in the manifest "
                        "of %s",
                        name, path);
    int folder_fd = -1;
    int fd = -1;
    MR_TRY(mr_file_open_folder(path, true, &folder_fd));
    mr_status status = verify_bytes(folder_fd, path, file, hash, &fd);
    mr_file_close(&folder_fd);
    MR_TRY(status);
    return mr_safetensors_open_fd(fd, name, out_reader);
}

mr_status mr_catalog_open_file(const char *path, const mr_manifest *manifest, const char *name,
                               mr_safetensors_reader **out_reader) {
    return catalog_open(path, manifest, name, true, out_reader);
}

mr_status mr_catalog_open_header(const char *path, const mr_manifest *manifest, const char *name,
                                 mr_safetensors_reader **out_reader) {
    return catalog_open(path, manifest, name, false, out_reader);
}
