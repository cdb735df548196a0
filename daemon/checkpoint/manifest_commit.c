/* SPDX-License-Identifier: Apache-2.0 */
/* manifest_commit.c: the order of system calls that makes a save a checkpoint. The files were
 * fsynced by the stages that wrote them; here the manifest is fsynced beside them, then one rename
 * of the folder commits all of it, then the folder above is fsynced so that the rename stays. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/base/alloc.h"
#include "daemon/base/fault.h"
#include "daemon/checkpoint/file.h"
#include "daemon/checkpoint/manifest.h"

/* What stands under the tag's name before the commit. */
typedef enum commit_before {
    COMMIT_BEFORE_NOTHING, /* also an empty folder */
    COMMIT_BEFORE_OLDER,   /* to be exchanged and deleted */
    COMMIT_BEFORE_SAME     /* this very checkpoint: an earlier commit got through */
} commit_before;

static bool commit_same(const mr_manifest *a, const mr_manifest *b) {
    if (a->epoch != b->epoch || a->step != b->step || a->file_count != b->file_count ||
        strcmp(a->model_hash, b->model_hash) != 0)
        return false;
    for (size_t i = 0; i < a->file_count; i++) {
        const mr_checkpoint_file *other = mr_manifest_find(b, a->files[i].name);
        if (other == NULL || other->bytes != a->files[i].bytes ||
            strcmp(other->sha256, a->files[i].sha256) != 0)
            return false;
    }
    return true;
}

