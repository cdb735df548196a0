/* SPDX-License-Identifier: Apache-2.0 */
/* catalog.h: the checkpoints of one folder: list, find the newest, verify, delete, keep the
 * newest K, sweep what dead saves left. Needs no server: the folder is the truth; `latest` is
 * only a hint and is never read here.
 * A checkpoint is a folder with a tag's name and a valid
 * manifest.json; anything else in the folder is invisible. Order: step as a number, then epoch,
 * then tag. Names that this project did not make are never touched.
 * Owner: checkpoint. Thread: any; DISK in a daemon. Limits: MR_CATALOG_ENTRIES_MAX.
 * Not here: the commit (manifest.h). */
#ifndef MR_CHECKPOINT_CATALOG_H
#define MR_CHECKPOINT_CATALOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/base/limits.h"
#include "daemon/base/status.h"
#include "daemon/checkpoint/layout.h"
#include "daemon/checkpoint/manifest.h"
#include "daemon/checkpoint/safetensors.h"

typedef struct mr_catalog_entry {
    char tag[MR_NAME_BYTES];
    char job[MR_NAME_BYTES];
    char model_hash[MR_SHA256_HEX_BYTES];
    uint64_t step;
    uint64_t epoch;
    uint64_t bytes; /* of all listed files */
    size_t file_count;
    int64_t committed_ms; /* time of the manifest, milliseconds since 1970 */
} mr_catalog_entry;

/* Called with one problem: tag (or the folder's own name), file (empty: the checkpoint as a whole)
 * and why. The strings live until it returns. */
typedef void (*mr_catalog_report)(void *context, const char *tag, const char *file, mr_status why);

/* Committed checkpoints of dir, newest last. job: only this job's; NULL for all. *out_entries is
 * freed with mr_free (NULL where there are none). report (may be NULL) gets the folders whose
 * manifest stands but is damaged. NOT_FOUND: no such dir. RESOURCE_EXHAUSTED: over the limit. */
MR_MUST_CHECK mr_status mr_catalog_list(const char *dir, const char *job, mr_catalog_report report,
                                        void *context, mr_catalog_entry **out_entries,
                                        size_t *out_count);

/* The newest committed checkpoint of dir whose listed files all stand with their sizes; one that
 * lacks a file is reported and passed over. NOT_FOUND: dir or a checkpoint in it. */
MR_MUST_CHECK mr_status mr_catalog_newest(const char *dir, const char *job,
                                          mr_catalog_report report, void *context,
                                          mr_catalog_entry *out_entry);

/* The highest epoch that dir has seen, committed or only begun; 0 where there is nothing. A
 * coordinator starts a job above it, so that its commits are never stale. */
MR_MUST_CHECK mr_status mr_catalog_epoch(const char *dir, uint64_t *out_epoch);

typedef struct mr_catalog_verdict {
    uint64_t files;
    uint64_t bytes;
    uint64_t problems;
} mr_catalog_verdict;

/* Reads every byte of the checkpoint at path (DIR/TAG): manifest, each file's size, SHA-256 and
 * safetensors structure. Every problem goes to report (may be NULL). OK: sound. DATA_LOSS (or, for
 * a single problem, its own code): the first problem's text and how many there are; *out_verdict
 * (may be NULL) is written in both cases. NOT_FOUND: path is not a committed checkpoint. */
MR_MUST_CHECK mr_status mr_catalog_verify(const char *path, mr_catalog_report report, void *context,
                                          mr_catalog_verdict *out_verdict);

/* Opens one listed file of the checkpoint at path for loading: size and SHA-256 against the
 * manifest, then its structure. FAILED_PRECONDITION: the manifest does not list it. DATA_LOSS as in
 * safetensors.h, and "E_CKPT_SHA256 file=F". */
MR_MUST_CHECK mr_status mr_catalog_open_file(const char *path, const mr_manifest *manifest,
                                             const char *name, mr_safetensors_reader **out_reader);

/* The same without the hash, for looking at: size, then structure, and no tensor's byte is read. */
MR_MUST_CHECK mr_status mr_catalog_open_header(const char *path, const mr_manifest *manifest,
                                               const char *name,
                                               mr_safetensors_reader **out_reader);

/* Deletes DIR/TAG: renamed to trash-*, fsynced, then unlinked. NOT_FOUND: no such folder. */
MR_MUST_CHECK mr_status mr_catalog_delete(const char *dir, const char *tag);

/* Deletes all but the newest keep (>= 1) sound checkpoints of this job (NULL: of all) with step-N
 * tags. Users' tags, tag protect (may be NULL: the one just committed), uncommitted folders and
 * damaged checkpoints stay. *out_removed (may be NULL): how many went. */
MR_MUST_CHECK mr_status mr_catalog_retain(const char *dir, const char *job, size_t keep,
                                          const char *protect, size_t *out_removed);

/* Deletes the folder of a save that failed. OK where there is none. */
MR_MUST_CHECK mr_status mr_catalog_discard(const char *dir, const char *tag, uint64_t epoch,
                                           uint64_t step);

/* Sweeps what the dead left: folders of saves below epoch, half-deleted checkpoints, temporary
 * files of `latest`. A save of this epoch or a later one is not touched. OK where there is no
 * dir. */
MR_MUST_CHECK mr_status mr_catalog_sweep(const char *dir, uint64_t epoch, size_t *out_removed);

#endif
