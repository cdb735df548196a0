/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/observe/status_connections.h"

#include <sys/socket.h>

static void connections_lock(mr_status_connections *connections) {
    MR_ASSERT(pthread_mutex_lock(&connections->lock) == 0);
}

static void connections_unlock(mr_status_connections *connections) {
    MR_ASSERT(pthread_mutex_unlock(&connections->lock) == 0);
}

mr_status mr_status_connections_init(mr_status_connections *connections) {
    if (pthread_mutex_init(&connections->lock, NULL) != 0)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no lock for the status port");
    return MR_OK;
}

void mr_status_connections_deinit(mr_status_connections *connections) {
    (void)pthread_mutex_destroy(&connections->lock); /* nobody holds it any more */
}

mr_status_connection *mr_status_connections_open(mr_status_connections *connections, int fd,
                                                 int64_t deadline_ms) {
    mr_status_connection *found = NULL;
    connections_lock(connections);
    for (size_t i = 0; i < MR_STATUS_CONNECTIONS_MAX && found == NULL; i++)
        if (!connections->items[i].used)
            found = &connections->items[i];
    if (found != NULL)
        *found = (mr_status_connection){.used = true, .fd = fd, .deadline_ms = deadline_ms};
    connections_unlock(connections);
    return found;
}

void mr_status_connections_expect(mr_status_connections *connections,
                                  mr_status_connection *connection, int64_t deadline_ms) {
    if (connection == NULL)
        return;
    connections_lock(connections);
    connection->deadline_ms = deadline_ms;
    connections_unlock(connections);
}

void mr_status_connections_close(mr_status_connections *connections,
                                 mr_status_connection *connection) {
    if (connection == NULL)
        return;
    connections_lock(connections);
    connection->used = false;
    connections_unlock(connections);
}

void mr_status_connections_sweep(mr_status_connections *connections, int64_t now_ms) {
    connections_lock(connections);
    for (size_t i = 0; i < MR_STATUS_CONNECTIONS_MAX; i++) {
        mr_status_connection *item = &connections->items[i];
        if (!item->used || item->deadline_ms == 0 || now_ms < item->deadline_ms)
            continue;
        item->deadline_ms = 0;
        (void)shutdown(item->fd, SHUT_RDWR); /* it may be gone already */
    }
    connections_unlock(connections);
}
