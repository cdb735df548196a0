/* SPDX-License-Identifier: Apache-2.0 */
/* file.h: the system calls under a checkpoint, with errors as statuses that name the path and
 * the reason, and the two operations that everything here is made of: a file that appears under
 * its name whole or not at all, and a folder's deletion that is never half visible.
 * Symlinks are refused wherever a file of a checkpoint is opened. A failed fsync is final: the
 * kernel may have marked the lost pages clean, so it is never tried again on the same file.
 * Owner: checkpoint; private to this folder. Thread: any.
 * Not here: names (layout.h) and contents. */
#ifndef MR_CHECKPOINT_FILE_H
#define MR_CHECKPOINT_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "daemon/base/limits.h"
#include "daemon/base/status.h"
#include "daemon/checkpoint/layout.h"

/* "ACTION PATH: strerror" with the code that fits error. */
MR_MUST_CHECK mr_status mr_file_error(int error, const char *action, const char *path);

/* Opens a folder for *at calls; follow: may path itself be a symlink? */
MR_MUST_CHECK mr_status mr_file_open_folder(const char *path, bool follow, int *out_fd);
/* Makes path and what is missing above it, mode 0700, and fsyncs where it made something. A folder
 * that stands is fine. */
MR_MUST_CHECK mr_status mr_file_make_folder(const char *path);
/* Opens a plain file for reading. "E_CKPT_FILE reason=symlink|type" for anything else. */
MR_MUST_CHECK mr_status mr_file_open_plain(int folder_fd, const char *folder, const char *name,
                                           int *out_fd, uint64_t *out_bytes);
/* Reads exactly bytes at offset; DATA_LOSS "E_CKPT_TRUNC" at an early end. */
MR_MUST_CHECK mr_status mr_file_read(int fd, uint64_t offset, void *out, size_t bytes,
                                     const char *label);
MR_MUST_CHECK mr_status mr_file_sync(int fd, const char *path);
/* Closes *fd (-1: nothing) and sets it to -1. */
void mr_file_close(int *fd);
/* SHA-256 of the whole open file, in hex. */
MR_MUST_CHECK mr_status mr_file_sha256(int fd, uint64_t bytes, const char *label,
                                       char out_hex[MR_SHA256_HEX_BYTES]);

/* ---- a file that appears whole ---- */

/* In creation: folder_fd/.tmp-NONCE-NAME, exclusive, mode 0600. */
typedef struct mr_file_draft {
    int folder_fd; /* borrowed */
    int fd;
    const char *folder; /* borrowed; for errors */
    char name[MR_NAME_BYTES];
    char temporary[MR_CHECKPOINT_SAVE_NAME_BYTES];
} mr_file_draft;

/* bytes_expected > 0 reserves that much space at once, so that a full disk shows before the
 * work. */
MR_MUST_CHECK mr_status mr_file_draft_open(mr_file_draft *draft, int folder_fd, const char *folder,
                                           const char *name, uint64_t bytes_expected);
MR_MUST_CHECK mr_status mr_file_draft_append(mr_file_draft *draft, const void *data, size_t bytes);
/* fsync, rename over name, fsync of the folder. Ends the draft in success and failure. */
MR_MUST_CHECK mr_status mr_file_draft_finish(mr_file_draft *draft);
/* Removes the temporary file. A zeroed-and-closed draft (fd -1) is fine. */
void mr_file_draft_abandon(mr_file_draft *draft);
/* All of the above for a short text. */
MR_MUST_CHECK mr_status mr_file_write(int folder_fd, const char *folder, const char *name,
                                      const void *data, size_t bytes);

/* ---- a folder that disappears whole ---- */

/* Renames dir_fd/name to trash-NONCE, fsyncs dir, then deletes it. */
MR_MUST_CHECK mr_status mr_file_trash(int dir_fd, const char *dir, const char *name);
/* Deletes the plain files of a trash folder and the folder. FAILED_PRECONDITION: a folder in it. */
MR_MUST_CHECK mr_status mr_file_trash_empty(int dir_fd, const char *dir, const char *name);

#endif
