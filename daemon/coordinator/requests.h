/* SPDX-License-Identifier: Apache-2.0 */
/* requests.h: what clients ask for, one function each. Each request is answered exactly once, at
 * once or when what it asked for has happened.
 * Owner: coordinator; only decide's own files include it. Thread: LOOP. */
#ifndef MR_COORDINATOR_REQUESTS_H
#define MR_COORDINATOR_REQUESTS_H

#include "daemon/coordinator/decision.h"

/* RESOURCE_EXHAUSTED: no memory; not answered. */
MR_MUST_CHECK mr_status mr_requests_submit(mr_decision *decision, const mr_event *event);
void mr_requests_pause(mr_decision *decision, const mr_event *event);
void mr_requests_resume(mr_decision *decision, const mr_event *event);
void mr_requests_cancel(mr_decision *decision, const mr_event *event);
void mr_requests_save(mr_decision *decision, const mr_event *event);
void mr_requests_set(mr_decision *decision, const mr_event *event);
void mr_requests_drain(mr_decision *decision, const mr_event *event);
/* What a drain does, whoever asks for it: its job is paused and saved first, and it takes no other;
 * once idle it is told to exit. A second time changes nothing. */
void mr_requests_drain_member(mr_decision *decision, mr_member *member);

#endif
