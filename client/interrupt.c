/* SPDX-License-Identifier: Apache-2.0 */
#include "client/interrupt.h"

#include <signal.h>
#include <string.h>

static volatile sig_atomic_t interrupt_noted;

static void interrupt_note(int signal_number) {
    (void)signal_number;
    interrupt_noted = 1;
}

void mr_interrupt_catch(void) {
    struct sigaction action;
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
