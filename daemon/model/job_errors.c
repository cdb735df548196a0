/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/model/job_errors.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Room for "line 123456: " before an item's text in a status. */
enum { LINE_PREFIX_BYTES = 24 };

/* Cuts text to at most bytes, never inside a UTF-8 character. */
static void text_cut(char *text, size_t bytes) {
    if (strlen(text) <= bytes)
        return;
    while (bytes > 0 && ((unsigned char)text[bytes] & 0xC0) == 0x80)
        bytes--;
    text[bytes] = '\0';
}

void mr_job_errors_add(mr_job_errors *errors, size_t line, const char *format, ...) {
    char text[2 * MR_STATUS_TEXT_BYTES];
    if (errors->count == MR_JOB_ERRORS_MAX)
        return;
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments); /* far above what is kept */
    va_end(arguments);
    text_cut(text, MR_STATUS_TEXT_BYTES - LINE_PREFIX_BYTES);
    errors->items[errors->count].line = line;
    memcpy(errors->items[errors->count].text, text, strlen(text) + 1);
    errors->count++;
}

void mr_job_errors_sort(mr_job_errors *errors) {
    for (size_t i = 1; i < errors->count; i++) { /* insertion: stable, and the list is short */
        size_t at = i;
        while (at > 0 && errors->items[at - 1].line > errors->items[at].line) {
            mr_job_errors swap;
            swap.items[0] = errors->items[at];
            errors->items[at] = errors->items[at - 1];
            errors->items[at - 1] = swap.items[0];
            at--;
        }
    }
}

mr_status mr_job_errors_status(const mr_job_errors *errors) {
    MR_ASSERT(errors->count > 0);
    if (errors->items[0].line == 0)
        return MR_ERROR(INVALID_ARGUMENT, "%s", errors->items[0].text);
    return MR_ERROR(INVALID_ARGUMENT, "line %zu: %s", errors->items[0].line,
                    errors->items[0].text);
}

const char *mr_excerpt(const char *text, char out_excerpt[MR_EXCERPT_BYTES]) {
    (void)snprintf(out_excerpt, MR_EXCERPT_BYTES, "%s", text);
    if (strlen(text) >= MR_EXCERPT_BYTES) {
        text_cut(out_excerpt, MR_EXCERPT_BYTES - 4 - 1);
        memcpy(out_excerpt + strlen(out_excerpt), "...", 4);
    }
    return out_excerpt;
}
