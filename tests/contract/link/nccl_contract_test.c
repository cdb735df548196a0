/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: what link.h, link/nccl.h and link/cuda_ipc.h promise of links between devices, as far as it
 * shows without a card: messages arrive whole and in order, memory is bounded, every wait ends and
 * says whom it waited for, and NCCL and CUDA are used as they may be. Method: the real links over
 * the fake NCCL and CUDA, headers over a real gRPC loopback, a thread for each end; every test runs
 * on both kinds and ends without a violation and with nothing left behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/base/clock.h"
#include "daemon/group/fake_nccl/fake_nccl.h"
#include "tests/contract/link/nccl_rig.h"

static bool ipc; /* under test */

/* ---- messages ---- */

enum { ORDER_MESSAGES = 60, WARM_MESSAGES = 20 };

static link_parcel order_parcel(uint32_t number) {
    link_parcel parcel = {.message = {.step = number / 8, .micro_batch = number % 8}};
    const size_t dims[3] = {1 + number % 3, 2, 1 + (size_t)number * 131 % 2000};
    const size_t none = 0;
    link_parcel_add(&parcel, "activation", MR_DTYPE_BF16, 3, dims);
    if (number % 2 == 1)
        link_parcel_add(&parcel, "labels", MR_DTYPE_I32, 2, dims);
    if (number % 5 == 0)
        link_parcel_add(&parcel, "empty", MR_DTYPE_I64, 1, &none);
    link_parcel_fill(&parcel);
    return parcel;
}

static mr_status order_sender(mr_link *link, const mr_nccl_place *place, void *context) {
    link_parcel parcels[3] = {0};
    mr_status status = MR_OK;
    uint64_t allocations = 0;
    (void)place;
    (void)context;
    for (uint32_t i = 0; i < ORDER_MESSAGES && mr_status_is_ok(status); i++) {
        if (i == WARM_MESSAGES)
            allocations = mr_alloc_count();
        link_parcel_free(&parcels[i % 3]); /* three back: at most one is under way, and this one */
        parcels[i % 3] = order_parcel(i);
        status = mr_link_send(link, &parcels[i % 3].message);
        if (mr_status_is_ok(status))
            status = mr_link_wait_sent(link, 1, LINK_LONG_MS);
    }
    if (mr_status_is_ok(status))
        status = mr_link_wait_sent(link, 0, LINK_LONG_MS);
    if (mr_status_is_ok(status) && mr_alloc_count() != allocations)
        status = MR_ERROR(INTERNAL, "sending allocates");
    if (!mr_status_is_ok(status))
        return status; /* the link may still read the bytes */
    for (size_t i = 0; i < 3; i++)
        link_parcel_free(&parcels[i]);
    return status;
}

static mr_status order_receiver(mr_link *link, const mr_nccl_place *place, void *context) {
    mr_message held[2] = {0}; /* a stage holds one while it receives the next */
    mr_status status = MR_OK;
    uint64_t allocations = 0;
    (void)context;
    for (uint32_t i = 0; i < ORDER_MESSAGES && mr_status_is_ok(status); i++) {
        link_parcel want = order_parcel(i);
        if (i == WARM_MESSAGES)
            allocations = mr_alloc_count();
        if (held[i % 2].slot != NULL)
            mr_link_release(link, &held[i % 2]);
        status = mr_link_receive(link, want.message.step, want.message.micro_batch, 0,
                                 LINK_LONG_MS, &held[i % 2]);
        if (mr_status_is_ok(status))
            status = pair_settle(place);
        if (mr_status_is_ok(status))
            status = pair_check(&want, &held[i % 2]);
        link_parcel_free(&want);
    }
    for (size_t i = 0; i < 2; i++)
        if (held[i].slot != NULL)
            mr_link_release(link, &held[i]);
    if (mr_status_is_ok(status) && mr_alloc_count() != allocations)
        status = MR_ERROR(INTERNAL, "receiving allocates");
    return status;
}

static void test_many_messages_arrive_in_order_and_allocate_nothing(void **state) {
    (void)state;
    pair_run_ok(ipc, order_sender, order_receiver, NULL);
}

