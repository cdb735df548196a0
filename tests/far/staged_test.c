/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: what passes through host buffers on its way to or from a device's own memory arrives to the
 * bit, the caller may change a message as soon as it is sent, and no message allocates.
 * Method: the far device, whose memory the host cannot read, at both ends of a link in this
 * process, and in groups of threads in this process; every answer is compared with host numbers. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/group/in_process.h"
#include "daemon/group/staged.h"
#include "daemon/link/in_process.h"
#include "daemon/link/staged.h"
#include "tests/far/far_device.h"

enum { FLOATS = 1000, LABELS = 37, SLOTS = 2, MEMBERS = 3, WAIT_MS = 60000 };

static void ok(mr_status status) {
    if (!mr_status_is_ok(status))
        fail_msg("%s: %s", mr_code_name(status.code), status.text);
}

/* Memory for one message, or one vector, of the test. */
typedef struct far {
    mr_device *device;
    mr_device_memory memory;
} far;

static void far_open(far *f) {
    const mr_device_options options = {.kind = "far", .threads = 1};
    ok(mr_far_device_create(&options, &f->device));
    ok(f->device->ops->memory_create(f->device, 4 * FLOATS * sizeof(float), &f->memory));
}

static void far_close(far *f) {
    f->device->ops->memory_destroy(f->device, &f->memory);
    mr_device_destroy(f->device);
}

static float *far_at(const far *f, size_t vector) {
    return (float *)f->memory.base + vector * FLOATS;
}

static float number(size_t seed, size_t i) {
    return (float)(seed + 1) * 0.37f + (float)i * 0.011f;
}

static void far_write(const far *f, size_t vector, size_t seed) {
    float host[FLOATS];
    for (size_t i = 0; i < FLOATS; i++)
        host[i] = number(seed, i);
    f->device->ops->copy_in(f->device, far_at(f, vector), host, sizeof(host));
}

static void far_expect(const far *f, const void *at, const float *wanted, size_t count) {
    float host[MEMBERS * FLOATS];
    assert_true(count <= MEMBERS * FLOATS);
    f->device->ops->copy_out(f->device, host, at, count * sizeof(float));
    assert_memory_equal(host, wanted, count * sizeof(float));
}

/* ---- links ---- */

typedef struct pair {
    far far;
    mr_link *sender;
    mr_link *receiver;
} pair;

static void pair_open(pair *p) {
    const mr_link_options options = {
        .job_id = "job",
        .from_rank = 3,
        .to_rank = 4,
        .kind = MR_LINK_ACTIVATION,
        .slots = SLOTS,
        .message_bytes_max = FLOATS * sizeof(float) + LABELS * sizeof(int32_t),
    };
    mr_link *ends[2];
    far_open(&p->far);
    ok(mr_link_in_process(&options, &ends[0], &ends[1]));
    ok(mr_link_staged_sender(p->far.device, &options, SLOTS, ends[0], &p->sender));
    ok(mr_link_staged_receiver(p->far.device, &options, ends[1], &p->receiver));
}

static void pair_close(pair *p) {
    mr_link_close(p->sender);
    mr_link_close(p->receiver);
    far_close(&p->far);
}

static mr_message pair_message(const pair *p, uint32_t micro_batch) {
    mr_message message = {.step = 5, .micro_batch = micro_batch, .tensor_count = 2};
    (void)snprintf(message.tensors[0].name, MR_TENSOR_NAME_BYTES, "labels");
    (void)snprintf(message.tensors[1].name, MR_TENSOR_NAME_BYTES, "activation");
    message.tensors[0].tensor = (mr_tensor){
        .data = far_at(&p->far, 1),
        .shape = {.dtype = MR_DTYPE_I32, .dim_count = 1, .dims = {LABELS}},
    };
    message.tensors[1].tensor = (mr_tensor){
        .data = far_at(&p->far, 0),
        .shape = {.dtype = MR_DTYPE_F32, .dim_count = 1, .dims = {FLOATS}},
    };
    return message;
}

