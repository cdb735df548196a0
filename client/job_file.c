/* SPDX-License-Identifier: Apache-2.0 */
#include "client/job_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/path_text.h"
#include "daemon/base/alloc.h"
#include "daemon/base/limits.h"

static mr_status job_file_error(const char *path, int error) {
    switch (error) {
    case ENOENT:
    case ENOTDIR:
        return MR_ERROR(NOT_FOUND, "%s: no such file", mr_path_shorten(path).text);
    case EACCES:
    case EPERM:
        return MR_ERROR(PERMISSION_DENIED, "%s: %s", mr_path_shorten(path).text, strerror(error));
    case EISDIR:
        return MR_ERROR(INVALID_ARGUMENT, "%s is a folder; a file is wanted",
                        mr_path_shorten(path).text);
    default:
        return MR_ERROR(UNKNOWN, "%s: %s", mr_path_shorten(path).text, strerror(error));
    }
}

/* Reads to the end, at most one byte more than is allowed. */
static mr_status job_file_read_all(int fd, const char *path, mr_job_file *file) {
    size_t capacity = (size_t)MR_JOB_FILE_BYTES_MAX + 2;
    file->text = mr_alloc(capacity);
    if (file->text == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to read %s", mr_path_shorten(path).text);
    while (file->bytes + 1 < capacity) {
        ssize_t got = read(fd, file->text + file->bytes, capacity - 1 - file->bytes);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return job_file_error(path, errno);
        if (got == 0)
            return MR_OK;
        file->bytes += (size_t)got;
    }
    return MR_ERROR(INVALID_ARGUMENT, "%s is larger than %d bytes, the most that is read",
                    mr_path_shorten(path).text, (int)MR_JOB_FILE_BYTES_MAX);
}

/* The absolute folder that holds path. realpath's memory is libc's, so it is copied. */
static mr_status job_file_find_base(const char *path, mr_job_file *file) {
    bool input = strcmp(path, "-") == 0;
    char *absolute = realpath(input ? "." : path, NULL);
    if (absolute == NULL)
        return job_file_error(path, errno);
    char *slash = strrchr(absolute, '/');
    if (!input && slash == absolute)
        slash[1] = '\0';
    else if (!input && slash != NULL)
        *slash = '\0';
    file->base_directory = mr_strdup(absolute);
    free(absolute);
    if (file->base_directory == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the folder of %s",
                        mr_path_shorten(path).text);
    return MR_OK;
}

mr_status mr_job_file_load(const char *path, mr_job_file *out_file) {
    bool input = strcmp(path, "-") == 0;
    mr_job_file *file = out_file;
    *file = (mr_job_file){0};
    /* A terminal as standard input is read to its end of file, like any other. */
    int fd = input ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return job_file_error(path, errno);
    mr_status status = job_file_read_all(fd, path, file);
    if (!input)
        (void)close(fd); /* read-only */
    MR_TRY(status);
    if (memchr(file->text, '\0', file->bytes) != NULL)
        return MR_ERROR(INVALID_ARGUMENT, "%s has a zero byte; it is no text",
                        mr_path_shorten(path).text);
    return job_file_find_base(path, file);
}

static mr_status job_file_parse(const char *label, mr_job_file *file, mr_job_errors *errors) {
    mr_status status = mr_job_parse(file->text, file->bytes, &file->job, errors);
    return mr_status_is_ok(status) ? status
                                   : mr_status_prefix(status, "%s", mr_path_shorten(label).text);
}

mr_status mr_job_file_read(const char *path, mr_job_file *out_file, mr_job_errors *errors) {
    MR_TRY(mr_job_file_load(path, out_file));
    return job_file_parse(path, out_file, errors);
}

mr_status mr_job_file_copy(const char *label, const char *text, const char *base_directory,
                           mr_job_file *out_file) {
    *out_file = (mr_job_file){
        .text = mr_strdup(text),
        .bytes = strlen(text),
        .base_directory = mr_strdup(base_directory),
    };
    if (out_file->text == NULL || out_file->base_directory == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the job file of %s", label);
    return job_file_parse(label, out_file, NULL);
}

void mr_job_file_deinit(mr_job_file *file) {
    mr_job_destroy(file->job);
    mr_free(file->base_directory);
    mr_free(file->text);
    *file = (mr_job_file){0};
}
