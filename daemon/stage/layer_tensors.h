/* SPDX-License-Identifier: Apache-2.0 */
/* layer_tensors.h: the tensors of one layer's checkpoint file and the held parameters behind them:
 * of a file of weights one for each parameter, of a file of state the optimizer's states one after
 * the other, each of all parameters. Save and load walk the same list, so that what one writes is
 * what the other asks for.
 * Owner: stage. Thread: EXEC. Plain data over mr_parameters. */
#ifndef MR_STAGE_LAYER_TENSORS_H
#define MR_STAGE_LAYER_TENSORS_H

#include "daemon/checkpoint/layout.h"
#include "daemon/checkpoint/safetensors.h"
#include "daemon/checkpoint/slice.h"
#include "daemon/stage/parameters.h"

enum {
    MR_LAYER_TENSORS_MAX = MR_OPTIMIZER_STATES_MAX * MR_LAYER_PARAMETERS_MAX,
    MR_LAYER_TENSOR_NAME_BYTES = 64,
};

typedef struct mr_layer_tensors {
    size_t count;
    mr_safetensors_tensor tensors[MR_LAYER_TENSORS_MAX]; /* whole; data is the held tensor's,
                                                            in the device's memory */
    char names[MR_LAYER_TENSORS_MAX][MR_LAYER_TENSOR_NAME_BYTES];
    char cuts[MR_LAYER_TENSORS_MAX][MR_SLICE_TEXT_BYTES];
    const mr_stage_parameter *parameters[MR_LAYER_TENSORS_MAX];
    const mr_tensor *held[MR_LAYER_TENSORS_MAX]; /* weight or state; a split state is shorter */
} mr_layer_tensors;

/* The tensors of layer (its index within the stage) in a file of a kind; none for the state of an
 * optimizer without. */
void mr_layer_tensors_fill(mr_layer_tensors *list, const mr_parameters *parameters, size_t layer,
                           mr_layer_file kind);
/* Without the weights that the job's checkpoints leave out (checkpoint.exclude_frozen). */
void mr_layer_tensors_drop_excluded(mr_layer_tensors *list, const mr_job *job);
/* Bytes of tensor index as it is in the file. */
size_t mr_layer_tensors_bytes(const mr_layer_tensors *list, size_t index);

#endif
