/* SPDX-License-Identifier: Apache-2.0 */
/* config_file_fuzz.c: any bytes at all are a configuration file of the client. What is accepted has
 * only values that their settings allow, and contexts with good names; what is refused says why. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "client/config_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_values(const mr_config_values *values) {
    for (size_t i = 0; i < mr_setting_count; i++) {
        if (values->text[i] == NULL)
            continue;
        mr_status status = mr_setting_check(i, mr_settings[i].name, values->text[i]);
        MR_ASSERT(mr_status_is_ok(status));
        MR_ASSERT(!mr_settings[i].path || values->text[i][0] == '/');
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static mr_config_file file;
    mr_status status =
        mr_config_file_parse("config.yaml", "/folder", (const char *)data, size, &file);
    if (!mr_status_is_ok(status)) {
        MR_ASSERT(status.code == MR_CODE_INVALID_ARGUMENT);
        MR_ASSERT(strncmp(status.text, "config.yaml", strlen("config.yaml")) == 0);
        MR_ASSERT(file.path == NULL && file.context_count == 0);
        return 0;
    }
    check_values(&file.values);
    for (size_t i = 0; i < file.context_count; i++) {
        mr_config_context *same = NULL;
        status = mr_config_file_context(&file, file.contexts[i].name, &same);
        MR_ASSERT(mr_status_is_ok(status) && same == &file.contexts[i]);
        check_values(&file.contexts[i].values);
    }
    mr_config_file_deinit(&file);
    return 0;
}
