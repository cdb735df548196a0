/* SPDX-License-Identifier: Apache-2.0 */
/* side_loss.h: losses that layers add to the model's own, by name: a penalty of activations, a
 * balance of experts. A description says that its layer has one; layers may share a name.
 *
 * What a layer adds in a call is a sum over terms, unscaled; weight times the mean over all terms
 * of the step is what is optimized besides the model's loss. Nobody but the stage scales (law 7),
 * once: the value that is reported and the factor of the gradient come from the same numbers.
 * Owner: model. Pure, any thread. Limits: MR_SIDE_LOSSES_MAX names. */
#ifndef MR_MODEL_SIDE_LOSS_H
#define MR_MODEL_SIDE_LOSS_H

#include "daemon/model/description.h"

/* The names of a model, each once. */
typedef struct mr_side_loss_names {
    size_t count;
    char names[MR_SIDE_LOSSES_MAX][MR_SIDE_LOSS_NAME_BYTES]; /* by their first layers */
} mr_side_loss_names;

/* INVALID_ARGUMENT names the layer and what is wrong with its side loss: its name, its weight or
 * terms, or one name too many. */
MR_MUST_CHECK mr_status mr_side_loss_names_of(const mr_layer_description *descriptions,
                                              size_t count, mr_side_loss_names *out_names);
/* Index of a name; count where it is not there. */
size_t mr_side_loss_find(const mr_side_loss_names *names, const char *name);
/* Has the layer one? */
bool mr_layer_description_has_side(const mr_layer_description *description);

#endif
