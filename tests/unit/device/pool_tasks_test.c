/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a pool runs every task exactly once and returns only then, however short the tasks are,
 * with more threads than processors too; processors are claimed by one holder at a time.
 * Method: many runs of counted tasks, each run's context on the caller's stack so that a late
 * thread would be seen by the sanitizers; claims taken twice within one process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/limits.h"
#include "daemon/device/cpu/pool.h"
#include "daemon/device/cpu/processors.h"

enum { TASKS_MAX = 100 };

typedef struct counted {
    _Atomic int runs[TASKS_MAX];
    _Atomic int bad_threads;
    int threads;
} counted;

static void count_task(void *context, size_t task, int thread) {
    counted *c = context;
    atomic_fetch_add(&c->runs[task], 1);
    if (thread < 0 || thread >= c->threads)
        atomic_fetch_add(&c->bad_threads, 1);
}

static void run_once(mr_pool *pool, size_t tasks) {
    counted c = {.threads = mr_pool_threads(pool)};
    mr_pool_run(pool, tasks, count_task, &c);
    for (size_t i = 0; i < TASKS_MAX; i++)
        assert_int_equal(c.runs[i], i < tasks ? 1 : 0);
    assert_int_equal(c.bad_threads, 0);
}

static void test_many_short_runs_do_every_task_once(void **state) {
    (void)state;
    static const int threads[] = {1, 2, 3, 7};
    for (size_t i = 0; i < 4; i++) {
        mr_pool *pool = NULL;
        mr_status status = mr_pool_create(threads[i], NULL, NULL, &pool);
        assert_int_equal(status.code, MR_CODE_OK);
        for (size_t run = 0; run < 1000; run++)
            run_once(pool, run % (TASKS_MAX + 1));
        mr_pool_destroy(pool);
    }
}

static _Atomic int started;

static void count_start(void) {
    atomic_fetch_add(&started, 1);
}

/* Waits until all threads of the run are inside it. */
static void meet_task(void *context, size_t task, int thread) {
    (void)task;
    (void)thread;
    _Atomic int *inside = context;
    atomic_fetch_add(inside, 1);
    while (atomic_load(inside) < 3)
        (void)sched_yield();
}

static void test_tasks_run_on_all_threads_after_their_start(void **state) {
    (void)state;
    mr_pool *pool = NULL;
    _Atomic int inside = 0;
    atomic_store(&started, 0);
    mr_status status = mr_pool_create(3, NULL, count_start, &pool);
    assert_int_equal(status.code, MR_CODE_OK);
    mr_pool_run(pool, 3, meet_task, &inside);
    assert_int_equal(inside, 3);
    assert_int_equal(started, 2);
    mr_pool_destroy(pool);
}

static void test_pool_without_work_ends_at_once(void **state) {
    (void)state;
    for (int i = 0; i < 20; i++) {
        mr_pool *pool = NULL;
        mr_status status = mr_pool_create(4, NULL, NULL, &pool);
        assert_int_equal(status.code, MR_CODE_OK);
        mr_pool_destroy(pool);
    }
    mr_pool_destroy(NULL);
}

static void test_destroy_gives_the_caller_its_processors_back(void **state) {
    (void)state;
    cpu_set_t before;
    cpu_set_t after;
    mr_pool *pool = NULL;
    assert_int_equal(sched_getaffinity(0, sizeof(before), &before), 0);
    int first = 0;
    while (!CPU_ISSET((size_t)first, &before))
        first++;
    const int processors[] = {first, first};
    mr_status status = mr_pool_create(2, processors, NULL, &pool);
    assert_int_equal(status.code, MR_CODE_OK);
    assert_int_equal(sched_getaffinity(0, sizeof(after), &after), 0);
    assert_int_equal(CPU_COUNT(&after), 1);
    run_once(pool, 10);
    mr_pool_destroy(pool);
    assert_int_equal(sched_getaffinity(0, sizeof(after), &after), 0);
    assert_true(CPU_EQUAL(&before, &after));
}

static void test_a_processor_has_one_holder(void **state) {
    (void)state;
    mr_processors first;
    mr_processors second;
    int allowed = mr_processors_allowed();
    assert_true(allowed >= 1);
    if (allowed > MR_DEVICE_THREADS_MAX)
        allowed = MR_DEVICE_THREADS_MAX;
    if (!mr_processors_claim(allowed, &first)) {
        print_message("skipped: a container, or other holders on this machine\n");
        return;
    }
    assert_int_equal(first.count, allowed);
    assert_false(mr_processors_claim(1, &second));
    mr_processors_release(&first);
    assert_int_equal(first.count, 0);
    assert_true(mr_processors_claim(1, &second));
    mr_processors_release(&second);
    mr_processors_release(&second);
}

static void test_more_threads_than_processors_claim_nothing(void **state) {
    (void)state;
    mr_processors processors;
    if (mr_processors_allowed() < MR_DEVICE_THREADS_MAX)
        assert_false(mr_processors_claim(mr_processors_allowed() + 1, &processors));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_short_runs_do_every_task_once),
        cmocka_unit_test(test_tasks_run_on_all_threads_after_their_start),
        cmocka_unit_test(test_pool_without_work_ends_at_once),
        cmocka_unit_test(test_destroy_gives_the_caller_its_processors_back),
        cmocka_unit_test(test_a_processor_has_one_holder),
        cmocka_unit_test(test_more_threads_than_processors_claim_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
