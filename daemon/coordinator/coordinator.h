/* SPDX-License-Identifier: Apache-2.0 */
/* coordinator.h: the coordinator's root object: it builds the loop, the store, the gRPC server and
 * the status server, feeds events to decide.h and carries out the actions that come back.
 *
 *   RPC threads -> event -> LOOP: mr_decide -> actions -> store (DISK) -> orders, answers, watchers
 *
 * It decides which members do which job; it never touches a tensor and no step waits for it. When
 * it goes, the stages of running jobs drop them after MR_HEARTBEAT_TIMEOUT_MS and attach again
 * later; a restarted coordinator knows every job and its history, calls those that were active
 * FAILED, and keeps those that were QUEUED.
 * Owner: coordinator. Thread: main for run, create and destroy; stop from any.
 * Not here: what to do (decide.h), what is remembered (store.h). */
#ifndef MR_COORDINATOR_COORDINATOR_H
#define MR_COORDINATOR_COORDINATOR_H

#include "daemon/base/log.h"
#include "daemon/base/status.h"
#include "daemon/rpc/credentials.h"

typedef struct mr_coordinator_options {
    const char *listen;        /* HOST:PORT or unix:PATH; port 0 takes a free one */
    const char *status_listen; /* HOST:PORT of the status server; NULL or "": none */
    const char *state_dir;     /* created 0700 where it does not stand; one coordinator at a time */
    const struct mr_status_setting *settings; /* what /config shows */
    size_t setting_count;
    mr_rpc_credentials credentials;
    mr_log_level log_level;
} mr_coordinator_options;

/* Serves until SIGTERM or SIGINT, then ends in good order within MR_SHUTDOWN_TIMEOUT_MS. Starts and
 * stops rpc's runtime. Logs "coordinator ready" with both addresses in use.
 * UNAVAILABLE: a port in use; FAILED_PRECONDITION: state_dir is in use by another coordinator;
 * DATA_LOSS: the state is damaged; PERMISSION_DENIED, RESOURCE_EXHAUSTED: as the text says. */
MR_MUST_CHECK mr_status mr_coordinator_run(const mr_coordinator_options *options);

/* The same in pieces, for a process that already runs rpc's runtime (tests). */
typedef struct mr_coordinator mr_coordinator;

/* Opens the store and binds both ports; nothing is decided before serve. */
MR_MUST_CHECK mr_status mr_coordinator_create(const mr_coordinator_options *options,
                                              mr_coordinator **out_coordinator);
/* The addresses in use; status_address is "" where there is none. */
const char *mr_coordinator_address(const mr_coordinator *coordinator);
const char *mr_coordinator_status_address(const mr_coordinator *coordinator);
/* Makes the calling thread LOOP until stop. */
void mr_coordinator_serve(mr_coordinator *coordinator);
/* Any thread, any time: serve returns soon. */
void mr_coordinator_stop(mr_coordinator *coordinator);
/* After serve returned, or instead of it. Ends every stream with UNAVAILABLE. NULL is fine. */
void mr_coordinator_destroy(mr_coordinator *coordinator);

#endif
