/* SPDX-License-Identifier: Apache-2.0 */
/* yaml_edit.h: a YAML text with single values replaced, for settings that come from elsewhere than
 * the file: options of a command, bounds that a profile gave. What is left is a text again, so that
 * whoever reads it needs to know nothing of the change.
 * Owner: model. Pure, any thread. */
#ifndef MR_MODEL_YAML_EDIT_H
#define MR_MODEL_YAML_EDIT_H

#include <stddef.h>

#include "daemon/base/status.h"

/* One change: path with slashes ("/batch/micro_batches") and the value as YAML text ("4",
 * "[0, 3, 9]"), in place of the old one or added to its mapping. Values borrowed. */
typedef struct mr_yaml_change {
    const char *path;
    const char *value;
} mr_yaml_change;

/* The text after all changes, in order; owner frees with mr_free. INVALID_ARGUMENT: no YAML, or a
 * path whose mapping is not there; RESOURCE_EXHAUSTED: no memory. */
MR_MUST_CHECK mr_status mr_yaml_edit(const char *text, const mr_yaml_change *changes, size_t count,
                                     char **out_text);

#endif
