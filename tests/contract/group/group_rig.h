/* SPDX-License-Identifier: Apache-2.0 */
/* group_rig.h: what the contract tests of groups share: groups of every implementation, and a
 * thread for each member.
 * Owner: tests. Thread: the test's; a member function runs on its member's thread and reports by
 * status, never by a cmocka assertion. */
#ifndef MR_TESTS_CONTRACT_GROUP_GROUP_RIG_H
#define MR_TESTS_CONTRACT_GROUP_GROUP_RIG_H

#include "daemon/group/grpc.h"
#include "daemon/group/in_process.h"

enum {
    GROUP_MEMBERS_MAX = 4,
    GROUP_BYTES = 1 << 16,
    GROUP_LONG_MS = 30000, /* a bound that is not met here */
    GROUP_SOON_MS = 5000,  /* "at once", on a busy machine */
};

/* The members' ranks: 2, 5, 6, 9. */
extern const uint32_t group_ranks[GROUP_MEMBERS_MAX];

typedef struct group_maker {
    const char *name;
    void (*start)(void);
    void (*stop)(void);
    /* Opens every member's end, in order; options->rank is chosen for each. */
    void (*open)(const mr_group_options *options, mr_group **out_groups);
} group_maker;

extern const group_maker group_makers[2];

/* The gRPC maker's parts, for tests of that one alone; between its start and stop. */
mr_group_hub *group_rig_hub(void);
const char *group_rig_address(void);

/* The first so many ranks, job "job-a", epoch 7, group "pipe/0", GROUP_BYTES. */
mr_group_options group_options(size_t member_count);

/* Runs fn on a thread for each group; statuses in order. A member that fails closes its end, as a
 * stage does, and its entry becomes NULL; the others stay open. */
typedef mr_status (*group_member)(mr_group *group, void *context);
void group_run(mr_group **groups, size_t count, group_member fn, void *context,
               mr_status *out_statuses);
/* The same where all must succeed. */
void group_run_ok(mr_group **groups, size_t count, group_member fn, void *context);
void group_close_all(mr_group **groups, size_t count);

/* cmocka assertions with the status' text in the output. */
void group_ok(mr_status status);
void group_fails(mr_status status, mr_code code, const char *text);

#endif
