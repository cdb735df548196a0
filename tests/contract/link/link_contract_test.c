/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: what link.h promises, for every implementation: messages arrive whole, in order and as they
 * were sent; memory is bounded; every wait ends by its bound, an interrupt or the peer's end, and
 * says who and what it waited for. Method: both ends in one process, the gRPC ones over a real
 * loopback server; every test runs on every implementation. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/base/clock.h"
#include "tests/contract/link/link_rig.h"

/* Messages that send takes before the receiver has released one: outbox.h. */
enum { UNRELEASED_MAX = 2 * LINK_SLOTS + 2 };

static const link_maker *maker; /* under test */

static void open_pair(mr_link **out_sender, mr_link **out_receiver) {
    const mr_link_options options = link_options();
    maker->open(&options, out_sender, out_receiver);
}

static void close_pair(mr_link *sender, mr_link *receiver) {
    mr_link_close(sender);
    mr_link_close(receiver);
}

/* ---- messages
 * ----------------------------------------------------------------------------------- */

enum { ORDER_MESSAGES = 60 };

static link_parcel order_parcel(uint32_t number) {
    return link_parcel_make(number / 8, number % 8, 1 + (size_t)number * 131 % 9000);
}

/* Sends every message, keeping at most two sets of bytes alive, as a stage does. */
static void *order_sender(void *context) {
    mr_link *sender = context;
    link_parcel last = {0};
    for (uint32_t i = 0; i < ORDER_MESSAGES; i++) {
        link_parcel parcel = order_parcel(i);
        MR_ASSERT(mr_status_is_ok(mr_link_send(sender, &parcel.message)));
        MR_ASSERT(mr_status_is_ok(mr_link_wait_sent(sender, 1, LINK_LONG_MS)));
        link_parcel_free(&last);
        last = parcel;
    }
    MR_ASSERT(mr_status_is_ok(mr_link_wait_sent(sender, 0, LINK_LONG_MS)));
    link_parcel_free(&last);
    return NULL;
}

static void test_many_messages_arrive_in_order(void **state) {
    (void)state;
    mr_link *sender;
    mr_link *receiver;
    open_pair(&sender, &receiver);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, order_sender, sender), 0);
    mr_message held[2] = {0}; /* a stage holds some while it receives the next */
    for (uint32_t i = 0; i < ORDER_MESSAGES; i++) {
        link_parcel want = order_parcel(i);
        mr_message *received = &held[i % 2];
        if (received->slot != NULL)
            mr_link_release(receiver, received);
        link_ok(mr_link_receive(receiver, want.message.step, want.message.micro_batch, 0,
                                LINK_LONG_MS, received));
        link_parcel_check(&want, received);
        link_parcel_free(&want);
    }
    mr_link_release(receiver, &held[0]);
    mr_link_release(receiver, &held[1]);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(mr_link_bytes(sender) > 0);
    assert_int_equal(mr_link_bytes(sender), mr_link_bytes(receiver));
    close_pair(sender, receiver);
}

/* The field receives a later shape into the first one's buffer, and takes every floating tensor for
 * one with a gradient (deepspeed.md 98, 99). */
static void test_tensors_of_every_type_keep_names_and_shapes(void **state) {
    (void)state;
    mr_link *sender;
    mr_link *receiver;
    open_pair(&sender, &receiver);
    for (uint32_t m = 0; m < 4; m++) { /* another list each time */
        link_parcel parcel = {.message = {.step = 1ULL << 40, .micro_batch = m, .chunk = 15}};
        for (int dtype = 1; dtype < MR_DTYPE_COUNT; dtype++) {
            char name[MR_TENSOR_NAME_BYTES];
            (void)snprintf(name, sizeof(name), "tensor.%d/%0*u", dtype, 8 + (int)m, m);
            const size_t dims[MR_TENSOR_DIMS_MAX] = {1 + m, 2, 1, 3, 1, (size_t)dtype};
            link_parcel_add(&parcel, name, (mr_dtype)dtype, MR_TENSOR_DIMS_MAX - m, dims);
        }
        const size_t none[2] = {5, 0};
        link_parcel_add(&parcel, "empty", MR_DTYPE_I64, 2, none);
        link_parcel_add(&parcel, "scalar", MR_DTYPE_F32, 0, none);
        link_parcel_add(&parcel, "a-name-of-thirty-one-characters", MR_DTYPE_U8, 1, &none[0]);
        link_parcel_fill(&parcel);
        link_pass(sender, receiver, &parcel);
        link_parcel_free(&parcel);
    }
    close_pair(sender, receiver);
}

