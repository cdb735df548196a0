/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

mr_status mr_status_make(mr_code code, const char *file, uint32_t line, const char *format, ...) {
    mr_status status = {.code = code, .line = line, .file = file};
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(status.text, sizeof(status.text), format, arguments); /* cut is intended */
    va_end(arguments);
    return status;
}

static const struct {
    const char *name;
    bool retry;
} code_table[MR_CODE_COUNT] = {
#define MR_CODE_ROW(number, name, meaning, retry) [number] = {#name, retry},
    MR_CODES(MR_CODE_ROW)
#undef MR_CODE_ROW
};

const char *mr_code_name(mr_code code) {
    return (unsigned)code < MR_CODE_COUNT ? code_table[code].name : "UNKNOWN";
}

bool mr_code_retry(mr_code code) {
    return (unsigned)code < MR_CODE_COUNT && code_table[code].retry;
}

mr_status mr_status_prefix(mr_status status, const char *format, ...) {
    char prefix[MR_STATUS_TEXT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(prefix, sizeof(prefix), format, arguments);
    va_end(arguments);
    mr_status result = status;
    size_t used = strlen(prefix);
    memcpy(result.text, prefix, used + 1);
    (void)snprintf(result.text + used, sizeof(result.text) - used, ": %s", status.text);
    return result;
}

void mr_assert_failed(const char *condition, const char *file, int line) {
    (void)fprintf(stderr, "millrace: assertion failed at %s:%d: %s (this is a bug in millrace)\n",
                  file, line, condition);
    abort();
}
