/* SPDX-License-Identifier: Apache-2.0 */
/* token_writer.h: writes a token file of any format that token_layout.h reads. It is written beside
 * its place and renamed into it by commit: nobody ever sees half of one. For megatron the .idx is
 * renamed last; without it the .bin is no data set.
 * Owner: client. Thread: one at a time. Limits: MR_TOKEN_WRITER_SEQUENCES_MAX. */
#ifndef MR_CLIENT_TOKEN_WRITER_H
#define MR_CLIENT_TOKEN_WRITER_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/base/status.h"
#include "daemon/model/job.h"

enum { MR_TOKEN_WRITER_SEQUENCES_MAX = 1 << 28 };

typedef struct mr_token_writer mr_token_writer;

typedef struct mr_token_writer_options {
    const char *path; /* for megatron PREFIX, PREFIX.bin or PREFIX.idx */
    mr_data_format format;
    uint64_t tokens;      /* how many will be put */
    int32_t largest;      /* of them: decides how many bytes each takes */
    int64_t document_end; /* megatron: the token that ends a document; negative: one document */
    bool replace;         /* a file that is there may be replaced */
} mr_token_writer_options;

/* ALREADY_EXISTS: the file is there. INVALID_ARGUMENT: more tokens, or a larger one, than the
 * format has room for. PERMISSION_DENIED, UNKNOWN: the file system. Frees nothing of options. */
MR_MUST_CHECK mr_status mr_token_writer_open(const mr_token_writer_options *options,
                                             mr_token_writer **out_writer);
/* Appends tokens, each 0 to options.largest. UNKNOWN: the file system. */
MR_MUST_CHECK mr_status mr_token_writer_put(mr_token_writer *writer, const int32_t *tokens,
                                            size_t count);
/* All tokens are put: makes the file appear. */
MR_MUST_CHECK mr_status mr_token_writer_commit(mr_token_writer *writer);
/* Removes what is not committed. NULL is fine. */
void mr_token_writer_close(mr_token_writer *writer);

#endif
