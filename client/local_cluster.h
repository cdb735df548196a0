/* SPDX-License-Identifier: Apache-2.0 */
/* local_cluster.h: a coordinator and stages on this machine, on free loopback ports, that live on
 * when the client ends. Their folder holds all there is of them:
 *
 *     cluster.json        who runs: process ids, addresses, logs; stands while they are up
 *     coordinator.log, stage-N.log, state/ (jobs, kept from one up to the next), lock
 *
 * One client at a time starts or ends them (lock). What was started is ended again where a start
 * does not succeed whole.
 * Owner: client. Thread: main. Limits: MR_LOCAL_*. */
#ifndef MR_CLIENT_LOCAL_CLUSTER_H
#define MR_CLIENT_LOCAL_CLUSTER_H

#include "client/process.h"
#include "daemon/base/limits.h"
#include "daemon/base/status.h"

#define MR_LOCAL_SCHEMA "millrace.local/v1"

enum {
    MR_LOCAL_STAGES_MAX = 64,
    MR_LOCAL_ADDRESS_BYTES = 128,
    MR_LOCAL_DEVICE_BYTES = 32,
    MR_LOCAL_START_MS = 60000, /* one daemon, from start to ready */
    MR_LOCAL_STOP_MS = 2 * MR_SHUTDOWN_TIMEOUT_MS,
};

typedef struct mr_local_daemon {
    mr_process process;
    char device[MR_LOCAL_DEVICE_BYTES]; /* of a stage */
    char address[MR_LOCAL_ADDRESS_BYTES];
    char status_address[MR_LOCAL_ADDRESS_BYTES];
    char log[MR_CHECKPOINT_PATH_BYTES];
} mr_local_daemon;

typedef struct mr_local_cluster {
    char folder[MR_CHECKPOINT_PATH_BYTES];
    char context[MR_NAME_BYTES];        /* that up made */
    char context_before[MR_NAME_BYTES]; /* that was in use; "": none */
    int lock_fd;                        /* -1: not held */
    size_t stage_count;
    mr_local_daemon coordinator;
    mr_local_daemon stages[MR_LOCAL_STAGES_MAX];
} mr_local_cluster;

typedef struct mr_local_options {
    const char *program; /* path of millraced */
    const char *device;  /* cpu, cuda (one each) or cuda:N */
    size_t stages;
    size_t threads; /* of each stage */
} mr_local_options;

/* Makes the folder and takes its lock. FAILED_PRECONDITION: another client holds it. */
MR_MUST_CHECK mr_status mr_local_open(const char *folder, bool make, mr_local_cluster *out_cluster);
/* Lets go of the lock; what runs goes on. */
void mr_local_close(mr_local_cluster *cluster);
/* Who runs, by cluster.json. NOT_FOUND: nothing was started here. DATA_LOSS: it cannot be read. */
MR_MUST_CHECK mr_status mr_local_read(mr_local_cluster *cluster);
/* Is any of its processes alive? */
bool mr_local_is_running(const mr_local_cluster *cluster);
/* Starts all and waits until every stage is attached; writes cluster.json. UNAVAILABLE,
 * DEADLINE_EXCEEDED, CANCELLED: the text names the daemon and its log; nothing runs then. */
MR_MUST_CHECK mr_status mr_local_start(mr_local_cluster *cluster, const mr_local_options *options);
/* Ends all and removes cluster.json. *out_killed: how many had to be killed. */
MR_MUST_CHECK mr_status mr_local_stop(mr_local_cluster *cluster, size_t *out_killed);
/* The cluster as JSON, as cluster.json has it. */
json_t *mr_local_json(const mr_local_cluster *cluster);

#endif
