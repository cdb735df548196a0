/* SPDX-License-Identifier: Apache-2.0 */
/* layer_store.h: one stage's layers from checkpoint files: for each layer with parameters one file
 * of weights and, where the optimizer has state, one of it, named by the layer's global index, so
 * that any cut of the model into stages, any number of replicas and any split of the state reads
 * and writes the same bytes (laws 1 and 3).
 * Owner: stage. Thread: EXEC, before the first step.
 * Not here: writing them (layer_save.h), the files' form (checkpoint/). */
#ifndef MR_STAGE_LAYER_STORE_H
#define MR_STAGE_LAYER_STORE_H

#include "daemon/stage/applied.h"
#include "daemon/stage/assignment.h"
#include "daemon/stage/parameters.h"

/* Reads weights (and, when training, the optimizer state that this replica holds) of this stage's
 * layers from the committed checkpoint at assignment->checkpoint_path; every file is checked
 * against the manifest first.
 * FAILED_PRECONDITION: another model (both hashes named), or when training another optimizer (both
 * named), or none of the momentum that sgd is to go on with; DATA_LOSS: damage, by file and tensor.
 * With assignment->weights_only the job starts at step 0 with the weights alone; where its
 * checkpoint.load.strict is false, weights are drawn first and those loaded that the checkpoint has
 * in their shape, whatever its model.
 * What the job's checkpoints leave out (checkpoint.exclude_frozen) is drawn, and taken from its
 * checkpoint.load where it has one, before the rest is loaded.
 * *out_step: steps taken, which is the next step's index; *out_applied: those that the optimizer
 * applied, and in fp16 the factor of gradients where the checkpoint has one; both stay as they are
 * with weights_only. */
MR_MUST_CHECK mr_status mr_layer_store_load(const mr_assignment *assignment,
                                            mr_parameters *parameters, uint64_t *out_step,
                                            mr_applied *out_applied);

#endif