static void pair_send(const pair *p, uint32_t micro_batch) {
    const mr_message message = pair_message(p, micro_batch);
    far_write(&p->far, 0, micro_batch);
    far_write(&p->far, 1, micro_batch + 100);
    ok(mr_link_send(p->sender, &message));
}

static void pair_receive(const pair *p, uint32_t micro_batch, mr_message *out_message) {
    float wanted[FLOATS];
    ok(mr_link_receive(p->receiver, 5, micro_batch, 0, WAIT_MS, out_message));
    assert_int_equal(out_message->tensor_count, 2);
    assert_string_equal(out_message->tensors[0].name, "labels");
    for (size_t i = 0; i < FLOATS; i++)
        wanted[i] = number(micro_batch + 100, i);
    far_expect(&p->far, out_message->tensors[0].tensor.data, wanted, LABELS);
    for (size_t i = 0; i < FLOATS; i++)
        wanted[i] = number(micro_batch, i);
    far_expect(&p->far, out_message->tensors[1].tensor.data, wanted, FLOATS);
}

static void test_messages_arrive_and_allocate_nothing(void **state) {
    (void)state;
    pair p;
    mr_message held = {0};
    mr_message other = {0};
    pair_open(&p);
    uint64_t allocations = mr_alloc_count();
    for (uint32_t m = 0; m < 20; m += 2) {
        pair_send(&p, m); /* overwritten by the next before it is received */
        pair_send(&p, m + 1);
        pair_receive(&p, m, &held);
        pair_receive(&p, m + 1, &other);
        mr_link_release(p.receiver, &held);
        mr_link_release(p.receiver, &other);
    }
    assert_int_equal(mr_alloc_count(), allocations);
    assert_int_equal(mr_link_bytes(p.receiver),
                     20 * (FLOATS * sizeof(float) + LABELS * sizeof(int32_t)));
    pair_close(&p);
}

static void test_a_receiver_without_a_free_slot_says_so(void **state) {
    (void)state;
    pair p;
    mr_message held[SLOTS] = {0};
    mr_message more = {0};
    pair_open(&p);
    for (uint32_t m = 0; m < SLOTS; m++) {
        pair_send(&p, m);
        pair_receive(&p, m, &held[m]);
    }
    pair_send(&p, SLOTS);
    mr_status status = mr_link_receive(p.receiver, 5, SLOTS, 0, WAIT_MS, &more);
    assert_int_equal(status.code, MR_CODE_RESOURCE_EXHAUSTED);
    assert_non_null(strstr(status.text, "microbatch 2"));
    pair_close(&p);
}

static void test_an_interrupt_ends_a_wait(void **state) {
    (void)state;
    pair p;
    mr_message message = {0};
    pair_open(&p);
    mr_link_interrupt(p.receiver, "enough");
    mr_status status = mr_link_receive(p.receiver, 5, 0, 0, -1, &message);
    assert_int_equal(status.code, MR_CODE_CANCELLED);
    pair_close(&p);
}

/* ---- groups ---- */

typedef struct member {
    pthread_t thread;
    far far;
    mr_group *group;
    mr_status sum;
    mr_status broadcast;
    mr_status gather;
} member;

/* Member i has i + 1 parts. Vector 3 takes the results. */
static void *member_sum(void *context) {
    member *self = context;
    const float *parts[MEMBERS];
    size_t count = self->group->member_index + 1;
    for (size_t i = 0; i < count; i++)
        parts[i] = far_at(&self->far, i);
    self->sum = mr_group_sum(self->group, parts, count, far_at(&self->far, 3), FLOATS, WAIT_MS);
    return NULL;
}

static void *member_broadcast(void *context) {
    member *self = context;
    self->broadcast = mr_group_broadcast(self->group, far_at(&self->far, 0),
                                         FLOATS * sizeof(float), 1, WAIT_MS);
    return NULL;
}

