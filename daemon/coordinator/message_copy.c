/* SPDX-License-Identifier: Apache-2.0 */
/* By way of the wire form: protobuf-c has no copy of its own. */
#include "daemon/coordinator/message_copy.h"

#include "daemon/base/alloc.h"

ProtobufCMessage *mr_message_copy(const ProtobufCMessage *message) {
    size_t bytes = protobuf_c_message_get_packed_size(message);
    uint8_t *packed = mr_alloc(bytes);
    if (packed == NULL)
        return NULL;
    (void)protobuf_c_message_pack(message, packed); /* writes exactly bytes */
    ProtobufCMessage *copy = protobuf_c_message_unpack(message->descriptor, NULL, bytes, packed);
    mr_free(packed);
    return copy;
}
