/* SPDX-License-Identifier: Apache-2.0 */
/* child.h: one child process: this program again, with other arguments. It dies with its parent
 * (PR_SET_PDEATHSIG: a stage without its node would hold the device against the next node), takes
 * the parent's standard streams, and finds its manager in the environment.
 * Owner: node. Thread: main, always the same: the kernel ties a child's life to the thread.
 * Not here: when to start and when to kill (ward.h). */
#ifndef MR_NODE_CHILD_H
#define MR_NODE_CHILD_H

#include <stdbool.h>
#include <sys/types.h>

#include "daemon/base/status.h"

enum { MR_CHILD_ARGUMENTS_MAX = 40, MR_CHILD_PATH_BYTES = 4096 };

/* How a process ended. */
typedef struct mr_child_end {
    int exit_code;     /* -1: by a signal */
    int signal_number; /* or 0 */
} mr_child_end;

/* The path of this program, as it is now. */
MR_MUST_CHECK mr_status mr_child_own_path(char out_path[MR_CHILD_PATH_BYTES]);
/* Starts path with arguments (NULL at the end; the first is its name) and this process's
 * environment, in which settings ("NAME=VALUE", NULL at the end) replace what has the same name,
 * or remove it ("NAME"). UNAVAILABLE: no process, with the system's reason. An exec that fails is
 * seen as exit code 78. */
MR_MUST_CHECK mr_status mr_child_start(const char *path, const char *const *arguments,
                                       const char *const *settings, pid_t *out_process);
/* Has it ended? Never waits; gives each end once. */
bool mr_child_reap(pid_t process, mr_child_end *out_end);

#endif
