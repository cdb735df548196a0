/* SPDX-License-Identifier: Apache-2.0 */
/* status_page.h: the reading half of the page that status_server.h declares for roles.
 * Owner: observe; private to this folder. Thread: any.
 * Not here: HTTP. */
#ifndef MR_OBSERVE_STATUS_PAGE_H
#define MR_OBSERVE_STATUS_PAGE_H

#include <stdint.h>

#include "daemon/observe/status_server.h"
#include "daemon/observe/text.h"

/* A copy of what was published last; mr_free. */
MR_MUST_CHECK mr_status mr_status_page_copy(mr_status_page *page, char **out_json,
                                            size_t *out_bytes);
bool mr_status_page_is_started(mr_status_page *page);
/* reason is always written. */
bool mr_status_page_is_ready(mr_status_page *page, char reason[MR_STATUS_TEXT_BYTES]);
/* A line for each thing that readiness hangs on, "[+]store ok"; are all of them so? */
bool mr_status_page_add_checks(mr_status_page *page, mr_text *text);
/* Age of the last beat; 0 where there was none. */
bool mr_status_page_is_live(mr_status_page *page, int64_t *out_age_ms);

#endif
