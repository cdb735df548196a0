/* SPDX-License-Identifier: Apache-2.0 */
/* notice.h: the node's ear: the socket that its stages notify (sd_notify's protocol, base/notify.h,
 * from the other side). The kernel says who sent each datagram, so that no other process can speak
 * for a stage. Its name is an abstract one that the kernel chooses: nothing is left on a disk.
 * Owner: node. Thread: LOOP. Limits: MR_NOTIFY_BYTES_MAX.
 * Not here: what follows from a notice (ward.h). */
#ifndef MR_NODE_NOTICE_H
#define MR_NODE_NOTICE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "daemon/base/notify.h"
#include "daemon/base/status.h"

enum { MR_NOTICE_ADDRESS_BYTES = 96, MR_NOTICE_NAME_BYTES = 128 };

/* What one datagram says; texts are "" where it says nothing of them. */
typedef struct mr_notice {
    bool ready;
    bool alive;
    bool stopping;
    int64_t extend_ms; /* 0: no such line */
    char status[MR_NOTIFY_STATUS_BYTES];
    char address[MR_NOTICE_ADDRESS_BYTES];        /* X_MILLRACE_ADDRESS */
    char status_address[MR_NOTICE_ADDRESS_BYTES]; /* X_MILLRACE_STATUS_ADDRESS */
} mr_notice;

/* Pure. Reads the lines that it knows; others, and values that are none, mean nothing. */
mr_notice mr_notice_parse(const char *text);
/* Opens a socket (the caller closes it) and gives its name as "NOTIFY_SOCKET=@..."; UNAVAILABLE:
 * the system's reason. */
MR_MUST_CHECK mr_status mr_notice_open(int *out_fd, char out_setting[MR_NOTICE_NAME_BYTES]);
/* The next datagram, without waiting; false: there is none. process: who sent it; 0: unknown, to be
 * ignored. */
bool mr_notice_read(int fd, mr_notice *out_notice, pid_t *out_process);

#endif
