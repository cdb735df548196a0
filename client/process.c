/* SPDX-License-Identifier: Apache-2.0 */
#include "client/process.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/interrupt.h"
#include "client/path_text.h"
#include "daemon/base/clock.h"

enum {
    PROCESS_LINE_BYTES = 16384,
    PROCESS_TICK_MS = 500, /* an interrupt is seen after at most this */
    PROCESS_KILL_MS = 5000,
    PROCESS_LOG_MODE = 0600,
    PROCESS_STAT_BYTES = 1024,
    PROCESS_STAT_START = 20, /* fields from the state (1) to the start time */
};

/* ---- identity -------------------------------------------------------------------------------- */

/* State letter and start time of a process id; false: there is none. */
static bool process_stat(int64_t id, char *out_state, uint64_t *out_start) {
    char path[64];
    char text[PROCESS_STAT_BYTES];
    snprintf(path, sizeof(path), "/proc/%" PRId64 "/stat", id);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    size_t bytes = fread(text, 1, sizeof(text) - 1, file);
    (void)fclose(file); /* read-only */
    text[bytes] = '\0';
    char *field = strrchr(text, ')'); /* the name before it may have blanks */
    for (int i = 0; field != NULL && i < PROCESS_STAT_START; i++) {
        field = strchr(field + 1, ' ');
        if (field != NULL && i == 0)
            *out_state = field[1];
    }
    return field != NULL && sscanf(field, "%" SCNu64, out_start) == 1;
}

bool mr_process_is_running(const mr_process *process) {
    char state = '\0';
    uint64_t start = 0;
    return process->id > 0 && process_stat(process->id, &state, &start) &&
           start == process->start_ticks && state != 'Z' && state != 'X';
}

/* A descriptor of the process that becomes readable when it ends; -1: it has ended. */
static int process_open(const mr_process *process) {
    int fd = (int)syscall(SYS_pidfd_open, (pid_t)process->id, 0);
    if (fd >= 0 && !mr_process_is_running(process)) {
        (void)close(fd); /* it is another process by now, or a dead one */
        fd = -1;
    }
    return fd;
}

/* ---- start ----------------------------------------------------------------------------------- */

static mr_status process_spawn(char *const *argv, const char *log_path, pid_t *out_id) {
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none;
    int error = posix_spawn_file_actions_init(&files);
    if (error != 0)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to start %s", argv[0]);
    error = posix_spawnattr_init(&attributes);
    if (error == 0) {
        sigemptyset(&none);
        error = posix_spawnattr_setflags(&attributes,
                                         POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);
        error = error ? error : posix_spawnattr_setsigmask(&attributes, &none);
        error = error ? error
                      : posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null",
                                                         O_RDONLY, 0);
        error = error ? error
                      : posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, "/dev/null",
                                                         O_WRONLY, 0);
        error = error ? error
                      : posix_spawn_file_actions_addopen(&files, STDERR_FILENO, log_path,
                                                         O_WRONLY | O_CREAT | O_TRUNC | O_APPEND,
                                                         PROCESS_LOG_MODE);
        error = error ? error : posix_spawn(out_id, argv[0], &files, &attributes, argv, environ);
        (void)posix_spawnattr_destroy(&attributes); /* cannot fail on Linux */
    }
    (void)posix_spawn_file_actions_destroy(&files); /* cannot fail on Linux */
    if (error == ENOENT)
        return MR_ERROR(NOT_FOUND, "%s: no such program", mr_path_shorten(argv[0]).text);
    if (error == EACCES)
        return MR_ERROR(PERMISSION_DENIED, "%s cannot be run", mr_path_shorten(argv[0]).text);
    if (error != 0)
        return MR_ERROR(UNKNOWN, "%s cannot be started: %s", mr_path_shorten(argv[0]).text,
                        strerror(error));
    return MR_OK;
}

mr_status mr_process_start(char *const *argv, const char *log_path, mr_process *out_process) {
    pid_t id = 0;
    char state = '\0';
    mr_process process = {0};
    MR_TRY(process_spawn(argv, log_path, &id));
    process.id = id;
    /* our child: until it is waited for, its entry stays */
    if (!process_stat(id, &state, &process.start_ticks))
        return MR_ERROR(INTERNAL, "process %d has no entry in /proc", (int)id);
    *out_process = process;
    return MR_OK;
}

/* ---- its log --------------------------------------------------------------------------------- */

/* A log as it grows. */
typedef struct process_log {
    int fd;
    size_t used;
    char text[PROCESS_LINE_BYTES]; /* what has been read and is no whole line yet */
    char last[PROCESS_LINE_BYTES]; /* the last whole line */
} process_log;

/* The line as an object, where it is one with that message. */
static json_t *process_line_match(const char *line, const char *message) {
    json_t *object = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
    const char *text = json_string_value(json_object_get(object, "message"));
    if (text != NULL && strcmp(text, message) == 0)
        return object;
    json_decref(object);
    return NULL;
}

