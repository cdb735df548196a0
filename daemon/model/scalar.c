/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/model/scalar.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "daemon/model/job_errors.h"

static bool scalar_is_plain(const mr_yaml_node *node) {
    return node->kind == MR_YAML_SCALAR && node->plain;
}

/* Past the digits at s; NULL if there is none. */
static const char *digits_skip(const char *s) {
    if (!isdigit((unsigned char)*s))
        return NULL;
    while (isdigit((unsigned char)*s))
        s++;
    return s;
}

/* Past the digits at s, which must not start with a zero unless that is all. */
static const char *integer_skip(const char *s) {
    return s[0] == '0' ? (isdigit((unsigned char)s[1]) ? NULL : s + 1) : digits_skip(s);
}

bool mr_scalar_counter(const mr_yaml_node *node, uint64_t *out_value) {
    if (!scalar_is_plain(node))
        return false;
    const char *end = integer_skip(node->text);
    if (end == NULL || *end != '\0')
        return false;
    errno = 0;
    unsigned long long value = strtoull(node->text, NULL, 10);
    if (errno != 0)
        return false;
    *out_value = value;
    return true;
}

bool mr_scalar_is_integer(const mr_yaml_node *node) {
    if (!scalar_is_plain(node))
        return false;
    const char *end = integer_skip(node->text + (node->text[0] == '-'));
    return end != NULL && *end == '\0';
}

bool mr_scalar_number(const mr_yaml_node *node, double *out_value) {
    if (!scalar_is_plain(node))
        return false;
    const char *s = integer_skip(node->text + (node->text[0] == '-'));
    if (s != NULL && *s == '.')
        s = digits_skip(s + 1);
    if (s != NULL && (*s == 'e' || *s == 'E'))
        s = digits_skip(s + 1 + (s[1] == '-' || s[1] == '+'));
    if (s == NULL || *s != '\0')
        return false;
    double value = strtod(node->text, NULL);
    if (!isfinite(value))
        return false;
    *out_value = value;
    return true;
}

bool mr_scalar_bool(const mr_yaml_node *node, bool *out_value) {
    if (!scalar_is_plain(node) ||
        (strcmp(node->text, "true") != 0 && strcmp(node->text, "false") != 0))
        return false;
    *out_value = node->text[0] == 't';
    return true;
}

bool mr_scalar_is_null(const mr_yaml_node *node) {
    return scalar_is_plain(node) && (node->text[0] == '\0' || strcmp(node->text, "~") == 0 ||
                                     strcasecmp(node->text, "null") == 0);
}

bool mr_scalar_is_ambiguous(const mr_yaml_node *node) {
    static const char *const words[] = {"true", "false", "yes", "no",   "on",
                                        "off",  "y",     "n",   ".inf", ".nan"};
    if (!scalar_is_plain(node))
        return false;
    if (mr_scalar_is_null(node))
        return true;
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (strcasecmp(node->text, words[i]) == 0)
            return true;
    /* Anything that strtod reads whole (1e3, 0x1F, inf), and digits grouped by '_'. */
    char *end = NULL;
    (void)strtod(node->text, &end); /* only how far it reads matters */
    if (*end == '\0')
        return true;
    const char *s = node->text + (node->text[0] == '-' || node->text[0] == '+');
    return isdigit((unsigned char)*s) && s[strspn(s, "0123456789_")] == '\0';
}

const char *mr_scalar_describe(const mr_yaml_node *node, char out_text[MR_SCALAR_TEXT_BYTES]) {
    char excerpt[MR_EXCERPT_BYTES];
    if (node->kind != MR_YAML_SCALAR)
        return node->kind == MR_YAML_LIST ? "a list" : "a mapping";
    mr_excerpt(node->text, excerpt);
    if (!node->plain)
        (void)snprintf(out_text, MR_SCALAR_TEXT_BYTES, "the text \"%s\"", excerpt);
    else
        (void)snprintf(out_text, MR_SCALAR_TEXT_BYTES, "%s",
                       node->text[0] == '\0' ? "empty" : excerpt);
    return out_text;
}
