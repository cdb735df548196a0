/* SPDX-License-Identifier: Apache-2.0 */
/* token_layout_parts.h: the formats that have files of their own, for token_layout.c alone. Each
 * fills what its header says; path, size and format stand in the layout already.
 * Owner: client. Thread: any. */
#ifndef MR_CLIENT_TOKEN_LAYOUT_PARTS_H
#define MR_CLIENT_TOKEN_LAYOUT_PARTS_H

#include "client/token_layout.h"

/* fd: the file at layout->path, open. */
MR_MUST_CHECK mr_status mr_token_npy_read(int fd, mr_token_layout *layout);
/* index_path: the .idx file; layout->path is the .bin. */
MR_MUST_CHECK mr_status mr_token_megatron_read(const char *index_path, mr_token_layout *layout);

#endif
