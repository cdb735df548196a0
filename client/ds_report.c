/* SPDX-License-Identifier: Apache-2.0 */
#include "client/ds_report.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "client/render.h"

enum { VALUE_TEXT_BYTES = 64, WHY_BYTES = 512 };

void mr_ds_report_init(mr_ds_report *report) {
    *report = (mr_ds_report){
        .job = json_object(),
        .missing = json_array(),
        .left_out = json_array(),
        .differs = json_array(),
        .errors = json_array(),
    };
    report->exhausted = report->job == NULL || report->missing == NULL ||
                        report->left_out == NULL || report->differs == NULL ||
                        report->errors == NULL;
}

void mr_ds_report_deinit(mr_ds_report *report) {
    json_decref(report->job); /* NULL is fine */
    json_decref(report->missing);
    json_decref(report->left_out);
    json_decref(report->differs);
    json_decref(report->errors);
    *report = (mr_ds_report){0};
}

void mr_ds_report_set(mr_ds_report *report, const char *section, const char *key,
                      json_t *owned_value) {
    json_t *object = json_object_get(report->job, section);
    if (object == NULL) {
        report->exhausted |= json_object_set_new(report->job, section, json_object()) != 0;
        object = json_object_get(report->job, section);
    }
    report->exhausted |= json_object_set_new(object, key, owned_value) != 0; /* NULL is refused */
}

void mr_ds_report_miss(mr_ds_report *report, const char *text) {
    report->exhausted |= json_array_append_new(report->missing, json_string(text)) != 0;
}

/* ---- sections -------------------------------------------------------------------------------- */

static void section_path(const mr_ds_section *section, const char *key,
                         char out_path[MR_DS_PATH_BYTES]) {
    (void)snprintf(out_path, MR_DS_PATH_BYTES, "%s%s%s", section->path,
                   section->path[0] != '\0' && key[0] != '\0' ? "." : "", key);
}

const json_t *mr_ds_section_get(const mr_ds_section *section, const char *key) {
    return json_object_get(section->object, key); /* NULL of NULL */
}

bool mr_ds_section_has(const mr_ds_section *section, const char *key) {
    return mr_ds_section_get(section, key) != NULL;
}

mr_ds_section mr_ds_section_open(const mr_ds_section *parent, const char *key) {
    mr_ds_section section = {.report = parent->report};
    section_path(parent, key, section.path);
    const json_t *object = mr_ds_section_get(parent, key);
    if (object != NULL && !json_is_object(object))
        mr_ds_refuse(parent, key, "an object");
    else
        section.object = object;
    return section;
}

/* ---- lines of the report --------------------------------------------------------------------- */

static void report_add(const mr_ds_section *section, json_t *list, const char *key,
                       const char *format, va_list arguments) MR_PRINTF(4, 0);

static void report_add(const mr_ds_section *section, json_t *list, const char *key,
                       const char *format, va_list arguments) {
    char path[MR_DS_PATH_BYTES];
    char why[WHY_BYTES];
    json_t *value = json_deep_copy(mr_ds_section_get(section, key));
    section_path(section, key, path);
    (void)vsnprintf(why, sizeof(why), format, arguments); /* far above what is said */
    json_t *line = json_pack("{s:o, s:o, s:o}", "key", mr_render_string(path), "value",
                             value != NULL ? value : json_null(), "why", mr_render_string(why));
    section->report->exhausted |= json_array_append_new(list, line) != 0;
}

void mr_ds_leave(const mr_ds_section *section, const char *key, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    report_add(section, section->report->left_out, key, format, arguments);
    va_end(arguments);
}

void mr_ds_differ(const mr_ds_section *section, const char *key, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    report_add(section, section->report->differs, key, format, arguments);
    va_end(arguments);
}

void mr_ds_fail(const mr_ds_section *section, const char *key, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    report_add(section, section->report->errors, key, format, arguments);
    va_end(arguments);
}

