/* SPDX-License-Identifier: Apache-2.0 */
/* certificate.h: what a daemon tells of its own certificate.
 * Owner: rpc. Thread: any. Internal to this folder.
 * Not here: its use (security.h). */
#ifndef MR_RPC_CERTIFICATE_H
#define MR_RPC_CERTIFICATE_H

#include <stdint.h>

#include "daemon/base/status.h"

/* When the first certificate of a PEM file ends, in Unix seconds. NOT_FOUND: the file cannot be
 * read; INVALID_ARGUMENT: it holds no certificate, or one whose end is no time. */
MR_MUST_CHECK mr_status mr_rpc_certificate_end(const char *path, int64_t *out_seconds);

#endif
