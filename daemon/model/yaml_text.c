/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/model/yaml_text.h"

#include <string.h>

/* What is left of a raw text, and what has been made of it. */
typedef struct text_cursor {
    const char *at;
    const char *end;
    char *out;
    size_t out_bytes;
} text_cursor;

/* Bytes of the UTF-8 sequence at s (shortest form, no surrogates, at most U+10FFFF); 0: none. */
static size_t utf8_sequence(const unsigned char *s, size_t bytes) {
    unsigned char low = 0x80;
    unsigned char high = 0xBF;
    size_t length = 0;
    if (s[0] < 0x80)
        return 1;
    if (s[0] >= 0xC2 && s[0] <= 0xDF)
        length = 2;
    else if (s[0] >= 0xE0 && s[0] <= 0xEF)
        length = 3;
    else if (s[0] >= 0xF0 && s[0] <= 0xF4)
        length = 4;
    if (length == 0 || length > bytes)
        return 0;
    if (s[0] == 0xE0)
        low = 0xA0;
    else if (s[0] == 0xED)
        high = 0x9F;
    else if (s[0] == 0xF0)
        low = 0x90;
    else if (s[0] == 0xF4)
        high = 0x8F;
    if (s[1] < low || s[1] > high)
        return 0;
    for (size_t i = 2; i < length; i++)
        if (s[i] < 0x80 || s[i] > 0xBF)
            return 0;
    return length;
}

static bool is_control(unsigned char c) {
    return c < 0x20 || c == 0x7F;
}

mr_status mr_yaml_text_check(const char *text, size_t bytes, size_t *out_line) {
    size_t line = 1;
    for (size_t i = 0; i < bytes;) {
        const unsigned char *at = (const unsigned char *)text + i;
        size_t length = utf8_sequence(at, bytes - i);
        *out_line = line;
        if (length == 0)
            return MR_ERROR(INVALID_ARGUMENT, "byte 0x%02x is not UTF-8; a job file is UTF-8 text",
                            *at);
        if (is_control(*at) && *at != '\t' && *at != '\n' && *at != '\r')
            return MR_ERROR(INVALID_ARGUMENT,
                            "byte 0x%02x is a control character; a job file is UTF-8 text", *at);
        line += *at == '\n';
        i += length;
    }
    return MR_OK;
}

static mr_status control_error(unsigned c) {
    return MR_ERROR(INVALID_ARGUMENT,
                    "a text contains the control character 0x%02x; it must be plain text", c);
}

/* A code point below U+10000 as UTF-8. */
static void text_put(text_cursor *cursor, unsigned code) {
    char *out = cursor->out + cursor->out_bytes;
    if (code < 0x80) {
        out[0] = (char)code;
        cursor->out_bytes += 1;
    } else if (code < 0x800) {
        out[0] = (char)(0xC0 | (code >> 6));
        out[1] = (char)(0x80 | (code & 0x3F));
        cursor->out_bytes += 2;
    } else {
        out[0] = (char)(0xE0 | (code >> 12));
        out[1] = (char)(0x80 | ((code >> 6) & 0x3F));
        out[2] = (char)(0x80 | (code & 0x3F));
        cursor->out_bytes += 3;
    }
}

/* The four hexadecimal digits of \uXXXX. */
static mr_status text_put_unicode(text_cursor *cursor) {
    static const char digits[] = "0123456789abcdef";
    unsigned code = 0;
    bool good = cursor->end - cursor->at >= 4;
    for (size_t i = 0; good && i < 4; i++) {
        unsigned char c = (unsigned char)*cursor->at++;
        const char *digit = strchr(digits, c >= 'A' && c <= 'F' ? c + ('a' - 'A') : c);
        good = c != '\0' && digit != NULL;
        code = 16 * code + (good ? (unsigned)(digit - digits) : 0);
    }
    if (!good || (code >= 0xD800 && code <= 0xDFFF))
        return MR_ERROR(INVALID_ARGUMENT,
                        "an escape \\u in a text is not that of one character; write the character "
                        "itself");
    if (is_control(code < 0x80 ? (unsigned char)code : 0xFF))
        return control_error(code);
    text_put(cursor, code);
    return MR_OK;
}

/* What follows a backslash. */
static mr_status text_put_escape(text_cursor *cursor) {
    static const char named[] = "bfnrt";
    static const char controls[] = "\b\f\n\r\t";
    char c = '\0';
    if (cursor->at < cursor->end)
        c = *cursor->at++;
    const char *control = c != '\0' ? strchr(named, c) : NULL;
    if (c == '"' || c == '\\' || c == '/')
        text_put(cursor, (unsigned char)c);
    else if (c == 'u')
        return text_put_unicode(cursor);
    else if (control != NULL)
        return control_error((unsigned char)controls[control - named]);
    else
        return MR_ERROR(INVALID_ARGUMENT,
                        "a text has an escape that JSON does not have; write the character itself");
    return MR_OK;
}

mr_status mr_yaml_text_decode(mr_yaml_quote quote, const char *raw, size_t bytes, char *out,
                              size_t *out_bytes) {
    text_cursor cursor = {.at = raw, .end = raw + bytes, .out = out};
    while (cursor.at < cursor.end) {
        char c = *cursor.at++;
        if (c == '\n' || c == '\r')
            return MR_ERROR(INVALID_ARGUMENT,
                            "a text goes on over the end of its line; write it on one line");
        if (is_control((unsigned char)c))
            return control_error((unsigned char)c);
        if (quote == MR_YAML_QUOTE_DOUBLE && c == '\\') {
            MR_TRY(text_put_escape(&cursor));
            continue;
        }
        if (quote == MR_YAML_QUOTE_SINGLE && c == '\'' && cursor.at < cursor.end)
            cursor.at++; /* two stand for one */
        out[cursor.out_bytes++] = c;
    }
    *out_bytes = cursor.out_bytes;
    return MR_OK;
}
