/* SPDX-License-Identifier: Apache-2.0 */
#include "client/path_text.h"

#include <stdio.h>
#include <string.h>

mr_path_text mr_path_shorten(const char *path) {
    mr_path_text result;
    size_t length = strlen(path);
    size_t room = sizeof(result.text) - 1;
    if (length <= room)
        snprintf(result.text, sizeof(result.text), "%s", path);
    else
        snprintf(result.text, sizeof(result.text), "...%s", path + length - (room - 3));
    return result;
}
