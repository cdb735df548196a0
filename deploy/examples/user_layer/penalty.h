/* SPDX-License-Identifier: Apache-2.0 */
/* penalty.h: a layer with a side loss, as an example: y = x, and weight times the mean of x's
 * squares is optimized besides the model's loss. This header is what both halves share.
 * Owner: this example. Pure, any thread. */
#ifndef MR_DEPLOY_EXAMPLES_USER_LAYER_PENALTY_H
#define MR_DEPLOY_EXAMPLES_USER_LAYER_PENALTY_H

#include "daemon/base/limits.h"

/* The keys of a layer of type penalty. */
typedef struct penalty {
    double weight;
    char side_loss[MR_SIDE_LOSS_NAME_BYTES]; /* the name it is reported by */
} penalty;

#endif
