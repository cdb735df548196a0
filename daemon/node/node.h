/* SPDX-License-Identifier: Apache-2.0 */
/* node.h: the node role: one for each machine. It finds the machine's devices, keeps one `millraced
 * stage` process for each alive (ward.h), ends them in order, and answers for all of them on one
 * status port: ready means that every stage is.
 *
 *   SIGTERM, SIGINT   drain: TERM to the stages, KILL past the bound; the second one kills at once
 *   SIGHUP            reload: what waits, was refused or has ended is started again now
 *
 * Stages report to the node as to a service manager (notice.h), and the node to its own (notify.h).
 * It speaks no gRPC and holds no device: it can only fail by itself, and its stages end with it.
 * Owner: main. Thread: main, which becomes LOOP. Limits: MR_NODE_*.
 * Not here: what a stage does (stage/). */
#ifndef MR_NODE_NODE_H
#define MR_NODE_NODE_H

#include <stdbool.h>
#include <stddef.h>

#include "daemon/base/status.h"
#include "daemon/rpc/credentials.h"

typedef struct mr_node_options {
    const char *devices;       /* auto, cpu:N, or a list (devices.h) */
    unsigned threads;          /* of each CPU device; 0: its share of the processors */
    bool pin;                  /* bind them */
    const char *coordinator;   /* and what follows: as a stage's; the first stage listens, ... */
    const char *listen;        /* ... the others at the next ports; port 0: free ones */
    const char *advertise;     /* likewise; NULL: the addresses in use */
    const char *status_listen; /* the node's own; its stages' are the next ports */
    unsigned drain_seconds;    /* from TERM to KILL */
    const char *log_level;
    const struct mr_status_setting *settings; /* what /config shows */
    size_t setting_count;
    mr_rpc_credentials credentials;
} mr_node_options;

/* Runs until it is drained. INVALID_ARGUMENT: an option; UNAVAILABLE: a port in use. When not one
 * stage can be started and every one forbids another try, the error stands for their exit codes. */
MR_MUST_CHECK mr_status mr_node_run(const mr_node_options *options);

#endif