static void test_large_tensor_arrives_whole(void **state) {
    (void)state;
    mr_link_options options = link_options();
    options.message_bytes_max = (40u << 20) + 4096;
    options.slots = 1;
    mr_link *sender;
    mr_link *receiver;
    maker->open(&options, &sender, &receiver);
    link_parcel parcel = {0};
    const size_t large = 10u << 20;
    const size_t small = 1024;
    link_parcel_add(&parcel, "activation", MR_DTYPE_F32, 1, &large);
    link_parcel_add(&parcel, "labels", MR_DTYPE_I32, 1, &small);
    link_parcel_fill(&parcel);
    link_pass(sender, receiver, &parcel);
    assert_int_equal(mr_link_bytes(receiver), (large + small) * 4);
    link_parcel_free(&parcel);
    close_pair(sender, receiver);
}

static void test_impossible_message_is_refused(void **state) {
    (void)state;
    mr_link *sender;
    mr_link *receiver;
    open_pair(&sender, &receiver);
    link_parcel parcel = {0};
    link_fails(mr_link_send(sender, &parcel.message), MR_CODE_INVALID_ARGUMENT, "0 tensors");
    const size_t none = 0;
    link_parcel_add(&parcel, "empty", MR_DTYPE_F32, 1, &none);
    link_fails(mr_link_send(sender, &parcel.message), MR_CODE_INVALID_ARGUMENT, "not one byte");
    parcel.message.tensors[0].tensor.shape.dtype = MR_DTYPE_NONE;
    link_fails(mr_link_send(sender, &parcel.message), MR_CODE_INVALID_ARGUMENT, "empty");
    link_parcel over = link_parcel_make(0, 0, LINK_BYTES / 4 + 1);
    link_fails(mr_link_send(sender, &over.message), MR_CODE_RESOURCE_EXHAUSTED, "65536");
    link_parcel_free(&over);
    link_parcel most = link_parcel_make(0, 0, LINK_BYTES / 4); /* and nothing is broken */
    link_pass(sender, receiver, &most);
    link_parcel_free(&most);
    close_pair(sender, receiver);
}

static void test_wrong_tag_is_aborted_and_names_both(void **state) {
    (void)state;
    mr_link *sender;
    mr_link *receiver;
    open_pair(&sender, &receiver);
    link_parcel parcel = link_parcel_make(17, 5, 100);
    mr_message received = {0};
    link_ok(mr_link_send(sender, &parcel.message));
    mr_status status = mr_link_receive(receiver, 16, 3, 0, LINK_LONG_MS, &received);
    link_fails(status, MR_CODE_ABORTED, "step 16 microbatch 3 chunk 0");
    link_fails(status, MR_CODE_ABORTED, "step 17 microbatch 5 chunk 0");
    link_fails(status, MR_CODE_ABORTED, "rank 3");
    assert_null(received.slot);
    link_ok(mr_link_receive(receiver, 17, 5, 0, LINK_LONG_MS, &received)); /* it is still there */
    link_parcel_check(&parcel, &received);
    mr_link_release(receiver, &received);
    link_ok(mr_link_wait_sent(sender, 0, LINK_LONG_MS));
    link_parcel_free(&parcel);
    close_pair(sender, receiver);
}

/* ---- bounds
 * ------------------------------------------------------------------------------------- */

