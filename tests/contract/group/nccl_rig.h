/* SPDX-License-Identifier: Apache-2.0 */
/* nccl_rig.h: groups over the fake NCCL: each member's thread has a device, a compute stream and
 * its end of the group from its opening to its close, as EXEC has.
 * Owner: tests. Thread: the test's; a member function runs on its member's and reports by
 * status. */
#ifndef MR_TESTS_CONTRACT_GROUP_NCCL_RIG_H
#define MR_TESTS_CONTRACT_GROUP_NCCL_RIG_H

#include "daemon/group/nccl.h"

enum {
    NCCL_MEMBERS_MAX = 4,
    NCCL_BYTES = 1 << 16,
    NCCL_LONG_MS = 30000, /* a bound that is not met here */
    NCCL_SOON_MS = 5000,  /* "at once", on a busy machine */
};

/* The members' ranks: 2, 5, 6, 9. */
extern const uint32_t nccl_ranks[NCCL_MEMBERS_MAX];

typedef mr_status (*nccl_member)(mr_group *group, void *context);

typedef struct nccl_run {
    size_t members;
    size_t absent; /* this member does not come; SIZE_MAX: all do */
    size_t bytes_max;
    int64_t open_timeout_ms;
    nccl_member fn;
    void *context;
    mr_status statuses[NCCL_MEMBERS_MAX];
} nccl_run;

/* A place of the fake with a compute stream of its own, which nccl_place_end destroys. */
mr_nccl_place nccl_place_make(void);
void nccl_place_end(mr_nccl_place *place);

/* Job "job-a", epoch 7, group "tied/embed", for the first so many ranks. */
mr_group_options nccl_options(size_t members);

/* Opens, runs fn and closes, on a thread for each member; statuses in order. */
void nccl_run_members(nccl_run *run);
/* The same where all must succeed and NCCL was used as it may be. */
void nccl_run_ok(size_t members, size_t bytes_max, nccl_member fn, void *context);

/* cmocka assertions with the status' text in the output. */
void nccl_ok(mr_status status);
void nccl_fails(mr_status status, mr_code code, const char *text);
/* No violation, and nothing left behind. */
void nccl_clean(void);
/* The only violation says this. */
void nccl_violated(const char *text);

#endif
