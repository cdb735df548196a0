/* SPDX-License-Identifier: Apache-2.0 */
/* parameter_names.h: a short list of a layer's parameter names, as a job file gives it, in one
 * text: names joined by single spaces, in the file's order; "" is the empty list.
 * Owner: model. Pure, any thread. */
#ifndef MR_MODEL_PARAMETER_NAMES_H
#define MR_MODEL_PARAMETER_NAMES_H

#include <stdbool.h>
#include <stddef.h>

enum {
    MR_PARAMETER_NAME_BYTES = 32,   /* one name with its terminator */
    MR_PARAMETER_NAMES_BYTES = 256, /* a list with its terminator */
};

/* How many names the list has. */
size_t mr_parameter_names_count(const char *names);
/* Position of a name in the list; the count where it is not there. */
size_t mr_parameter_names_find(const char *names, const char *name);
/* The name at index < count, cut at the room of a name. Returns out_name. */
const char *mr_parameter_names_at(const char *names, size_t index,
                                  char out_name[MR_PARAMETER_NAME_BYTES]);
/* Appends a name without spaces; false: it is empty, or there is no room for it. */
bool mr_parameter_names_add(char names[MR_PARAMETER_NAMES_BYTES], const char *name);

#endif
