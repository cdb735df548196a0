/* SPDX-License-Identifier: Apache-2.0 */
/* header.h: what a link over a fabric sends by gRPC in place of a message's bytes: the same tag and
 * one tensor, whose bytes list the message's tensors. Both ends are the same build (the schedule's
 * hash was compared), so the list is a struct; it is checked all the same.
 * Owner: link. Thread: any. Internal to this folder. */
#ifndef MR_LINK_HEADER_H
#define MR_LINK_HEADER_H

#include "daemon/link/link.h"

typedef struct mr_link_header {
    uint32_t magic;
    uint32_t tensor_count;
    struct {
        char name[MR_TENSOR_NAME_BYTES];
        mr_shape shape;
    } tensors[MR_MESSAGE_TENSORS_MAX];
} mr_link_header;

/* options of the gRPC link that carries headers for a link with these options. */
mr_link_options mr_link_header_options(const mr_link_options *options);
/* Fills header from message, and out_carrier, which borrows header. Errors as mr_link_send. */
MR_MUST_CHECK mr_status mr_link_header_pack(const mr_link_options *options,
                                            const mr_message *message, mr_link_header *header,
                                            mr_message *out_carrier);
/* The message that carrier announces, laid out from memory on, each tensor MR_LINK_HEADER_ALIGN
 * apart. INVALID_ARGUMENT, RESOURCE_EXHAUSTED: it cannot be, or is larger than the link's. */
enum { MR_LINK_HEADER_ALIGN = 256 };
MR_MUST_CHECK mr_status mr_link_header_unpack(const mr_link_options *options,
                                              const mr_message *carrier, unsigned char *memory,
                                              mr_message *out_message);
/* Bytes of memory that any message of the link fits. False: no possible size. */
bool mr_link_header_slot_bytes(const mr_link_options *options, size_t *out_bytes);

#endif
