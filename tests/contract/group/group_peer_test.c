/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the first member of a gRPC group survives any peer: a join of an old epoch, another group
 * or a rank that is no member is refused by name; frames that are damaged, too large or out of turn
 * end the operation with a status, and never write outside its memory.
 * Method: a real first member against a stream that the test writes frame by frame. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/limits.h"
#include "daemon/base/monitor.h"
#include "daemon/rpc/channel.h"
#include "millrace/v1/group.pb-c.h"
#include "tests/contract/group/group_rig.h"

/* ---- a member that the test writes by hand ---- */

typedef struct writer {
    mr_rpc_channel *channel;
    mr_rpc_stream *stream;
    mr_monitor monitor;
    unsigned frames;
    bool ended;
    mr_status end;
} writer;

static void writer_received(mr_rpc_stream *stream, ProtobufCMessage *owned_message,
                            mr_rpc_tail *owned_tail, void *context) {
    writer *self = context;
    mr_rpc_tail_destroy(owned_tail);
    protobuf_c_message_free_unpacked(owned_message, NULL);
    mr_monitor_lock(&self->monitor);
    self->frames++;
    mr_monitor_notify(&self->monitor);
    mr_monitor_unlock(&self->monitor);
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

static Millrace__V1__GroupFrame writer_frame(Millrace__V1__GroupOperation operation,
                                             uint64_t sequence) {
    static char job[] = "job-a";
    static char id[] = "pipe/0";
    Millrace__V1__GroupFrame frame = MILLRACE__V1__GROUP_FRAME__INIT;
    frame.job_id = job;
    frame.group_id = id;
    frame.epoch = 7;
    frame.rank = group_ranks[1];
    frame.operation = operation;
    frame.sequence = sequence;
    return frame;
}

static void writer_send(writer *self, const Millrace__V1__GroupFrame *frame) {
    mr_status status = mr_rpc_stream_send(self->stream, &frame->base, NULL);
    if (status.code != MR_CODE_CANCELLED) /* it may have been cut off already */
        group_ok(status);
}

static void writer_open(writer *self) {
    static const mr_rpc_stream_events events = {.on_message = writer_received,
                                                .on_end = writer_ended};
    const mr_rpc_credentials credentials = {0};
    *self = (writer){0};
    mr_monitor_init(&self->monitor);
    group_ok(mr_rpc_channel_create(group_rig_address(), &credentials, &self->channel));
    group_ok(mr_rpc_channel_open(self->channel, &millrace__v1__group__descriptor, "Group", NULL,
                                 &events, self, 0, &self->stream));
    mr_rpc_stream_receive(self->stream);
}

static void writer_join(writer *self) {
    writer_open(self);
    const Millrace__V1__GroupFrame join =
        writer_frame(MILLRACE__V1__GROUP_OPERATION__GROUP_OPERATION_JOIN, 0);
    writer_send(self, &join);
    int64_t deadline = mr_monitor_deadline(GROUP_LONG_MS);
    bool in_time = true;
    mr_monitor_lock(&self->monitor);
    while (self->frames == 0 && !self->ended && in_time)
        in_time = mr_monitor_wait(&self->monitor, deadline);
    unsigned frames = self->frames;
    mr_monitor_unlock(&self->monitor);
    assert_int_equal(frames, 1);
}

static void writer_close(writer *self) {
    int64_t deadline = mr_monitor_deadline(GROUP_LONG_MS);
    bool in_time = true;
    mr_rpc_stream_cancel(self->stream);
    mr_monitor_lock(&self->monitor);
    while (!self->ended && in_time)
        in_time = mr_monitor_wait(&self->monitor, deadline);
    mr_monitor_unlock(&self->monitor);
    assert_true(in_time);
    mr_rpc_stream_unref(self->stream);
    mr_rpc_channel_destroy(self->channel);
    mr_monitor_deinit(&self->monitor);
}

/* ---- frames that end an operation ---- */

enum { VECTOR = 16 }; /* elements */

/* What member 1 sends for sum 1 of VECTOR elements, and what a test makes of it. */
typedef struct draft {
    Millrace__V1__GroupFrame frame;
    uint8_t payload[VECTOR * sizeof(float) + 64];
} draft;

static void draft_init(draft *self) {
    *self = (draft){
        .frame = writer_frame(MILLRACE__V1__GROUP_OPERATION__GROUP_OPERATION_SUM, 1)};
    self->frame.part_count = 1;
    self->frame.bytes_total = VECTOR * sizeof(float);
    self->frame.payload = (ProtobufCBinaryData){VECTOR * sizeof(float), self->payload};
}

static void spoil_operation(draft *self) {
    self->frame.operation = MILLRACE__V1__GROUP_OPERATION__GROUP_OPERATION_GATHER;
}
static void spoil_unknown(draft *self) {
    self->frame.operation = (Millrace__V1__GroupOperation)77;
}
static void spoil_sequence(draft *self) {
    self->frame.sequence = 2;
}
static void spoil_offset(draft *self) {
    self->frame.offset = 8;
}
static void spoil_huge_offset(draft *self) {
    self->frame.offset = UINT64_MAX - 3;
}
static void spoil_part(draft *self) {
    self->frame.part = 1;
}
static void spoil_total(draft *self) {
    self->frame.bytes_total = UINT64_MAX;
}
static void spoil_long(draft *self) {
    self->frame.payload.len = VECTOR * sizeof(float) + 4;
}
static void spoil_empty(draft *self) {
    self->frame.payload.len = 0;
}
static void spoil_ragged(draft *self) {
    self->frame.payload.len = 7;
}
static void spoil_epoch(draft *self) {
    self->frame.epoch = 6;
}

static const struct {
    void (*spoil)(draft *self);
    const char *text;
} spoiled[] = {
    {spoil_operation, "gather"},  {spoil_unknown, "unknown"}, {spoil_sequence, "number 2"},
    {spoil_offset, "at 8"},       {spoil_huge_offset, "at"},  {spoil_part, "part 1"},
    {spoil_total, "rank 5"},      {spoil_long, "rank 5"},     {spoil_empty, "rank 5"},
    {spoil_ragged, "whole elements"},
};

static mr_group *open_first(size_t bytes_max) {
    mr_group_options options = group_options(2);
    mr_group *group = NULL;
    options.bytes_max = bytes_max;
    group_ok(mr_group_grpc_first(group_rig_hub(), &options, &group));
    return group;
}

static void test_spoiled_frame_aborts_the_sum(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(spoiled) / sizeof(spoiled[0]); i++) {
        mr_group *first = open_first(VECTOR * sizeof(float));
        writer peer;
        draft bad;
        float out[VECTOR] = {0};
        const float *parts[1] = {out};
        writer_join(&peer);
        draft_init(&bad);
        spoiled[i].spoil(&bad);
        writer_send(&peer, &bad.frame);
        mr_status status = mr_group_sum(first, parts, 1, out, VECTOR, GROUP_LONG_MS);
        group_fails(status, MR_CODE_ABORTED, spoiled[i].text);
        group_fails(status, MR_CODE_ABORTED, "rank 5");
        mr_group_close(first);
        writer_close(&peer);
    }
}

