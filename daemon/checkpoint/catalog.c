/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/checkpoint/catalog.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/base/alloc.h"
#include "daemon/checkpoint/file.h"

/* ---- listing ---- */

/* A list in the making. */
typedef struct catalog_scan {
    const char *job; /* NULL: all */
    mr_catalog_report report;
    void *context;
    mr_catalog_entry *entries;
    size_t count;
    size_t capacity;
} catalog_scan;

static void catalog_tell(mr_catalog_report report, void *context, const char *tag, const char *file,
                         mr_status why) {
    if (report != NULL)
        report(context, tag, file, why);
}

static mr_status catalog_add(catalog_scan *scan, const mr_catalog_entry *entry) {
    if (scan->count == MR_CATALOG_ENTRIES_MAX)
        return MR_ERROR(RESOURCE_EXHAUSTED, "more than %d checkpoints in one folder",
                        MR_CATALOG_ENTRIES_MAX);
    if (scan->count == scan->capacity) {
        size_t capacity = scan->capacity == 0 ? 16 : scan->capacity * 2;
        mr_catalog_entry *grown =
            mr_realloc_array(scan->entries, scan->capacity, capacity, sizeof(scan->entries[0]));
        if (grown == NULL)
            return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu checkpoints", capacity);
        scan->entries = grown;
        scan->capacity = capacity;
    }
    scan->entries[scan->count++] = *entry;
    return MR_OK;
}

/* Looks at one name of the folder; what is no checkpoint is passed over. */
static mr_status catalog_look(catalog_scan *scan, int dir_fd, const char *name) {
    if (!mr_status_is_ok(mr_layout_tag_check(name)))
        return MR_OK;
    int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        /* A plain file, a symlink or gone since: no checkpoint. One that we may not
         * open is told. */
        if (errno != ENOTDIR && errno != ELOOP && errno != ENOENT)
            catalog_tell(scan->report, scan->context, name, "",
                         mr_file_error(errno, "open folder", name));
        return MR_OK;
    }
    mr_manifest manifest = {0};
    mr_catalog_entry entry = {0};
    struct stat facts;
    mr_status status = mr_manifest_read_at(fd, name, &manifest);
    bool stands = fstatat(fd, MR_LAYOUT_MANIFEST, &facts, AT_SYMLINK_NOFOLLOW) == 0;
    mr_file_close(&fd);
    if (!mr_status_is_ok(status)) {
        if (status.code == MR_CODE_RESOURCE_EXHAUSTED)
            return status;
        if (status.code != MR_CODE_NOT_FOUND)
            catalog_tell(scan->report, scan->context, name, MR_LAYOUT_MANIFEST, status);
        return MR_OK;
    }
    if (stands && (scan->job == NULL || strcmp(scan->job, manifest.job) == 0)) {
        (void)snprintf(entry.tag, sizeof(entry.tag), "%s", name);
        memcpy(entry.job, manifest.job, sizeof(entry.job));
        memcpy(entry.model_hash, manifest.model_hash, sizeof(entry.model_hash));
        entry.step = manifest.step;
        entry.epoch = manifest.epoch;
        entry.bytes = mr_manifest_bytes(&manifest);
        entry.file_count = manifest.file_count;
        entry.committed_ms = (int64_t)facts.st_mtim.tv_sec * 1000 + facts.st_mtim.tv_nsec / 1000000;
        status = catalog_add(scan, &entry);
    }
    mr_manifest_deinit(&manifest);
    return status;
}

/* Calls visit for every name in the open folder but . and .. */
static mr_status catalog_each(int dir_fd, const char *dir,
                              mr_status (*visit)(void *context, int dir_fd, const char *name),
                              void *context) {
    int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    if (stream == NULL) {
        mr_status status = mr_file_error(errno, "list", dir);
        mr_file_close(&fd);
        return status;
    }
    mr_status status = MR_OK;
    while (mr_status_is_ok(status)) {
        errno = 0;
        struct dirent *entry = readdir(stream);
        if (entry == NULL) {
            if (errno != 0)
                status = mr_file_error(errno, "list", dir);
            break;
        }
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            status = visit(context, dir_fd, entry->d_name);
    }
    (void)closedir(stream); /* closes fd */
    return status;
}

static mr_status catalog_visit_list(void *context, int dir_fd, const char *name) {
    return catalog_look(context, dir_fd, name);
}

static int catalog_compare(const void *a, const void *b) {
    const mr_catalog_entry *x = a;
    const mr_catalog_entry *y = b;
    if (x->step != y->step)
        return x->step < y->step ? -1 : 1;
    if (x->epoch != y->epoch)
        return x->epoch < y->epoch ? -1 : 1;
    return strcmp(x->tag, y->tag);
}

static mr_status catalog_list_at(int dir_fd, const char *dir, catalog_scan *scan) {
    mr_status status = catalog_each(dir_fd, dir, catalog_visit_list, scan);
    if (!mr_status_is_ok(status)) {
        mr_free(scan->entries);
        scan->entries = NULL;
        scan->count = 0;
        return status;
    }
    if (scan->count > 1)
        qsort(scan->entries, scan->count, sizeof(scan->entries[0]), catalog_compare);
    return MR_OK;
}

