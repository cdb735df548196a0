/* SPDX-License-Identifier: Apache-2.0 */
/* status_connections.h: the open connections of the status port and until when each must have sent
 * the headers it owes, because the library only knows for how long a connection is silent: a client
 * that sends a byte now and then would hold its place for ever.
 * Owner: observe; private to this folder. Thread: any. Limits: MR_STATUS_CONNECTIONS_MAX. */
#ifndef MR_OBSERVE_STATUS_CONNECTIONS_H
#define MR_OBSERVE_STATUS_CONNECTIONS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/base/limits.h"
#include "daemon/base/status.h"

typedef struct mr_status_connection {
    bool used;
    int fd;
    int64_t deadline_ms; /* for its headers; 0: they have come */
} mr_status_connection;

typedef struct mr_status_connections {
    pthread_mutex_t lock; /* items */
    mr_status_connection items[MR_STATUS_CONNECTIONS_MAX];
} mr_status_connections;

/* RESOURCE_EXHAUSTED: no lock. */
MR_MUST_CHECK mr_status mr_status_connections_init(mr_status_connections *connections);
void mr_status_connections_deinit(mr_status_connections *connections);
/* NULL: there are too many. */
mr_status_connection *mr_status_connections_open(mr_status_connections *connections, int fd,
                                                 int64_t deadline_ms);
/* Its headers have come (0), or the next ones are waited for. NULL is fine. */
void mr_status_connections_expect(mr_status_connections *connections,
                                  mr_status_connection *connection, int64_t deadline_ms);
/* Before its socket is closed. NULL is fine. */
void mr_status_connections_close(mr_status_connections *connections,
                                 mr_status_connection *connection);
/* Ends the overdue ones; the library then finds them closed. */
void mr_status_connections_sweep(mr_status_connections *connections, int64_t now_ms);

#endif
