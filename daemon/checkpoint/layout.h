/* SPDX-License-Identifier: Apache-2.0 */
/* layout.h: how a checkpoint is named on disk, and nothing else: pure text, no I/O.
 *
 *   DIR/step-000000000100/layer_00-model_states.safetensors    a committed checkpoint: a tag's
 *                         layer_00-optim_states.safetensors    folder whose manifest.json stands
 *                         layer_00-model_01-model_states.safetensors
 *                         manifest.json
 *   DIR/latest                                                 newest committed tag; advisory
 *   DIR/.save-e0000000003-s000000000100-step-000000000100/     a save under way: stages write here
 *   DIR/trash-...                                              a checkpoint that is being deleted
 *
 * A save is written beside its tag, in a folder that names its epoch and step, and takes the tag's
 * name by one rename when its manifest is complete (manifest.h). So a stage of an old epoch writes
 * where nobody looks (law 5), and a tag that is saved again keeps its old files until the new ones
 * are whole (law 3).
 * Owner: checkpoint. Thread: any. Limits: MR_NAME_BYTES, MR_CHECKPOINT_PATH_BYTES.
 * Not here: files (file.h), the commit (manifest.h). */
#ifndef MR_CHECKPOINT_LAYOUT_H
#define MR_CHECKPOINT_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/base/limits.h"
#include "daemon/base/status.h"

#define MR_LAYOUT_MANIFEST "manifest.json"
#define MR_LAYOUT_LATEST "latest"
#define MR_LAYOUT_SAVE_PREFIX ".save-e"
#define MR_LAYOUT_TRASH_PREFIX "trash-"

enum { MR_SHA256_HEX_BYTES = 65 }; /* 64 lower-case hex digits and the terminator */

/* One file of a checkpoint as the writer reports it and the manifest lists it. */
typedef struct mr_checkpoint_file {
    char name[MR_NAME_BYTES]; /* within the checkpoint's folder */
    uint64_t bytes;
    char sha256[MR_SHA256_HEX_BYTES];
} mr_checkpoint_file;

typedef enum mr_layer_file {
    MR_LAYER_FILE_MODEL, /* parameters by name */
    MR_LAYER_FILE_OPTIM, /* STATE.NAME, as exp_avg.ln_1.weight; none without state */
    MR_LAYER_FILE_COUNT
} mr_layer_file;

/* out = "step-" and the step in 12 digits (more where it needs them); out has MR_NAME_BYTES. */
void mr_layout_step_tag(uint64_t step, char out[MR_NAME_BYTES]);
/* Is tag exactly what mr_layout_step_tag writes? Then *out_step (may be NULL) is its step. */
bool mr_layout_step_parse(const char *tag, uint64_t *out_step);

/* Can tag name a checkpoint: [A-Za-z0-9][A-Za-z0-9._-]{0,62}, no "..", not one of the folder's own
 * names, and step-... only in the exact form of mr_layout_step_tag.
 * INVALID_ARGUMENT "E_TAG reason=empty|len|char|dotdot|reserved off=N". */
MR_MUST_CHECK mr_status mr_layout_tag_check(const char *tag);
/* The same for a tag that a user chose: every step-* is reserved too. */
MR_MUST_CHECK mr_status mr_layout_user_tag_check(const char *tag);

/* "layer_07-model_states.safetensors"; with model_ranks > 1 "layer_07-model_01-...". */
void mr_layout_layer_name(uint32_t layer, uint32_t model_rank, uint32_t model_ranks,
                          mr_layer_file kind, char out[MR_NAME_BYTES]);
/* The reverse; false where name is not exactly of that form. Outputs may be NULL.
 * *out_has_model: does the name carry a model rank? */
bool mr_layout_layer_parse(const char *name, uint32_t *out_layer, bool *out_has_model,
                           uint32_t *out_model_rank, mr_layer_file *out_kind);

/* May name be listed in a manifest: [A-Za-z0-9][A-Za-z0-9._-]*, shorter than MR_NAME_BYTES, no
 * "..", not manifest.json? A listed name can never leave the checkpoint's folder. */
bool mr_layout_file_name_valid(const char *name);

/* out = folder "/" name, at most capacity bytes with the terminator.
 * INVALID_ARGUMENT: empty part, or too long (names the length and the bound). */
MR_MUST_CHECK mr_status mr_layout_join(const char *folder, const char *name, char *out,
                                       size_t capacity);

/* Name of the folder, within DIR, in which every stage of this epoch writes its files of this save.
 * tag must pass mr_layout_tag_check. out has MR_CHECKPOINT_SAVE_NAME_BYTES. */
MR_MUST_CHECK mr_status mr_layout_save_name(const char *tag, uint64_t epoch, uint64_t step,
                                            char *out);
/* Its whole path, for mr_safetensors_write: DIR/.save-e...; out has capacity bytes. */
MR_MUST_CHECK mr_status mr_layout_save_path(const char *dir, const char *tag, uint64_t epoch,
                                            uint64_t step, char *out, size_t capacity);
/* Epoch and step in the name of a save's folder; false for any other name. */
bool mr_layout_save_parse(const char *name, uint64_t *out_epoch, uint64_t *out_step);

#endif
