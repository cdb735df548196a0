/* SPDX-License-Identifier: Apache-2.0 */
/* layer_file.h: the name of the file that holds a layer's parameters in a checkpoint (DESIGN
 * section 4), as the plan lists it. checkpoint/layout.h writes the same text.
 * Owner: plan. Pure, any thread. */
#ifndef MR_PLAN_LAYER_FILE_H
#define MR_PLAN_LAYER_FILE_H

#include <stddef.h>

#include "daemon/base/limits.h"

/* "layer_07-model_states.safetensors"; with model_ranks > 1
 * "layer_07-model_01-model_states.safetensors". Numbers have at least two digits. */
void mr_layer_file_name(size_t layer, size_t model_rank, size_t model_ranks,
                        char out_name[MR_NAME_BYTES]);

#endif
