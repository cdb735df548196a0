/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/node/child.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/base/alloc.h"

enum { EXIT_NO_PROGRAM = 78 };

mr_status mr_child_own_path(char out_path[MR_CHILD_PATH_BYTES]) {
    ssize_t length = readlink("/proc/self/exe", out_path, MR_CHILD_PATH_BYTES - 1);
    if (length <= 0 || length >= MR_CHILD_PATH_BYTES - 1)
        return MR_ERROR(UNAVAILABLE, "this program's own path is not to be found: %s",
                        strerror(errno));
    out_path[length] = '\0';
    return MR_OK;
}

/* Is the environment's entry replaced or removed by one of the settings? */
static bool environment_is_set(const char *entry, const char *const *settings) {
    for (; *settings != NULL; settings++) {
        size_t bytes = strcspn(*settings, "=");
        if (strncmp(entry, *settings, bytes) == 0 && entry[bytes] == '=')
            return true;
    }
    return false;
}

/* Borrows all texts; the list itself is the caller's. NULL: no memory. */
static const char **environment_make(const char *const *settings) {
    size_t count = 0;
    size_t used = 0;
    while (environ[count] != NULL)
        count++;
    for (size_t i = 0; settings[i] != NULL; i++)
        count++;
    const char **list = mr_alloc_array(count + 1, sizeof(*list));
    if (list == NULL)
        return NULL;
    for (char **entry = environ; *entry != NULL; entry++)
        if (!environment_is_set(*entry, settings))
            list[used++] = *entry;
    for (; *settings != NULL; settings++)
        if (strchr(*settings, '=') != NULL)
            list[used++] = *settings;
    return list;
}

/* Between fork and exec in a process with other threads: only what a signal handler may call. */
static _Noreturn void child_become(pid_t parent, const char *path, const char *const *arguments,
                                     const char **environment) {
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) /* it ended before the line above */
        _exit(EXIT_NO_PROGRAM);
    (void)execve(path, (char *const *)(uintptr_t)arguments,
                 (char *const *)(uintptr_t)environment);
    _exit(EXIT_NO_PROGRAM);
}

mr_status mr_child_start(const char *path, const char *const *arguments,
                         const char *const *settings, pid_t *out_process) {
    const char **environment = environment_make(settings);
    pid_t parent = getpid();
    if (environment == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for an environment");
    pid_t process = fork();
    if (process == 0)
        child_become(parent, path, arguments, environment);
    int error = errno;
    mr_free(environment);
    if (process < 0)
        return MR_ERROR(UNAVAILABLE, "no process could be made: %s", strerror(error));
    *out_process = process;
    return MR_OK;
}

bool mr_child_reap(pid_t process, mr_child_end *out_end) {
    int status = 0;
    pid_t ended = waitpid(process, &status, WNOHANG);
    if (ended != process)
        return false;
    *out_end = (mr_child_end){.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1,
                              .signal_number = WIFSIGNALED(status) ? WTERMSIG(status) : 0};
    return true;
}