static void test_slots_bound_what_is_under_way(void **state) {
    (void)state;
    mr_link *sender;
    mr_link *receiver;
    open_pair(&sender, &receiver);
    link_parcel parcels[UNRELEASED_MAX];
    for (uint32_t m = 0; m < UNRELEASED_MAX; m++) {
        parcels[m] = link_parcel_make(2, m, 1000);
        link_ok(mr_link_send(sender, &parcels[m].message));
    }
    link_fails(mr_link_send(sender, &parcels[0].message), MR_CODE_RESOURCE_EXHAUSTED, "rank 4");
    /* The receiver takes a message for each slot by itself, and not one more. */
    link_ok(mr_link_wait_sent(sender, UNRELEASED_MAX - LINK_SLOTS, LINK_LONG_MS));
    mr_status status = mr_link_wait_sent(sender, UNRELEASED_MAX - LINK_SLOTS - 1, 50);
    link_fails(status, MR_CODE_DEADLINE_EXCEEDED, "rank 4");
    link_fails(status, MR_CODE_DEADLINE_EXCEEDED, "step 2 microbatch 3 chunk 0");
    for (uint32_t m = 0; m < UNRELEASED_MAX; m++) {
        mr_message received = {0};
        link_ok(mr_link_receive(receiver, 2, m, 0, LINK_LONG_MS, &received));
        link_parcel_check(&parcels[m], &received);
        mr_link_release(receiver, &received);
    }
    link_ok(mr_link_wait_sent(sender, 0, LINK_LONG_MS));
    for (uint32_t m = 0; m < UNRELEASED_MAX; m++)
        link_parcel_free(&parcels[m]);
    close_pair(sender, receiver);
}

static void test_held_messages_keep_their_bytes(void **state) {
    (void)state;
    mr_link *sender;
    mr_link *receiver;
    open_pair(&sender, &receiver);
    link_parcel parcels[LINK_SLOTS + 1];
    mr_message held[LINK_SLOTS + 1];
    for (uint32_t m = 0; m <= LINK_SLOTS; m++) {
        parcels[m] = link_parcel_make(0, m, 2000);
        link_ok(mr_link_send(sender, &parcels[m].message));
    }
    for (uint32_t m = 0; m < LINK_SLOTS; m++)
        link_ok(mr_link_receive(receiver, 0, m, 0, LINK_LONG_MS, &held[m]));
    link_fails(mr_link_receive(receiver, 0, LINK_SLOTS, 0, 20, &held[LINK_SLOTS]),
               MR_CODE_DEADLINE_EXCEEDED, "rank 3"); /* no slot for it */
    mr_link_release(receiver, &held[1]);
    link_ok(mr_link_receive(receiver, 0, LINK_SLOTS, 0, LINK_LONG_MS, &held[LINK_SLOTS]));
    for (uint32_t m = 0; m <= LINK_SLOTS; m++)
        if (m != 1)
            link_parcel_check(&parcels[m], &held[m]);
    for (uint32_t m = 0; m <= LINK_SLOTS; m++)
        if (m != 1)
            mr_link_release(receiver, &held[m]);
    link_ok(mr_link_wait_sent(sender, 0, LINK_LONG_MS));
    for (uint32_t m = 0; m <= LINK_SLOTS; m++)
        link_parcel_free(&parcels[m]);
    close_pair(sender, receiver);
}

static void test_timeout_names_the_rank_and_the_message(void **state) {
    (void)state;
    mr_link *sender;
    mr_link *receiver;
    open_pair(&sender, &receiver);
    mr_message received;
    int64_t start_ms = mr_clock_now_ms();
    mr_status status = mr_link_receive(receiver, 9, 2, 1, 40, &received);
    assert_true(mr_clock_now_ms() - start_ms >= 39);
    link_fails(status, MR_CODE_DEADLINE_EXCEEDED, "rank 3");
    link_fails(status, MR_CODE_DEADLINE_EXCEEDED, "step 9 microbatch 2 chunk 1");
    link_fails(status, MR_CODE_DEADLINE_EXCEEDED, "40 ms");
    link_fails(mr_link_receive(receiver, 9, 2, 1, 0, &received), MR_CODE_DEADLINE_EXCEEDED,
               "rank 3");
    link_parcel parcel = link_parcel_make(9, 2, 10); /* a timeout loses nothing */
    link_pass(sender, receiver, &parcel);
    link_parcel_free(&parcel);
    close_pair(sender, receiver);
}

static void test_step_path_allocates_nothing(void **state) {
    (void)state;
    mr_link *sender;
    mr_link *receiver;
    open_pair(&sender, &receiver);
    link_parcel parcel = link_parcel_make(0, 0, 4000);
    for (int i = 0; i < 4; i++)
        link_pass(sender, receiver, &parcel);
    uint64_t before = mr_alloc_count();
    for (int i = 0; i < 20; i++)
        link_pass(sender, receiver, &parcel);
    assert_int_equal(mr_alloc_count(), before);
    link_parcel_free(&parcel);
    close_pair(sender, receiver);
}

