/* SPDX-License-Identifier: Apache-2.0 */
/* processors.h: which processors a device's threads are bound to. Stage daemons of one machine must
 * not choose the same one, and a wrong binding is worse than none, so:
 *   - a processor is claimed by binding an abstract Unix socket to its name. The kernel gives a
 *     name to one holder and takes it back when the process ends, however it ends; there is no file
 *     to clean up. Claims are seen within one network namespace;
 *   - in a container (a process namespace that is not the machine's first) that was not given
 *     processors of its own, others on the machine cannot be seen, and nothing is bound;
 *   - a processor whose core's first sibling is claimed by somebody else comes last;
 *   - either every thread gets a processor of its own, or none is bound.
 * Owner: device/cpu. Thread: EXEC. Limits: MR_DEVICE_THREADS_MAX. */
#ifndef MR_DEVICE_CPU_PROCESSORS_H
#define MR_DEVICE_CPU_PROCESSORS_H

#include <stdbool.h>

#include "daemon/base/limits.h"

typedef struct mr_processors {
    int count; /* 0: nothing is claimed */
    int number[MR_DEVICE_THREADS_MAX];
    int claim[MR_DEVICE_THREADS_MAX]; /* the sockets */
} mr_processors;

/* Processors that this process may run on; at least 1. */
int mr_processors_allowed(void);
/* Claims count processors; false (and nothing claimed) when they are not to be had. */
bool mr_processors_claim(int count, mr_processors *out_processors);
/* Gives them back; a zeroed struct is fine. */
void mr_processors_release(mr_processors *processors);

#endif
