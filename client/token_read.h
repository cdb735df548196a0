/* SPDX-License-Identifier: Apache-2.0 */
/* token_read.h: reading token files byte by byte place, with errors that name the file.
 * Owner: client. Thread: any. */
#ifndef MR_CLIENT_TOKEN_READ_H
#define MR_CLIENT_TOKEN_READ_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/base/status.h"

/* Opens a plain file that is not empty, without waiting (a FIFO is refused). NOT_FOUND,
 * PERMISSION_DENIED, INVALID_ARGUMENT (a folder, a FIFO, empty), DATA_LOSS. The caller closes. */
MR_MUST_CHECK mr_status mr_token_read_open(const char *path, int *out_fd, uint64_t *out_size);
/* Reads exactly bytes at offset. DATA_LOSS: the file ends before, or cannot be read any more. */
MR_MUST_CHECK mr_status mr_token_read_exact(int fd, const char *path, void *out, size_t bytes,
                                            uint64_t offset);
/* The error of errno at path; what: "open". */
MR_MUST_CHECK mr_status mr_token_read_error(const char *path, const char *what);
/* An unsigned number of width bytes, 1 to 8, the least first. */
uint64_t mr_token_read_number(const unsigned char *bytes, uint32_t width);
/* The same with a sign, in two's complement. */
int64_t mr_token_read_signed(const unsigned char *bytes, uint32_t width);

#endif
