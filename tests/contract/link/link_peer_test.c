/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a gRPC end survives any peer: an old epoch or a wrong edge is refused by name, damaged or
 * impossible frames end the stream with a status that says what was wrong, and the end's user
 * learns that the peer is lost. Method: real ends against streams that the test writes frame by
 * frame. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/crc32c.h"
#include "daemon/base/monitor.h"
#include "daemon/rpc/channel.h"
#include "millrace/v1/link.pb-c.h"
#include "tests/contract/link/link_rig.h"

/* ---- a stream that the test writes by hand ---- */

typedef struct writer {
    mr_rpc_channel *channel;
    mr_rpc_stream *stream;
    mr_monitor monitor;
    unsigned credits;
    uint64_t taken;
    bool ended;
    mr_status end;
} writer;

static void writer_credited(mr_rpc_stream *stream, ProtobufCMessage *owned_message,
                            mr_rpc_tail *owned_tail, void *context) {
    writer *self = context;
    mr_monitor_lock(&self->monitor);
    self->credits++;
    self->taken = ((Millrace__V1__LinkCredit *)owned_message)->taken;
    mr_monitor_notify(&self->monitor);
    mr_monitor_unlock(&self->monitor);
    mr_rpc_tail_destroy(owned_tail);
    protobuf_c_message_free_unpacked(owned_message, NULL);
    mr_rpc_stream_receive(stream);
}

static void writer_ended(mr_rpc_stream *stream, mr_status status, void *context) {
    writer *self = context;
    (void)stream;
    mr_monitor_lock(&self->monitor);
    self->ended = true;
    self->end = status;
    mr_monitor_notify(&self->monitor);
    mr_monitor_unlock(&self->monitor);
}

static void writer_send(writer *self, const Millrace__V1__LinkFrame *frame) {
    mr_status status = mr_rpc_stream_send(self->stream, &frame->base, NULL);
    if (status.code != MR_CODE_CANCELLED) /* it may have been cut off already */
        link_ok(status);
}

static void writer_wait_credits(writer *self, unsigned count) {
    int64_t deadline = mr_monitor_deadline(LINK_LONG_MS);
    bool in_time = true;
    mr_monitor_lock(&self->monitor);
    while (self->credits < count && !self->ended && in_time)
        in_time = mr_monitor_wait(&self->monitor, deadline);
    unsigned credits = self->credits;
    mr_monitor_unlock(&self->monitor);
    if (credits < count)
        fail_msg("%u credits came, %u were due", credits, count);
}

static mr_status writer_wait_end(writer *self) {
    int64_t deadline = mr_monitor_deadline(LINK_LONG_MS);
    bool in_time = true;
    mr_monitor_lock(&self->monitor);
    while (!self->ended && in_time)
        in_time = mr_monitor_wait(&self->monitor, deadline);
    mr_monitor_unlock(&self->monitor);
    assert_true(in_time);
    return self->end;
}

static Millrace__V1__LinkFrame writer_frame(uint64_t sequence) {
    Millrace__V1__LinkFrame frame = MILLRACE__V1__LINK_FRAME__INIT;
    static char job[] = "job-a";
    frame.job_id = job;
    frame.epoch = 7;
    frame.from_rank = LINK_FROM;
    frame.to_rank = LINK_TO;
    frame.sequence = sequence;
    return frame;
}

static void writer_open(writer *self) {
    static const mr_rpc_stream_events events = {.on_message = writer_credited,
                                                .on_end = writer_ended};
    const mr_rpc_credentials credentials = {0};
    *self = (writer){0};
    mr_monitor_init(&self->monitor);
    link_ok(mr_rpc_channel_create(link_rig_address(), &credentials, &self->channel));
    link_ok(mr_rpc_channel_open(self->channel, &millrace__v1__link__descriptor, "Link", NULL,
                                &events, self, 0, &self->stream));
    mr_rpc_stream_receive(self->stream);
}

