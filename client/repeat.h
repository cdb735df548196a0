/* SPDX-License-Identifier: Apache-2.0 */
/* repeat.h: --watch: the same question again and again, each --interval seconds. On a terminal the
 * table is drawn anew in place. Elsewhere what has changed is printed below what was: of jsonl and
 * name only the objects that are new or changed, of the other forms the whole. An age that only
 * grows is no change. Ctrl-C ends it with exit code 130; a coordinator that goes away is waited for
 * as long as a followed job's (watch.h).
 * Owner: client. Thread: main. */
#ifndef MR_CLIENT_REPEAT_H
#define MR_CLIENT_REPEAT_H

#include <jansson.h>

#include "client/client.h"

/* Asks; *out_value is an array of objects or one object. */
typedef mr_status (*mr_repeat_fetch)(mr_client *client, json_t **out_value);
/* Prints and consumes it. */
typedef mr_status (*mr_repeat_print)(mr_client *client, json_t *owned_value);

/* Once, or with --watch until the end; the command has the options watch and interval. Errors: the
 * first answer's; later UNAVAILABLE only after MR_WATCH_RETRY_MS. */
MR_MUST_CHECK mr_status mr_repeat_run(mr_client *client, mr_repeat_fetch fetch,
                                      mr_repeat_print print);

#endif
