/* SPDX-License-Identifier: Apache-2.0 */
/* status_routes.h: which path of the status port is answered by what.
 * Owner: observe; private to this folder. Thread: the server's.
 * Not here: connections (status_server.c). */
#ifndef MR_OBSERVE_STATUS_ROUTES_H
#define MR_OBSERVE_STATUS_ROUTES_H

#include <microhttpd.h>

#include "daemon/observe/status_server.h"

/* What the routes read; the server's options, with texts of its own. */
typedef struct mr_status_sources {
    mr_status_server_options options; /* its address is not used */
    char version[MR_NAME_BYTES];
    char commit[MR_NAME_BYTES];
} mr_status_sources;

/* An answer before it is sent; text is owned unless fixed. */
typedef struct mr_status_answer {
    unsigned code;
    const char *type;
    char *text;
    size_t bytes;
    bool fixed; /* text is never freed */
} mr_status_answer;

/* Answers a GET of path; what is wrong with the request is an answer too. RESOURCE_EXHAUSTED: no
 * memory. */
MR_MUST_CHECK mr_status mr_status_routes_answer(const mr_status_sources *sources,
                                                struct MHD_Connection *connection,
                                                const char *path, mr_status_answer *out_answer);
/* One line of plain text. */
MR_MUST_CHECK mr_status mr_status_answer_line(mr_status_answer *out_answer, unsigned code,
                                              const char *format, ...) MR_PRINTF(3, 4);

#endif
