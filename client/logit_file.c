/* SPDX-License-Identifier: Apache-2.0 */
#include "client/logit_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/path_text.h"
#include "daemon/base/alloc.h"
#include "daemon/base/limits.h"

/* The header is padded so that the numbers start at a multiple of 64. */
enum { LOGIT_FILE_HEADER_BYTES = 128, LOGIT_FILE_PREFIX_BYTES = 10, LOGIT_FILE_MODE = 0644 };

struct mr_logit_file {
    int fd;
    char *path;
    unsigned char *part;
    size_t part_bytes;
};

static mr_status logit_file_error(const mr_logit_file *file) {
    return MR_ERROR(UNKNOWN, "--logits: %s: %s", mr_path_shorten(file->path).text,
                    strerror(errno));
}

static mr_status logit_file_put(const mr_logit_file *file, const unsigned char *bytes, size_t count,
                                uint64_t offset) {
    while (count > 0) {
        ssize_t written = pwrite(file->fd, bytes, count, (off_t)offset);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return logit_file_error(file);
        bytes += written;
        offset += (uint64_t)written;
        count -= (size_t)written;
    }
    return MR_OK;
}

static mr_status logit_file_begin(const mr_logit_file *file, const uint64_t dims[3]) {
    unsigned char header[LOGIT_FILE_HEADER_BYTES];
    char *text = (char *)header + LOGIT_FILE_PREFIX_BYTES;
    const int room = LOGIT_FILE_HEADER_BYTES - LOGIT_FILE_PREFIX_BYTES;
    memcpy(header, "\x93NUMPY\x01\x00", 8);
    header[8] = (unsigned char)room;
    header[9] = 0;
    int length = snprintf(text, (size_t)room,
                          "{'descr': '<f4', 'fortran_order': False, 'shape': (%" PRIu64 ", %" PRIu64
                          ", %" PRIu64 "), }",
                          dims[0], dims[1], dims[2]);
    MR_ASSERT(length > 0 && length < room);
    memset(text + length, ' ', (size_t)(room - length));
    header[LOGIT_FILE_HEADER_BYTES - 1] = '\n';
    return logit_file_put(file, header, sizeof(header), 0);
}

static mr_status logit_file_open(mr_logit_file *file, const char *path, const uint64_t dims[3],
                                 uint64_t steps) {
    size_t elements = 0;
    if (!mr_size_mul((size_t)(dims[0] / steps), (size_t)dims[1], &elements) ||
        !mr_size_mul(elements, (size_t)dims[2] * sizeof(float), &file->part_bytes) ||
        file->part_bytes > MR_FEED_LOGITS_BYTES_MAX)
        return MR_ERROR(INVALID_ARGUMENT,
                        "--logits: a step has %" PRIu64 " samples of %" PRIu64 " times %" PRIu64
                        " scores; at most %d bytes fit one answer: fewer --micro-batches or a "
                        "smaller --micro-batch-size would",
                        dims[0] / steps, dims[1], dims[2], MR_FEED_LOGITS_BYTES_MAX);
    file->path = mr_strdup(path);
    file->part = mr_alloc(file->part_bytes);
    if (file->path == NULL || file->part == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu bytes of logits", file->part_bytes);
    file->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, LOGIT_FILE_MODE);
    if (file->fd < 0)
        return logit_file_error(file);
    return logit_file_begin(file, dims);
}

mr_status mr_logit_file_create(const char *path, const uint64_t dims[3], uint64_t steps,
                               mr_logit_file **out_file) {
    mr_logit_file *file = mr_alloc(sizeof(*file));
    if (file == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a file of logits");
    file->fd = -1;
    mr_status status = logit_file_open(file, path, dims, steps);
    if (!mr_status_is_ok(status)) {
        mr_status closed = mr_logit_file_close(file);
        (void)closed; /* the first error is the one that matters */
        return status;
    }
    *out_file = file;
    return MR_OK;
}

mr_status mr_logit_file_write(mr_logit_file *file, uint64_t step, const mr_rpc_tail *tail) {
    if (tail == NULL || mr_rpc_tail_bytes(tail) != file->part_bytes)
        return MR_ERROR(INTERNAL, "step %" PRIu64 " has %zu bytes of logits; %zu are right",
                        step + 1, tail == NULL ? 0 : mr_rpc_tail_bytes(tail), file->part_bytes);
    MR_TRY(mr_rpc_tail_copy(tail, 0, file->part_bytes, file->part));
    return logit_file_put(file, file->part, file->part_bytes,
                          LOGIT_FILE_HEADER_BYTES + step * file->part_bytes);
}

mr_status mr_logit_file_close(mr_logit_file *file) {
    if (file == NULL)
        return MR_OK;
    mr_status status = MR_OK;
    if (file->fd >= 0 && close(file->fd) != 0)
        status = logit_file_error(file);
    mr_free(file->part);
    mr_free(file->path);
    mr_free(file);
    return status;
}
