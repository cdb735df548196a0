/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/model/layer_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <stdint.h>
#include <string.h>

#include <pcre2.h>

#include "daemon/model/job_errors.h"

enum { REASON_BYTES = 64 };

/* A pattern with what its searches use; the members are NULL where they do not stand. */
typedef struct layer_pattern {
    const char *text;
    pcre2_code *code;
    pcre2_match_data *data;
    pcre2_match_context *context;
} layer_pattern;

static void pattern_deinit(layer_pattern *pattern) {
    pcre2_match_context_free(pattern->context); /* NULL is fine in all three */
    pcre2_match_data_free(pattern->data);
    pcre2_code_free(pattern->code);
}

/* \C could stop inside a character of UTF-8, so it is refused; UCP makes \d and \w know all
 * letters, as CASELESS does. */
static mr_status pattern_init(const char *text, layer_pattern *pattern) {
    const uint32_t options =
        PCRE2_CASELESS | PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C | PCRE2_NO_AUTO_CAPTURE;
    char excerpt[MR_EXCERPT_BYTES];
    int error = 0;
    PCRE2_SIZE offset = 0;
    *pattern = (layer_pattern){.text = text};
    if (strlen(text) >= MR_PATTERN_BYTES)
        return MR_ERROR(INVALID_ARGUMENT, "pattern %s has %zu bytes; it may have at most %d",
                        mr_excerpt(text, excerpt), strlen(text), MR_PATTERN_BYTES - 1);
    pattern->code =
        pcre2_compile((PCRE2_SPTR)text, strlen(text), options, &error, &offset, NULL);
    if (pattern->code == NULL) {
        PCRE2_UCHAR reason[REASON_BYTES] = {0};
        (void)pcre2_get_error_message(error, reason, sizeof(reason)); /* cut where it is longer */
        return MR_ERROR(INVALID_ARGUMENT, "pattern %s: %s (byte %zu)", mr_excerpt(text, excerpt),
                        (const char *)reason, (size_t)offset);
    }
    pattern->data = pcre2_match_data_create(1, NULL);
    pattern->context = pcre2_match_context_create(NULL);
    if (pattern->data == NULL || pattern->context == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to search for pattern %s",
                        mr_excerpt(text, excerpt));
    (void)pcre2_set_match_limit(pattern->context, MR_PATTERN_STEPS_MAX); /* these cannot fail */
    (void)pcre2_set_depth_limit(pattern->context, MR_PATTERN_STEPS_MAX);
    (void)pcre2_set_heap_limit(pattern->context, MR_PATTERN_HEAP_KIB_MAX);
    return MR_OK;
}

static mr_status pattern_search(const layer_pattern *pattern, const char *text, bool *out_found) {
    char excerpt[MR_EXCERPT_BYTES];
    /* A type or name is ASCII (field.h), but PCRE2 checks it all the same. */
    int found = pcre2_match(pattern->code, (PCRE2_SPTR)text, strlen(text), 0, 0, pattern->data,
                            pattern->context);
    *out_found = found >= 0;
    if (found >= 0 || found == PCRE2_ERROR_NOMATCH)
        return MR_OK;
    mr_excerpt(pattern->text, excerpt);
    if (found == PCRE2_ERROR_NOMEMORY)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to search for pattern %s", excerpt);
    if (found == PCRE2_ERROR_MATCHLIMIT || found == PCRE2_ERROR_DEPTHLIMIT ||
        found == PCRE2_ERROR_HEAPLIMIT)
        return MR_ERROR(INVALID_ARGUMENT, "pattern %s needs over %d steps in %.20s", excerpt,
                        MR_PATTERN_STEPS_MAX, text);
    return MR_ERROR(INVALID_ARGUMENT, "pattern %s cannot be searched (PCRE2 error %d)", excerpt,
                    found);
}

static bool layers_are_called_alike(const mr_layer_spec *a, const mr_layer_spec *b) {
    return a->type == b->type && strcmp(a->name, b->name) == 0;
}

static mr_status pattern_weigh(const layer_pattern *pattern, const mr_layer_spec *layers,
                               size_t count, double *out_weights) {
    char excerpt[MR_EXCERPT_BYTES];
    bool any = false;
    bool found = false;
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || !layers_are_called_alike(&layers[i], &layers[i - 1])) {
            MR_TRY(pattern_search(pattern, mr_layer_type_name(layers[i].type), &found));
            if (!found && layers[i].name[0] != '\0')
                MR_TRY(pattern_search(pattern, layers[i].name, &found));
        }
        any |= found;
        if (out_weights != NULL)
            out_weights[i] = found ? 1 : 0;
    }
    if (!any)
        return MR_ERROR(INVALID_ARGUMENT, "pattern %s is in no layer's type or name",
                        mr_excerpt(pattern->text, excerpt));
    return MR_OK;
}

mr_status mr_layer_pattern_check(const char *pattern) {
    layer_pattern compiled;
    mr_status status = pattern_init(pattern, &compiled);
    pattern_deinit(&compiled);
    return status;
}

mr_status mr_layer_pattern_weigh(const char *pattern, const mr_layer_spec *layers, size_t count,
                                 double *out_weights) {
    layer_pattern compiled;
    mr_status status = pattern_init(pattern, &compiled);
    if (mr_status_is_ok(status))
        status = pattern_weigh(&compiled, layers, count, out_weights);
    pattern_deinit(&compiled);
    return status;
}
