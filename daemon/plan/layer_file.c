/* SPDX-License-Identifier: Apache-2.0 */
/* One file per layer and model rank, named by the global layer index, so that a checkpoint does not
 * know how many stages wrote it (law 3). Reference: deepspeed.md 35. */
#include "daemon/plan/layer_file.h"

#include <stdio.h>

void mr_layer_file_name(size_t layer, size_t model_rank, size_t model_ranks,
                        char out_name[MR_NAME_BYTES]) {
    if (model_ranks > 1)
        (void)snprintf(out_name, MR_NAME_BYTES, "layer_%02zu-model_%02zu-model_states.safetensors",
                       layer, model_rank); /* fits: limits of layers and ranks */
    else
        (void)snprintf(out_name, MR_NAME_BYTES, "layer_%02zu-model_states.safetensors", layer);
}