static void test_frame_of_an_old_epoch_is_refused(void **state) {
    (void)state;
    mr_group *first = open_first(VECTOR * sizeof(float));
    writer peer;
    draft bad;
    float out[VECTOR] = {0};
    const float *parts[1] = {out};
    writer_join(&peer);
    draft_init(&bad);
    spoil_epoch(&bad);
    writer_send(&peer, &bad.frame);
    mr_status status = mr_group_sum(first, parts, 1, out, VECTOR, GROUP_LONG_MS);
    assert_int_not_equal(status.code, MR_CODE_OK);
    assert_non_null(strstr(status.text, "epoch 6"));
    mr_group_close(first);
    writer_close(&peer);
}

/* A frame may be as large as gRPC allows; the first member's staging is not. */
static void test_frame_larger_than_a_chunk_stays_in_bounds(void **state) {
    (void)state;
    const size_t bytes = MR_LINK_CHUNK_BYTES_MAX + (1u << 20);
    const size_t n = bytes / sizeof(float);
    mr_group *first = open_first(bytes);
    float *out = calloc(n, sizeof(*out));
    uint8_t *payload = calloc(n, sizeof(*out));
    const float *parts[1] = {out};
    writer peer;
    draft large;
    assert_non_null(out);
    assert_non_null(payload);
    writer_join(&peer);
    draft_init(&large);
    large.frame.bytes_total = bytes;
    large.frame.payload = (ProtobufCBinaryData){bytes, payload};
    writer_send(&peer, &large.frame);
    group_fails(mr_group_sum(first, parts, 1, out, n, GROUP_LONG_MS), MR_CODE_ABORTED, "rank 5");
    mr_group_close(first);
    writer_close(&peer);
    free(payload);
    free(out);
}

