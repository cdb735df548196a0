/* SPDX-License-Identifier: Apache-2.0 */
/* nccl_rig.h: pairs of ends of links over the fake NCCL and the fake CUDA: each end has a thread, a
 * device and a compute stream from its opening to its close, as EXEC has.
 * Owner: tests. Thread: the test's; end functions run on their end's and report by status. */
#ifndef MR_TESTS_CONTRACT_LINK_NCCL_RIG_H
#define MR_TESTS_CONTRACT_LINK_NCCL_RIG_H

#include "daemon/link/cuda_ipc.h"
#include "daemon/link/nccl.h"
#include "tests/contract/link/link_rig.h"

typedef mr_status (*pair_end)(mr_link *link, const mr_nccl_place *place, void *context);

typedef struct pair_case {
    bool ipc; /* CUDA IPC instead of NCCL */
    mr_link_options options;
    pair_end sender;
    pair_end receiver;
    void *context;
    int64_t join_timeout_ms;
    mr_status sender_status;
    mr_status receiver_status;
} pair_case;

/* link_options, LINK_LONG_MS to join. */
pair_case pair_of(bool ipc, pair_end sender, pair_end receiver, void *context);
/* Opens, joins, runs and closes both ends at once. */
void pair_run(pair_case *self);
/* The same where both must succeed, nothing is violated and nothing left behind. */
void pair_run_ok(bool ipc, pair_end sender, pair_end receiver, void *context);
/* Waits until the place's compute stream has nothing left: what was received can be read. */
mr_status pair_settle(const mr_nccl_place *place);
/* As link_parcel_check, by status. */
mr_status pair_check(const link_parcel *sent, const mr_message *received);
/* No violation, and nothing left behind. */
void pair_clean(void);

#endif
