/* SPDX-License-Identifier: Apache-2.0 */
/* text.h: a text that grows while it is written. Errors are kept and told once at the end, so
 * that a renderer reads as a list of what it prints.
 * Owner: observe; private to this folder. Thread: one at a time.
 * Not here: formats. */
#ifndef MR_OBSERVE_TEXT_H
#define MR_OBSERVE_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "daemon/base/status.h"

/* Zeroed is empty. */
typedef struct mr_text {
    char *bytes;
    size_t used;
    size_t capacity;
    bool failed; /* out of memory; later additions do nothing */
} mr_text;

/* Appends as printf would; memory that runs out is told by mr_text_take. */
void mr_text_add(mr_text *text, const char *format, ...) MR_PRINTF(2, 3);
/* A double in the shortest form that reads back equal; "NaN", "+Inf", "-Inf". */
void mr_text_add_number(mr_text *text, double value);
/* value as a JSON string without its quotes; also right for a Prometheus label, whose escapes are a
 * part of JSON's, where it has no control bytes. */
void mr_text_add_escaped(mr_text *text, const char *value);
/* Hands the bytes over (mr_free), always terminated. RESOURCE_EXHAUSTED: some addition failed. */
MR_MUST_CHECK mr_status mr_text_take(mr_text *text, char **out_text, size_t *out_bytes);

#endif
