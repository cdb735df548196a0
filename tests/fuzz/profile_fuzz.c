/* SPDX-License-Identifier: Apache-2.0 */
/* profile_fuzz.c: any text at all goes into the reader of profiles. What it accepts is whole: each
 * layer has a class, each device a cost for each class, every time is a number; and it is printed
 * and read again to the same text. Build with clang -fsanitize=fuzzer,address,undefined for a long
 * run; corpus_test.c drives the same entry point in the ordinary test run. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/plan/profile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_whole(const mr_profile *profile) {
    MR_ASSERT(profile->layer_count > 0 && profile->class_count > 0 && profile->device_count > 0);
    for (size_t i = 0; i < profile->layer_count; i++)
        MR_ASSERT(profile->layer_class[i] < profile->class_count);
    for (size_t i = 0; i < profile->device_count; i++) {
        MR_ASSERT(profile->devices[i]->class_count == profile->class_count);
        MR_ASSERT(mr_status_is_ok(mr_profile_device_check(profile->devices[i])));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    mr_profile *profile = NULL;
    mr_profile *again = NULL;
    char *text = NULL;
    char *same = NULL;
    mr_status status = mr_profile_parse((const char *)data, size, &profile);
    if (!mr_status_is_ok(status)) {
        MR_ASSERT(profile == NULL);
        MR_ASSERT(status.code == MR_CODE_INVALID_ARGUMENT);
        return 0;
    }
    check_whole(profile);
    MR_ASSERT(mr_status_is_ok(mr_profile_json(profile, &text)));
    MR_ASSERT(mr_status_is_ok(mr_profile_parse(text, strlen(text), &again)));
    MR_ASSERT(mr_status_is_ok(mr_profile_json(again, &same)));
    MR_ASSERT(strcmp(text, same) == 0);
    mr_free(same);
    mr_free(text);
    mr_profile_destroy(again);
    mr_profile_destroy(profile);
    return 0;
}