static mr_status refused_sender(mr_link *link, const mr_nccl_place *place, void *context) {
    link_parcel empty = {0};
    link_parcel over = link_parcel_make(0, 0, LINK_BYTES / 4 + 1);
    link_parcel most = link_parcel_make(0, 0, LINK_BYTES / 4);
    (void)place;
    (void)context;
    mr_status none = mr_link_send(link, &empty.message);
    mr_status large = mr_link_send(link, &over.message);
    mr_status good = mr_link_send(link, &most.message); /* and nothing is broken */
    if (mr_status_is_ok(good))
        good = mr_link_wait_sent(link, 0, LINK_LONG_MS);
    link_parcel_free(&over);
    link_parcel_free(&most);
    MR_TRY(good);
    if (none.code != MR_CODE_INVALID_ARGUMENT || large.code != MR_CODE_RESOURCE_EXHAUSTED)
        return MR_ERROR(INTERNAL, "refused with %s and %s", none.text, large.text);
    return mr_link_bytes(link) == LINK_BYTES ? MR_OK : MR_ERROR(INTERNAL, "bytes are wrong");
}

static mr_status one_receiver(mr_link *link, const mr_nccl_place *place, void *context) {
    mr_message received = {0};
    link_parcel want = link_parcel_make(0, 0, LINK_BYTES / 4);
    (void)context;
    mr_status wrong = mr_link_receive(link, 3, 1, 0, LINK_LONG_MS, &received);
    mr_status status = mr_link_receive(link, 0, 0, 0, LINK_LONG_MS, &received);
    if (mr_status_is_ok(status))
        status = pair_settle(place);
    if (mr_status_is_ok(status)) {
        status = pair_check(&want, &received);
        mr_link_release(link, &received);
    }
    link_parcel_free(&want);
    if (wrong.code != MR_CODE_ABORTED || strstr(wrong.text, "step 3 microbatch 1") == NULL)
        return MR_ERROR(INTERNAL, "a wrong tag gave %s", wrong.text);
    return status;
}

static void test_impossible_message_and_wrong_tag_are_refused(void **state) {
    (void)state;
    pair_run_ok(ipc, refused_sender, one_receiver, NULL);
}

/* ---- bounds ---- */

enum { UNRELEASED_MAX = 2 * LINK_SLOTS + 2 };

static mr_status flooding_sender(mr_link *link, const mr_nccl_place *place, void *context) {
    link_parcel parcels[UNRELEASED_MAX + 1];
    mr_status status = MR_OK;
    (void)place;
    for (uint32_t m = 0; m <= UNRELEASED_MAX; m++)
        parcels[m] = link_parcel_make(2, m, 1000);
    for (uint32_t m = 0; m < UNRELEASED_MAX && mr_status_is_ok(status); m++)
        status = mr_link_send(link, &parcels[m].message);
    mr_status more = mr_link_send(link, &parcels[UNRELEASED_MAX].message);
    mr_status late = mr_link_wait_sent(link, 1, 50);
    atomic_store((_Atomic bool *)context, true);
    if (mr_status_is_ok(status))
        status = mr_link_wait_sent(link, 0, LINK_LONG_MS);
    for (uint32_t m = 0; m <= UNRELEASED_MAX; m++)
        link_parcel_free(&parcels[m]);
    MR_TRY(status);
    if (more.code != MR_CODE_RESOURCE_EXHAUSTED || strstr(more.text, "rank 4") == NULL)
        return MR_ERROR(INTERNAL, "a message too many gave %s", more.text);
    if (late.code != MR_CODE_DEADLINE_EXCEEDED || strstr(late.text, "rank 4") == NULL ||
        strstr(late.text, "step 2 microbatch") == NULL)
        return MR_ERROR(INTERNAL, "a wait that is late gave %s", late.text);
    return MR_OK;
}

static mr_status slow_receiver(mr_link *link, const mr_nccl_place *place, void *context) {
    int64_t end_ms = mr_clock_now_ms() + LINK_LONG_MS;
    while (!atomic_load((_Atomic bool *)context) && mr_clock_now_ms() < end_ms)
        continue;
    for (uint32_t m = 0; m < UNRELEASED_MAX; m++) {
        mr_message received = {0};
        link_parcel want = link_parcel_make(2, m, 1000);
        mr_status status = mr_link_receive(link, 2, m, 0, LINK_LONG_MS, &received);
        if (mr_status_is_ok(status))
            status = pair_settle(place);
        if (mr_status_is_ok(status))
            status = pair_check(&want, &received);
        link_parcel_free(&want);
        MR_TRY(status);
        mr_link_release(link, &received);
    }
    return MR_OK;
}

