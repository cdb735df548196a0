/* SPDX-License-Identifier: Apache-2.0 */
#include "client/checkpoint_target.h"

#include <stdio.h>
#include <string.h>

#include "client/path_text.h"

mr_status mr_checkpoint_target_split(const char *path, mr_checkpoint_target *out_target) {
    const char *slash = strrchr(path, '/');
    if (strlen(path) >= sizeof(out_target->dir))
        return MR_ERROR(INVALID_ARGUMENT, "the target's path has %zu bytes; the most is %zu",
                        strlen(path), sizeof(out_target->dir) - 1);
    if (slash != NULL && slash[1] == '\0')
        return MR_ERROR(INVALID_ARGUMENT, "%s ends with '/'; the target is FOLDER/TAG",
                        mr_path_shorten(path).text);
    if (slash == NULL)
        (void)snprintf(out_target->dir, sizeof(out_target->dir), ".");
    else /* the root keeps its slash */
        (void)snprintf(out_target->dir, sizeof(out_target->dir), "%.*s",
                       (int)(slash - path) + (slash == path), path);
    out_target->tag = slash == NULL ? path : slash + 1;
    return MR_OK;
}
