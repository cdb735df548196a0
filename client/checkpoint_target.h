/* SPDX-License-Identifier: Apache-2.0 */
/* checkpoint_target.h: where a command writes a new checkpoint: FOLDER/TAG. Owner: client. Pure. */
#ifndef MR_CLIENT_CHECKPOINT_TARGET_H
#define MR_CLIENT_CHECKPOINT_TARGET_H

#include "daemon/base/limits.h"
#include "daemon/base/status.h"

typedef struct mr_checkpoint_target {
    char dir[MR_CHECKPOINT_PATH_BYTES]; /* "." where the path is a tag alone */
    const char *tag;                    /* within the path that was given */
} mr_checkpoint_target;

/* INVALID_ARGUMENT: path is too long or ends with '/'. */
MR_MUST_CHECK mr_status mr_checkpoint_target_split(const char *path,
                                                   mr_checkpoint_target *out_target);

#endif