/* A value as the file has it, cut where it is long. */
static void value_describe(const json_t *value, char out_text[VALUE_TEXT_BYTES]) {
    if (json_is_object(value) || json_is_array(value)) {
        (void)snprintf(out_text, VALUE_TEXT_BYTES, "%s",
                       json_is_object(value) ? "an object" : "a list");
        return;
    }
    size_t bytes = json_dumpb(value, out_text, VALUE_TEXT_BYTES - 1, JSON_ENCODE_ANY);
    if (bytes < VALUE_TEXT_BYTES)
        out_text[bytes] = '\0';
    else
        (void)snprintf(out_text, VALUE_TEXT_BYTES, "\"%.40s...\"", json_string_value(value));
}

void mr_ds_refuse(const mr_ds_section *section, const char *key, const char *right) {
    char text[VALUE_TEXT_BYTES];
    const json_t *value = mr_ds_section_get(section, key);
    const char *word = json_string_value(value); /* NULL for what is no text */
    value_describe(value, text);
    if (word != NULL && strcasecmp(word, "auto") == 0)
        mr_ds_fail(section, key,
                   "it is \"auto\", which another program fills in when it starts the training; it "
                   "must be %s",
                   right);
    else
        mr_ds_fail(section, key, "it is %s; it must be %s", text, right);
}

static bool key_listed(const char *const *keys, const char *key) {
    for (; *keys != NULL; keys++)
        if (strcmp(*keys, key) == 0)
            return true;
    return false;
}

void mr_ds_leave_rest(const mr_ds_section *section, const char *const *carried,
                      const mr_ds_reason *reasons, const char *fallback) {
    const char *key = NULL;
    json_t *value = NULL;
    /* jansson walks an object through a pointer that is not const; nothing is changed */
    json_t *object = (json_t *)(uintptr_t)section->object;
    json_object_foreach (object, key, value) {
        const mr_ds_reason *reason = reasons;
        if (key_listed(carried, key))
            continue;
        while (reason->key != NULL && strcmp(reason->key, key) != 0)
            reason++;
        mr_ds_leave(section, key, "%s", reason->key != NULL ? reason->why : fallback);
    }
}

/* ---- values ---------------------------------------------------------------------------------- */

bool mr_ds_read_count(const mr_ds_section *section, const char *key, uint64_t minimum,
                      uint64_t maximum, uint64_t *value) {
    char right[96];
    const json_t *found = mr_ds_section_get(section, key);
    if (found == NULL)
        return true;
    /* 1e5 is a real number of JSON that is whole */
    double number = json_is_boolean(found) ? -1 : json_number_value(found);
    if (!json_is_number(found) || floor(number) != number || number < (double)minimum ||
        number > (double)maximum) {
        (void)snprintf(right, sizeof(right), "a whole number, %llu to %llu",
                       (unsigned long long)minimum, (unsigned long long)maximum);
        mr_ds_refuse(section, key, right);
        return false;
    }
    *value = json_is_integer(found) ? (uint64_t)json_integer_value(found) : (uint64_t)number;
    return true;
}

bool mr_ds_read_number(const mr_ds_section *section, const char *key, double low, bool low_open,
                       double high, double *value) {
    char right[96];
    const json_t *found = mr_ds_section_get(section, key);
    if (found == NULL)
        return true;
    double number = json_number_value(found);
    if (!json_is_number(found) || !(number <= high) || (low_open ? number <= low : number < low)) {
        (void)snprintf(right, sizeof(right), "a number %s %g and at most %g",
                       low_open ? "above" : "of at least", low, high);
        mr_ds_refuse(section, key, right);
        return false;
    }
    *value = number;
    return true;
}

bool mr_ds_read_bool(const mr_ds_section *section, const char *key, bool *value) {
    const json_t *found = mr_ds_section_get(section, key);
    if (found != NULL && !json_is_boolean(found)) {
        mr_ds_refuse(section, key, "true or false");
        return false;
    }
    if (found != NULL)
        *value = json_is_true(found);
    return true;
}

bool mr_ds_read_text(const mr_ds_section *section, const char *key, const char **value) {
    const json_t *found = mr_ds_section_get(section, key);
    if (found != NULL && !json_is_string(found)) {
        mr_ds_refuse(section, key, "a text");
        return false;
    }
    if (found != NULL)
        *value = json_string_value(found);
    return true;
}
