/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/model/optimizer_form.h"

#include "daemon/base/status.h"

static const char *const optimizer_names[MR_OPTIMIZER_KIND_COUNT] = {
    [MR_OPTIMIZER_ADAMW] = "adamw",
    [MR_OPTIMIZER_ADAM] = "adam",
    [MR_OPTIMIZER_SGD] = "sgd",
    [MR_OPTIMIZER_LION] = "lion",
};

static const mr_optimizer_states optimizer_states[MR_OPTIMIZER_KIND_COUNT] = {
    [MR_OPTIMIZER_ADAMW] = {2, {"exp_avg", "exp_avg_sq"}},
    [MR_OPTIMIZER_ADAM] = {2, {"exp_avg", "exp_avg_sq"}},
    [MR_OPTIMIZER_SGD] = {1, {"momentum"}},
    [MR_OPTIMIZER_LION] = {1, {"exp_avg"}},
};

const char *mr_optimizer_name(mr_optimizer_kind kind) {
    MR_ASSERT(kind < MR_OPTIMIZER_KIND_COUNT);
    return optimizer_names[kind];
}

mr_optimizer_states mr_optimizer_states_of(mr_optimizer_kind kind, double momentum) {
    MR_ASSERT(kind < MR_OPTIMIZER_KIND_COUNT);
    if (kind == MR_OPTIMIZER_SGD && momentum <= 0)
        return (mr_optimizer_states){0};
    return optimizer_states[kind];
}
