/* SPDX-License-Identifier: Apache-2.0 */
/* interrupt.h: Ctrl-C and SIGTERM in commands that last. The first one is noted, so that the
 * command can end in order; the second one ends the process at once. Owner: client. Thread: main.
 */
#ifndef MR_CLIENT_INTERRUPT_H
#define MR_CLIENT_INTERRUPT_H

#include <stdbool.h>

/* From here on the first signal is noted. Call it before gRPC starts its threads. */
void mr_interrupt_catch(void);
/* Has one come? */
bool mr_interrupt_came(void);

#endif
