/* SPDX-License-Identifier: Apache-2.0 */
/* loss_scale.h: the factor that keeps small gradients of fp16 from vanishing. The loss's gradient
 * is multiplied by it and every parameter's gradient divided by it before the optimizer sees one. A
 * step whose gradients are not all finite is skipped: nothing is applied. Dynamic scaling halves
 * the factor when that happens hysteresis times, and doubles it after window good steps in a row.
 * Other precisions have the factor 1, which changes no bit.
 * The rule is that of mixed-precision training (arXiv:1710.03740, section 3.2).
 * Owner: model. Pure; the state is part of a checkpoint. */
#ifndef MR_MODEL_LOSS_SCALE_H
#define MR_MODEL_LOSS_SCALE_H

#include <stdbool.h>
#include <stdint.h>

/* What the job file says; of fp16 only. */
typedef struct mr_loss_scale_rule {
    double fixed;   /* above 0: the factor never changes */
    double initial; /* else it begins here */
    uint64_t window;
    uint64_t hysteresis; /* at least 1 */
    double least;
} mr_loss_scale_rule;

typedef struct mr_loss_scale {
    double scale; /* 0: not of an fp16 job */
    uint64_t good_steps; /* since the last skipped or doubled one */
    uint64_t overflows_left; /* until the factor is halved */
} mr_loss_scale;

/* Where a fresh job begins. */
mr_loss_scale mr_loss_scale_begin(const mr_loss_scale_rule *rule);
/* After a step: were all gradients finite? False: the factor is at its least (or fixed) and still
 * too large, so that no further step can be expected to do better. */
bool mr_loss_scale_update(mr_loss_scale *state, const mr_loss_scale_rule *rule, bool finite);

#endif
