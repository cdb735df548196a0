/* SPDX-License-Identifier: Apache-2.0 */
/* digest.h: SHA-256 in pieces, as 64 lower-case hex digits.
 * Owner: checkpoint. Thread: one at a time per object.
 * Not here: reading what is hashed (file.h). */
#ifndef MR_CHECKPOINT_DIGEST_H
#define MR_CHECKPOINT_DIGEST_H

#include <stdbool.h>
#include <stddef.h>

#include "daemon/base/status.h"
#include "daemon/checkpoint/layout.h"

typedef struct mr_digest mr_digest;

/* INTERNAL: the library refuses, or no memory. */
MR_MUST_CHECK mr_status mr_digest_create(mr_digest **out_digest);
void mr_digest_destroy(mr_digest *digest);
MR_MUST_CHECK mr_status mr_digest_add(mr_digest *digest, const void *data, size_t bytes);
/* Once; only destroy is left after it. */
MR_MUST_CHECK mr_status mr_digest_finish(mr_digest *digest, char out_hex[MR_SHA256_HEX_BYTES]);
/* All at once. */
MR_MUST_CHECK mr_status mr_digest_of(const void *data, size_t bytes,
                                     char out_hex[MR_SHA256_HEX_BYTES]);
/* Exactly 64 lower-case hex digits? */
bool mr_digest_hex_valid(const char *text);

#endif
