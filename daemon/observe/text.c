/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/observe/text.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/base/alloc.h"

/* Room for bytes more and a terminator. */
static bool text_reserve(mr_text *text, size_t bytes) {
    if (text->failed)
        return false;
    size_t wanted;
    if (!mr_size_add(text->used, bytes + 1, &wanted)) {
        text->failed = true;
        return false;
    }
    if (wanted <= text->capacity)
        return true;
    size_t capacity = text->capacity == 0 ? 4096 : text->capacity;
    while (capacity < wanted)
        capacity *= 2;
    char *grown = mr_realloc_array(text->bytes, text->capacity, capacity, 1);
    if (grown == NULL) {
        text->failed = true;
        return false;
    }
    text->bytes = grown;
    text->capacity = capacity;
    return true;
}

void mr_text_add(mr_text *text, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    va_list again;
    va_copy(again, arguments);
    int bytes = vsnprintf(NULL, 0, format, arguments);
    MR_ASSERT(bytes >= 0);
    if (text_reserve(text, (size_t)bytes)) {
        (void)vsnprintf(text->bytes + text->used, (size_t)bytes + 1, format, again);
        text->used += (size_t)bytes;
    }
    va_end(again);
    va_end(arguments);
}

void mr_text_add_number(mr_text *text, double value) {
    if (isnan(value)) {
        mr_text_add(text, "NaN");
        return;
    }
    if (isinf(value)) {
        mr_text_add(text, value > 0 ? "+Inf" : "-Inf");
        return;
    }
    char digits[40];
    for (int precision = 15; precision <= 17; precision++) {
        (void)snprintf(digits, sizeof(digits), "%.*g", precision, value);
        double back = strtod(digits, NULL);
        if (memcmp(&back, &value, sizeof(back)) == 0)
            break;
    }
    mr_text_add(text, "%s", digits);
}

void mr_text_add_escaped(mr_text *text, const char *value) {
    for (const char *c = value; *c != '\0'; c++) {
        if (*c == '"' || *c == '\\')
            mr_text_add(text, "\\%c", *c);
        else if (*c == '\n')
            mr_text_add(text, "\\n");
        else if ((unsigned char)*c < ' ')
            mr_text_add(text, "\\u%04x", (unsigned)*c);
        else
            mr_text_add(text, "%c", *c);
    }
}

mr_status mr_text_take(mr_text *text, char **out_text, size_t *out_bytes) {
    if (!text_reserve(text, 0)) {
        mr_free(text->bytes);
        *text = (mr_text){0};
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a text of more than %zu bytes",
                        text->capacity);
    }
    text->bytes[text->used] = '\0';
    *out_text = text->bytes;
    *out_bytes = text->used;
    *text = (mr_text){0};
    return MR_OK;
}
