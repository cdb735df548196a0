/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/checkpoint/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/base/alloc.h"
#include "daemon/base/clock.h"
#include "daemon/base/fault.h"
#include "daemon/checkpoint/digest.h"

enum {
    FILE_READ_BYTES = 1 << 20, /* one read while hashing */
    FILE_ERROR_PATH_BYTES =
        120 /* of a path in an error's text, so that the reason fits behind it */
};

static mr_code file_code(int error) {
    switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
        return MR_CODE_RESOURCE_EXHAUSTED;
    case EACCES:
    case EPERM:
    case EROFS:
    case ELOOP:
        return MR_CODE_PERMISSION_DENIED;
    case ENOENT:
        return MR_CODE_NOT_FOUND;
    case EEXIST:
    case ENOTEMPTY:
        return MR_CODE_ALREADY_EXISTS;
    case ENOTDIR:
    case EISDIR:
    case ENAMETOOLONG:
        return MR_CODE_FAILED_PRECONDITION;
    case EIO:
        return MR_CODE_DATA_LOSS;
    default:
        return MR_CODE_UNAVAILABLE;
    }
}

/* The end of a path that is too long for an error's text: the name matters more than the root. */
static const char *file_tail(const char *path, const char **out_dots) {
    size_t bytes = strlen(path);
    bool cut = bytes > FILE_ERROR_PATH_BYTES;
    *out_dots = cut ? "..." : "";
    return cut ? path + bytes - FILE_ERROR_PATH_BYTES : path;
}

mr_status mr_file_error(int error, const char *action, const char *path) {
    char reason[128];
    /* The GNU form returns the text, which may be static and not in the buffer. */
    const char *text = strerror_r(error, reason, sizeof(reason));
    const char *dots;
    const char *tail = file_tail(path, &dots);
    return mr_status_make(file_code(error), __FILE__, __LINE__, "%s %s%s: %s", action, dots, tail,
                          text);
}

/* folder/name for an error's text. */
static void file_path(const char *folder, const char *name,
                      char out[MR_CHECKPOINT_PATH_BYTES + MR_CHECKPOINT_SAVE_NAME_BYTES]) {
    (void)snprintf(out, MR_CHECKPOINT_PATH_BYTES + MR_CHECKPOINT_SAVE_NAME_BYTES, "%s/%s", folder,
                   name); /* cut is intended */
}

/* The same for an entry of an open folder. */
static mr_status file_error_at(int error, const char *action, const char *folder,
                               const char *name) {
    char path[MR_CHECKPOINT_PATH_BYTES + MR_CHECKPOINT_SAVE_NAME_BYTES];
    file_path(folder, name, path);
    return mr_file_error(error, action, path);
}

static mr_status file_not_plain(const char *folder, const char *name, const char *reason,
                                const char *is) {
    char path[MR_CHECKPOINT_PATH_BYTES + MR_CHECKPOINT_SAVE_NAME_BYTES];
    file_path(folder, name, path);
    const char *dots;
    const char *tail = file_tail(path, &dots);
    return MR_ERROR(PERMISSION_DENIED, "E_CKPT_FILE reason=%s: %s%s is %s", reason, dots, tail, is);
}

/* A word that no other temporary name in the folder has: process, time, count. */
static uint64_t file_nonce(void) {
    static _Atomic uint64_t count;
    uint64_t n = atomic_fetch_add_explicit(&count, 1, memory_order_relaxed);
    uint64_t nonce = (uint64_t)mr_clock_now_ns() ^ ((uint64_t)getpid() << 40) ^ (n << 56);
    return nonce * 0x9E3779B97F4A7C15u;
}

mr_status mr_file_open_folder(const char *path, bool follow, int *out_fd) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | (follow ? 0 : O_NOFOLLOW));
    if (fd < 0)
        return mr_file_error(errno, "open folder", path);
    *out_fd = fd;
    return MR_OK;
}

/* Makes one folder whose parent stands, and makes its name durable. */
static mr_status file_make_one(const char *path) {
    if (mkdir(path, 0700) != 0)
        return errno == EEXIST ? MR_OK : mr_file_error(errno, "make folder", path);
    char parent[MR_CHECKPOINT_PATH_BYTES];
    MR_TRY(mr_layout_join(path, "..", parent, sizeof(parent)));
    int fd = -1;
    MR_TRY(mr_file_open_folder(parent, true, &fd));
    mr_status status = mr_file_sync(fd, parent);
    mr_file_close(&fd);
    return status;
}

