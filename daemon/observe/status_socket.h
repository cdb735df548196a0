/* SPDX-License-Identifier: Apache-2.0 */
/* status_socket.h: the listening socket of the status port. Ours and not the HTTP library's, so
 * that every error names the address, and a port in use is never shared.
 * Owner: observe; private to this folder. Thread: any.
 * Not here: HTTP. */
#ifndef MR_OBSERVE_STATUS_SOCKET_H
#define MR_OBSERVE_STATUS_SOCKET_H

#include <stdbool.h>
#include <stddef.h>

#include "daemon/base/status.h"

enum { MR_STATUS_ADDRESS_BYTES = 128 };

/* Binds and listens; *out_fd is the caller's. out_address gets the address in use. Errors as
 * mr_status_server_start. */
MR_MUST_CHECK mr_status mr_status_socket_listen(const char *address, bool any_address, int *out_fd,
                                                char out_address[MR_STATUS_ADDRESS_BYTES]);

#endif