static void writer_greet(writer *self) {
    writer_open(self);
    const Millrace__V1__LinkFrame greeting = writer_frame(0);
    writer_send(self, &greeting);
    writer_wait_credits(self, 1);
}

static void writer_close(writer *self) {
    mr_rpc_stream_cancel(self->stream);
    (void)writer_wait_end(self);
    mr_rpc_stream_unref(self->stream);
    mr_rpc_channel_destroy(self->channel);
    mr_monitor_deinit(&self->monitor);
}

/* ---- frames that are refused ---- */

enum { PAYLOAD_BYTES = 64, TENSOR_ELEMENTS = 32 };

/* The first frame of message 1, which is half of its one tensor, and what a test makes of it. */
typedef struct draft {
    Millrace__V1__LinkFrame frame;
    Millrace__V1__Tensor tensor;
    Millrace__V1__Tensor *tensors[MR_MESSAGE_TENSORS_MAX + 1];
    uint64_t dims[MR_TENSOR_DIMS_MAX + 1];
    char name[MR_TENSOR_NAME_BYTES + 8];
    uint8_t payload[2 * PAYLOAD_BYTES + 4];
} draft;

static void draft_init(draft *self) {
    *self = (draft){.frame = writer_frame(1)};
    millrace__v1__tensor__init(&self->tensor);
    (void)snprintf(self->name, sizeof(self->name), "activation");
    memset(self->payload, 0x5a, sizeof(self->payload));
    self->dims[0] = TENSOR_ELEMENTS;
    self->tensor.name = self->name;
    self->tensor.data_type = MILLRACE__V1__DATA_TYPE__DATA_TYPE_F32;
    self->tensor.n_dims = 1;
    self->tensor.dims = self->dims;
    for (size_t i = 0; i <= MR_MESSAGE_TENSORS_MAX; i++)
        self->tensors[i] = &self->tensor;
    self->frame.n_tensors = 1;
    self->frame.tensors = self->tensors;
    self->frame.payload = (ProtobufCBinaryData){PAYLOAD_BYTES, self->payload};
    self->frame.crc = mr_crc32c(0, self->payload, PAYLOAD_BYTES);
}

/* The second half of the same message. */
static Millrace__V1__LinkFrame draft_second(const draft *self) {
    Millrace__V1__LinkFrame frame = self->frame;
    frame.n_tensors = 0;
    frame.offset = PAYLOAD_BYTES;
    return frame;
}

static void spoil_epoch(draft *self) {
    self->frame.epoch = 6;
}
static void spoil_rank(draft *self) {
    self->frame.from_rank = 9;
}
static void spoil_kind(draft *self) {
    self->frame.kind = MILLRACE__V1__LINK_KIND__LINK_KIND_GRADIENT;
}
static void spoil_sequence(draft *self) {
    self->frame.sequence = 2;
}
static void spoil_offset(draft *self) {
    self->frame.offset = 4;
}
static void spoil_crc(draft *self) {
    self->frame.crc ^= 1;
}
static void spoil_no_tensors(draft *self) {
    self->frame.n_tensors = 0;
}
static void spoil_many_tensors(draft *self) {
    self->frame.n_tensors = MR_MESSAGE_TENSORS_MAX + 1;
}
static void spoil_type(draft *self) {
    self->tensor.data_type = (Millrace__V1__DataType)MR_DTYPE_COUNT;
}
static void spoil_dims(draft *self) {
    self->tensor.n_dims = MR_TENSOR_DIMS_MAX + 1;
}
static void spoil_overflow(draft *self) {
    self->dims[0] = UINT64_MAX / 2;
    self->dims[1] = 8;
    self->tensor.n_dims = 2;
}
static void spoil_size(draft *self) {
    self->dims[0] = LINK_BYTES / 4 + 1;
}
static void spoil_name(draft *self) {
    memset(self->name, 'n', MR_TENSOR_NAME_BYTES);
}
static void spoil_no_bytes(draft *self) {
    self->dims[0] = 0;
}
static void spoil_payload_none(draft *self) {
    self->frame.payload.len = 0;
}
static void spoil_payload_long(draft *self) {
    self->frame.payload.len = 2 * PAYLOAD_BYTES + 4;
}

