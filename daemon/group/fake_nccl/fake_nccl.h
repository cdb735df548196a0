/* SPDX-License-Identifier: Apache-2.0 */
/* fake_nccl.h: NCCL and the CUDA runtime as far as calls.h uses them, in host memory within one
 * process, with the prototypes of the installed headers: for tests on a machine without a card.
 *
 * Streams are queues that move on whenever anybody looks. A send blocks its stream until its
 * receive is at the head of another one: nothing is buffered, so an order that could hang a real
 * card hangs here. Sums run in rank order. What NCCL forbids or would hang on is written down as a
 * violation: other sizes or kinds on two ends, a communicator used after its end or from a second
 * thread, an id used twice, a stream used while a call is in progress, a blocking communicator, a
 * cycle of streams that wait for each other, memory freed while a peer has it open.
 * Owner: tests. Thread: any. */
#ifndef MR_GROUP_FAKE_NCCL_FAKE_NCCL_H
#define MR_GROUP_FAKE_NCCL_FAKE_NCCL_H

#include <stddef.h>

struct mr_nccl_calls;

/* The fake's functions. */
const struct mr_nccl_calls *mr_fake_nccl_calls(void);
/* Forgets everything: at a test's start. */
void mr_fake_nccl_reset(void);
/* What went wrong since the reset. */
size_t mr_fake_nccl_violations(void);
/* The text of one; "" where there is none. */
const char *mr_fake_nccl_violation(size_t index);
/* Communicators, streams, events and memory that were made and not ended. */
size_t mr_fake_nccl_live(void);
/* Operations that wait in streams, after everything that can has moved. */
size_t mr_fake_nccl_waiting(void);
/* The next look at the state of a communicator's member of that place tells this ncclResult_t. */
void mr_fake_nccl_fail_next(int member, int result);

#endif
