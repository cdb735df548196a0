/* SPDX-License-Identifier: Apache-2.0 */
/* in_process.h: a group of threads of one process, for tests. Owner: tests. */
#ifndef MR_GROUP_IN_PROCESS_H
#define MR_GROUP_IN_PROCESS_H

#include "daemon/group/group.h"

/* One end per rank of options->ranks, in order (options->rank is ignored). */
MR_MUST_CHECK mr_status mr_group_in_process(const mr_group_options *options,
                                            mr_group **out_groups);

#endif
