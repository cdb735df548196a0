/* SPDX-License-Identifier: Apache-2.0 */
/* token_layout.h: where the tokens lie in one file, and what its header says. Formats:
 *   bytes     every byte is a token, 0 to 255
 *   llmc      llm.c's .bin: a header of 256 little-endian i32 (magic, version, token count, zeros),
 *             then the tokens: 20240520 version 1 with u16 tokens, 20240801 version 7 with u32
 *   megatron  Megatron's indexed dataset: PREFIX.bin has bare tokens, PREFIX.idx says where its
 *             sequences and documents begin. The path may be either file or PREFIX. Sequences must
 *             lie one behind another and fill the .bin, as its builders write them: then their
 *             tokens in the order of the documents are the file's
 *   npy       NumPy's array file, version 1 to 3, of one dimension
 * A header is checked against the file's size and against itself; errors name file, field, value
 * and what would be right.
 * Owner: client. Thread: any. Limits: MR_TOKEN_NPY_HEADER_MAX.
 * Not here: tokens themselves (token_files.h). */
#ifndef MR_CLIENT_TOKEN_LAYOUT_H
#define MR_CLIENT_TOKEN_LAYOUT_H

#include <stdint.h>

#include "daemon/base/status.h"
#include "daemon/model/job.h"

enum {
    MR_TOKEN_NPY_HEADER_MAX = 65536,
    MR_TOKEN_LLMC_HEADER_BYTES = 1024,
    MR_TOKEN_LLMC_MAGIC_U16 = 20240520,
    MR_TOKEN_LLMC_VERSION_U16 = 1,
    MR_TOKEN_LLMC_MAGIC_U32 = 20240801,
    MR_TOKEN_LLMC_VERSION_U32 = 7,
};

typedef struct mr_token_layout {
    mr_data_format format;
    char *path;      /* of the file that holds the tokens; owned, mr_free */
    uint64_t bytes;  /* of that file */
    uint64_t tokens; /* in it */
    uint64_t offset; /* of its first token */
    uint32_t width;  /* bytes of one token */
    bool is_signed;
    uint32_t version;    /* of the format; 0: it has none */
    uint64_t sequences;  /* megatron */
    uint64_t documents;  /* megatron */
} mr_token_layout;

/* Reads the header of the file at path. Errors as mr_token_read_open and INVALID_ARGUMENT. */
MR_MUST_CHECK mr_status mr_token_layout_read(const char *path, mr_data_format format,
                                             mr_token_layout *out_layout);
/* Which format has the file at path, by its first bytes and, for megatron, by the file beside it?
 * What is none of the others is bytes. */
MR_MUST_CHECK mr_status mr_token_layout_guess(const char *path, mr_data_format *out_format);

/* "llmc", as a job file writes it. */
const char *mr_token_format_name(mr_data_format format);
/* The format of that name; MR_DATA_FORMAT_COUNT where there is none. */
mr_data_format mr_token_format_find(const char *name);
/* "uint16", as NumPy says it. */
const char *mr_token_layout_type(const mr_token_layout *layout);

#endif
