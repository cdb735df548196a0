/* SPDX-License-Identifier: Apache-2.0 */
#include "client/interrupt.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static volatile sig_atomic_t interrupt_noted;

static int interrupt_fd = -1; /* becomes readable with the signal; -1: the system has none left */

static void interrupt_note(int signal_number) {
    const uint64_t one = 1;
    int error = errno;
    (void)signal_number;
    interrupt_noted = 1;
    if (interrupt_fd >= 0 && write(interrupt_fd, &one, sizeof(one)) < 0)
        interrupt_noted = 1; /* the flag alone has to do */
    errno = error;
}

void mr_interrupt_catch(void) {
    struct sigaction action;
    if (interrupt_fd < 0)
        interrupt_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    memset(&action, 0, sizeof(action));
    action.sa_handler = interrupt_note;
    action.sa_flags = (int)SA_RESETHAND; /* the second one has its default effect */
    sigemptyset(&action.sa_mask);
    (void)sigaction(SIGINT, &action, NULL); /* cannot fail for these signals */
    (void)sigaction(SIGTERM, &action, NULL);
}

bool mr_interrupt_came(void) {
    return interrupt_noted != 0;
}

bool mr_interrupt_wait(int64_t timeout_ms, int fd, bool *out_input) {
    struct pollfd fds[2] = {
        {.fd = interrupt_fd, .events = POLLIN},
        {.fd = fd, .events = POLLIN}, /* poll passes over a negative one */
    };
    int ready = 0;
    if (!mr_interrupt_came())
        ready = poll(fds, 2, timeout_ms > INT32_MAX ? INT32_MAX : (int)timeout_ms);
    if (out_input != NULL)
        *out_input = ready > 0 && (fds[1].revents & (POLLIN | POLLHUP)) != 0;
    return mr_interrupt_came();
}
