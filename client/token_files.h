/* SPDX-License-Identifier: Apache-2.0 */
/* token_files.h: one long sequence of tokens that lies in one or more files, in the order of their
 * names; token_layout.h tells the formats.
 * Files are checked when opened and read piece by piece with pread: nothing is loaded whole, and a
 * file that shrinks under us is an error instead of a signal.
 * Owner: client. Thread: one at a time. Limits: MR_TOKEN_FILES_MAX.
 * Not here: samples and their order (data.h, order.h). */
#ifndef MR_CLIENT_TOKEN_FILES_H
#define MR_CLIENT_TOKEN_FILES_H

#include <stddef.h>
#include <stdint.h>

#include "client/token_layout.h"
#include "daemon/base/status.h"
#include "daemon/model/job.h"

enum { MR_TOKEN_FILES_MAX = 65536, MR_TOKEN_VOCABULARY_MAX = INT32_MAX };

typedef struct mr_token_files mr_token_files;

/* Opens the file of that path or, where there is none, all files that match it as a glob pattern,
 * in bytewise order. NOT_FOUND: no such file. INVALID_ARGUMENT: an empty or damaged file; the text
 * names the file, the field, its value and what would be right. PERMISSION_DENIED: not readable. */
MR_MUST_CHECK mr_status mr_token_files_open(const char *pattern, mr_data_format format,
                                            mr_token_files **out_files);
/* The format of the first file that matches the pattern (mr_token_layout_guess). NOT_FOUND: none
 * does. */
MR_MUST_CHECK mr_status mr_token_files_guess(const char *pattern, mr_data_format *out_format);
/* NULL is fine. */
void mr_token_files_close(mr_token_files *files);

/* Tokens of all files together. */
uint64_t mr_token_files_count(const mr_token_files *files);
/* The files, in their order. */
size_t mr_token_files_file_count(const mr_token_files *files);
const mr_token_layout *mr_token_files_layout(const mr_token_files *files, size_t index);
/* Reads tokens [first, first + count) into out. vocab: INVALID_ARGUMENT names the file, the
 * position and the token when one is not below it. OUT_OF_RANGE: past the end. DATA_LOSS: the file
 * shrank or cannot be read any more. */
MR_MUST_CHECK mr_status mr_token_files_read(mr_token_files *files, uint64_t first, size_t count,
                                            uint32_t vocab, int32_t *out);

#endif
