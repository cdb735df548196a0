/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/model/parameter_names.h"

#include <stdio.h>
#include <string.h>

/* Start of the name behind this one; NULL at the end. */
static const char *names_next(const char *name) {
    const char *space = strchr(name, ' ');
    return space == NULL ? NULL : space + 1;
}

size_t mr_parameter_names_count(const char *names) {
    size_t count = 0;
    for (const char *at = names[0] == '\0' ? NULL : names; at != NULL; at = names_next(at))
        count++;
    return count;
}

size_t mr_parameter_names_find(const char *names, const char *name) {
    size_t bytes = strlen(name);
    size_t index = 0;
    for (const char *at = names[0] == '\0' ? NULL : names; at != NULL; at = names_next(at)) {
        if (strcspn(at, " ") == bytes && strncmp(at, name, bytes) == 0)
            return index;
        index++;
    }
    return index;
}

const char *mr_parameter_names_at(const char *names, size_t index,
                                  char out_name[MR_PARAMETER_NAME_BYTES]) {
    const char *at = names;
    for (size_t i = 0; i < index && at != NULL; i++)
        at = names_next(at);
    (void)snprintf(out_name, MR_PARAMETER_NAME_BYTES, "%.*s",
                   at == NULL ? 0 : (int)strcspn(at, " "), at == NULL ? "" : at);
    return out_name;
}

bool mr_parameter_names_add(char names[MR_PARAMETER_NAMES_BYTES], const char *name) {
    size_t used = strlen(names);
    size_t bytes = strlen(name);
    size_t gap = used > 0 ? 1 : 0;
    if (bytes == 0 || used + gap + bytes >= MR_PARAMETER_NAMES_BYTES)
        return false;
    (void)snprintf(names + used, MR_PARAMETER_NAMES_BYTES - used, "%s%s", gap > 0 ? " " : "", name);
    return true;
}