mr_status mr_catalog_list(const char *dir, const char *job, mr_catalog_report report, void *context,
                          mr_catalog_entry **out_entries, size_t *out_count) {
    int dir_fd = -1;
    MR_TRY(mr_file_open_folder(dir, true, &dir_fd));
    catalog_scan scan = {.job = job, .report = report, .context = context};
    mr_status status = catalog_list_at(dir_fd, dir, &scan);
    mr_file_close(&dir_fd);
    MR_TRY(status);
    *out_entries = scan.entries;
    *out_count = scan.count;
    return MR_OK;
}

/* Do all listed files of dir/tag stand as plain files with their sizes? Cheap: nothing is read. */
static mr_status catalog_check_sizes(int dir_fd, const char *tag, char bad_file[MR_NAME_BYTES]) {
    bad_file[0] = '\0';
    int fd = openat(dir_fd, tag, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return mr_file_error(errno, "open folder", tag);
    mr_manifest manifest = {0};
    mr_status status = mr_manifest_read_at(fd, tag, &manifest);
    for (size_t i = 0; mr_status_is_ok(status) && i < manifest.file_count; i++) {
        const mr_checkpoint_file *file = &manifest.files[i];
        struct stat facts;
        if (fstatat(fd, file->name, &facts, AT_SYMLINK_NOFOLLOW) != 0)
            status = errno == ENOENT ? MR_ERROR(DATA_LOSS, "E_CKPT_MISSING file=%s", file->name)
                                     : mr_file_error(errno, "stat", file->name);
        else if (!S_ISREG(facts.st_mode))
            status = MR_ERROR(PERMISSION_DENIED, "E_CKPT_FILE reason=%s file=%s",
                              S_ISLNK(facts.st_mode) ? "symlink" : "type", file->name);
        else if ((uint64_t)facts.st_size != file->bytes)
            status = MR_ERROR(DATA_LOSS, "E_CKPT_SIZE file=%s want=%" PRIu64 " have=%" PRIu64,
                              file->name, file->bytes, (uint64_t)facts.st_size);
        if (!mr_status_is_ok(status))
            memcpy(bad_file, file->name, MR_NAME_BYTES);
    }
    mr_manifest_deinit(&manifest);
    mr_file_close(&fd);
    return status;
}

mr_status mr_catalog_newest(const char *dir, const char *job, mr_catalog_report report,
                            void *context, mr_catalog_entry *out_entry) {
    int dir_fd = -1;
    mr_status status = mr_file_open_folder(dir, true, &dir_fd);
    if (!mr_status_is_ok(status))
        return mr_status_prefix(status, "no committed checkpoint");
    catalog_scan scan = {.job = job, .report = report, .context = context};
    status = catalog_list_at(dir_fd, dir, &scan);
    if (mr_status_is_ok(status)) {
        status = MR_ERROR(NOT_FOUND, "no committed checkpoint%s%s in %s", job == NULL ? "" : " of ",
                          job == NULL ? "" : job, dir);
        for (size_t i = scan.count; i > 0; i--) {
            char bad_file[MR_NAME_BYTES];
            mr_status sound = catalog_check_sizes(dir_fd, scan.entries[i - 1].tag, bad_file);
            if (mr_status_is_ok(sound)) {
                *out_entry = scan.entries[i - 1];
                status = MR_OK;
                break;
            }
            catalog_tell(report, context, scan.entries[i - 1].tag, bad_file, sound);
        }
    }
    mr_free(scan.entries);
    mr_file_close(&dir_fd);
    return status;
}

static mr_status catalog_visit_epoch(void *context, int dir_fd, const char *name) {
    uint64_t *newest = context;
    uint64_t epoch;
    uint64_t step;
    (void)dir_fd;
    if (mr_layout_save_parse(name, &epoch, &step) && epoch > *newest)
        *newest = epoch;
    return MR_OK;
}

mr_status mr_catalog_epoch(const char *dir, uint64_t *out_epoch) {
    uint64_t newest = 0;
    int dir_fd = -1;
    mr_status status = mr_file_open_folder(dir, true, &dir_fd);
    if (status.code == MR_CODE_NOT_FOUND) {
        *out_epoch = 0;
        return MR_OK;
    }
    MR_TRY(status);
    catalog_scan scan = {0};
    MR_TRY_GOTO(status, catalog_each(dir_fd, dir, catalog_visit_epoch, &newest), out);
    MR_TRY_GOTO(status, catalog_list_at(dir_fd, dir, &scan), out);
    for (size_t i = 0; i < scan.count; i++)
        if (scan.entries[i].epoch > newest)
            newest = scan.entries[i].epoch;
    *out_epoch = newest;
out:
    mr_free(scan.entries);
    mr_file_close(&dir_fd);
    return status;
}

/* ---- deleting ---- */

mr_status mr_catalog_delete(const char *dir, const char *tag) {
    MR_TRY(mr_layout_tag_check(tag));
    int dir_fd = -1;
    MR_TRY(mr_file_open_folder(dir, true, &dir_fd));
    mr_status status = mr_file_trash(dir_fd, dir, tag);
    mr_file_close(&dir_fd);
    return status;
}

mr_status mr_catalog_retain(const char *dir, const char *job, size_t keep, const char *protect,
                            size_t *out_removed) {
    size_t kept = 0;
    size_t removed = 0;
    int dir_fd = -1;
    if (keep == 0)
        return MR_ERROR(INVALID_ARGUMENT, "keep is 0; at least 1 checkpoint must stay");
    MR_TRY(mr_file_open_folder(dir, true, &dir_fd));
    catalog_scan scan = {.job = job};
    mr_status status = catalog_list_at(dir_fd, dir, &scan);
    for (size_t i = scan.count; i > 0 && mr_status_is_ok(status); i--) {
        const char *tag = scan.entries[i - 1].tag;
        char bad_file[MR_NAME_BYTES];
        if (!mr_layout_step_parse(tag, NULL) ||
            !mr_status_is_ok(catalog_check_sizes(dir_fd, tag, bad_file)))
            continue; /* a user's, or damaged: it neither counts nor goes */
        if (kept < keep || (protect != NULL && strcmp(tag, protect) == 0)) {
            kept++;
            continue;
        }
        status = mr_file_trash(dir_fd, dir, tag);
        if (mr_status_is_ok(status))
            removed++;
    }
    mr_free(scan.entries);
    mr_file_close(&dir_fd);
    if (out_removed != NULL)
        *out_removed = removed;
    return status;
}

mr_status mr_catalog_discard(const char *dir, const char *tag, uint64_t epoch, uint64_t step) {
    char save[MR_CHECKPOINT_SAVE_NAME_BYTES];
    MR_TRY(mr_layout_save_name(tag, epoch, step, save));
    int dir_fd = -1;
    mr_status status = mr_file_open_folder(dir, true, &dir_fd);
    if (mr_status_is_ok(status))
        status = mr_file_trash(dir_fd, dir, save);
    mr_file_close(&dir_fd);
    return status.code == MR_CODE_NOT_FOUND ? MR_OK : status;
}

/* What a sweep removes. */
typedef struct catalog_sweep {
    uint64_t epoch;
    const char *dir;
    size_t removed;
    mr_status first; /* error */
} catalog_sweep;

/* trash- and 16 hex digits: exactly what mr_file_trash makes. */
static bool catalog_is_trash(const char *name) {
    size_t prefix = strlen(MR_LAYOUT_TRASH_PREFIX);
    return strncmp(name, MR_LAYOUT_TRASH_PREFIX, prefix) == 0 && strlen(name) == prefix + 16 &&
           strspn(name + prefix, "0123456789abcdef") == 16;
}

static bool catalog_is_temporary(const char *name) {
    return strncmp(name, ".tmp-", 5) == 0 && strspn(name + 5, "0123456789abcdef") == 16 &&
           strcmp(name + 21, "-" MR_LAYOUT_LATEST) == 0;
}

/* Removes one name if it is a leftover; others are passed over. */
static mr_status catalog_sweep_one(const catalog_sweep *sweep, int dir_fd, const char *name,
                                   bool *out_leftover) {
    uint64_t epoch;
    uint64_t step;
    *out_leftover = true;
    if (catalog_is_trash(name))
        return mr_file_trash_empty(dir_fd, sweep->dir, name);
    if (catalog_is_temporary(name))
        return unlinkat(dir_fd, name, 0) == 0 ? MR_OK : mr_file_error(errno, "delete", name);
    if (mr_layout_save_parse(name, &epoch, &step) && epoch < sweep->epoch)
        return mr_file_trash(dir_fd, sweep->dir, name);
    *out_leftover = false;
    return MR_OK;
}

/* One that cannot be removed does not keep the others. */
static mr_status catalog_visit_sweep(void *context, int dir_fd, const char *name) {
    catalog_sweep *sweep = context;
    bool leftover = false;
    mr_status status = catalog_sweep_one(sweep, dir_fd, name, &leftover);
    if (status.code == MR_CODE_NOT_FOUND)
        return MR_OK; /* gone since the folder was read */
    if (!mr_status_is_ok(status) && mr_status_is_ok(sweep->first))
        sweep->first = status;
    else if (mr_status_is_ok(status) && leftover)
        sweep->removed++;
    return MR_OK;
}

mr_status mr_catalog_sweep(const char *dir, uint64_t epoch, size_t *out_removed) {
    catalog_sweep sweep = {.epoch = epoch, .dir = dir};
    int dir_fd = -1;
    mr_status status = mr_file_open_folder(dir, true, &dir_fd);
    if (mr_status_is_ok(status))
        status = catalog_each(dir_fd, dir, catalog_visit_sweep, &sweep);
    mr_file_close(&dir_fd);
    if (out_removed != NULL)
        *out_removed = sweep.removed;
    if (status.code == MR_CODE_NOT_FOUND)
        return MR_OK;
    return mr_status_is_ok(status) ? sweep.first : status;
}
