/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/model/seed.h"

#include <stdio.h>
#include <string.h>

enum { SEED_NAME_BYTES = 32 };

static struct {
    size_t count;
    struct {
        const char *name;
        mr_seed_function function;
    } rows[MR_SEED_FUNCTIONS_MAX];
    bool failed;
    mr_status failure;
} registered;

uint64_t mr_seed_build(uint64_t base, size_t layer) {
    return base + layer;
}

uint64_t mr_seed_forward(uint64_t base, uint64_t call, size_t layer) {
    MR_ASSERT(call >= 1);
    return base * (call + 1) + layer;
}

uint64_t mr_seed_call(uint64_t step, uint64_t micro_batches, uint64_t micro_batch) {
    MR_ASSERT(micro_batch < micro_batches);
    return step * micro_batches + micro_batch + 1;
}

mr_seed_function mr_seed_function_find(const char *name) {
    for (size_t i = 0; i < registered.count; i++)
        if (strcmp(registered.rows[i].name, name) == 0)
            return registered.rows[i].function;
    return NULL;
}

static mr_status seed_check(const char *name, mr_seed_function function) {
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";
    if (name == NULL || name[0] == '\0' || strlen(name) >= SEED_NAME_BYTES ||
        strspn(name, letters) != strlen(name))
        return MR_ERROR(FAILED_PRECONDITION,
                        "a seed function is registered without a good name: 1 to %d letters, "
                        "digits and '_'",
                        SEED_NAME_BYTES - 1);
    if (function == NULL)
        return MR_ERROR(FAILED_PRECONDITION, "seed function %s is NULL", name);
    if (mr_seed_function_find(name) != NULL)
        return MR_ERROR(FAILED_PRECONDITION, "seed function %s is registered twice", name);
    if (registered.count == MR_SEED_FUNCTIONS_MAX)
        return MR_ERROR(FAILED_PRECONDITION, "seed function %s is one too many; at most %d", name,
                        MR_SEED_FUNCTIONS_MAX);
    return MR_OK;
}

void mr_seed_function_register(const char *name, mr_seed_function function) {
    mr_status status = seed_check(name, function);
    if (mr_status_is_ok(status)) {
        registered.rows[registered.count].name = name;
        registered.rows[registered.count++].function = function;
    } else if (!registered.failed) {
        registered.failed = true;
        registered.failure = status;
    }
}

const char *mr_seed_functions_text(char out_text[MR_STATUS_TEXT_BYTES]) {
    size_t used = 0;
    (void)snprintf(out_text, MR_STATUS_TEXT_BYTES, "none");
    for (size_t i = 0; i < registered.count && used < MR_STATUS_TEXT_BYTES; i++) {
        int wrote = snprintf(out_text + used, MR_STATUS_TEXT_BYTES - used, "%s%s",
                             i > 0 ? ", " : "", registered.rows[i].name);
        used += wrote > 0 ? (size_t)wrote : 0;
    }
    return out_text;
}

mr_status mr_seed_functions_status(void) {
    return registered.failed ? registered.failure : MR_OK;
}