static const struct {
    void (*spoil)(draft *self);
    mr_code code;
    const char *text;
} spoiled[] = {
    {spoil_epoch, MR_CODE_FAILED_PRECONDITION, "epoch 6"},
    {spoil_rank, MR_CODE_FAILED_PRECONDITION, "rank 9"},
    {spoil_kind, MR_CODE_FAILED_PRECONDITION, "kind 1"},
    {spoil_sequence, MR_CODE_ABORTED, "message 2 came; 1 is next"},
    {spoil_offset, MR_CODE_INVALID_ARGUMENT, "byte 4 of its message"},
    {spoil_crc, MR_CODE_DATA_LOSS, "damaged"},
    {spoil_no_tensors, MR_CODE_INVALID_ARGUMENT, "0 tensors"},
    {spoil_many_tensors, MR_CODE_INVALID_ARGUMENT, "17 tensors"},
    {spoil_type, MR_CODE_INVALID_ARGUMENT, "data_type is 7"},
    {spoil_dims, MR_CODE_INVALID_ARGUMENT, "dims has 7"},
    {spoil_overflow, MR_CODE_INVALID_ARGUMENT, "no possible shape"},
    {spoil_size, MR_CODE_RESOURCE_EXHAUSTED, "larger than the link's 65536"},
    {spoil_name, MR_CODE_INVALID_ARGUMENT, "name has 32 bytes"},
    {spoil_no_bytes, MR_CODE_INVALID_ARGUMENT, "not one byte"},
    {spoil_payload_none, MR_CODE_INVALID_ARGUMENT, "0 bytes at offset 0"},
    {spoil_payload_long, MR_CODE_INVALID_ARGUMENT, "132 bytes at offset 0"},
};

static void test_spoiled_first_frame_ends_the_link(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(spoiled) / sizeof(spoiled[0]); i++) {
        const mr_link_options options = link_options();
        mr_link *receiver;
        writer peer;
        draft bad;
        link_ok(mr_link_grpc_receiver(link_rig_hub(), &options, &receiver));
        writer_greet(&peer);
        draft_init(&bad);
        spoiled[i].spoil(&bad);
        writer_send(&peer, &bad.frame);
        link_fails(writer_wait_end(&peer), spoiled[i].code, spoiled[i].text);
        mr_message received;
        mr_status status = mr_link_receive(receiver, 0, 0, 0, LINK_LONG_MS, &received);
        link_fails(status, MR_CODE_UNAVAILABLE, "rank 3 is lost");
        link_fails(status, MR_CODE_UNAVAILABLE, spoiled[i].text);
        writer_close(&peer);
        mr_link_close(receiver);
    }
}

static void overlap(Millrace__V1__LinkFrame *frame) {
    frame->offset = PAYLOAD_BYTES - 4;
}
static void gap(Millrace__V1__LinkFrame *frame) {
    frame->offset = PAYLOAD_BYTES + 4;
}
static void next_message(Millrace__V1__LinkFrame *frame) {
    frame->sequence = 2;
}
static void other_tag(Millrace__V1__LinkFrame *frame) {
    frame->micro_batch = 5;
}
static void other_epoch(Millrace__V1__LinkFrame *frame) {
    frame->epoch = 8;
}

