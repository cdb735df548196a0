/* SPDX-License-Identifier: Apache-2.0 */
/* watchers.h: the open Watch streams. A watcher that reads slowly misses finished steps, never a
 * change of state; one that does not read at all is sent away when MR_WATCHER_WAITING_MAX changes
 * wait. A quiet watcher gets the job's present state again each MR_WATCHER_REPEAT_MS: so it knows
 * that the coordinator lives, and the coordinator learns who is gone.
 * Owner: coordinator. Thread: LOOP. Limits: MR_WATCHERS_MAX. */
#ifndef MR_COORDINATOR_WATCHERS_H
#define MR_COORDINATOR_WATCHERS_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/base/limits.h"
#include "daemon/base/status.h"
#include "daemon/rpc/stream.h"

enum { MR_WATCHER_REPEAT_MS = 15000 };

typedef struct mr_watchers mr_watchers;

/* Nobody watches yet. RESOURCE_EXHAUSTED: no memory. Owner destroys it. */
MR_MUST_CHECK mr_status mr_watchers_create(mr_watchers **out_watchers);
/* Every stream must have been ended. NULL is fine. */
void mr_watchers_destroy(mr_watchers *watchers);
/* Takes a reference of stream. RESOURCE_EXHAUSTED: MR_WATCHERS_MAX. */
MR_MUST_CHECK mr_status mr_watchers_add(mr_watchers *watchers, mr_rpc_stream *stream,
                                        uint64_t job_number, int64_t now_ms);
/* Does anybody watch this job? */
bool mr_watchers_any(const mr_watchers *watchers, uint64_t job_number);
/* Sends a JobEvent to all who watch the job. step: it may be missed. final: the stream ends with
 * it. */
void mr_watchers_send(mr_watchers *watchers, uint64_t job_number, const ProtobufCMessage *event,
                      bool step, bool final, int64_t now_ms);
/* Sends what waits. For each watcher that has heard nothing for long, repeat is called. */
void mr_watchers_tick(mr_watchers *watchers, int64_t now_ms,
                      void (*repeat)(void *context, uint64_t job_number), void *context);
/* Ends every stream. */
void mr_watchers_end(mr_watchers *watchers, mr_status status);

#endif