/* ---- interrupts
 * --------------------------------------------------------------------------------- */

typedef struct waiter {
    mr_link *link;
    bool sends;
    mr_status status;
    int64_t ended_ms;
} waiter;

static void *waiter_run(void *context) {
    waiter *self = context;
    mr_message received;
    self->status = self->sends
                       ? mr_link_wait_sent(self->link, 0, LINK_LONG_MS)
                       : mr_link_receive(self->link, 0, 0, 0, -1, &received);
    self->ended_ms = mr_clock_now_ms();
    return NULL;
}

static void test_interrupt_ends_every_wait(void **state) {
    (void)state;
    mr_link *sender;
    mr_link *receiver;
    open_pair(&sender, &receiver);
    link_parcel parcels[LINK_SLOTS + 1];
    waiter receiving = {.link = receiver};
    waiter sending = {.link = sender, .sends = true};
    pthread_t threads[2];
    assert_int_equal(pthread_create(&threads[0], NULL, waiter_run, &receiving), 0);
    mr_link_interrupt(receiver, "the job is aborted");
    int64_t interrupted_ms = mr_clock_now_ms();
    assert_int_equal(pthread_join(threads[0], NULL), 0);
    link_fails(receiving.status, MR_CODE_CANCELLED, "the job is aborted");
    assert_true(receiving.ended_ms - interrupted_ms < LINK_SOON_MS);
    for (uint32_t m = 0; m <= LINK_SLOTS; m++) {
        parcels[m] = link_parcel_make(0, m, 1000);
        link_ok(mr_link_send(sender, &parcels[m].message));
    }
    assert_int_equal(pthread_create(&threads[1], NULL, waiter_run, &sending), 0);
    mr_link_interrupt(sender, "the daemon stops");
    interrupted_ms = mr_clock_now_ms();
    assert_int_equal(pthread_join(threads[1], NULL), 0);
    link_fails(sending.status, MR_CODE_CANCELLED, "the daemon stops");
    assert_true(sending.ended_ms - interrupted_ms < LINK_SOON_MS);
    /* Later ones, too, with the first reason. */
    mr_link_interrupt(sender, "another reason");
    mr_message received;
    link_fails(mr_link_receive(receiver, 0, 0, 0, -1, &received), MR_CODE_CANCELLED, "aborted");
    link_fails(mr_link_wait_sent(sender, 9, 0), MR_CODE_CANCELLED, "the daemon stops");
    link_fails(mr_link_send(sender, &parcels[0].message), MR_CODE_CANCELLED, "the daemon stops");
    int64_t start_ms = mr_clock_now_ms();
    close_pair(sender, receiver);
    assert_true(mr_clock_now_ms() - start_ms < LINK_SOON_MS);
    for (uint32_t m = 0; m <= LINK_SLOTS; m++)
        link_parcel_free(&parcels[m]);
}

/* ---- the peer's end
 * ----------------------------------------------------------------------------- */

static void test_closed_sender_is_told_after_its_last_message(void **state) {
    (void)state;
    mr_link *sender;
    mr_link *receiver;
    open_pair(&sender, &receiver);
    link_parcel parcels[2];
    for (uint32_t m = 0; m < 2; m++) {
        parcels[m] = link_parcel_make(0, m, 300);
        link_ok(mr_link_send(sender, &parcels[m].message));
    }
    link_ok(mr_link_wait_sent(sender, 0, LINK_LONG_MS));
    mr_link_close(sender);
    for (uint32_t m = 0; m < 2; m++) {
        mr_message received;
        link_ok(mr_link_receive(receiver, 0, m, 0, LINK_LONG_MS, &received));
        link_parcel_check(&parcels[m], &received);
        link_parcel_free(&parcels[m]);
        mr_link_release(receiver, &received);
    }
    mr_message received;
    link_fails(mr_link_receive(receiver, 0, 2, 0, -1, &received), MR_CODE_UNAVAILABLE,
               "rank 3 is lost");
    link_fails(mr_link_receive(receiver, 0, 2, 0, -1, &received), MR_CODE_UNAVAILABLE,
               "rank 3 is lost");
    mr_link_close(receiver);
}

