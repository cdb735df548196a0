/* SPDX-License-Identifier: Apache-2.0 */
/* notify.h: what a daemon tells the service manager that started it, by sd_notify(3)'s protocol:
 * datagrams of NAME=VALUE lines to the socket that $NOTIFY_SOCKET names. systemd is such a manager,
 * and `millraced node` is one for its stages. Without a manager every call does nothing.
 * The protocol is stable, documented, and smaller than a dependence on libsystemd would be.
 *
 * Signs of life are not a timer's: the role says in each tick whether it makes progress, and only
 * then a WATCHDOG line goes out, four times in the period that the manager asks for.
 * Owner: base. Thread: LOOP, or the one that builds the role. Sends are rare and wait at most
 * MR_NOTIFY_SEND_TIMEOUT_MS for a manager that is slow; what it does not take is dropped.
 * Not here: being a manager (node/notice.h). */
#ifndef MR_BASE_NOTIFY_H
#define MR_BASE_NOTIFY_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/base/status.h"

enum { MR_NOTIFY_BYTES_MAX = 1024, MR_NOTIFY_STATUS_BYTES = 160 };

/* What was said last. Zeroed is right at the start. */
typedef struct mr_notify {
    bool asked;         /* the environment was read */
    bool listens;       /* there is a manager */
    int64_t beat_ms;    /* period of signs of life; 0: none is asked for */
    int64_t beat_due_ms;
    int64_t status_due_ms;
    char status[MR_NOTIFY_STATUS_BYTES];
} mr_notify;

/* One datagram; format gives its lines, parted by \n. Cut at MR_NOTIFY_BYTES_MAX. */
void mr_notify_send(const char *format, ...) MR_PRINTF(1, 2);
/* The start, or the end, may take so long from now: EXTEND_TIMEOUT_USEC. */
void mr_notify_extend(int64_t timeout_ms);
/* A reload begins; it ends with mr_notify_ready. */
void mr_notify_reloading(void);
/* The role serves. text: one line for people. */
void mr_notify_ready(mr_notify *notify, const char *text);
/* The end begins and takes at most timeout_ms. */
void mr_notify_stopping(int64_t timeout_ms);
/* Once a second or more often: a changed text goes out at most once a second, a sign of life where
 * the role is alive and one is due. */
void mr_notify_tick(mr_notify *notify, int64_t now_ms, bool alive, const char *text);

#endif
