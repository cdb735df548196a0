/* SPDX-License-Identifier: Apache-2.0 */
/* link_rig.h: what the contract tests of links share: pairs of ends of every implementation,
 * messages whose bytes follow from their tag, and threads that do one thing to a link.
 * Owner: tests. Thread: the test's; helpers say otherwise. */
#ifndef MR_TESTS_CONTRACT_LINK_LINK_RIG_H
#define MR_TESTS_CONTRACT_LINK_LINK_RIG_H

#include <pthread.h>

#include "daemon/link/grpc.h"
#include "daemon/link/in_process.h"

enum {
    LINK_FROM = 3,
    LINK_TO = 4,
    LINK_SLOTS = 3,
    LINK_BYTES = 1 << 16,
    LINK_LONG_MS = 30000, /* a bound that is not met here */
    LINK_SOON_MS = 5000,  /* "at once", on a busy machine */
};

/* An implementation under test. */
typedef struct link_maker {
    const char *name;
    void (*start)(void);
    void (*stop)(void);
    void (*open)(const mr_link_options *options, mr_link **out_sender, mr_link **out_receiver);
} link_maker;

extern const link_maker link_makers[2];

/* The gRPC maker's parts, for tests of that one alone; between its start and stop. */
mr_link_hub *link_rig_hub(void);
const char *link_rig_address(void);

/* LINK_FROM to LINK_TO, LINK_SLOTS slots of LINK_BYTES, job "job-a", epoch 7, activations. */
mr_link_options link_options(void);

/* A message with memory for its tensors' bytes. */
typedef struct link_parcel {
    mr_message message;
    unsigned char *memory;
} link_parcel;

/* Adds a tensor of the shape to the parcel (first: zero it; then set the tag). */
void link_parcel_add(link_parcel *parcel, const char *name, mr_dtype dtype, size_t dim_count,
                     const size_t *dims);
/* Gives every tensor memory and fills it from the tag, the tensor's number and the byte's. */
void link_parcel_fill(link_parcel *parcel);
void link_parcel_free(link_parcel *parcel);
/* One f32 tensor "activation" of so many elements with the tag. */
link_parcel link_parcel_make(uint64_t step, uint32_t micro_batch, size_t elements);
/* Fails the test unless the received message is the parcel: tag, names, shapes and every byte. */
void link_parcel_check(const link_parcel *sent, const mr_message *received);

/* Sends, receives and releases; the test fails where they do. */
void link_pass(mr_link *sender, mr_link *receiver, const link_parcel *parcel);

/* cmocka assertions with the status' text in the output. */
void link_ok(mr_status status);
void link_fails(mr_status status, mr_code code, const char *text);

#endif
