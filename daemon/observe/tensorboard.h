/* SPDX-License-Identifier: Apache-2.0 */
/* tensorboard.h: one event file of scalars, as TensorBoard reads it: records of a length, payload
 * and masked CRC-32C each; the payloads are protocol buffers (Event with Summary), of which this
 * needs so few fields that they are written here.
 * The first record tells the format's version. The second is the session's start with the first
 * step, by which TensorBoard forgets what an earlier file tells of that step and later ones: a job
 * that goes on from a checkpoint replaces what it does again.
 * A file that a crash cuts short is read up to its last whole record.
 * Owner: observe. Thread: DISK; one at a time.
 * Not here: which scalars, and when (coordinator/tensorboards.c). */
#ifndef MR_OBSERVE_TENSORBOARD_H
#define MR_OBSERVE_TENSORBOARD_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/base/limits.h"
#include "daemon/base/status.h"

typedef struct mr_tensorboard mr_tensorboard; /* opaque */

typedef struct mr_tensorboard_scalar {
    const char *tag; /* "train/loss"; borrowed; at most MR_NAME_BYTES - 1 bytes */
    float value;
} mr_tensorboard_scalar;

/* Makes the folder, with its parents, where it is missing, and a new file in it, which no other
 * process or epoch writes to. first_step: of the scalars that will come. NOT_FOUND,
 * PERMISSION_DENIED, RESOURCE_EXHAUSTED (the disk is full), INTERNAL: the text names the path. */
MR_MUST_CHECK mr_status mr_tensorboard_open(const char *directory, double wall_seconds,
                                            uint64_t first_step, mr_tensorboard **out_board);
/* The file's path. */
const char *mr_tensorboard_path(const mr_tensorboard *board);
/* One event of up to MR_TENSORBOARD_SCALARS_MAX scalars, kept in memory until flush or until there
 * are too many. Errors of flush. */
MR_MUST_CHECK mr_status mr_tensorboard_add(mr_tensorboard *board, double wall_seconds,
                                           uint64_t step, const mr_tensorboard_scalar *scalars,
                                           size_t scalar_count);
/* Gives everything to the file. RESOURCE_EXHAUSTED: the disk is full; INTERNAL: other errors. */
MR_MUST_CHECK mr_status mr_tensorboard_flush(mr_tensorboard *board);
/* Closes without a flush, and frees. NULL is fine. */
void mr_tensorboard_close(mr_tensorboard *board);

#endif
