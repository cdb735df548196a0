/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: bidi streams carry raw tails intact and without a copy of ours, tell sent once in every
 * outcome, bound what waits, and end once, whoever ends them. Method: the rig's Feed echo.
 * That no copy is made on the way out is shown by breaking the contract on purpose: bytes changed
 * after the send returned, while flow control holds them back, arrive changed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/limits.h"
#include "millrace/v1/link.pb-c.h"
#include "tests/unit/rpc/rig.h"

enum { LARGE_BYTES = 20 << 20 };

static rig test_rig;

static int start(void **state) {
    (void)state;
    rig_start(&test_rig, "127.0.0.1:0");
    return 0;
}

static int stop(void **state) {
    (void)state;
    rig_stop(&test_rig);
    return 0;
}

static unsigned char *large_make(void) {
    unsigned char *bytes = malloc(LARGE_BYTES);
    assert_non_null(bytes);
    uint32_t x = 1;
    for (size_t i = 0; i < LARGE_BYTES; i++) {
        x = x * 1664525 + 1013904223;
        bytes[i] = (unsigned char)(x >> 24);
    }
    return bytes;
}

static mr_status feed_send(rig_client *client, uint64_t step, const void *data, size_t bytes) {
    Millrace__V1__FeedRequest request = MILLRACE__V1__FEED_REQUEST__INIT;
    request.job_id = (char *)(uintptr_t)"j";
    request.step = step;
    const mr_rpc_raw raw = {
        .data = data, .bytes = bytes, .sent = rig_sent, .context = (void *)(uintptr_t)"sent"};
    return mr_rpc_stream_send(client->stream, &request.base, &raw);
}

static int clean(void **state) {
    (void)state;
    rig_latch_reset();
    return 0;
}

static void test_large_tail_comes_back_intact(void **state) {
    (void)state;
    unsigned char *bytes = large_make();
    unsigned char *back = calloc(1, LARGE_BYTES);
    assert_non_null(back);
    rig_client client = {.copy_to = back, .greedy = true};
    rig_feed_open(&test_rig, &client, 0);
    mr_rpc_stream_receive(client.stream);
    for (unsigned i = 1; i <= 3; i++) {
        rig_ok(feed_send(&client, i, bytes, LARGE_BYTES));
        rig_latch_wait("client-message", i);
        assert_int_equal(client.last_step, i);
        assert_int_equal(client.last_bytes, LARGE_BYTES);
        assert_memory_equal(back, bytes, LARGE_BYTES);
        rig_latch_wait("sent", i);
        memset(back, 0, LARGE_BYTES);
    }
    mr_rpc_stream_finish(client.stream, MR_OK);
    rig_latch_wait("client-end", 1);
    rig_ok(client.end);
    rig_latch_wait("server-end", 1);
    rig_ok(rig_server_end());
    mr_rpc_stream_unref(client.stream);
    rig_latch_wait("echo-sent", 3);
    assert_int_equal(rig_latch_count("sent"), 3);
    assert_int_equal(rig_latch_count("echo-sent"), 3);
    free(bytes);
    free(back);
}

static void test_empty_and_missing_payloads_come_back(void **state) {
    (void)state;
    rig_client client = {.greedy = true};
    rig_feed_open(&test_rig, &client, 5000);
    mr_rpc_stream_receive(client.stream);
    rig_ok(feed_send(&client, 7, "", 0));
    Millrace__V1__FeedRequest request = MILLRACE__V1__FEED_REQUEST__INIT;
    rig_ok(mr_rpc_stream_send(client.stream, &request.base, NULL));
    rig_latch_wait("client-message", 2);
    rig_latch_wait("sent", 1);
    assert_int_equal(client.last_bytes, 0);
    mr_rpc_stream_finish(client.stream, MR_OK);
    rig_latch_wait("client-end", 1);
    rig_latch_wait("server-end", 1);
    mr_rpc_stream_unref(client.stream);
}

static void test_foreign_payload_within_the_message_works(void **state) {
    (void)state;
    unsigned char bytes[1000];
    unsigned char back[1000] = {0};
    memset(bytes, 42, sizeof(bytes));
    rig_client client = {.greedy = true, .copy_to = back};
    rig_feed_open(&test_rig, &client, 5000);
    mr_rpc_stream_receive(client.stream);
    Millrace__V1__FeedRequest request = MILLRACE__V1__FEED_REQUEST__INIT;
    request.payload = (ProtobufCBinaryData){sizeof(bytes), bytes};
    rig_ok(mr_rpc_stream_send(client.stream, &request.base, NULL));
    rig_latch_wait("client-message", 1);
    assert_int_equal(client.last_bytes, sizeof(bytes));
    assert_memory_equal(bytes, back, sizeof(bytes));
    mr_rpc_stream_cancel(client.stream);
    rig_latch_wait("client-end", 1);
    rig_latch_wait("server-end", 1);
    mr_rpc_stream_unref(client.stream);
}

