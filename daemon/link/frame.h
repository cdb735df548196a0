/* SPDX-License-Identifier: Apache-2.0 */
/* frame.h: messages of a link as millrace.v1.LinkFrame: the sender cuts a message at its tensors'
 * ends and at MR_LINK_CHUNK_BYTES_MAX; the receiver takes whatever cuts come, as long as they
 * follow each other without gap or overlap.
 * Owner: link. Thread: any. Internal to this folder. */
#ifndef MR_LINK_FRAME_H
#define MR_LINK_FRAME_H

#include "daemon/link/inbox.h"
#include "daemon/link/outbox.h"
#include "daemon/rpc/message.h"
#include "millrace/v1/link.pb-c.h"

/* ---- sending ---- */

/* How far the cutting of a message has come; zero at its start. */
typedef struct mr_link_cut {
    size_t tensor;
    size_t tensor_offset;
    size_t message_offset;
} mr_link_cut;

/* A frame with what it points to. Do not move. */
typedef struct mr_link_frame {
    Millrace__V1__LinkFrame proto;
    Millrace__V1__Tensor tensors[MR_MESSAGE_TENSORS_MAX];
    Millrace__V1__Tensor *tensor_list[MR_MESSAGE_TENSORS_MAX];
    uint64_t dims[MR_MESSAGE_TENSORS_MAX][MR_TENSOR_DIMS_MAX];
    const void *data; /* the payload */
    size_t bytes;
} mr_link_frame;

/* The greeting of the edge that options name. */
void mr_link_frame_greet(const mr_link_options *options, mr_link_frame *out_frame);
/* The parcel's next frame, which borrows from options and parcel; moves cut on. True: it is the
 * last. */
bool mr_link_frame_cut(const mr_link_options *options, const mr_link_parcel *parcel,
                       mr_link_cut *cut, mr_link_frame *out_frame);

/* ---- receiving ---- */

/* Is frame of this edge? FAILED_PRECONDITION names what is not. The job is the greeting's
 * matter. */
MR_MUST_CHECK mr_status mr_link_frame_check(const mr_link_options *options,
                                            const Millrace__V1__LinkFrame *frame);
/* The first frame of a message: its tag and tensors into slot, laid out. INVALID_ARGUMENT and
 * RESOURCE_EXHAUSTED as for lay_out. */
MR_MUST_CHECK mr_status mr_link_frame_open(const Millrace__V1__LinkFrame *frame,
                                           const mr_link_inbox *inbox, mr_link_slot *slot);
/* Copies the payload to its place and moves slot->filled on. INVALID_ARGUMENT: not the next bytes
 * of the message; DATA_LOSS: damaged. */
MR_MUST_CHECK mr_status mr_link_frame_copy(const Millrace__V1__LinkFrame *frame,
                                           const mr_rpc_tail *tail, mr_link_slot *slot);

#endif