/* Reads what is new; the first line that matches, or NULL. */
static json_t *process_log_read(process_log *log, const char *message) {
    for (;;) {
        char *end = memchr(log->text, '\n', log->used);
        if (end != NULL) {
            size_t length = (size_t)(end - log->text);
            memcpy(log->last, log->text, length);
            log->last[length] = '\0';
            log->used -= length + 1;
            memmove(log->text, end + 1, log->used);
            json_t *found = process_line_match(log->last, message);
            if (found != NULL)
                return found;
            continue;
        }
        if (log->used == sizeof(log->text) - 1)
            log->used = 0; /* no daemon writes such a line */
        ssize_t got = read(log->fd, log->text + log->used, sizeof(log->text) - 1 - log->used);
        if (got <= 0)
            return NULL;
        log->used += (size_t)got;
    }
}

/* What the log's last line says, for an error. */
static void process_log_last(const process_log *log, char *out, size_t bytes) {
    json_t *object = json_loads(log->last, 0, NULL);
    const char *message = json_string_value(json_object_get(object, "message"));
    const char *error = json_string_value(json_object_get(object, "error"));
    if (message != NULL)
        snprintf(out, bytes, "%s%s%s", message, error ? ": " : "", error ? error : "");
    else
        snprintf(out, bytes, "%.120s", log->last);
    json_decref(object);
}

static mr_status process_wait_events(int watch_fd, int process_fd, int64_t left_ms) {
    struct pollfd fds[2] = {
        {.fd = watch_fd, .events = POLLIN},
        {.fd = process_fd, .events = POLLIN},
    };
    char events[4096];
    int64_t wait_ms = left_ms < PROCESS_TICK_MS ? left_ms : PROCESS_TICK_MS;
    (void)poll(fds, 2, (int)wait_ms); /* whatever it says, the log is read */
    if ((fds[0].revents & POLLIN) != 0 && read(watch_fd, events, sizeof(events)) < 0 &&
        errno != EAGAIN)
        return MR_ERROR(UNKNOWN, "the log cannot be watched: %s", strerror(errno));
    return mr_interrupt_came() ? MR_ERROR(CANCELLED, "interrupted") : MR_OK;
}

static mr_status process_wait(const mr_process *process, process_log *log, int watch_fd,
                              int process_fd, const char *message, int64_t end_ms,
                              json_t **out_line) {
    char last[160];
    for (;;) {
        bool running = mr_process_is_running(process); /* before the read: nothing is missed */
        *out_line = process_log_read(log, message);
        if (*out_line != NULL)
            return MR_OK;
        process_log_last(log, last, sizeof(last));
        if (!running)
            return MR_ERROR(UNAVAILABLE, "it ended: %s", last);
        int64_t left_ms = end_ms - mr_clock_now_ms();
        if (left_ms <= 0)
            return MR_ERROR(DEADLINE_EXCEEDED, "no line \"%s\" in its log; the last is: %s",
                            message, last);
        MR_TRY(process_wait_events(watch_fd, process_fd, left_ms));
    }
}

mr_status mr_process_wait_message(const mr_process *process, const char *log_path,
                                  const char *message, int64_t timeout_ms, json_t **out_line) {
    static process_log log; /* large; one process waits for one log at a time */
    int watch_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    int process_fd = process_open(process);
    mr_status status = MR_OK;
    log = (process_log){.fd = open(log_path, O_RDONLY | O_CLOEXEC)};
    if (log.fd < 0 || watch_fd < 0 || inotify_add_watch(watch_fd, log_path, IN_MODIFY) < 0)
        status = MR_ERROR(UNKNOWN, "%s cannot be followed: %s", mr_path_shorten(log_path).text,
                          strerror(errno));
    else
        status = process_wait(process, &log, watch_fd, process_fd, message,
                              mr_clock_now_ms() + timeout_ms, out_line);
    const int fds[] = {log.fd, watch_fd, process_fd};
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
        if (fds[i] >= 0)
            (void)close(fds[i]); /* nothing is written through them */
    }
    return status;
}

/* ---- stop ------------------------------------------------------------------------------------ */

/* True: it has ended. */
static bool process_wait_end(int process_fd, int64_t timeout_ms) {
    const int64_t end_ms = mr_clock_now_ms() + timeout_ms;
    for (;;) {
        struct pollfd fd = {.fd = process_fd, .events = POLLIN};
        int64_t left_ms = end_ms - mr_clock_now_ms();
        int ready = poll(&fd, 1, left_ms > 0 ? (int)left_ms : 0);
        if (ready > 0)
            return true;
        if (ready == 0 || errno != EINTR)
            return false;
    }
}

mr_status mr_process_stop(const mr_process *process, int64_t timeout_ms, bool *out_killed) {
    int fd = process_open(process);
    bool killed = false;
    mr_status status = MR_OK;
    if (out_killed != NULL)
        *out_killed = false;
    if (fd < 0)
        return MR_OK;
    if (syscall(SYS_pidfd_send_signal, fd, SIGTERM, NULL, 0) != 0 && errno != ESRCH)
        status = MR_ERROR(PERMISSION_DENIED, "process %" PRId64 " cannot be ended: %s",
                          process->id, strerror(errno));
    if (mr_status_is_ok(status) && !process_wait_end(fd, timeout_ms)) {
        killed = true;
        (void)syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0); /* the wait tells */
        if (!process_wait_end(fd, PROCESS_KILL_MS))
            status = MR_ERROR(DEADLINE_EXCEEDED, "process %" PRId64 " does not end", process->id);
    }
    (void)close(fd);                                   /* only waited on */
    (void)waitpid((pid_t)process->id, NULL, WNOHANG); /* where it is our child */
    if (out_killed != NULL)
        *out_killed = killed;
    return status;
}