static bool commit_folder_empty(int dir_fd, const char *tag) {
    /* An empty folder is the only one that can be renamed over; asking by trying costs nothing. */
    struct stat facts;
    if (fstatat(dir_fd, tag, &facts, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT;
    return S_ISDIR(facts.st_mode) && unlinkat(dir_fd, tag, AT_REMOVEDIR) == 0;
}

/* Reads what stands at dir/tag and refuses what must not be replaced. */
static mr_status commit_look(int dir_fd, const char *dir, const char *tag,
                             const mr_manifest *manifest, commit_before *out_before) {
    int fd = openat(dir_fd, tag, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) {
        *out_before = COMMIT_BEFORE_NOTHING;
        return MR_OK;
    }
    if (fd < 0)
        return mr_file_error(errno, "open the checkpoint that stands at", tag);
    mr_manifest old = {0};
    mr_status status = mr_manifest_read_at(fd, tag, &old);
    mr_file_close(&fd);
    if (status.code == MR_CODE_NOT_FOUND) {
        /* A step-N folder without a manifest is what some dead save left; another is somebody's. */
        bool empty = commit_folder_empty(dir_fd, tag);
        if (!empty && !mr_layout_step_parse(tag, NULL))
            return MR_ERROR(ALREADY_EXISTS, "%s/%s is a folder, but no checkpoint", dir, tag);
        *out_before = empty ? COMMIT_BEFORE_NOTHING : COMMIT_BEFORE_OLDER;
        return MR_OK;
    }
    *out_before = COMMIT_BEFORE_OLDER;
    if (status.code == MR_CODE_DATA_LOSS)
        return MR_OK; /* damaged: nothing is lost with it */
    MR_TRY(status);
    if (strcmp(old.job, manifest->job) != 0)
        status = MR_ERROR(ALREADY_EXISTS, "checkpoint %s belongs to job %s, not to %s", tag,
                          old.job, manifest->job);
    else if (old.epoch > manifest->epoch)
        status = MR_ERROR(FAILED_PRECONDITION,
                          "E_STALE_EPOCH got=%" PRIu64 " current=%" PRIu64
                          ": checkpoint %s is committed by a later epoch",
                          manifest->epoch, old.epoch, tag);
    else if (commit_same(&old, manifest))
        *out_before = COMMIT_BEFORE_SAME;
    mr_manifest_deinit(&old);
    return status;
}

/* Does every listed file stand in the save's folder, as a plain file of its size? */
static mr_status commit_check_files(int save_fd, const char *save, const mr_manifest *manifest) {
    for (size_t i = 0; i < manifest->file_count; i++) {
        const mr_checkpoint_file *file = &manifest->files[i];
        struct stat facts;
        if (fstatat(save_fd, file->name, &facts, AT_SYMLINK_NOFOLLOW) != 0) {
            if (errno == ENOENT)
                return MR_ERROR(FAILED_PRECONDITION, "E_CKPT_MISSING file=%s: not in %s",
                                file->name, save);
            return mr_file_error(errno, "stat", file->name);
        }
        if (!S_ISREG(facts.st_mode))
            return MR_ERROR(PERMISSION_DENIED, "E_CKPT_FILE reason=%s file=%s in %s",
                            S_ISLNK(facts.st_mode) ? "symlink" : "type", file->name, save);
        if ((uint64_t)facts.st_size != file->bytes)
            return MR_ERROR(FAILED_PRECONDITION,
                            "E_CKPT_SIZE file=%s want=%" PRIu64 " have=%" PRIu64 " in %s",
                            file->name, file->bytes, (uint64_t)facts.st_size, save);
    }
    return MR_OK;
}

static mr_status commit_write_manifest(int save_fd, const char *save, const mr_manifest *manifest) {
    char *text = NULL;
    size_t bytes = 0;
    MR_TRY(mr_manifest_format(manifest, &text, &bytes));
    mr_status status = mr_file_write(save_fd, save, MR_LAYOUT_MANIFEST, text, bytes);
    mr_free(text);
    return status;
}

/* fsyncs dir and the folder that dir is in. */
static mr_status commit_sync(int dir_fd, const char *dir) {
    MR_TRY(mr_fault("checkpoint.commit.before_folder_fsync"));
    MR_TRY(mr_file_sync(dir_fd, dir));
    int parent_fd = openat(dir_fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (parent_fd < 0)
        return mr_file_error(errno, "open the folder above", dir);
    mr_status status = mr_file_sync(parent_fd, dir);
    mr_file_close(&parent_fd);
    return status;
}

/* The commit point. exchange: the tag's old folder takes the save's name. */
static mr_status commit_rename(int dir_fd, const char *save, const char *tag, bool exchange) {
    MR_TRY(mr_fault("checkpoint.commit.before_rename"));
    unsigned flags = exchange ? RENAME_EXCHANGE : RENAME_NOREPLACE;
    int failed = renameat2(dir_fd, save, dir_fd, tag, flags) == 0 ? 0 : errno;
    bool unknown = failed == EINVAL || failed == ENOSYS;
    if (unknown && exchange)
        return MR_ERROR(FAILED_PRECONDITION,
                        "this file system cannot exchange two folders: delete "
                        "checkpoint %s first, or save under another tag",
                        tag);
    /* The name was free a moment ago, and a plain rename replaces nothing but an empty folder. */
    if (unknown)
        failed = renameat(dir_fd, save, dir_fd, tag) == 0 ? 0 : errno;
    if (failed != 0)
        return mr_file_error(failed, "rename into place", tag);
    return MR_OK;
}

/* Checks, writes and renames; nothing is committed unless it returns OK or fails in commit_sync. */
static mr_status commit_place(int dir_fd, const char *dir, const char *save, const char *tag,
                              const mr_manifest *manifest, bool exchange) {
    int save_fd = openat(dir_fd, save, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (save_fd < 0 && errno == ENOENT)
        return MR_ERROR(FAILED_PRECONDITION, "E_CKPT_MISSING file=%s: no stage has saved into it",
                        save);
    if (save_fd < 0)
        return mr_file_error(errno, "open folder", save);
    mr_status status = commit_check_files(save_fd, save, manifest);
    if (mr_status_is_ok(status))
        status = commit_write_manifest(save_fd, save, manifest);
    mr_file_close(&save_fd);
    MR_TRY(status);
    MR_TRY(commit_rename(dir_fd, save, tag, exchange));
    return commit_sync(dir_fd, dir);
}

/* `latest` is rewritten even where a later one stands: it says what was committed last. */
static mr_status commit_latest(int dir_fd, const char *dir, const char *tag) {
    char line[MR_NAME_BYTES + 1];
    int bytes = snprintf(line, sizeof(line), "%s\n", tag);
    MR_TRY(mr_fault("checkpoint.commit.before_latest"));
    return mr_file_write(dir_fd, dir, MR_LAYOUT_LATEST, line, (size_t)bytes);
}

mr_status mr_manifest_commit(const char *dir, const char *tag, const mr_manifest *manifest,
                             mr_status *out_advisory) {
    char save[MR_CHECKPOINT_SAVE_NAME_BYTES];
    MR_TRY(mr_layout_save_name(tag, manifest->epoch, manifest->step, save));
    char *text = NULL;
    size_t bytes = 0;
    MR_TRY(mr_manifest_format(manifest, &text, &bytes)); /* a bad manifest touches nothing */
    mr_free(text);
    int dir_fd = -1;
    MR_TRY(mr_file_open_folder(dir, true, &dir_fd));
    mr_status advisory = MR_OK;
    commit_before before = COMMIT_BEFORE_NOTHING;
    mr_status status;
    MR_TRY_GOTO(status, commit_look(dir_fd, dir, tag, manifest, &before), out);
    if (before == COMMIT_BEFORE_SAME)
        MR_TRY_GOTO(status, commit_sync(dir_fd, dir), out);
    else
        MR_TRY_GOTO(status,
                    commit_place(dir_fd, dir, save, tag, manifest, before == COMMIT_BEFORE_OLDER),
                    out);
    advisory = commit_latest(dir_fd, dir, tag);
    struct stat facts;
    /* After an exchange the old checkpoint has the save's name; a repeat may still find it. */
    if (fstatat(dir_fd, save, &facts, AT_SYMLINK_NOFOLLOW) == 0) {
        mr_status trashed = mr_file_trash(dir_fd, dir, save);
        if (mr_status_is_ok(advisory))
            advisory = trashed;
    }
    if (out_advisory != NULL)
        *out_advisory = advisory;
out:
    mr_file_close(&dir_fd);
    return status;
}