mr_status mr_file_make_folder(const char *path) {
    char part[MR_CHECKPOINT_PATH_BYTES];
    size_t bytes = strlen(path);
    if (bytes == 0 || bytes >= sizeof(part))
        return MR_ERROR(INVALID_ARGUMENT, "a folder's path has %zu bytes; it must have 1 to %zu",
                        bytes, sizeof(part) - 1);
    memcpy(part, path, bytes + 1);
    /* Every prefix that ends before a slash, then the whole. Those that stand cost one call. */
    for (size_t i = 1; i < bytes; i++) {
        if (part[i] != '/')
            continue;
        part[i] = '\0';
        mr_status status = file_make_one(part);
        part[i] = '/';
        /* A part above that we may not write is no matter where the rest stands. */
        if (!mr_status_is_ok(status) && status.code != MR_CODE_PERMISSION_DENIED)
            return status;
    }
    return file_make_one(part);
}

mr_status mr_file_open_plain(int folder_fd, const char *folder, const char *name, int *out_fd,
                             uint64_t *out_bytes) {
    /* Non-blocking, so that a fifo under a file's name cannot hold us before it is refused. */
    int fd = openat(folder_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno == ELOOP)
        return file_not_plain(folder, name, "symlink", "a symbolic link");
    if (fd < 0)
        return file_error_at(errno, "open", folder, name);
    struct stat facts;
    if (fstat(fd, &facts) != 0) {
        mr_status status = file_error_at(errno, "stat", folder, name);
        mr_file_close(&fd);
        return status;
    }
    if (!S_ISREG(facts.st_mode)) {
        mr_file_close(&fd);
        return file_not_plain(folder, name, "type", "not a plain file");
    }
    *out_fd = fd;
    *out_bytes = (uint64_t)facts.st_size;
    return MR_OK;
}

