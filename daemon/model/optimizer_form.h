/* SPDX-License-Identifier: Apache-2.0 */
/* optimizer_form.h: what the optimizers of a job file are called and which tensors of state each
 * keeps beside a parameter, all of the parameter's shape in f32. Names are those of the field: a
 * checkpoint's files and a manifest's optimizer.type use them.
 * Owner: model. Pure, any thread.
 * Not here: arithmetic (device/device.h), hyperparameters and their defaults (job_reader.c). */
#ifndef MR_MODEL_OPTIMIZER_FORM_H
#define MR_MODEL_OPTIMIZER_FORM_H

#include <stddef.h>

typedef enum mr_optimizer_kind {
    MR_OPTIMIZER_ADAMW, /* decoupled decay: arXiv:1711.05101 */
    MR_OPTIMIZER_ADAM,  /* decay added to the gradient: arXiv:1412.6980 */
    MR_OPTIMIZER_SGD,   /* with or without momentum */
    MR_OPTIMIZER_LION,  /* arXiv:2302.06675 */
    MR_OPTIMIZER_KIND_COUNT
} mr_optimizer_kind;

enum { MR_OPTIMIZER_STATES_MAX = 2 };

/* The state tensors of one parameter, in the order of their files. */
typedef struct mr_optimizer_states {
    size_t count;
    const char *names[MR_OPTIMIZER_STATES_MAX];
} mr_optimizer_states;

/* "adamw", "adam", "sgd", "lion". */
const char *mr_optimizer_name(mr_optimizer_kind kind);
/* momentum: of SGD, which keeps none of it at 0. */
mr_optimizer_states mr_optimizer_states_of(mr_optimizer_kind kind, double momentum);

#endif