/* The receiver is told to stop reading by not asking: the server's echo of the first message waits
 * in flow control, so its later ones do, too. */
static void test_bytes_are_not_copied_when_sent(void **state) {
    (void)state;
    unsigned char *bytes = large_make();
    unsigned char *back = calloc(1, LARGE_BYTES);
    assert_non_null(back);
    rig_client client = {.copy_to = back};
    rig_feed_open(&test_rig, &client, 0);
    for (unsigned i = 0; i < 4; i++)
        rig_ok(feed_send(&client, i, bytes, LARGE_BYTES));
    /* Of the fourth, which cannot have left: 60 MiB are before it. */
    bytes[LARGE_BYTES - 1] ^= 0xff;
    unsigned char last = bytes[LARGE_BYTES - 1];
    for (unsigned i = 1; i <= 4; i++) {
        mr_rpc_stream_receive(client.stream);
        rig_latch_wait("client-message", i);
    }
    assert_int_equal(client.last_step, 3);
    assert_int_equal(back[LARGE_BYTES - 1], last);
    mr_rpc_stream_finish(client.stream, MR_OK);
    mr_rpc_stream_receive(client.stream);
    rig_latch_wait("client-end", 1);
    rig_latch_wait("sent", 4);
    rig_latch_wait("server-end", 1);
    mr_rpc_stream_unref(client.stream);
    free(bytes);
    free(back);
}

static void test_full_queue_refuses_and_still_says_sent(void **state) {
    (void)state;
    unsigned char *bytes = large_make();
    /* Never reads: the echo stops, then the server's reading. */
    rig_client client = {.greedy = false};
    rig_feed_open(&test_rig, &client, 0);
    unsigned accepted = 0;
    mr_status status = MR_OK;
    while (mr_status_is_ok(status) && accepted <= 2 * MR_RPC_SEND_QUEUE_MAX) {
        status = feed_send(&client, accepted, bytes, LARGE_BYTES);
        if (mr_status_is_ok(status))
            accepted++;
    }
    rig_fails(status, MR_CODE_RESOURCE_EXHAUSTED, "64 messages already wait");
    assert_in_range(accepted, MR_RPC_SEND_QUEUE_MAX, MR_RPC_SEND_QUEUE_MAX + 40);
    mr_rpc_stream_cancel(client.stream);
    rig_latch_wait("client-end", 1);
    rig_fails(client.end, MR_CODE_CANCELLED, "cancelled here");
    rig_latch_wait("sent", accepted + 1); /* the refused one as well */
    status = feed_send(&client, 0, bytes, LARGE_BYTES);
    rig_fails(status, MR_CODE_CANCELLED, "has ended");
    rig_latch_wait("sent", accepted + 2);
    mr_rpc_stream_unref(client.stream);
    rig_latch_wait("server-end", 1);
    assert_int_equal(rig_latch_count("sent"), accepted + 2);
    free(bytes);
}

static void test_over_limit_tail_is_refused_and_says_sent(void **state) {
    (void)state;
    unsigned char *bytes = calloc(1, MR_RPC_MESSAGE_BYTES_MAX);
    assert_non_null(bytes);
    rig_client client = {.greedy = true};
    rig_feed_open(&test_rig, &client, 5000);
    rig_fails(feed_send(&client, 0, bytes, MR_RPC_MESSAGE_BYTES_MAX), MR_CODE_RESOURCE_EXHAUSTED,
              "over the limit of 67108864");
    rig_latch_wait("sent", 1);
    rig_latch_wait("feed-open", 1);
    mr_rpc_stream_cancel(client.stream);
    rig_latch_wait("client-end", 1);
    rig_latch_wait("server-end", 1);
    mr_rpc_stream_unref(client.stream);
    free(bytes);
}

static void test_vanished_client_is_cancelled_at_the_server(void **state) {
    (void)state;
    rig_client client = {.greedy = true};
    rig_feed_open(&test_rig, &client, 0);
    mr_rpc_stream_receive(client.stream);
    rig_ok(feed_send(&client, 1, "x", 1));
    rig_latch_wait("client-message", 1);
    mr_rpc_stream_cancel(client.stream);
    rig_latch_wait("client-end", 1);
    rig_latch_wait("server-end", 1);
    rig_fails(rig_server_end(), MR_CODE_CANCELLED, "is gone");
    mr_rpc_stream_unref(client.stream);
    assert_int_equal(rig_latch_count("server-end"), 1);
    assert_int_equal(rig_latch_count("client-end"), 1);
}

