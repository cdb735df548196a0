/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a monitor keeps others out, wakes every waiter, and no wait outlives its deadline. Method:
 * a counter that several threads move under the lock; waiters that another thread notifies; a wait
 * that nobody ends. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/base/clock.h"
#include "daemon/base/monitor.h"

enum { THREADS = 4, ROUNDS = 5000, LONG_MS = 60000 /* a bound that is not met here */ };

/* What the threads share, under the monitor. */
typedef struct shared {
    mr_monitor monitor;
    uint32_t count;
    uint32_t waiting;
    uint32_t woken;
    bool go;
} shared;

static void *count_up(void *context) {
    shared *self = context;
    for (int i = 0; i < ROUNDS; i++) {
        mr_monitor_lock(&self->monitor);
        self->count++;
        mr_monitor_unlock(&self->monitor);
    }
    return NULL;
}

static void test_one_thread_at_a_time_is_inside(void **state) {
    (void)state;
    shared all = {0};
    pthread_t threads[THREADS];
    mr_monitor_init(&all.monitor);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count_up, &all), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(all.count, THREADS * ROUNDS);
    mr_monitor_deinit(&all.monitor);
}

/* Tells that it waits, waits to be let go, and returns NULL unless the wait ran out. */
static void *wait_for_go(void *context) {
    shared *self = context;
    int64_t deadline = mr_monitor_deadline(LONG_MS);
    bool in_time = true;
    mr_monitor_lock(&self->monitor);
    self->waiting++;
    mr_monitor_notify(&self->monitor);
    while (!self->go && in_time)
        in_time = mr_monitor_wait(&self->monitor, deadline);
    self->woken++;
    mr_monitor_unlock(&self->monitor);
    return in_time ? NULL : self;
}

static void test_notify_wakes_every_waiter(void **state) {
    (void)state;
    shared all = {0};
    pthread_t threads[THREADS];
    mr_monitor_init(&all.monitor);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, wait_for_go, &all), 0);
    int64_t deadline = mr_monitor_deadline(LONG_MS);
    mr_monitor_lock(&all.monitor);
    while (all.waiting < THREADS)
        assert_true(mr_monitor_wait(&all.monitor, deadline));
    assert_int_equal(all.woken, 0);
    all.go = true;
    mr_monitor_notify(&all.monitor);
    mr_monitor_unlock(&all.monitor);
    for (int i = 0; i < THREADS; i++) {
        void *late = &all;
        assert_int_equal(pthread_join(threads[i], &late), 0);
        assert_null(late);
    }
    assert_int_equal(all.woken, THREADS);
    mr_monitor_deinit(&all.monitor);
}

static void test_wait_ends_at_its_deadline(void **state) {
    (void)state;
    shared all = {0};
    mr_monitor_init(&all.monitor);
    mr_monitor_lock(&all.monitor);
    int64_t start_ns = mr_clock_now_ns();
    int64_t deadline = mr_monitor_deadline(1010);
    while (mr_monitor_wait(&all.monitor, deadline))
        assert_true(mr_clock_now_ns() - start_ns < LONG_MS * (int64_t)1000000);
    assert_true(mr_clock_now_ns() - start_ns >= 1010 * (int64_t)1000000);
    assert_false(mr_monitor_wait(&all.monitor, deadline)); /* it has passed for good */
    assert_false(mr_monitor_wait(&all.monitor, mr_monitor_deadline(0)));
    mr_monitor_unlock(&all.monitor);
    mr_monitor_deinit(&all.monitor);
}

static void test_deadline_is_from_now_and_negative_is_never(void **state) {
    (void)state;
    int64_t before = mr_clock_now_ns();
    int64_t deadline = mr_monitor_deadline(250);
    int64_t after = mr_clock_now_ns();
    assert_true(deadline >= before + 250 * (int64_t)1000000);
    assert_true(deadline <= after + 250 * (int64_t)1000000);
    assert_true(mr_monitor_deadline(-1) < 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_thread_at_a_time_is_inside),
        cmocka_unit_test(test_notify_wakes_every_waiter),
        cmocka_unit_test(test_wait_ends_at_its_deadline),
        cmocka_unit_test(test_deadline_is_from_now_and_negative_is_never),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