static void test_spoiled_second_frame_ends_the_link(void **state) {
    static const struct {
        void (*spoil)(Millrace__V1__LinkFrame *frame);
        mr_code code;
        const char *text;
    } seconds[] = {
        {overlap, MR_CODE_INVALID_ARGUMENT, "begins at byte 60"},
        {gap, MR_CODE_INVALID_ARGUMENT, "begins at byte 68"},
        {next_message, MR_CODE_ABORTED, "before the end of message 1"},
        {other_tag, MR_CODE_ABORTED, "microbatch 5"},
        {other_epoch, MR_CODE_FAILED_PRECONDITION, "epoch 8"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(seconds) / sizeof(seconds[0]); i++) {
        const mr_link_options options = link_options();
        mr_link *receiver;
        writer peer;
        draft first;
        link_ok(mr_link_grpc_receiver(link_rig_hub(), &options, &receiver));
        writer_greet(&peer);
        draft_init(&first);
        writer_send(&peer, &first.frame);
        Millrace__V1__LinkFrame second = draft_second(&first);
        seconds[i].spoil(&second);
        writer_send(&peer, &second);
        link_fails(writer_wait_end(&peer), seconds[i].code, seconds[i].text);
        mr_message received;
        link_fails(mr_link_receive(receiver, 0, 0, 0, LINK_LONG_MS, &received),
                   MR_CODE_UNAVAILABLE, "rank 3 is lost");
        writer_close(&peer);
        mr_link_close(receiver);
    }
}

/* ---- a peer that is not as fine as ours, but right ---- */

static void test_frames_cut_anywhere_are_joined(void **state) {
    (void)state;
    const mr_link_options options = link_options();
    mr_link *receiver;
    writer peer;
    draft first;
    link_ok(mr_link_grpc_receiver(link_rig_hub(), &options, &receiver));
    writer_greet(&peer);
    draft_init(&first);
    for (size_t b = 0; b < 2 * PAYLOAD_BYTES; b++)
        first.payload[b] = (uint8_t)b;
    first.dims[0] = 2 * PAYLOAD_BYTES / 8; /* two tensors; the second frame spans their border */
    first.frame.n_tensors = 2;
    first.frame.payload.len = 4;
    first.frame.crc = mr_crc32c(0, first.payload, 4);
    writer_send(&peer, &first.frame);
    Millrace__V1__LinkFrame second = draft_second(&first);
    second.offset = 4;
    second.payload = (ProtobufCBinaryData){2 * PAYLOAD_BYTES - 4, first.payload + 4};
    second.crc = mr_crc32c(0, first.payload + 4, 2 * PAYLOAD_BYTES - 4);
    writer_send(&peer, &second);
    mr_message received;
    link_ok(mr_link_receive(receiver, 0, 0, 0, LINK_LONG_MS, &received));
    assert_int_equal(received.tensor_count, 2);
    assert_memory_equal(received.tensors[0].tensor.data, first.payload, PAYLOAD_BYTES);
    assert_memory_equal(received.tensors[1].tensor.data, first.payload + PAYLOAD_BYTES,
                        PAYLOAD_BYTES);
    mr_link_release(receiver, &received);
    writer_wait_credits(&peer, 2);
    assert_int_equal(peer.taken, 1);
    writer_close(&peer);
    mr_link_close(receiver);
}

static void test_peer_beyond_its_credit_is_cut_off(void **state) {
    (void)state;
    const mr_link_options options = link_options();
    mr_link *receiver;
    writer peer;
    draft whole;
    link_ok(mr_link_grpc_receiver(link_rig_hub(), &options, &receiver));
    writer_greet(&peer);
    draft_init(&whole);
    whole.dims[0] = PAYLOAD_BYTES / 4;
    for (uint32_t m = 0; m <= LINK_SLOTS; m++) {
        whole.frame.sequence = m + 1;
        whole.frame.micro_batch = m;
        writer_send(&peer, &whole.frame);
    }
    link_fails(writer_wait_end(&peer), MR_CODE_RESOURCE_EXHAUSTED, "all 3 slots");
    mr_message received;
    for (uint32_t m = 0; m < LINK_SLOTS; m++) /* what came in time is still here */
        link_ok(mr_link_receive(receiver, 0, m, 0, LINK_LONG_MS, &received));
    link_fails(mr_link_receive(receiver, 0, LINK_SLOTS, 0, LINK_LONG_MS, &received),
               MR_CODE_UNAVAILABLE, "rank 3 is lost");
    writer_close(&peer);
    mr_link_close(receiver);
}

static void test_peer_that_vanishes_is_lost(void **state) {
    (void)state;
    const mr_link_options options = link_options();
    mr_link *receiver;
    writer peer;
    draft first;
    link_ok(mr_link_grpc_receiver(link_rig_hub(), &options, &receiver));
    writer_greet(&peer);
    draft_init(&first);
    writer_send(&peer, &first.frame); /* half a message */
    writer_close(&peer);              /* cancels */
    mr_message received;
    link_fails(mr_link_receive(receiver, 0, 0, 0, -1, &received), MR_CODE_UNAVAILABLE,
               "rank 3 is lost");
    mr_link_close(receiver);
}

/* ---- greetings ---- */

static mr_status open_sender(const mr_link_options *options) {
    const mr_rpc_credentials credentials = {0};
    mr_link *sender = NULL;
    mr_status status =
        mr_link_grpc_sender(link_rig_address(), &credentials, options, LINK_LONG_MS, &sender);
    mr_link_close(sender);
    return status;
}

static void test_wrong_greeting_is_refused_by_name(void **state) {
    (void)state;
    const mr_link_options options = link_options();
    mr_link *receiver;
    link_ok(mr_link_grpc_receiver(link_rig_hub(), &options, &receiver));
    mr_link_options other = options;
    other.epoch = 6;
    link_fails(open_sender(&other), MR_CODE_FAILED_PRECONDITION, "of epoch 7, not 6");
    other.epoch = 8;
    link_fails(open_sender(&other), MR_CODE_FAILED_PRECONDITION, "of epoch 7, not 8");
    other = options;
    other.job_id = "job-b";
    link_fails(open_sender(&other), MR_CODE_FAILED_PRECONDITION, "job job-b in epoch 7");
    other = options;
    other.from_rank = 2;
    link_fails(open_sender(&other), MR_CODE_FAILED_PRECONDITION, "from rank 2 to 4");
    other = options;
    other.to_rank = 5;
    link_fails(open_sender(&other), MR_CODE_FAILED_PRECONDITION, "from rank 3 to 5");
    other = options;
    other.kind = MR_LINK_GRADIENT;
    link_fails(open_sender(&other), MR_CODE_FAILED_PRECONDITION, "gradients");
    link_ok(open_sender(&options)); /* none of them took its place */
    mr_link_close(receiver);
    link_fails(open_sender(&options), MR_CODE_FAILED_PRECONDITION, "no link is open");
}

static void test_second_peer_is_refused(void **state) {
    (void)state;
    const mr_link_options options = link_options();
    mr_link *receiver;
    mr_link *again = NULL;
    writer peer;
    link_ok(mr_link_grpc_receiver(link_rig_hub(), &options, &receiver));
    link_fails(mr_link_grpc_receiver(link_rig_hub(), &options, &again), MR_CODE_ALREADY_EXISTS,
               "rank 3 to 4");
    writer_greet(&peer);
    link_fails(open_sender(&options), MR_CODE_FAILED_PRECONDITION, "already has its peer");
    writer_close(&peer);
    mr_link_close(receiver);
}

static void test_stream_without_greeting_is_refused(void **state) {
    (void)state;
    writer peer;
    draft first;
    writer_open(&peer);
    draft_init(&first);
    writer_send(&peer, &first.frame);
    link_fails(writer_wait_end(&peer), MR_CODE_FAILED_PRECONDITION, "instead of a greeting");
    writer_close(&peer);
}

static void test_nobody_at_the_address_is_unavailable(void **state) {
    (void)state;
    const mr_link_options options = link_options();
    const mr_rpc_credentials credentials = {0};
    mr_link *sender = NULL;
    link_fails(mr_link_grpc_sender("127.0.0.1:1", &credentials, &options, LINK_LONG_MS, &sender),
               MR_CODE_UNAVAILABLE, "127.0.0.1:1");
    assert_null(sender);
}

/* ---- a receiver that is not ours ---- */

static void *odd_opened(mr_rpc_stream *stream, void *service_context) {
    mr_rpc_stream_receive(stream);
    return service_context;
}

/* Answers the greeting with credit for messages that were never sent; NULL context: not at all. */
static void odd_received(mr_rpc_stream *stream, ProtobufCMessage *owned_message,
                         mr_rpc_tail *owned_tail, void *context) {
    protobuf_c_message_free_unpacked(owned_message, NULL);
    mr_rpc_tail_destroy(owned_tail);
    if (context == NULL)
        return;
    Millrace__V1__LinkCredit credit = MILLRACE__V1__LINK_CREDIT__INIT;
    link_ok(mr_rpc_stream_send(stream, &credit.base, NULL));
    credit.taken = 5;
    link_ok(mr_rpc_stream_send(stream, &credit.base, NULL));
}

static void odd_ended(mr_rpc_stream *stream, mr_status status, void *context) {
    (void)status;
    (void)context;
    mr_rpc_stream_finish(stream, MR_OK);
    mr_rpc_stream_unref(stream);
}

static void test_odd_receiver_is_lost_or_late(void **state) {
    static const mr_rpc_stream_events events = {.on_message = odd_received, .on_end = odd_ended};
    static const mr_rpc_method methods[] = {
        {.name = "Link", .on_open = odd_opened, .events = &events}};
    static int answers;
    const mr_rpc_credentials credentials = {0};
    const mr_link_options options = link_options();
    (void)state;
    for (int i = 0; i < 2; i++) {
        const mr_rpc_service service = {.descriptor = &millrace__v1__link__descriptor,
                                        .methods = methods,
                                        .method_count = 1,
                                        .context = i == 0 ? &answers : NULL};
        const mr_rpc_server_options server_options = {
            .listen = "127.0.0.1:0", .services = &service, .service_count = 1};
        mr_rpc_server *server;
        mr_link *sender = NULL;
        link_ok(mr_rpc_server_start(&server_options, &server));
        mr_status status = mr_link_grpc_sender(mr_rpc_server_address(server), &credentials,
                                               &options, i == 0 ? LINK_LONG_MS : 100, &sender);
        if (i == 0) {
            link_ok(status);
            link_parcel parcel = link_parcel_make(0, 0, 10);
            while (mr_status_is_ok(status)) /* the false credit is on its way */
                status = mr_link_wait_sent(sender, 0, LINK_LONG_MS);
            link_fails(status, MR_CODE_UNAVAILABLE, "took 5 messages of 0");
            link_fails(mr_link_send(sender, &parcel.message), MR_CODE_UNAVAILABLE, "rank 4");
            link_parcel_free(&parcel);
        } else {
            link_fails(status, MR_CODE_DEADLINE_EXCEEDED, "rank 4");
        }
        mr_link_close(sender);
        mr_rpc_server_stop(server, 100);
    }
}

static int group_start(void **state) {
    (void)state;
    link_makers[1].start();
    return 0;
}

static int group_stop(void **state) {
    (void)state;
    link_makers[1].stop();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spoiled_first_frame_ends_the_link),
        cmocka_unit_test(test_spoiled_second_frame_ends_the_link),
        cmocka_unit_test(test_frames_cut_anywhere_are_joined),
        cmocka_unit_test(test_peer_beyond_its_credit_is_cut_off),
        cmocka_unit_test(test_peer_that_vanishes_is_lost),
        cmocka_unit_test(test_wrong_greeting_is_refused_by_name),
        cmocka_unit_test(test_second_peer_is_refused),
        cmocka_unit_test(test_stream_without_greeting_is_refused),
        cmocka_unit_test(test_nobody_at_the_address_is_unavailable),
        cmocka_unit_test(test_odd_receiver_is_lost_or_late),
    };
    return cmocka_run_group_tests(tests, group_start, group_stop);
}
