/* SPDX-License-Identifier: Apache-2.0 */
/* layer_check.h: what must hold between a layer's entry in the job file and its parameters, which
 * only its description knows: names in frozen and in tie.parameters are names of its parameters,
 * and all layers of a tie share parameters of the same number, shapes, and frozen or not.
 * Owner: model. Pure, any thread. */
#ifndef MR_MODEL_LAYER_CHECK_H
#define MR_MODEL_LAYER_CHECK_H

#include "daemon/model/description.h"

/* INVALID_ARGUMENT names the field, the name and what the layer has. */
MR_MUST_CHECK mr_status mr_layer_check_names(const mr_layer_spec *spec,
                                             const mr_layer_description *description);
/* layer and first: indices of two layers of one tie, first being the tie's first.
 * INVALID_ARGUMENT names both layers and both parameters. */
MR_MUST_CHECK mr_status mr_layer_check_tie(const mr_layer_spec *specs,
                                           const mr_layer_description *descriptions, size_t first,
                                           size_t layer);

#endif