static void *member_gather(void *context) {
    member *self = context;
    const size_t bytes[MEMBERS] = {40, 0, 60};
    self->gather =
        mr_group_gather(self->group, far_at(&self->far, 0), bytes, far_at(&self->far, 3), WAIT_MS);
    return NULL;
}

static void members_do(member *members, void *(*act)(void *context)) {
    for (size_t i = 0; i < MEMBERS; i++)
        assert_int_equal(pthread_create(&members[i].thread, NULL, act, &members[i]), 0);
    for (size_t i = 0; i < MEMBERS; i++)
        assert_int_equal(pthread_join(members[i].thread, NULL), 0);
}

static void members_open(member *members) {
    const uint32_t ranks[MEMBERS] = {0, 1, 2};
    mr_group *inner[MEMBERS];
    const mr_group_options options = {
        .job_id = "job",
        .group_id = "tied/embed",
        .ranks = ranks,
        .rank_count = MEMBERS,
        .bytes_max = FLOATS * sizeof(float),
        .parts_max = 6,
    };
    ok(mr_group_in_process(&options, inner));
    for (size_t i = 0; i < MEMBERS; i++) {
        far_open(&members[i].far);
        ok(mr_group_staged(members[i].far.device, options.bytes_max, i + 1, inner[i],
                           &members[i].group));
        for (size_t v = 0; v < MEMBERS; v++)
            far_write(&members[i].far, v, 10 * i + v);
    }
}

static void test_groups_give_the_bits_of_host_memory(void **state) {
    (void)state;
    member members[MEMBERS] = {0};
    float wanted[FLOATS];
    members_open(members);
    members_do(members, member_sum);
    for (size_t i = 0; i < FLOATS; i++) { /* in rank order, and within a rank in parts' order */
        wanted[i] = number(0, i);
        for (size_t k = 1; k < MEMBERS; k++)
            for (size_t v = 0; v <= k; v++)
                wanted[i] += number(10 * k + v, i);
    }
    for (size_t k = 0; k < MEMBERS; k++) {
        ok(members[k].sum);
        far_expect(&members[k].far, far_at(&members[k].far, 3), wanted, FLOATS);
    }
    members_do(members, member_gather);
    for (size_t i = 0; i < 25; i++)
        wanted[i] = i < 10 ? number(0, i) : number(20, i - 10);
    for (size_t k = 0; k < MEMBERS; k++) {
        ok(members[k].gather);
        far_expect(&members[k].far, far_at(&members[k].far, 3), wanted, 25);
    }
    members_do(members, member_broadcast);
    for (size_t i = 0; i < FLOATS; i++)
        wanted[i] = number(10, i);
    for (size_t k = 0; k < MEMBERS; k++) {
        ok(members[k].broadcast);
        far_expect(&members[k].far, far_at(&members[k].far, 0), wanted, FLOATS);
    }
    for (size_t k = 0; k < MEMBERS; k++) {
        mr_group_close(members[k].group);
        far_close(&members[k].far);
    }
}

static void test_a_vector_over_the_bound_is_refused(void **state) {
    (void)state;
    member members[MEMBERS] = {0};
    members_open(members);
    mr_status status = mr_group_broadcast(members[0].group, far_at(&members[0].far, 0),
                                          FLOATS * sizeof(float) + 4, 0, WAIT_MS);
    assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
    assert_non_null(strstr(status.text, "4004 bytes"));
    for (size_t k = 0; k < MEMBERS; k++) {
        mr_group_close(members[k].group);
        far_close(&members[k].far);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages_arrive_and_allocate_nothing),
        cmocka_unit_test(test_a_receiver_without_a_free_slot_says_so),
        cmocka_unit_test(test_an_interrupt_ends_a_wait),
        cmocka_unit_test(test_groups_give_the_bits_of_host_memory),
        cmocka_unit_test(test_a_vector_over_the_bound_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
