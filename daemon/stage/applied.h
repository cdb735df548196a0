/* SPDX-License-Identifier: Apache-2.0 */
/* applied.h: how far the optimizer is, which a checkpoint keeps beside its step: behind the steps
 * taken where some were skipped. Owner: stage. Plain data. */
#ifndef MR_STAGE_APPLIED_H
#define MR_STAGE_APPLIED_H

#include <stdint.h>

#include "daemon/model/loss_scale.h"

typedef struct mr_applied {
    uint64_t steps;
    mr_loss_scale loss_scale; /* scale 0: not of fp16 */
} mr_applied;

#endif
