/* SPDX-License-Identifier: Apache-2.0 */
/* logit_file.h: scores of a model in a .npy file (format 1.0, little-endian f32), written step by
 * step, each at its own place, so that a step that comes twice does no harm.
 * Owner: client. Thread: main. Limits: a step's logits fit one message. */
#ifndef MR_CLIENT_LOGIT_FILE_H
#define MR_CLIENT_LOGIT_FILE_H

#include <stdint.h>

#include "daemon/base/status.h"
#include "daemon/rpc/channel.h"

typedef struct mr_logit_file mr_logit_file;

/* Makes the file, of shape dims, in steps equal parts; one that is there is replaced. Errors of the
 * file, named by path; INVALID_ARGUMENT: a part that no message can carry. Owner closes it. */
MR_MUST_CHECK mr_status mr_logit_file_create(const char *path, const uint64_t dims[3],
                                             uint64_t steps, mr_logit_file **out_file);
/* One step's logits. INTERNAL: not of a step's size. */
MR_MUST_CHECK mr_status mr_logit_file_write(mr_logit_file *file, uint64_t step,
                                            const mr_rpc_tail *tail);
/* NULL is fine. Errors of what was still to be written. */
MR_MUST_CHECK mr_status mr_logit_file_close(mr_logit_file *file);

#endif
