/* SPDX-License-Identifier: Apache-2.0 */
/* manifest.h: the one file that makes a folder a checkpoint, and the commit that puts it there.
 *
 * A save, end to end:
 *   1. every stage: mr_layout_save_path(dir, tag, epoch, step), then mr_safetensors_write into it;
 *      each file is on the disk when the call returns; name, size, hash go to the coordinator
 *   2. coordinator, when all files are reported: mr_manifest_commit. Its one rename is the commit:
 *      before it the newest checkpoint is the old one, after it the new one, never half of one
 *   3. coordinator: mr_catalog_retain (catalog.h)
 *   or, where a stage failed: mr_catalog_discard, and training goes on.
 *
 * The text is JSON: schema, job, step, epoch, model_hash, data_cursor {step, sample}, optimizer
 * {type, steps, lr}, files [{file, bytes, sha256}], and last sha256, the hash of the text before.
 * Owner: checkpoint. Thread: any; DISK in a daemon. Limits: MR_CHECKPOINT_FILES_MAX,
 * MR_MANIFEST_BYTES_MAX.
 * Not here: reading tensors (safetensors.h), finding checkpoints (catalog.h). */
#ifndef MR_CHECKPOINT_MANIFEST_H
#define MR_CHECKPOINT_MANIFEST_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/base/limits.h"
#include "daemon/base/status.h"
#include "daemon/checkpoint/layout.h"
#include "daemon/model/loss_scale.h"

#define MR_MANIFEST_SCHEMA "millrace.checkpoint/v1"

typedef struct mr_manifest {
    char job[MR_NAME_BYTES];
    uint64_t step;                        /* optimizer steps done when it was cut */
    uint64_t epoch;                       /* of the membership that wrote it */
    char model_hash[MR_SHA256_HEX_BYTES]; /* hex, of the model's description; who loads compares */
    struct {
        uint64_t step;   /* the data step that comes next */
        uint64_t sample; /* samples consumed so far */
    } data_cursor;
    struct {
        char type[MR_NAME_BYTES]; /* as in the job file */
        uint64_t steps;           /* steps applied: the power in Adam's bias correction */
        double lr;                /* of the last step */
        mr_loss_scale loss_scale; /* of fp16; scale 0: there is none */
    } optimizer;
    mr_checkpoint_file *files; /* owned once read; borrowed by commit */
    size_t file_count;
} mr_manifest;

/* Reads and checks FOLDER/manifest.json. NOT_FOUND: there is none, so FOLDER is no checkpoint.
 * DATA_LOSS "E_CKPT_MANIFEST field=...": damaged, or not of this schema. */
MR_MUST_CHECK mr_status mr_manifest_read(const char *folder, mr_manifest *out_manifest);
/* The same for an open folder; label names it in errors. */
MR_MUST_CHECK mr_status mr_manifest_read_at(int folder_fd, const char *label,
                                            mr_manifest *out_manifest);
/* The same from text, for tests and tools. */
MR_MUST_CHECK mr_status mr_manifest_parse(const char *text, size_t bytes,
                                          mr_manifest *out_manifest);
/* Frees the list of files of a manifest that was read; a zeroed one is fine. */
void mr_manifest_deinit(mr_manifest *manifest);
/* The manifest's text; *out_text is freed with mr_free. INVALID_ARGUMENT names the bad field. */
MR_MUST_CHECK mr_status mr_manifest_format(const mr_manifest *manifest, char **out_text,
                                           size_t *out_bytes);
/* Bytes of all listed files. */
uint64_t mr_manifest_bytes(const mr_manifest *manifest);
/* The listed file of that name; NULL where there is none. */
const mr_checkpoint_file *mr_manifest_find(const mr_manifest *manifest, const char *name);

/* Makes the save of (tag, manifest->epoch, manifest->step) in dir the checkpoint dir/tag: checks
 * that every listed file stands with its size, writes and fsyncs the manifest beside them, then
 * renames the folder into place and fsyncs dir. A checkpoint of that tag which stood there is
 * exchanged in the same rename and then deleted. Last, `latest` is rewritten. Repeating a commit
 * that succeeded is fine.
 *   FAILED_PRECONDITION "E_STALE_EPOCH got=N current=N": the tag is committed with a higher epoch
 *   ALREADY_EXISTS: the tag is a checkpoint of another job, or a user's folder without a manifest
 *   FAILED_PRECONDITION "E_CKPT_MISSING file=F" or "E_CKPT_SIZE file=F": a listed file is not there
 *   I/O errors as safetensors.h: nothing is committed (only where the very last fsync fails is it
 *   unknown; the catalogue tells)
 * What fails after the commit (latest, deleting the exchanged one) is no failure of the commit and
 * goes to *out_advisory (may be NULL; OK where all went well). */
MR_MUST_CHECK mr_status mr_manifest_commit(const char *dir, const char *tag,
                                           const mr_manifest *manifest, mr_status *out_advisory);

#endif
