/* SPDX-License-Identifier: Apache-2.0 */
/* yaml_text.h: from the bytes of a YAML file to texts: UTF-8 is checked, and a scalar's bytes are
 * freed of their quotes' escapes. Done here, and not by libfyaml's fy_token_get_text, because that
 * (0.7.12) loses memory on a text with many escapes. A text stands on one line and has no control
 * characters, escaped or not; of YAML's escapes those of JSON are known.
 * Owner: model. Pure, any thread. */
#ifndef MR_MODEL_YAML_TEXT_H
#define MR_MODEL_YAML_TEXT_H

#include <stddef.h>

#include "daemon/base/status.h"

typedef enum mr_yaml_quote {
    MR_YAML_QUOTE_NONE,
    MR_YAML_QUOTE_SINGLE,
    MR_YAML_QUOTE_DOUBLE,
} mr_yaml_quote;

/* INVALID_ARGUMENT: a byte that is no UTF-8 (RFC 3629) or a control character, on line
 * *out_line. */
MR_MUST_CHECK mr_status mr_yaml_text_check(const char *text, size_t bytes, size_t *out_line);
/* The text that raw, the bytes between the quotes, stands for: at most bytes of it, not terminated,
 * to out. INVALID_ARGUMENT: more than one line, a control character, an unknown escape. */
MR_MUST_CHECK mr_status mr_yaml_text_decode(mr_yaml_quote quote, const char *raw, size_t bytes,
                                            char *out, size_t *out_bytes);

#endif
