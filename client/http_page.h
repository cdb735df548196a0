/* SPDX-License-Identifier: Apache-2.0 */
/* http_page.h: reads one page of a daemon's status port. HTTP/1.0, plain, one request a connection:
 * all that those ports ask for, so that the client stays free of an HTTP library and of the score
 * of libraries that such a one needs.
 * Owner: client. Thread: any. Limits: MR_HTTP_PAGE_*. */
#ifndef MR_CLIENT_HTTP_PAGE_H
#define MR_CLIENT_HTTP_PAGE_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/base/status.h"

enum { MR_HTTP_PAGE_BYTES_MAX = 256 << 20, MR_HTTP_PAGE_HEADER_MAX = 16384 };

/* Gets http://ADDRESS/path, at most timeout_ms long. address: HOST:PORT or [IPV6]:PORT. *out_text
 * is terminated, of out_bytes bytes, and freed with mr_free. UNAVAILABLE: nobody answers there, or
 * not with 200; DEADLINE_EXCEEDED; RESOURCE_EXHAUSTED: over the limit. Texts name the address. */
MR_MUST_CHECK mr_status mr_http_page_get(const char *address, const char *path, int64_t timeout_ms,
                                         char **out_text, size_t *out_bytes);

#endif
