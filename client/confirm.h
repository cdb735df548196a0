/* SPDX-License-Identifier: Apache-2.0 */
/* confirm.h: asks before something is done that nothing brings back. On a terminal a person
 * answers; without one --yes must have been given, so that no script destroys by accident.
 * Owner: client. Thread: main. */
#ifndef MR_CLIENT_CONFIRM_H
#define MR_CLIENT_CONFIRM_H

#include "client/client.h"

/* Asks "TEXT? [y/N]". OK: --yes was given, or the answer is yes. CANCELLED: the answer is another.
 * INVALID_ARGUMENT: there is no terminal to ask on. The command must have a --yes option. */
MR_MUST_CHECK mr_status mr_confirm(const mr_client *client, const char *format, ...)
    MR_PRINTF(2, 3);
/* Is there a person to ask: are stdin and stderr terminals? */
bool mr_confirm_possible(void);

#endif
