/* SPDX-License-Identifier: Apache-2.0 */
/* layer_store.h: one stage's layers to and from checkpoint files: for each layer with parameters
 * one file of weights and, where the optimizer has state, one of it, named by the layer's global
 * index, so that any cut of the model into stages reads and writes the same bytes (laws 1 and 3).
 * A layer that shares a tied weight writes its own copy, so that every file is whole in itself.
 * Owner: stage. Thread: EXEC, at a step boundary.
 * Not here: the commit (coordinator), the files' form (checkpoint/). */
#ifndef MR_STAGE_LAYER_STORE_H
#define MR_STAGE_LAYER_STORE_H

#include "daemon/checkpoint/layout.h"
#include "daemon/checkpoint/manifest.h"
#include "daemon/stage/assignment.h"
#include "daemon/stage/parameters.h"

/* What a save wrote; files is freed with mr_free. */
typedef struct mr_layer_store_files {
    mr_checkpoint_file *files;
    size_t count;
} mr_layer_store_files;

/* Writes this stage's files of a save (checkpoint/layout.h: the save's folder, not yet a
 * checkpoint). Layers that another stage holds too through a tie are still written once each, by
 * the stage that owns the layer. *stop turning true between two files gives CANCELLED. I/O errors
 * name the path. */
MR_MUST_CHECK mr_status mr_layer_store_save(const mr_assignment *assignment,
                                            const mr_parameters *parameters, const char *tag,
                                            uint64_t step, const _Atomic bool *stop,
                                            mr_layer_store_files *out_files);

/* Reads weights (and, when training, optimizer state) of this stage's layers from the committed
 * checkpoint at assignment->checkpoint_path; every file is checked against the manifest first.
 * FAILED_PRECONDITION: another model (both hashes named), or when training another optimizer (both
 * named), or none of the momentum that sgd is to go on with; DATA_LOSS: damage, by file and tensor.
 * *out_step: optimizer steps applied, which is the next step's index. */
MR_MUST_CHECK mr_status mr_layer_store_load(const mr_assignment *assignment,
                                            mr_parameters *parameters, uint64_t *out_step);

#endif
