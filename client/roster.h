/* SPDX-License-Identifier: Apache-2.0 */
/* roster.h: what the coordinator has at this moment: itself, its members, its jobs, as JSON, one
 * call each. Owner: client. Thread: main. Not here: tables (job_view.h). */
#ifndef MR_CLIENT_ROSTER_H
#define MR_CLIENT_ROSTER_H

#include <jansson.h>

#include "client/client.h"

/* Arrays of objects; owned by the caller. Errors as mr_client_call. */
MR_MUST_CHECK mr_status mr_roster_jobs(mr_client *client, json_t **out_jobs);
/* One job, by id or name, without its file's text. */
MR_MUST_CHECK mr_status mr_roster_job(mr_client *client, const char *name, json_t **out_job);
MR_MUST_CHECK mr_status mr_roster_members(mr_client *client, json_t **out_members);
/* One object: the coordinator and its counts. */
MR_MUST_CHECK mr_status mr_roster_coordinator(mr_client *client, json_t **out_coordinator);

#endif
