/* SPDX-License-Identifier: Apache-2.0 */
/* communicator.h: one NCCL communicator with a stream of its own: what NCCL links and groups have
 * in common. It is made without blocking and under a deadline, looked after on every wait
 * (ncclCommGetAsyncError), and aborted on failure, interrupt or deadline; after that each call
 * gives the reason.
 *
 * Order: every operation waits on the device for what the compute stream had been given before it
 * (enter), and what the compute stream is given after leave waits for the operation. The host waits
 * only in wait, and in what NCCL itself is slow to accept.
 * Owner: device. Thread: EXEC, the one thread of the process that calls NCCL; interrupt: any. */
#ifndef MR_DEVICE_CUDA_NCCL_COMMUNICATOR_H
#define MR_DEVICE_CUDA_NCCL_COMMUNICATOR_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/base/status.h"

enum { MR_NCCL_ID_BYTES = 128 };

struct mr_nccl_calls; /* calls.h */
typedef struct mr_communicator mr_communicator;

/* Where a communicator works: a card and the stream that orders the device's own work. */
typedef struct mr_nccl_place {
    const struct mr_nccl_calls *calls;
    int ordinal;
    void *compute_stream; /* a cudaStream_t */
} mr_nccl_place;

typedef struct mr_communicator_options {
    mr_nccl_place place;
    const unsigned char *id; /* [MR_NCCL_ID_BYTES], of this epoch */
    const char *job_id;
    uint64_t epoch;
    const char *name;      /* "tied/embed/0", "link/0-1/activation" */
    const uint32_t *ranks; /* of the plan, ascending */
    size_t rank_count;
    size_t rank_index; /* own place among ranks */
    int ctas_max;      /* thread blocks it may occupy; 0: NCCL decides */
} mr_communicator_options;

/* A new id, of which no other communicator is made. This process must live until all have joined.
 * UNAVAILABLE: NCCL cannot. */
MR_MUST_CHECK mr_status mr_communicator_id_make(const mr_nccl_place *place,
                                                unsigned char out_id[MR_NCCL_ID_BYTES]);
/* Joins; returns when every member has. DEADLINE_EXCEEDED names the ranks awaited. */
MR_MUST_CHECK mr_status mr_communicator_open(const mr_communicator_options *options,
                                             int64_t timeout_ms,
                                             mr_communicator **out_communicator);
/* Its stream waits for the compute stream's present work. */
MR_MUST_CHECK mr_status mr_communicator_enter(mr_communicator *communicator);
/* What is between the two is one operation for NCCL: parts may proceed together. */
MR_MUST_CHECK mr_status mr_communicator_group_begin(mr_communicator *communicator);
MR_MUST_CHECK mr_status mr_communicator_group_end(mr_communicator *communicator);
/* to [n] = sum over members of from [n], f32; may be the same memory. */
MR_MUST_CHECK mr_status mr_communicator_sum(mr_communicator *communicator, const float *from,
                                            float *to, size_t n);
/* Member root's bytes at from go to every member's to. from is read on the root only. */
MR_MUST_CHECK mr_status mr_communicator_broadcast(mr_communicator *communicator, const void *from,
                                                  void *to, size_t bytes, size_t root);
/* To and from the member of that index; sizes must agree, and order per pair is kept. */
MR_MUST_CHECK mr_status mr_communicator_send(mr_communicator *communicator, const void *data,
                                             size_t bytes, size_t to);
MR_MUST_CHECK mr_status mr_communicator_receive(mr_communicator *communicator, void *data,
                                                size_t bytes, size_t from);
/* The compute stream's later work waits for what was queued here. */
MR_MUST_CHECK mr_status mr_communicator_leave(mr_communicator *communicator);
/* The host waits for what was queued before the last leave. timeout_ms < 0: until an interrupt or a
 * failure. DEADLINE_EXCEEDED, CANCELLED, UNAVAILABLE (a member is lost): aborted by it. */
MR_MUST_CHECK mr_status mr_communicator_wait(mr_communicator *communicator, int64_t timeout_ms);

/* A byte of the card's memory that belongs to the communicator, for what warms it up. */
MR_MUST_CHECK mr_status mr_communicator_byte(mr_communicator *communicator, void **out_byte);

/* A mark in the stream, an event of CUDA. RESOURCE_EXHAUSTED. */
MR_MUST_CHECK mr_status mr_communicator_mark_create(mr_communicator *communicator,
                                                    void **out_mark);
void mr_communicator_mark_destroy(mr_communicator *communicator, void *mark);
/* Sets the mark behind what was queued; a mark that was never set has been passed. */
MR_MUST_CHECK mr_status mr_communicator_mark_set(mr_communicator *communicator, void *mark);
/* Have the marks been passed? Looks once, at errors and the interrupt, too. */
MR_MUST_CHECK mr_status mr_communicator_mark_passed(mr_communicator *communicator, void *mark,
                                                    bool *out_passed);
/* Gives up the processor for about a millisecond, or until interrupted: between two looks. */
void mr_communicator_nap(mr_communicator *communicator);
/* Breaks it off: every later call gives this status, or that of an earlier end. */
void mr_communicator_abort(mr_communicator *communicator, mr_status why);

/* Any thread, until close: the present and every later wait ends with CANCELLED and this reason. */
void mr_communicator_interrupt(mr_communicator *communicator, const char *reason);
/* Ends in good order where nothing is pending, and breaks off otherwise, within about a second.
 * NULL is fine. */
void mr_communicator_close(mr_communicator *communicator);

#endif
