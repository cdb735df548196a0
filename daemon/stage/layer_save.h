/* SPDX-License-Identifier: Apache-2.0 */
/* layer_save.h: one stage's layers to checkpoint files. The replicas of a stage hold the same
 * weights; its layers are dealt to them in runs of equal length (plan/partition.h; reference:
 * deepspeed.md 38), and each writes the files of its run while the others write theirs. Where the
 * optimizer's state is split over the replicas, they bring a layer's state together at the one that
 * writes it: a file is the same bytes whoever writes it, at any width, with or without a split.
 * A layer that shares a tied weight writes its own copy, so that every file is whole in itself.
 * Owner: stage. Thread: EXEC, at a step boundary, on all replicas of the stage at once.
 * Not here: the commit (coordinator), the files' form (checkpoint/), loading (layer_store.h). */
#ifndef MR_STAGE_LAYER_SAVE_H
#define MR_STAGE_LAYER_SAVE_H

#include "daemon/checkpoint/manifest.h"
#include "daemon/group/group.h"
#include "daemon/stage/assignment.h"
#include "daemon/stage/parameters.h"

/* What a save wrote; files is freed with mr_free. */
typedef struct mr_layer_save_files {
    mr_checkpoint_file *files;
    size_t count;
} mr_layer_save_files;

typedef struct mr_layer_save_options {
    const mr_assignment *assignment;
    const mr_parameters *parameters;
    mr_group *replicas; /* of this stage, on host memory; NULL where there is one */
    const char *tag;
    uint64_t step;
    const _Atomic bool *stop; /* turning true between two layers gives CANCELLED */
} mr_layer_save_options;

/* Writes this rank's files of a save (checkpoint/layout.h: the save's folder, not yet a
 * checkpoint). I/O errors name the path and leave the other replicas undisturbed; errors of the
 * group name the tensor and the rank awaited. */
MR_MUST_CHECK mr_status mr_layer_save(const mr_layer_save_options *options,
                                      mr_layer_save_files *out_files);

#endif
