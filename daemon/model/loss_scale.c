/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/model/loss_scale.h"

/* A power of two beyond which the factor does not grow: f32 gradients must hold it. */
static const double loss_scale_most = 0x1p40;

mr_loss_scale mr_loss_scale_begin(const mr_loss_scale_rule *rule) {
    return (mr_loss_scale){
        .scale = rule->fixed > 0 ? rule->fixed : rule->initial,
        .overflows_left = rule->hysteresis,
    };
}

static void loss_scale_grow(mr_loss_scale *state, const mr_loss_scale_rule *rule) {
    if (++state->good_steps < rule->window)
        return;
    state->good_steps = 0;
    state->overflows_left = rule->hysteresis;
    if (state->scale * 2 <= loss_scale_most)
        state->scale *= 2;
}

bool mr_loss_scale_update(mr_loss_scale *state, const mr_loss_scale_rule *rule, bool finite) {
    if (rule->fixed > 0)
        return true; /* a fixed factor is the user's: steps are skipped, and reported */
    if (finite) {
        loss_scale_grow(state, rule);
        return true;
    }
    state->good_steps = 0;
    if (state->overflows_left > 1) {
        state->overflows_left--;
        return true;
    }
    if (state->scale <= rule->least)
        return false;
    state->scale = state->scale / 2 > rule->least ? state->scale / 2 : rule->least;
    return true;
}