mr_status mr_file_read(int fd, uint64_t offset, void *out, size_t bytes, const char *label) {
    size_t done = 0;
    while (done < bytes) {
        ssize_t n = pread(fd, (char *)out + done, bytes - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return mr_file_error(errno, "read", label);
        if (n == 0)
            return MR_ERROR(DATA_LOSS,
                            "E_CKPT_TRUNC want=%" PRIu64 " have=%" PRIu64 ": %s ends early",
                            offset + bytes, offset + done, label);
        done += (size_t)n;
    }
    return MR_OK;
}

mr_status mr_file_sync(int fd, const char *path) {
    if (fsync(fd) != 0)
        return mr_file_error(errno, "fsync", path);
    return MR_OK;
}

void mr_file_close(int *fd) {
    if (*fd >= 0)
        (void)close(*fd); /* what must be on the disk was fsynced before */
    *fd = -1;
}

mr_status mr_file_sha256(int fd, uint64_t bytes, const char *label,
                         char out_hex[MR_SHA256_HEX_BYTES]) {
    mr_digest *digest = NULL;
    unsigned char *buffer = mr_alloc(FILE_READ_BYTES);
    mr_status status = MR_OK;
    if (buffer == NULL) {
        status = MR_ERROR(RESOURCE_EXHAUSTED, "no memory to read %s", label);
        goto out;
    }
    MR_TRY_GOTO(status, mr_digest_create(&digest), out);
    for (uint64_t offset = 0; offset < bytes;) {
        uint64_t left = bytes - offset;
        size_t n = left < FILE_READ_BYTES ? (size_t)left : FILE_READ_BYTES;
        MR_TRY_GOTO(status, mr_file_read(fd, offset, buffer, n, label), out);
        MR_TRY_GOTO(status, mr_digest_add(digest, buffer, n), out);
        offset += n;
    }
    status = mr_digest_finish(digest, out_hex);
out:
    mr_digest_destroy(digest);
    mr_free(buffer);
    return status;
}

/* ---- a file that appears whole ---- */

mr_status mr_file_draft_open(mr_file_draft *draft, int folder_fd, const char *folder,
                             const char *name, uint64_t bytes_expected) {
    MR_ASSERT(strlen(name) < MR_NAME_BYTES);
    *draft = (mr_file_draft){.folder_fd = folder_fd, .fd = -1, .folder = folder};
    (void)snprintf(draft->name, sizeof(draft->name), "%s", name);
    (void)snprintf(draft->temporary, sizeof(draft->temporary), ".tmp-%016" PRIx64 "-%s",
                   file_nonce(), name);
    draft->fd = openat(folder_fd, draft->temporary,
                       O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (draft->fd < 0)
        return file_error_at(errno, "create", folder, draft->temporary);
    mr_status status = mr_fault("checkpoint.file.created");
    if (mr_status_is_ok(status) && bytes_expected > 0) {
        int failed;
        do {
            failed = fallocate(draft->fd, 0, 0, (off_t)bytes_expected) == 0 ? 0 : errno;
        } while (failed == EINTR);
        /* Where the file system cannot reserve, the writes will tell. */
        if (failed != 0 && failed != EOPNOTSUPP && failed != ENOSYS)
            status = file_error_at(failed, "reserve space for", folder, name);
    }
    if (!mr_status_is_ok(status))
        mr_file_draft_abandon(draft);
    return status;
}

mr_status mr_file_draft_append(mr_file_draft *draft, const void *data, size_t bytes) {
    MR_ASSERT(draft->fd >= 0);
    MR_TRY(mr_fault("checkpoint.file.write"));
    for (size_t done = 0; done < bytes;) {
        ssize_t n = write(draft->fd, (const char *)data + done, bytes - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return file_error_at(errno, "write", draft->folder, draft->name);
        done += (size_t)n;
    }
    return MR_OK;
}

mr_status mr_file_draft_finish(mr_file_draft *draft) {
    MR_ASSERT(draft->fd >= 0);
    mr_status status;
    MR_TRY_GOTO(status, mr_fault("checkpoint.file.before_fsync"), out);
    if (fsync(draft->fd) != 0) {
        status = file_error_at(errno, "fsync", draft->folder, draft->name);
        goto out;
    }
    /* Some network file systems report a lost write only here. */
    int fd = draft->fd;
    draft->fd = -1;
    if (close(fd) != 0) {
        status = file_error_at(errno, "close", draft->folder, draft->name);
        goto out;
    }
    MR_TRY_GOTO(status, mr_fault("checkpoint.file.before_rename"), out);
    if (renameat(draft->folder_fd, draft->temporary, draft->folder_fd, draft->name) != 0) {
        status = file_error_at(errno, "rename into place", draft->folder, draft->name);
        goto out;
    }
    draft->temporary[0] = '\0';
    MR_TRY_GOTO(status, mr_fault("checkpoint.file.before_folder_fsync"), out);
    status = mr_file_sync(draft->folder_fd, draft->folder);
out:
    mr_file_draft_abandon(draft);
    return status;
}

void mr_file_draft_abandon(mr_file_draft *draft) {
    mr_file_close(&draft->fd);
    if (draft->temporary[0] != '\0')
        (void)unlinkat(draft->folder_fd, draft->temporary, 0); /* what stays is swept later */
    draft->temporary[0] = '\0';
}

mr_status mr_file_write(int folder_fd, const char *folder, const char *name, const void *data,
                        size_t bytes) {
    mr_file_draft draft;
    MR_TRY(mr_file_draft_open(&draft, folder_fd, folder, name, 0));
    mr_status status = mr_file_draft_append(&draft, data, bytes);
    if (!mr_status_is_ok(status)) {
        mr_file_draft_abandon(&draft);
        return status;
    }
    return mr_file_draft_finish(&draft);
}

/* ---- a folder that disappears whole ---- */

mr_status mr_file_trash(int dir_fd, const char *dir, const char *name) {
    char trash[MR_CHECKPOINT_SAVE_NAME_BYTES];
    (void)snprintf(trash, sizeof(trash), MR_LAYOUT_TRASH_PREFIX "%016" PRIx64, file_nonce());
    if (renameat(dir_fd, name, dir_fd, trash) != 0)
        return file_error_at(errno, "rename to trash", dir, name);
    MR_TRY(mr_fault("checkpoint.trash.before_folder_fsync"));
    MR_TRY(mr_file_sync(dir_fd, dir));
    return mr_file_trash_empty(dir_fd, dir, trash);
}

mr_status mr_file_trash_empty(int dir_fd, const char *dir, const char *name) {
    int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return file_error_at(errno, "open folder", dir, name);
    DIR *stream = fdopendir(fd);
    if (stream == NULL) {
        mr_status status = file_error_at(errno, "list", dir, name);
        mr_file_close(&fd);
        return status;
    }
    mr_status status = MR_OK;
    struct dirent *entry;
    while (mr_status_is_ok(status) && (entry = readdir(stream)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        status = mr_fault("checkpoint.trash.unlink");
        if (mr_status_is_ok(status) && unlinkat(fd, entry->d_name, 0) != 0 && errno != ENOENT)
            status = file_error_at(errno, "delete from trash", name, entry->d_name);
    }
    (void)closedir(stream); /* closes fd */
    if (mr_status_is_ok(status) && unlinkat(dir_fd, name, AT_REMOVEDIR) != 0 && errno != ENOENT)
        status = file_error_at(errno, "delete", dir, name);
    return status;
}
