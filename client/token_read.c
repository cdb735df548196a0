/* SPDX-License-Identifier: Apache-2.0 */
#include "client/token_read.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/path_text.h"

mr_status mr_token_read_error(const char *path, const char *what) {
    int error = errno;
    switch (error) {
    case ENOENT:
    case ENOTDIR:
        return MR_ERROR(NOT_FOUND, "%s: no such file", mr_path_shorten(path).text);
    case EACCES:
    case EPERM:
        return MR_ERROR(PERMISSION_DENIED, "%s: %s", mr_path_shorten(path).text, strerror(error));
    default:
        return MR_ERROR(DATA_LOSS, "%s: cannot %s: %s", mr_path_shorten(path).text, what,
                        strerror(error));
    }
}

mr_status mr_token_read_open(const char *path, int *out_fd, uint64_t *out_size) {
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return mr_token_read_error(path, "open");
    mr_status status = MR_OK;
    if (fstat(fd, &info) != 0)
        status = mr_token_read_error(path, "stat");
    else if (!S_ISREG(info.st_mode))
        status = MR_ERROR(INVALID_ARGUMENT, "%s is %s; it must be a plain file",
                          mr_path_shorten(path).text,
                          S_ISDIR(info.st_mode) ? "a folder" : "not a plain file");
    else if (info.st_size <= 0)
        status = MR_ERROR(INVALID_ARGUMENT, "%s is empty", mr_path_shorten(path).text);
    if (!mr_status_is_ok(status)) {
        (void)close(fd); /* read-only: nothing can be lost */
        return status;
    }
    *out_fd = fd;
    *out_size = (uint64_t)info.st_size;
    return MR_OK;
}

mr_status mr_token_read_exact(int fd, const char *path, void *out, size_t bytes, uint64_t offset) {
    size_t done = 0;
    while (done < bytes) {
        ssize_t got = pread(fd, (char *)out + done, bytes - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return mr_token_read_error(path, "read");
        if (got == 0)
            return MR_ERROR(DATA_LOSS,
                            "%s: the file ends at byte %llu; it became shorter while in use",
                            mr_path_shorten(path).text, (unsigned long long)(offset + done));
        done += (size_t)got;
    }
    return MR_OK;
}

uint64_t mr_token_read_number(const unsigned char *bytes, uint32_t width) {
    uint64_t value = 0;
    MR_ASSERT(width >= 1 && width <= 8);
    for (uint32_t i = width; i > 0; i--)
        value = value << 8 | bytes[i - 1];
    return value;
}

int64_t mr_token_read_signed(const unsigned char *bytes, uint32_t width) {
    uint64_t value = mr_token_read_number(bytes, width);
    if (width < 8 && (bytes[width - 1] & 0x80u) != 0)
        value |= ~UINT64_C(0) << 8 * width;
    return (int64_t)value;
}