static void test_slots_bound_what_is_under_way(void **state) {
    (void)state;
    _Atomic bool sent = false;
    pair_run_ok(ipc, flooding_sender, slow_receiver, &sent);
}

static mr_status idle_sender(mr_link *link, const mr_nccl_place *place, void *context) {
    (void)link;
    (void)place;
    int64_t end_ms = mr_clock_now_ms() + LINK_LONG_MS;
    while (!atomic_load((_Atomic bool *)context) && mr_clock_now_ms() < end_ms)
        continue;
    return MR_OK;
}

static mr_status late_receiver(mr_link *link, const mr_nccl_place *place, void *context) {
    mr_message received;
    (void)place;
    mr_status late = mr_link_receive(link, 9, 2, 1, 40, &received);
    mr_link_interrupt(link, "the job is aborted");
    mr_status ended = mr_link_receive(link, 9, 2, 1, -1, &received);
    atomic_store((_Atomic bool *)context, true);
    if (late.code != MR_CODE_DEADLINE_EXCEEDED || strstr(late.text, "rank 3") == NULL ||
        strstr(late.text, "step 9 microbatch 2 chunk 1") == NULL)
        return MR_ERROR(INTERNAL, "a late message gave %s", late.text);
    if (ended.code != MR_CODE_CANCELLED || strstr(ended.text, "the job is aborted") == NULL)
        return MR_ERROR(INTERNAL, "an interrupt gave %s", ended.text);
    return MR_OK;
}

static void test_timeout_and_interrupt_end_the_receivers_wait(void **state) {
    (void)state;
    _Atomic bool done = false;
    pair_run_ok(ipc, idle_sender, late_receiver, &done);
}

/* ---- ends ---- */

/* Messages outlive the link: their bytes are the caller's again only when it is closed. */
typedef struct wait_case {
    link_parcel parcels[LINK_SLOTS + 2];
    _Atomic bool done;
} wait_case;

static void wait_run(pair_end sender, pair_end receiver) {
    wait_case self = {.done = false};
    for (uint32_t m = 0; m < LINK_SLOTS + 2; m++)
        self.parcels[m] = link_parcel_make(0, m, 1000);
    pair_case run = pair_of(ipc, sender, receiver, &self);
    pair_run(&run);
    for (uint32_t m = 0; m < LINK_SLOTS + 2; m++)
        link_parcel_free(&self.parcels[m]);
    link_ok(run.receiver_status);
    link_ok(run.sender_status);
    assert_int_equal(mr_fake_nccl_violations(), 0);
}

/* Sends more than the receiver has slots for, and waits; which an interrupt or the peer ends. */
static mr_status waiting_sender(mr_link *link, wait_case *self, mr_code want,
                                const char *text) {
    mr_status status = MR_OK;
    for (uint32_t m = 0; m < LINK_SLOTS + 2 && mr_status_is_ok(status); m++)
        status = mr_link_send(link, &self->parcels[m].message);
    if (mr_status_is_ok(status))
        status = mr_link_wait_sent(link, 0, LINK_LONG_MS);
    mr_status later = mr_link_wait_sent(link, 0, 0);
    if (status.code != want || strstr(status.text, text) == NULL || later.code != want)
        return MR_ERROR(INTERNAL, "the wait gave %s, and then %s", status.text, later.text);
    return MR_OK;
}

static mr_status lonely_sender(mr_link *link, const mr_nccl_place *place, void *context) {
    (void)place;
    atomic_store(&((wait_case *)context)->done, true);
    return waiting_sender(link, context, MR_CODE_UNAVAILABLE, "rank 4"); /* by gRPC or NCCL */
}

static mr_status leaving_receiver(mr_link *link, const mr_nccl_place *place, void *context) {
    return idle_sender(link, place, &((wait_case *)context)->done); /* until the sender is there */
}

