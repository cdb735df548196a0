/* SPDX-License-Identifier: Apache-2.0 */
/* stage.h: the stage role: one device, one place in a job's pipeline at a time. The root object: it
 * builds the loop, the services, the executor and the status port, keeps the state of its
 * membership, and ends everything in order.
 *
 *   DETACHED -> IDLE -> PREPARING -> READY -> RUNNING -> DROPPING -> IDLE
 *   IDLE -> PROFILING -> IDLE
 *      any state: the coordinator is lost -> DROPPING -> DETACHED; SIGTERM -> exit
 *
 * Owner: main. Thread: main, which becomes LOOP. Limits: MR_SHUTDOWN_TIMEOUT_MS.
 * Not here: computing (executor.h), deciding (coordinator). */
#ifndef MR_STAGE_STAGE_H
#define MR_STAGE_STAGE_H

#include "daemon/base/status.h"
#include "daemon/device/device.h"
#include "daemon/rpc/credentials.h"
#include "daemon/stage/fabric.h"

typedef struct mr_stage_options {
    const char *coordinator;   /* HOST:PORT or unix:PATH */
    const char *listen;        /* links, groups, feeds; port 0: a free one */
    const char *advertise;     /* what peers and clients connect to; NULL: the address in use */
    const char *status_listen; /* NULL: no status port */
    mr_device_options device;
    mr_fabric_opener fabric_open; /* of a device whose tensors are not in host memory; or NULL */
    const struct mr_status_setting *settings; /* what /config shows */
    size_t setting_count;
    unsigned drain_seconds; /* from SIGTERM on so long for the job to be saved; 0: stop at once */
    mr_rpc_credentials credentials;
} mr_stage_options;

/* Runs until SIGTERM (with drain_seconds: until its job is saved and let go of, or they are over;
 * a second signal stops at once), SIGINT or the coordinator's Shutdown. Starts and stops rpc's
 * runtime. UNAVAILABLE: a port in use or no such device; INVALID_ARGUMENT: an address. */
MR_MUST_CHECK mr_status mr_stage_run(const mr_stage_options *options);

#endif
