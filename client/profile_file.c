/* SPDX-License-Identifier: Apache-2.0 */
#include "client/profile_file.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "client/path_text.h"
#include "daemon/base/alloc.h"
#include "daemon/base/limits.h"

/* Reads to the end, at most one byte more than is allowed. */
static mr_status profile_file_load(const char *path, char **out_text, size_t *out_bytes) {
    FILE *stream = fopen(path, "re");
    if (stream == NULL)
        return errno == ENOENT || errno == ENOTDIR
                   ? MR_ERROR(NOT_FOUND, "no such file")
                   : MR_ERROR(PERMISSION_DENIED, "%s", strerror(errno));
    char *text = mr_alloc((size_t)MR_PROFILE_BYTES_MAX + 1);
    size_t bytes = text == NULL ? 0 : fread(text, 1, MR_PROFILE_BYTES_MAX, stream);
    bool failed = ferror(stream) != 0;
    (void)fclose(stream); /* only read */
    if (text == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to read it");
    if (failed || memchr(text, '\0', bytes) != NULL) {
        mr_free(text);
        return failed ? MR_ERROR(UNKNOWN, "it cannot be read")
                      : MR_ERROR(INVALID_ARGUMENT, "it has a zero byte; it is no text");
    }
    *out_text = text;
    *out_bytes = bytes;
    return MR_OK;
}

static mr_status profile_file_fill(const mr_job_file *job, const char *path,
                                   mr_profile_file *file) {
    size_t bytes = 0;
    MR_TRY(profile_file_load(path, &file->text, &bytes));
    MR_TRY(mr_profile_parse(file->text, bytes, &file->profile));
    return mr_profile_check(file->profile, job->job);
}

mr_status mr_profile_file_read(const mr_job_file *job, const char *path,
                               mr_profile_file *out_file) {
    char resolved[MR_PATH_BYTES];
    *out_file = (mr_profile_file){0};
    if (path == NULL && job->job->profile_path[0] == '\0')
        return MR_OK;
    if (path == NULL) {
        MR_TRY(mr_job_resolve_path(job->base_directory, job->job->profile_path, resolved));
        path = resolved;
    }
    mr_status status = profile_file_fill(job, path, out_file);
    return mr_status_is_ok(status) ? status
                                   : mr_status_prefix(status, "%s", mr_path_shorten(path).text);
}

void mr_profile_file_deinit(mr_profile_file *file) {
    mr_profile_destroy(file->profile);
    mr_free(file->text);
    *file = (mr_profile_file){0};
}