static void test_closed_receiver_ends_the_senders_wait(void **state) {
    (void)state;
    int64_t start_ms = mr_clock_now_ms();
    wait_run(lonely_sender, leaving_receiver);
    assert_true(mr_clock_now_ms() - start_ms < 2 * LINK_SOON_MS);
    /* Memory that a peer still has open is left to it. */
    assert_int_equal(mr_fake_nccl_live(), ipc ? 1 : 0);
}

static void *interrupt_main(void *context) {
    mr_link_interrupt(context, "the daemon stops");
    return NULL;
}

static mr_status interrupted_sender(mr_link *link, const mr_nccl_place *place, void *context) {
    pthread_t thread;
    (void)place;
    wait_case *self = context;
    MR_TRY(mr_link_send(link, &self->parcels[0].message));
    MR_ASSERT(pthread_create(&thread, NULL, interrupt_main, link) == 0);
    mr_status status = MR_OK;
    for (int64_t end_ms = mr_clock_now_ms() + LINK_SOON_MS;
         mr_status_is_ok(status) && mr_clock_now_ms() < end_ms;)
        status = mr_link_wait_sent(link, 0, LINK_LONG_MS);
    MR_ASSERT(pthread_join(thread, NULL) == 0);
    atomic_store(&self->done, true);
    bool told = status.code == MR_CODE_CANCELLED && strstr(status.text, "the daemon stops") != NULL;
    return told ? MR_OK : MR_ERROR(INTERNAL, "the wait gave %s", status.text);
}

static mr_status held_receiver(mr_link *link, const mr_nccl_place *place, void *context) {
    return idle_sender(link, place, &((wait_case *)context)->done);
}

static void test_interrupt_ends_the_senders_wait(void **state) {
    (void)state;
    wait_run(interrupted_sender, held_receiver);
    assert_int_equal(mr_fake_nccl_live(), 0);
}

static mr_status two_sender(mr_link *link, const mr_nccl_place *place, void *context) {
    link_parcel parcels[2] = {link_parcel_make(0, 0, 300), link_parcel_make(0, 1, 300)};
    (void)place;
    (void)context;
    mr_status status = mr_link_send(link, &parcels[0].message);
    if (mr_status_is_ok(status))
        status = mr_link_send(link, &parcels[1].message);
    if (mr_status_is_ok(status))
        status = mr_link_wait_sent(link, 0, LINK_LONG_MS);
    link_parcel_free(&parcels[0]);
    link_parcel_free(&parcels[1]);
    return status;
}

static mr_status after_receiver(mr_link *link, const mr_nccl_place *place, void *context) {
    mr_message received = {0};
    (void)context;
    for (uint32_t m = 0; m < 2; m++) {
        MR_TRY(mr_link_receive(link, 0, m, 0, LINK_LONG_MS, &received));
        MR_TRY(pair_settle(place));
        mr_link_release(link, &received);
    }
    mr_status status = mr_link_receive(link, 0, 2, 0, -1, &received);
    if (status.code != MR_CODE_UNAVAILABLE || strstr(status.text, "rank 3 is lost") == NULL)
        return MR_ERROR(INTERNAL, "after the end came %s", status.text);
    return MR_OK;
}

static void test_closed_sender_is_told_after_its_last_message(void **state) {
    (void)state;
    pair_run_ok(ipc, two_sender, after_receiver, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_messages_arrive_in_order_and_allocate_nothing),
        cmocka_unit_test(test_impossible_message_and_wrong_tag_are_refused),
        cmocka_unit_test(test_slots_bound_what_is_under_way),
        cmocka_unit_test(test_timeout_and_interrupt_end_the_receivers_wait),
        cmocka_unit_test(test_closed_receiver_ends_the_senders_wait),
        cmocka_unit_test(test_interrupt_ends_the_senders_wait),
        cmocka_unit_test(test_closed_sender_is_told_after_its_last_message),
    };
    int failed = 0;
    link_makers[1].start();
    for (int kind = 0; kind < 2; kind++) {
        ipc = kind == 1;
        (void)printf("---- %s\n", ipc ? "cuda ipc" : "nccl");
        failed += cmocka_run_group_tests(tests, NULL, NULL);
    }
    link_makers[1].stop();
    mr_fake_nccl_reset();
    return failed;
}