static void test_member_that_vanishes_is_lost(void **state) {
    (void)state;
    mr_group *first = open_first(VECTOR * sizeof(float));
    writer peer;
    float out[VECTOR] = {0};
    const float *parts[1] = {out};
    writer_join(&peer);
    writer_close(&peer); /* cancels */
    group_fails(mr_group_sum(first, parts, 1, out, VECTOR, -1), MR_CODE_UNAVAILABLE, "rank 5");
    mr_group_close(first);
}

/* ---- joins ---- */

static mr_status join(const char *address, const mr_group_options *options) {
    const mr_rpc_credentials credentials = {0};
    mr_group *member = NULL;
    mr_status status =
        mr_group_grpc_member(address, &credentials, options, GROUP_LONG_MS, &member);
    mr_group_close(member);
    return status;
}

static void test_wrong_join_is_refused_by_name(void **state) {
    (void)state;
    static const uint32_t other_ranks[] = {2, 7};
    mr_group *first = open_first(64);
    mr_group_options right = group_options(2);
    right.rank = group_ranks[1];
    mr_group_options other = right;
    other.epoch = 6;
    group_fails(join(group_rig_address(), &other), MR_CODE_UNAVAILABLE, "epoch 6");
    other = right;
    other.job_id = "job-b";
    group_fails(join(group_rig_address(), &other), MR_CODE_UNAVAILABLE, "job-b");
    other = right;
    other.group_id = "pipe/1";
    group_fails(join(group_rig_address(), &other), MR_CODE_UNAVAILABLE, "pipe/1");
    other = right;
    other.ranks = other_ranks;
    other.rank = 7;
    group_fails(join(group_rig_address(), &other), MR_CODE_UNAVAILABLE, "rank 7");
    group_fails(join("127.0.0.1:1", &right), MR_CODE_UNAVAILABLE, "127.0.0.1:1");
    group_ok(join(group_rig_address(), &right)); /* none of them took its place */
    mr_group_close(first);
    group_fails(join(group_rig_address(), &right), MR_CODE_UNAVAILABLE, "pipe/0");
}

static void test_second_join_of_a_rank_is_refused(void **state) {
    (void)state;
    mr_group *first = open_first(64);
    mr_group_options options = group_options(2);
    writer peer;
    options.rank = group_ranks[1];
    writer_join(&peer);
    mr_status status = join(group_rig_address(), &options);
    assert_int_not_equal(status.code, MR_CODE_OK);
    assert_non_null(strstr(status.text, "joined already"));
    mr_group_close(first);
    writer_close(&peer);
}

static void test_stream_without_join_is_refused(void **state) {
    (void)state;
    writer peer;
    draft early;
    writer_open(&peer);
    draft_init(&early);
    writer_send(&peer, &early.frame);
    int64_t deadline = mr_monitor_deadline(GROUP_LONG_MS);
    bool in_time = true;
    mr_monitor_lock(&peer.monitor);
    while (!peer.ended && in_time)
        in_time = mr_monitor_wait(&peer.monitor, deadline);
    mr_monitor_unlock(&peer.monitor);
    group_fails(peer.end, MR_CODE_FAILED_PRECONDITION, "before a join");
    writer_close(&peer);
}

static int group_start(void **state) {
    (void)state;
    group_makers[1].start();
    return 0;
}

static int group_stop(void **state) {
    (void)state;
    group_makers[1].stop();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spoiled_frame_aborts_the_sum),
        cmocka_unit_test(test_frame_of_an_old_epoch_is_refused),
        cmocka_unit_test(test_frame_larger_than_a_chunk_stays_in_bounds),
        cmocka_unit_test(test_member_that_vanishes_is_lost),
        cmocka_unit_test(test_wrong_join_is_refused_by_name),
        cmocka_unit_test(test_second_join_of_a_rank_is_refused),
        cmocka_unit_test(test_stream_without_join_is_refused),
    };
    return cmocka_run_group_tests(tests, group_start, group_stop);
}
