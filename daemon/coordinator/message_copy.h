/* SPDX-License-Identifier: Apache-2.0 */
/* message_copy.h: a protobuf-c message that outlives what it was made from.
 * Owner: coordinator. Thread: any. */
#ifndef MR_COORDINATOR_MESSAGE_COPY_H
#define MR_COORDINATOR_MESSAGE_COPY_H

#include <protobuf-c/protobuf-c.h>

/* Freed with protobuf_c_message_free_unpacked. NULL: no memory. */
ProtobufCMessage *mr_message_copy(const ProtobufCMessage *message);

#endif