static void test_deadline_ends_a_stream_on_both_sides(void **state) {
    (void)state;
    rig_client client = {.greedy = true};
    rig_feed_open(&test_rig, &client, 200);
    mr_rpc_stream_receive(client.stream);
    rig_latch_wait("client-end", 1);
    rig_fails(client.end, MR_CODE_DEADLINE_EXCEEDED, "no answer from 127.0.0.1:");
    rig_latch_wait("server-end", 1);
    rig_fails(rig_server_end(), MR_CODE_CANCELLED, "");
    mr_rpc_stream_unref(client.stream);
}

static void test_undecodable_message_ends_both_sides_with_why(void **state) {
    (void)state;
    const ProtobufCMethodDescriptor methods[] = {{"Feed", &millrace__v1__link_credit__descriptor,
                                                  &millrace__v1__feed_response__descriptor}};
    const unsigned by_name[] = {0};
    ProtobufCServiceDescriptor service = {.magic = PROTOBUF_C__SERVICE_DESCRIPTOR_MAGIC,
                                          .name = "millrace.v1.Feed",
                                          .n_methods = 1,
                                          .methods = methods,
                                          .method_indices_by_name = by_name};
    rig_client client = {.greedy = true};
    rig_ok(mr_rpc_channel_open(test_rig.channel, &service, "Feed", NULL, &rig_client_events,
                               &client, 5000, &client.stream));
    mr_rpc_stream_receive(client.stream);
    Millrace__V1__LinkCredit credit = MILLRACE__V1__LINK_CREDIT__INIT;
    credit.taken = 1;
    rig_ok(mr_rpc_stream_send(client.stream, &credit.base, NULL));
    rig_latch_wait("client-end", 1);
    rig_fails(client.end, MR_CODE_INVALID_ARGUMENT, "millrace.v1.FeedRequest of 2 bytes");
    rig_latch_wait("server-end", 1);
    rig_fails(rig_server_end(), MR_CODE_INVALID_ARGUMENT, "millrace.v1.FeedRequest");
    mr_rpc_stream_unref(client.stream);
}

static void test_undecodable_answer_ends_the_client(void **state) {
    (void)state;
    /* FeedResponse's event and step read as a Job: its id, a string, is a varint. */
    const ProtobufCMethodDescriptor methods[] = {
        {"Feed", &millrace__v1__feed_request__descriptor, &millrace__v1__job__descriptor}};
    const unsigned by_name[] = {0};
    ProtobufCServiceDescriptor service = {.magic = PROTOBUF_C__SERVICE_DESCRIPTOR_MAGIC,
                                          .name = "millrace.v1.Feed",
                                          .n_methods = 1,
                                          .methods = methods,
                                          .method_indices_by_name = by_name};
    rig_client client = {.greedy = true};
    rig_ok(mr_rpc_channel_open(test_rig.channel, &service, "Feed", NULL, &rig_client_events,
                               &client, 5000, &client.stream));
    mr_rpc_stream_receive(client.stream);
    rig_ok(feed_send(&client, 3, NULL, 0));
    rig_latch_wait("client-end", 1);
    rig_fails(client.end, MR_CODE_INVALID_ARGUMENT, "millrace.v1.Job of 2 bytes");
    rig_latch_wait("server-end", 1);
    mr_rpc_stream_unref(client.stream);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_large_tail_comes_back_intact, clean),
        cmocka_unit_test_setup(test_empty_and_missing_payloads_come_back, clean),
        cmocka_unit_test_setup(test_foreign_payload_within_the_message_works, clean),
        cmocka_unit_test_setup(test_bytes_are_not_copied_when_sent, clean),
        cmocka_unit_test_setup(test_full_queue_refuses_and_still_says_sent, clean),
        cmocka_unit_test_setup(test_over_limit_tail_is_refused_and_says_sent, clean),
        cmocka_unit_test_setup(test_vanished_client_is_cancelled_at_the_server, clean),
        cmocka_unit_test_setup(test_deadline_ends_a_stream_on_both_sides, clean),
        cmocka_unit_test_setup(test_undecodable_message_ends_both_sides_with_why, clean),
        cmocka_unit_test_setup(test_undecodable_answer_ends_the_client, clean),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
