/* SPDX-License-Identifier: Apache-2.0 */
/* interrupt.h: Ctrl-C (and SIGTERM) as a flag that lasting commands look at and an event that they
 * wait for. The second one ends the process at once, as it would without this.
 * Owner: client. Thread: main; the handler runs on any. */
#ifndef MR_CLIENT_INTERRUPT_H
#define MR_CLIENT_INTERRUPT_H

#include <stdbool.h>
#include <stdint.h>

/* From now on SIGINT and SIGTERM are noted. */
void mr_interrupt_catch(void);
/* Has one come? */
bool mr_interrupt_came(void);
/* Waits at most timeout_ms, also for input on fd (-1: none). True: an interrupt has come.
 * *out_input (may be NULL with fd -1): is there input? mr_interrupt_catch was called before. */
bool mr_interrupt_wait(int64_t timeout_ms, int fd, bool *out_input);

#endif
