/* SPDX-License-Identifier: Apache-2.0 */
/* process.h: daemons that outlive the client: started in a session of their own with their log in a
 * file, waited for by the lines of that log, known again later by process id and start time (an id
 * alone may belong to another process by then), and ended. Every wait is for an event of the
 * kernel's (inotify, pidfd) and bounded.
 * Owner: client. Thread: main. */
#ifndef MR_CLIENT_PROCESS_H
#define MR_CLIENT_PROCESS_H

#include <jansson.h>

#include "daemon/base/status.h"

typedef struct mr_process {
    int64_t id;            /* process id; 0: none */
    uint64_t start_ticks;  /* when it began, in the kernel's ticks since boot */
} mr_process;

/* Starts argv (NULL-terminated; argv[0] is a path) in a new session, stdin and stdout nowhere,
 * stderr appended to log_path. NOT_FOUND, PERMISSION_DENIED, UNKNOWN: it cannot be run. */
MR_MUST_CHECK mr_status mr_process_start(char *const *argv, const char *log_path,
                                         mr_process *out_process);
/* Waits until a JSON line with "message":message stands in the log; *out_line is that object, owned
 * by the caller. UNAVAILABLE: the process ended before, with its last line. DEADLINE_EXCEEDED.
 * CANCELLED: interrupted (interrupt.h). */
MR_MUST_CHECK mr_status mr_process_wait_message(const mr_process *process, const char *log_path,
                                                const char *message, int64_t timeout_ms,
                                                json_t **out_line);
/* Is it still that process, and running? */
bool mr_process_is_running(const mr_process *process);
/* Asks it to end (SIGTERM), waits, and kills it past the bound. *out_killed (may be NULL): it had
 * to be. OK where it is gone already. */
MR_MUST_CHECK mr_status mr_process_stop(const mr_process *process, int64_t timeout_ms,
                                        bool *out_killed);

#endif
