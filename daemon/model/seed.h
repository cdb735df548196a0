/* SPDX-License-Identifier: Apache-2.0 */
/* seed.h: the seeds of layers. Numbers are those of the field (reference: deepspeed.md 19, 20):
 * building layer l is seeded base + l, and its forward in call n (from 1) base (n + 1) + l, modulo
 * 2^64. A call is one microbatch, counted over steps and replicas from the job's first on, so the
 * number does not depend on the cut, on how often an activation is computed again, or on a restart;
 * there it restarts within each recomputed run (item 21), which gave layers of equal offset equal
 * seeds.
 * model.seed_layers false: one stream of random numbers for the initial weights of the whole model,
 * in layer order, as if one process drew them one after the other. true: every layer has its own
 * streams, so that a change of one layer leaves the others' weights as they were; with
 * model.seed_fn NAME they are keyed by what that function of the user's makes of the numbers above.
 * Owner: model. Thread: functions are registered before main; pure, any thread after. */
#ifndef MR_MODEL_SEED_H
#define MR_MODEL_SEED_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/base/status.h"

/* A user's function of a layer's seed; pure, any thread. */
typedef uint64_t (*mr_seed_function)(uint64_t seed);

/* What building a layer is seeded with. */
uint64_t mr_seed_build(uint64_t base, size_t layer);
/* What a layer is seeded with in a call, from 1. */
uint64_t mr_seed_forward(uint64_t base, uint64_t call, size_t layer);
/* The number of a call, from 1: step from 0, micro_batch in the whole step of micro_batches. */
uint64_t mr_seed_call(uint64_t step, uint64_t micro_batches, uint64_t micro_batch);

enum { MR_SEED_FUNCTIONS_MAX = 16 };

/* Gives a function a name; before main. A bad name (letters, digits and '_', at most 31), one that
 * is taken, or one too many is kept for mr_seed_functions_status. */
void mr_seed_function_register(const char *name, mr_seed_function function);
/* NULL: there is none of this name. */
mr_seed_function mr_seed_function_find(const char *name);
/* The names that there are, for errors: "none", or "a, b". Returns out_text. */
const char *mr_seed_functions_text(char out_text[MR_STATUS_TEXT_BYTES]);
/* FAILED_PRECONDITION: the first registration that was wrong, by its name. */
MR_MUST_CHECK mr_status mr_seed_functions_status(void);

/* name: without quotes; for a library that is linked whole into millraced and millrace. */
#define MR_SEED_FUNCTION_REGISTER(name, function)                                                  \
    __attribute__((constructor)) static void name##_seed_register(void) {                         \
        mr_seed_function_register(#name, function);                                                \
    }

#endif
