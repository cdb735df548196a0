/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: items arrive whole, once and in their pusher's order; nothing waits longer than its bound;
 * full and closed are statuses. Method: one thread for the order and the limits; eight pushers for
 * the rest; a pop that waits while another thread pushes or closes. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sched.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/base/clock.h"
#include "daemon/base/queue.h"

enum { LONG_MS = 60000 }; /* a bound that is not met here */

typedef struct item {
    uint32_t pusher;
    uint32_t number;
    unsigned char pattern[40];
} item;

static item item_make(uint32_t pusher, uint32_t number) {
    item made = {.pusher = pusher, .number = number};
    memset(made.pattern, (int)(number & 0xff), sizeof(made.pattern));
    return made;
}

static mr_queue *queue_make(size_t item_bytes, size_t capacity) {
    mr_queue *queue = NULL;
    mr_status status = mr_queue_create(item_bytes, capacity, &queue);
    assert_int_equal(status.code, MR_CODE_OK);
    return queue;
}

static mr_code push(mr_queue *queue, uint32_t number) {
    return mr_queue_push(queue, &number).code;
}

static uint32_t pop(mr_queue *queue) {
    uint32_t number = UINT32_MAX;
    mr_status status = mr_queue_pop(queue, &number, 0);
    assert_int_equal(status.code, MR_CODE_OK);
    return number;
}

static void test_items_come_in_order_also_around_the_end(void **state) {
    (void)state;
    mr_queue *queue = queue_make(sizeof(uint32_t), 3);
    uint32_t pushed = 0;
    uint32_t popped = 0;
    for (int round = 0; round < 10; round++) {
        assert_int_equal(push(queue, pushed++), MR_CODE_OK);
        assert_int_equal(push(queue, pushed++), MR_CODE_OK);
        assert_int_equal(mr_queue_length(queue), 2);
        assert_int_equal(pop(queue), popped++);
        assert_int_equal(pop(queue), popped++);
    }
    assert_int_equal(mr_queue_length(queue), 0);
    mr_queue_destroy(queue);
}

static void test_full_queue_refuses_and_loses_nothing(void **state) {
    (void)state;
    mr_queue *queue = queue_make(sizeof(uint32_t), 2);
    assert_int_equal(push(queue, 10), MR_CODE_OK);
    assert_int_equal(push(queue, 11), MR_CODE_OK);
    uint32_t number = 12;
    mr_status status = mr_queue_push(queue, &number);
    assert_int_equal(status.code, MR_CODE_RESOURCE_EXHAUSTED);
    assert_non_null(strstr(status.text, "2 items"));
    assert_int_equal(pop(queue), 10);
    assert_int_equal(push(queue, 12), MR_CODE_OK);
    assert_int_equal(pop(queue), 11);
    assert_int_equal(pop(queue), 12);
    mr_queue_destroy(queue);
}

static void test_closed_queue_refuses_pushes_and_drains(void **state) {
    (void)state;
    mr_queue *queue = queue_make(sizeof(uint32_t), 4);
    assert_int_equal(push(queue, 1), MR_CODE_OK);
    assert_int_equal(push(queue, 2), MR_CODE_OK);
    mr_queue_close(queue);
    mr_queue_close(queue);
    assert_int_equal(push(queue, 3), MR_CODE_CANCELLED);
    assert_int_equal(pop(queue), 1);
    assert_int_equal(pop(queue), 2);
    uint32_t number = 77;
    mr_status status = mr_queue_pop(queue, &number, LONG_MS);
    assert_int_equal(status.code, MR_CODE_CANCELLED);
    assert_int_equal(number, 77);
    mr_queue_destroy(queue);
}

static void test_empty_pop_ends_at_its_bound(void **state) {
    (void)state;
    mr_queue *queue = queue_make(sizeof(uint32_t), 1);
    uint32_t number = 77;
    mr_status status = mr_queue_pop(queue, &number, 0);
    assert_int_equal(status.code, MR_CODE_DEADLINE_EXCEEDED);
    int64_t start_ns = mr_clock_now_ns();
    status = mr_queue_pop(queue, &number, 1030);
    int64_t waited_ns = mr_clock_now_ns() - start_ns;
    assert_int_equal(status.code, MR_CODE_DEADLINE_EXCEEDED);
    assert_non_null(strstr(status.text, "1030 ms"));
    assert_true(waited_ns >= 1030 * (int64_t)1000000);
    assert_true(waited_ns < LONG_MS * (int64_t)1000000);
    assert_int_equal(number, 77);
    mr_queue_destroy(queue);
}

