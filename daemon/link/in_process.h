/* SPDX-License-Identifier: Apache-2.0 */
/* in_process.h: both ends of a link within one process, for tests that run several stages as
 * threads.
 * Owner: tests. Thread: one thread for each end. */
#ifndef MR_LINK_IN_PROCESS_H
#define MR_LINK_IN_PROCESS_H

#include "daemon/link/link.h"

/* Both ends, open; each is closed by its user. RESOURCE_EXHAUSTED: no memory for the slots. */
MR_MUST_CHECK mr_status mr_link_in_process(const mr_link_options *options, mr_link **out_sender,
                                           mr_link **out_receiver);

#endif
