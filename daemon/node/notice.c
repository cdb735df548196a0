/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/node/notice.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* The longest time that a stage may ask for in one datagram. */
enum { NOTICE_EXTEND_MS_MAX = 3600 * 1000 };

/* The value of "NAME=" at the line, or NULL. */
static const char *notice_value(const char *line, const char *name) {
    size_t bytes = strlen(name);
    return strncmp(line, name, bytes) == 0 ? line + bytes : NULL;
}

static int64_t notice_extend_ms(const char *value) {
    int64_t extend_ms = strtoll(value, NULL, 10) / 1000;
    if (extend_ms < 0)
        return 0;
    return extend_ms < NOTICE_EXTEND_MS_MAX ? extend_ms : NOTICE_EXTEND_MS_MAX;
}

static void notice_take(mr_notice *notice, const char *line) {
    const char *value = NULL;
    if (strcmp(line, "READY=1") == 0)
        notice->ready = true;
    else if (strcmp(line, "WATCHDOG=1") == 0)
        notice->alive = true;
    else if (strcmp(line, "STOPPING=1") == 0)
        notice->stopping = true;
    else if ((value = notice_value(line, "EXTEND_TIMEOUT_USEC=")) != NULL)
        notice->extend_ms = notice_extend_ms(value);
    else if ((value = notice_value(line, "STATUS=")) != NULL)
        (void)snprintf(notice->status, sizeof(notice->status), "%s", value);
    else if ((value = notice_value(line, "X_MILLRACE_ADDRESS=")) != NULL)
        (void)snprintf(notice->address, sizeof(notice->address), "%s", value);
    else if ((value = notice_value(line, "X_MILLRACE_STATUS_ADDRESS=")) != NULL)
        (void)snprintf(notice->status_address, sizeof(notice->status_address), "%s", value);
}

mr_notice mr_notice_parse(const char *text) {
    mr_notice notice = {0};
    char line[MR_NOTIFY_BYTES_MAX];
    for (const char *at = text; *at != '\0';) {
        size_t bytes = strcspn(at, "\n");
        if (bytes < sizeof(line)) {
            memcpy(line, at, bytes);
            line[bytes] = '\0';
            notice_take(&notice, line);
        }
        at += bytes;
        if (*at == '\n')
            at++;
    }
    return notice;
}

static mr_status notice_bind(int fd, char out_setting[MR_NOTICE_NAME_BYTES]) {
    const int yes = 1;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    socklen_t bytes = sizeof(address.sun_family); /* no name: the kernel chooses one */
    if (setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &yes, sizeof(yes)) != 0 ||
        bind(fd, (const struct sockaddr *)&address, bytes) != 0)
        return MR_ERROR(UNAVAILABLE, "no socket for the stages' notices: %s", strerror(errno));
    bytes = sizeof(address);
    if (getsockname(fd, (struct sockaddr *)&address, &bytes) != 0 ||
        bytes <= offsetof(struct sockaddr_un, sun_path) + 1)
        return MR_ERROR(UNAVAILABLE, "the socket for the stages' notices has no name");
    size_t name_bytes = bytes - offsetof(struct sockaddr_un, sun_path) - 1;
    (void)snprintf(out_setting, MR_NOTICE_NAME_BYTES, "NOTIFY_SOCKET=@%.*s", (int)name_bytes,
                   address.sun_path + 1);
    return MR_OK;
}

mr_status mr_notice_open(int *out_fd, char out_setting[MR_NOTICE_NAME_BYTES]) {
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return MR_ERROR(UNAVAILABLE, "no socket for the stages' notices: %s", strerror(errno));
    mr_status status = notice_bind(fd, out_setting);
    if (!mr_status_is_ok(status)) {
        (void)close(fd); /* nothing was sent to it */
        return status;
    }
    *out_fd = fd;
    return MR_OK;
}

bool mr_notice_read(int fd, mr_notice *out_notice, pid_t *out_process) {
    char text[MR_NOTIFY_BYTES_MAX + 1];
    union {
        struct cmsghdr header; /* for its alignment */
        char bytes[CMSG_SPACE(sizeof(struct ucred))];
    } control;
    struct iovec part = {.iov_base = text, .iov_len = sizeof(text) - 1};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    ssize_t bytes = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (bytes < 0)
        return false;
    text[bytes] = '\0';
    *out_process = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c != NULL; c = CMSG_NXTHDR(&message, c)) {
        struct ucred sender;
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_CREDENTIALS)
            continue;
        memcpy(&sender, CMSG_DATA(c), sizeof(sender));
        *out_process = sender.pid;
    }
    *out_notice = mr_notice_parse(text);
    return true;
}