static void test_closed_receiver_ends_the_senders_wait(void **state) {
    (void)state;
    mr_link *sender;
    mr_link *receiver;
    open_pair(&sender, &receiver);
    link_parcel parcels[LINK_SLOTS + 1];
    for (uint32_t m = 0; m <= LINK_SLOTS; m++) {
        parcels[m] = link_parcel_make(0, m, 1000);
        link_ok(mr_link_send(sender, &parcels[m].message));
    }
    waiter sending = {.link = sender, .sends = true};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, waiter_run, &sending), 0);
    mr_link_close(receiver);
    assert_int_equal(pthread_join(thread, NULL), 0);
    link_fails(sending.status, MR_CODE_UNAVAILABLE, "rank 4 is lost");
    link_fails(mr_link_send(sender, &parcels[0].message), MR_CODE_UNAVAILABLE, "rank 4 is lost");
    mr_link_close(sender);
    for (uint32_t m = 0; m <= LINK_SLOTS; m++)
        link_parcel_free(&parcels[m]);
}

/* Whatever is under way when an end closes: the bytes are the caller's again when close returns. */
static void test_close_gives_the_bytes_back(void **state) {
    (void)state;
    for (int order = 0; order < 2; order++) {
        mr_link_options options = link_options();
        options.message_bytes_max = 4u << 20;
        mr_link *sender;
        mr_link *receiver;
        maker->open(&options, &sender, &receiver);
        link_parcel parcels[UNRELEASED_MAX];
        for (uint32_t m = 0; m < UNRELEASED_MAX; m++) {
            parcels[m] = link_parcel_make(0, m, 1u << 20);
            link_ok(mr_link_send(sender, &parcels[m].message));
        }
        if (order == 0)
            mr_link_close(receiver);
        else
            mr_link_interrupt(sender, "closing");
        mr_link_close(sender);
        for (uint32_t m = 0; m < UNRELEASED_MAX; m++)
            link_parcel_free(&parcels[m]);
        if (order == 1)
            mr_link_close(receiver);
    }
}

static void test_impossible_options_are_refused(void **state) {
    (void)state;
    mr_link_options options = link_options();
    mr_link *ends[2] = {NULL, NULL};
    options.slots = 0;
    link_fails(mr_link_in_process(&options, &ends[0], &ends[1]), MR_CODE_INVALID_ARGUMENT,
               "0 slots");
    options.slots = SIZE_MAX / 2;
    link_fails(mr_link_in_process(&options, &ends[0], &ends[1]), MR_CODE_INVALID_ARGUMENT,
               "slots");
    options = link_options();
    options.message_bytes_max = 0;
    link_fails(mr_link_in_process(&options, &ends[0], &ends[1]), MR_CODE_INVALID_ARGUMENT,
               "0 bytes");
    assert_null(ends[0]);
    assert_null(ends[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_messages_arrive_in_order),
        cmocka_unit_test(test_tensors_of_every_type_keep_names_and_shapes),
        cmocka_unit_test(test_large_tensor_arrives_whole),
        cmocka_unit_test(test_impossible_message_is_refused),
        cmocka_unit_test(test_wrong_tag_is_aborted_and_names_both),
        cmocka_unit_test(test_slots_bound_what_is_under_way),
        cmocka_unit_test(test_held_messages_keep_their_bytes),
        cmocka_unit_test(test_timeout_names_the_rank_and_the_message),
        cmocka_unit_test(test_step_path_allocates_nothing),
        cmocka_unit_test(test_interrupt_ends_every_wait),
        cmocka_unit_test(test_closed_sender_is_told_after_its_last_message),
        cmocka_unit_test(test_closed_receiver_ends_the_senders_wait),
        cmocka_unit_test(test_close_gives_the_bytes_back),
        cmocka_unit_test(test_impossible_options_are_refused),
    };
    int failed = 0;
    for (size_t i = 0; i < sizeof(link_makers) / sizeof(link_makers[0]); i++) {
        maker = &link_makers[i];
        (void)printf("---- %s\n", maker->name);
        maker->start();
        failed += cmocka_run_group_tests(tests, NULL, NULL);
        maker->stop();
    }
    return failed;
}
