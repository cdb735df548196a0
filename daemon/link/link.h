/* SPDX-License-Identifier: Apache-2.0 */
/* link.h: one directed edge between two neighbouring ranks: ordered, bounded, tagged. A message is
 * a list of tensors, each with name, dtype, shape and a needs-gradient flag; the next message may
 * have others.
 * Implementations: in_process.h (tests), grpc.h. The contract test runs on all.
 * Owner: stage. Thread: EXEC, unless said. A wrong epoch is refused before it reaches EXEC (law 5).
 * Not here: what to send when (stage/executor), retry (coordinator). */
#ifndef MR_LINK_LINK_H
#define MR_LINK_LINK_H

#include <stdint.h>

#include "daemon/base/status.h"
#include "daemon/device/tensor.h"

typedef struct mr_link mr_link;

typedef enum mr_link_kind { MR_LINK_ACTIVATION, MR_LINK_GRADIENT, MR_LINK_KIND_COUNT } mr_link_kind;

enum { MR_TENSOR_NAME_BYTES = 32 };

typedef struct mr_message {
    uint64_t step;
    uint32_t micro_batch;
    uint32_t chunk;
    size_t tensor_count;
    struct {
        char name[MR_TENSOR_NAME_BYTES];
        mr_tensor tensor; /* host memory for grpc and in-process links */
    } tensors[MR_MESSAGE_TENSORS_MAX];
    void *slot; /* received messages: the link's, until released */
} mr_message;

/* Every end implements these; a sending end has send and wait_sent, a receiving end receive and
 * release. */
typedef struct mr_link_ops {
    const char *name;
    /* Queues a message. Its tensor bytes are borrowed until a later wait_sent says they are gone.
     * The receiver takes up to slots messages by itself; slots + 2 more may wait here.
     * RESOURCE_EXHAUSTED: more than that are not released (the plan was wrong), or the message is
     * larger than message_bytes_max; INVALID_ARGUMENT: no tensors, or not one byte;
     * UNAVAILABLE: the peer is lost; CANCELLED: closed or interrupted. */
    mr_status (*send)(mr_link *link, const mr_message *message);
    /* Waits until at most outstanding_max sent messages still borrow their bytes.
     * DEADLINE_EXCEEDED names the peer rank and the oldest message. */
    mr_status (*wait_sent)(mr_link *link, size_t outstanding_max, int64_t timeout_ms);
    /* Waits for the next message, which must be (step, micro_batch, chunk): anything else is
     * ABORTED with both tags named. Its tensors lie in a slot of the link until release.
     * DEADLINE_EXCEEDED names the peer rank; UNAVAILABLE: lost; CANCELLED: interrupted.
     * timeout_ms < 0: no deadline, for the idle wait at a step's start; interrupt ends it. */
    mr_status (*receive)(mr_link *link, uint64_t step, uint32_t micro_batch, uint32_t chunk,
                         int64_t timeout_ms, mr_message *out_message);
    void (*release)(mr_link *link, mr_message *message);
    /* Any thread: every present and later wait returns CANCELLED with this reason. */
    void (*interrupt)(mr_link *link, const char *reason);
    /* Bytes that crossed so far (payload). Any thread. */
    uint64_t (*bytes)(const mr_link *link);
    /* Closes and frees; waits until the transport borrows nothing. Not from an RPC thread. */
    void (*close)(mr_link *link);
} mr_link_ops;

/* An implementation embeds this as its first member. */
struct mr_link {
    const mr_link_ops *ops;
};

/* Who wants to know when messages have gone; may be NULL, and a transport that cannot tell does
 * not. sent: a message's last byte is with the transport, ns after it was queued; any thread, and
 * it may not block. */
typedef struct mr_link_watch {
    void (*sent)(struct mr_link_watch *watch, int64_t ns);
} mr_link_watch;

/* What both ends agree on before a step is run; all from the plan. */
typedef struct mr_link_options {
    const char *job_id;
    uint64_t epoch;
    uint32_t from_rank;
    uint32_t to_rank;
    mr_link_kind kind;
    size_t slots;              /* messages that a receiver may hold at once */
    size_t message_bytes_max;  /* of one message's tensors together */
    const void *offer;         /* receiver over grpc: told to the sender; borrowed until close */
    size_t offer_bytes;
    mr_link_watch *watch; /* of a sending end; borrowed until close */
} mr_link_options;

static inline mr_status mr_link_send(mr_link *link, const mr_message *message) {
    return link->ops->send(link, message);
}
static inline mr_status mr_link_wait_sent(mr_link *link, size_t outstanding_max,
                                          int64_t timeout_ms) {
    return link->ops->wait_sent(link, outstanding_max, timeout_ms);
}
static inline mr_status mr_link_receive(mr_link *link, uint64_t step, uint32_t micro_batch,
                                        uint32_t chunk, int64_t timeout_ms,
                                        mr_message *out_message) {
    return link->ops->receive(link, step, micro_batch, chunk, timeout_ms, out_message);
}
static inline void mr_link_release(mr_link *link, mr_message *message) {
    link->ops->release(link, message);
}
static inline void mr_link_interrupt(mr_link *link, const char *reason) {
    link->ops->interrupt(link, reason);
}
static inline uint64_t mr_link_bytes(const mr_link *link) {
    return link->ops->bytes(link);
}
static inline void mr_link_close(mr_link *link) {
    if (link != NULL)
        link->ops->close(link);
}

#endif