static void *push_one(void *context) {
    return (void *)(uintptr_t)push(context, 5);
}

static void *close_it(void *context) {
    mr_queue_close(context);
    return NULL;
}

static void test_push_and_close_wake_a_waiting_pop(void **state) {
    (void)state;
    mr_queue *queue = queue_make(sizeof(uint32_t), 1);
    pthread_t thread;
    uint32_t number = 0;
    assert_int_equal(pthread_create(&thread, NULL, push_one, queue), 0);
    mr_status status = mr_queue_pop(queue, &number, LONG_MS);
    assert_int_equal(status.code, MR_CODE_OK);
    assert_int_equal(number, 5);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(pthread_create(&thread, NULL, close_it, queue), 0);
    status = mr_queue_pop(queue, &number, LONG_MS);
    assert_int_equal(status.code, MR_CODE_CANCELLED);
    assert_int_equal(pthread_join(thread, NULL), 0);
    mr_queue_destroy(queue);
}

enum { PUSHERS = 8, ITEMS_EACH = 2000 };

typedef struct pusher {
    mr_queue *queue;
    uint32_t number;
    pthread_t thread;
} pusher;

/* A full queue has no event to wait for on this side: the processor goes to the one that pops. */
static void *push_many(void *context) {
    const pusher *self = context;
    for (uint32_t i = 0; i < ITEMS_EACH; i++) {
        item made = item_make(self->number, i);
        while (mr_queue_push(self->queue, &made).code == MR_CODE_RESOURCE_EXHAUSTED)
            (void)sched_yield();
    }
    return NULL;
}

static void test_many_pushers_keep_each_its_order(void **state) {
    (void)state;
    mr_queue *queue = queue_make(sizeof(item), 64);
    pusher pushers[PUSHERS];
    uint32_t next[PUSHERS] = {0};
    for (uint32_t p = 0; p < PUSHERS; p++) {
        pushers[p] = (pusher){.queue = queue, .number = p};
        assert_int_equal(pthread_create(&pushers[p].thread, NULL, push_many, &pushers[p]), 0);
    }
    for (int i = 0; i < PUSHERS * ITEMS_EACH; i++) {
        item got;
        mr_status status = mr_queue_pop(queue, &got, LONG_MS);
        assert_int_equal(status.code, MR_CODE_OK);
        assert_true(got.pusher < PUSHERS);
        item expected = item_make(got.pusher, next[got.pusher]++);
        assert_memory_equal(&got, &expected, sizeof(got));
    }
    for (uint32_t p = 0; p < PUSHERS; p++) {
        assert_int_equal(pthread_join(pushers[p].thread, NULL), 0);
        assert_int_equal(next[p], ITEMS_EACH);
    }
    assert_int_equal(mr_queue_length(queue), 0);
    mr_queue_destroy(queue);
}

static void test_no_memory_is_a_status(void **state) {
    (void)state;
    for (uint64_t n = 1; n <= 2; n++) {
        mr_queue *queue = NULL;
        mr_alloc_fail_at(n);
        mr_status status = mr_queue_create(8, 8, &queue);
        mr_alloc_fail_at(0);
        assert_int_equal(status.code, MR_CODE_RESOURCE_EXHAUSTED);
        assert_null(queue);
    }
    mr_queue_destroy(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_items_come_in_order_also_around_the_end),
        cmocka_unit_test(test_full_queue_refuses_and_loses_nothing),
        cmocka_unit_test(test_closed_queue_refuses_pushes_and_drains),
        cmocka_unit_test(test_empty_pop_ends_at_its_bound),
        cmocka_unit_test(test_push_and_close_wake_a_waiting_pop),
        cmocka_unit_test(test_many_pushers_keep_each_its_order),
        cmocka_unit_test(test_no_memory_is_a_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
