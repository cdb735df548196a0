/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/base/notify.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/base/clock.h"
#include "daemon/base/limits.h"

enum { NOTIFY_STATUS_PERIOD_MS = 1000, NOTIFY_BEATS = 4 };

/* The manager's socket: a path, or @NAME of an abstract one. 0: there is none that fits. */
static socklen_t notify_address(struct sockaddr_un *out_address) {
    const char *name = getenv("NOTIFY_SOCKET");
    size_t bytes = name == NULL ? 0 : strlen(name);
    if (bytes < 2 || bytes >= sizeof(out_address->sun_path) || (name[0] != '/' && name[0] != '@'))
        return 0;
    *out_address = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(out_address->sun_path, name, bytes);
    if (name[0] == '@')
        out_address->sun_path[0] = 0;
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + bytes);
}

static void notify_datagram(const char *text) {
    struct sockaddr_un address;
    socklen_t bytes = notify_address(&address);
    if (bytes == 0)
        return;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    const struct timeval patience = {.tv_sec = MR_NOTIFY_SEND_TIMEOUT_MS / 1000,
                                     .tv_usec = MR_NOTIFY_SEND_TIMEOUT_MS % 1000 * 1000};
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    ssize_t sent = sendto(fd, text, strlen(text), MSG_NOSIGNAL,
                          (const struct sockaddr *)&address, bytes);
    (void)sent; /* a manager that does not take it misses it, and acts by its own bounds */
    (void)close(fd);
}

void mr_notify_send(const char *format, ...) {
    char text[MR_NOTIFY_BYTES_MAX];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments); /* cut is intended */
    va_end(arguments);
    notify_datagram(text);
}

void mr_notify_extend(int64_t timeout_ms) {
    mr_notify_send("EXTEND_TIMEOUT_USEC=%" PRId64, timeout_ms * 1000);
}

void mr_notify_reloading(void) {
    mr_notify_send("RELOADING=1\nMONOTONIC_USEC=%" PRId64, mr_clock_now_ns() / 1000);
}

void mr_notify_stopping(int64_t timeout_ms) {
    mr_notify_send("STOPPING=1\nEXTEND_TIMEOUT_USEC=%" PRId64, timeout_ms * 1000);
}

/* WATCHDOG_PID is set where the period is meant for one process, who must not be another. */
static int64_t notify_beat_ms(void) {
    const char *period = getenv("WATCHDOG_USEC");
    const char *process = getenv("WATCHDOG_PID");
    if (period == NULL || (process != NULL && strtoll(process, NULL, 10) != (long long)getpid()))
        return 0;
    int64_t beat_ms = strtoll(period, NULL, 10) / 1000 / NOTIFY_BEATS;
    return beat_ms > 0 ? beat_ms : 0;
}

static void notify_ask(mr_notify *notify) {
    struct sockaddr_un address;
    if (notify->asked)
        return;
    notify->asked = true;
    notify->listens = notify_address(&address) != 0;
    notify->beat_ms = notify_beat_ms();
}

void mr_notify_ready(mr_notify *notify, const char *text) {
    notify_ask(notify);
    (void)snprintf(notify->status, sizeof(notify->status), "%s", text);
    mr_notify_send("READY=1\nSTATUS=%s", notify->status);
}

void mr_notify_tick(mr_notify *notify, int64_t now_ms, bool alive, const char *text) {
    notify_ask(notify);
    if (!notify->listens)
        return;
    if (alive && notify->beat_ms > 0 && now_ms >= notify->beat_due_ms) {
        notify->beat_due_ms = now_ms + notify->beat_ms;
        mr_notify_send("WATCHDOG=1");
    }
    if (now_ms < notify->status_due_ms ||
        strncmp(text, notify->status, sizeof(notify->status) - 1) == 0)
        return;
    notify->status_due_ms = now_ms + NOTIFY_STATUS_PERIOD_MS;
    (void)snprintf(notify->status, sizeof(notify->status), "%s", text);
    mr_notify_send("STATUS=%s", notify->status);
}
