/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: work runs on LOOP in the order of its posts, timers in the order of their times, and
 * stopping leaves nothing undone and nothing running. Method: each piece of work writes down its
 * number; other threads post while the loop runs. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <signal.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/base/clock.h"
#include "daemon/base/limits.h"
#include "daemon/base/loop.h"

enum { RECORD_MAX = 64 };

/* What happened, in order; written on LOOP only. */
typedef struct record {
    mr_loop *loop;
    mr_loop_timer *timer;
    int numbers[RECORD_MAX];
    int count;
    int last; /* a number that stops the loop; 0: none */
} record;

typedef struct note {
    record *into;
    int number;
} note;

static void note_it(void *context) {
    const note *self = context;
    assert_true(self->into->count < RECORD_MAX);
    self->into->numbers[self->into->count++] = self->number;
    if (self->number == self->into->last)
        mr_loop_stop(self->into->loop);
}

static mr_loop *loop_make(void) {
    mr_loop *loop = NULL;
    mr_status status = mr_loop_create(&loop);
    assert_int_equal(status.code, MR_CODE_OK);
    return loop;
}

static void post(mr_loop *loop, mr_loop_fn fn, void *context) {
    mr_status status = mr_loop_post(loop, fn, context);
    assert_int_equal(status.code, MR_CODE_OK);
}

static mr_loop_timer *timer(mr_loop *loop, uint64_t delay_ms, uint64_t period_ms, mr_loop_fn fn,
                            void *context) {
    mr_loop_timer *started = NULL;
    mr_status status = mr_loop_timer_start(loop, delay_ms, period_ms, fn, context, &started);
    assert_int_equal(status.code, MR_CODE_OK);
    return started;
}

static void check(const record *seen, int count, const int *numbers) {
    assert_int_equal(seen->count, count);
    for (int i = 0; i < count; i++)
        assert_int_equal(seen->numbers[i], numbers[i]);
}

static void test_posts_run_in_order_and_before_a_later_stop(void **state) {
    (void)state;
    record seen = {.loop = loop_make()};
    note notes[] = {{&seen, 1}, {&seen, 2}, {&seen, 3}};
    for (int i = 0; i < 3; i++)
        post(seen.loop, note_it, &notes[i]);
    mr_loop_stop(seen.loop);
    mr_loop_run(seen.loop);
    check(&seen, 3, (const int[]){1, 2, 3});
    mr_loop_destroy(seen.loop);
}

static void test_work_left_after_the_run_is_done_by_destroy(void **state) {
    (void)state;
    record seen = {.loop = loop_make()};
    note notes[] = {{&seen, 1}, {&seen, 2}};
    mr_loop_stop(seen.loop);
    mr_loop_run(seen.loop);
    post(seen.loop, note_it, &notes[0]);
    post(seen.loop, note_it, &notes[1]);
    mr_loop_destroy(seen.loop);
    check(&seen, 2, (const int[]){1, 2});
    mr_loop_destroy(NULL);
}

static void post_again(void *context) {
    note *self = context;
    note_it(self);
    if (self->number < 5) {
        self->number++;
        post(self->into->loop, post_again, self);
    }
}

static void test_work_may_post_more_work(void **state) {
    (void)state;
    record seen = {.loop = loop_make(), .last = 5};
    note first = {&seen, 1};
    post(seen.loop, post_again, &first);
    mr_loop_run(seen.loop);
    check(&seen, 5, (const int[]){1, 2, 3, 4, 5});
    mr_loop_destroy(seen.loop);
}

static void add_one(void *context) {
    int *number = context;
    (*number)++;
}

static void test_post_over_the_limit_is_refused_and_the_others_run(void **state) {
    (void)state;
    mr_loop *loop = loop_make();
    int done = 0;
    for (int i = 0; i < MR_QUEUE_LOOP_MAX; i++)
        post(loop, add_one, &done);
    mr_status status = mr_loop_post(loop, add_one, &done);
    assert_int_equal(status.code, MR_CODE_RESOURCE_EXHAUSTED);
    mr_loop_destroy(loop);
    assert_int_equal(done, MR_QUEUE_LOOP_MAX);
}

static void test_timers_run_by_time_and_once_without_a_period(void **state) {
    (void)state;
    record seen = {.loop = loop_make(), .last = 3};
    note notes[] = {{&seen, 1}, {&seen, 2}, {&seen, 3}};
    int64_t start_ms = mr_clock_now_ms();
    mr_loop_timer *timers[3];
    timers[2] = timer(seen.loop, 40, 0, note_it, &notes[2]);
    timers[0] = timer(seen.loop, 0, 0, note_it, &notes[0]);
    timers[1] = timer(seen.loop, 15, 0, note_it, &notes[1]);
    mr_loop_run(seen.loop);
    assert_true(mr_clock_now_ms() - start_ms >= 39);
    check(&seen, 3, (const int[]){1, 2, 3});
    for (int i = 0; i < 3; i++)
        mr_loop_timer_stop(timers[i]);
    mr_loop_timer_stop(NULL);
    mr_loop_destroy(seen.loop);
}

/* A timer that ends itself in its third tick. */
static void tick(void *context) {
    note *self = context;
    note_it(self);
    if (self->into->count == 3) {
        mr_loop_timer_stop(self->into->timer);
        self->into->timer = NULL;
    }
}

static void test_periodic_timer_ticks_until_it_is_stopped(void **state) {
    (void)state;
    record seen = {.loop = loop_make(), .last = 9};
    note ticks = {&seen, 1};
    note end = {&seen, 9};
    seen.timer = timer(seen.loop, 1, 2, tick, &ticks);
    mr_loop_timer *last = timer(seen.loop, 60, 0, note_it, &end);
    mr_loop_run(seen.loop);
    check(&seen, 4, (const int[]){1, 1, 1, 9});
    assert_null(seen.timer);
    mr_loop_timer_stop(last);
    mr_loop_destroy(seen.loop);
}

static void test_stopped_timer_never_runs(void **state) {
    (void)state;
    record seen = {.loop = loop_make(), .last = 2};
    note never = {&seen, 1};
    note end = {&seen, 2};
    mr_loop_timer_stop(timer(seen.loop, 0, 0, note_it, &never));
    mr_loop_timer *last = timer(seen.loop, 10, 0, note_it, &end);
    mr_loop_run(seen.loop);
    check(&seen, 1, (const int[]){2});
    mr_loop_timer_stop(last);
    mr_loop_destroy(seen.loop);
}

enum { POSTERS = 4, POSTS_EACH = 500 };

typedef struct poster {
    mr_loop *loop;
    pthread_t thread;
    uint32_t done;   /* on LOOP */
    uint32_t *total; /* on LOOP */
} poster;

static void count_it(void *context) {
    poster *self = context;
    self->done++;
    (*self->total)++;
    if (*self->total == POSTERS * POSTS_EACH)
        mr_loop_stop(self->loop);
}

static void *post_many(void *context) {
    poster *self = context;
    for (int i = 0; i < POSTS_EACH; i++) {
        mr_status status = mr_loop_post(self->loop, count_it, self);
        if (!mr_status_is_ok(status))
            return self;
    }
    return NULL;
}

static void test_every_post_of_every_thread_runs_once(void **state) {
    (void)state;
    mr_loop *loop = loop_make();
    uint32_t total = 0;
    poster posters[POSTERS];
    for (int i = 0; i < POSTERS; i++) {
        posters[i] = (poster){.loop = loop, .total = &total};
        assert_int_equal(pthread_create(&posters[i].thread, NULL, post_many, &posters[i]), 0);
    }
    mr_loop_run(loop);
    for (int i = 0; i < POSTERS; i++) {
        void *failed = NULL;
        assert_int_equal(pthread_join(posters[i].thread, &failed), 0);
        assert_null(failed);
        assert_int_equal(posters[i].done, POSTS_EACH);
    }
    mr_loop_destroy(loop);
}

static void *stop_it(void *context) {
    mr_loop_stop(context);
    return NULL;
}

static void test_other_thread_stops_an_idle_loop(void **state) {
    (void)state;
    mr_loop *loop = loop_make();
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, stop_it, loop), 0);
    mr_loop_run(loop);
    assert_int_equal(pthread_join(thread, NULL), 0);
    mr_loop_destroy(loop);
}

static void signal_seen(void *context, int signal_number) {
    record *seen = context;
    seen->numbers[seen->count++] = signal_number;
    mr_loop_stop(seen->loop);
}

static void test_watched_signal_is_told_on_the_loop(void **state) {
    (void)state;
    record seen = {.loop = loop_make()};
    mr_status status = mr_loop_signal_watch(seen.loop, SIGUSR1, signal_seen, &seen);
    assert_int_equal(status.code, MR_CODE_OK);
    assert_int_equal(kill(getpid(), SIGUSR1), 0);
    mr_loop_run(seen.loop);
    check(&seen, 1, (const int[]){SIGUSR1});
    status = mr_loop_signal_watch(seen.loop, SIGKILL, signal_seen, &seen);
    assert_int_equal(status.code, MR_CODE_INTERNAL);
    mr_loop_destroy(seen.loop);
}

/* One byte at a time; the last one stops the loop. */
static void readable_seen(void *context, int fd) {
    record *seen = context;
    char byte = 0;
    assert_int_equal(read(fd, &byte, 1), 1);
    seen->numbers[seen->count++] = byte;
    if (byte == '3')
        mr_loop_stop(seen->loop);
}

static void test_readable_descriptor_is_told_until_it_is_empty(void **state) {
    (void)state;
    record seen = {.loop = loop_make()};
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    mr_status status = mr_loop_readable_watch(seen.loop, ends[0], readable_seen, &seen);
    assert_int_equal(status.code, MR_CODE_OK);
    assert_int_equal(write(ends[1], "123", 3), 3);
    mr_loop_run(seen.loop);
    assert_int_equal(seen.count, 3);
    assert_int_equal(seen.numbers[0], '1');
    assert_int_equal(seen.numbers[2], '3');
    status = mr_loop_readable_watch(seen.loop, -1, readable_seen, &seen);
    assert_int_equal(status.code, MR_CODE_INTERNAL);
    mr_loop_destroy(seen.loop);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

static void test_no_memory_is_a_status(void **state) {
    (void)state;
    for (uint64_t n = 1; n <= 3; n++) {
        mr_loop *loop = NULL;
        mr_alloc_fail_at(n);
        mr_status status = mr_loop_create(&loop);
        mr_alloc_fail_at(0);
        assert_int_equal(status.code, MR_CODE_RESOURCE_EXHAUSTED);
        assert_null(loop);
    }
    mr_loop *loop = loop_make();
    mr_loop_timer *started = NULL;
    mr_alloc_fail_at(1);
    mr_status status = mr_loop_timer_start(loop, 1, 0, note_it, NULL, &started);
    assert_int_equal(status.code, MR_CODE_RESOURCE_EXHAUSTED);
    assert_null(started);
    mr_alloc_fail_at(1);
    status = mr_loop_signal_watch(loop, SIGUSR1, signal_seen, NULL);
    mr_alloc_fail_at(0);
    assert_int_equal(status.code, MR_CODE_RESOURCE_EXHAUSTED);
    mr_loop_destroy(loop);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_posts_run_in_order_and_before_a_later_stop),
        cmocka_unit_test(test_work_left_after_the_run_is_done_by_destroy),
        cmocka_unit_test(test_work_may_post_more_work),
        cmocka_unit_test(test_post_over_the_limit_is_refused_and_the_others_run),
        cmocka_unit_test(test_timers_run_by_time_and_once_without_a_period),
        cmocka_unit_test(test_periodic_timer_ticks_until_it_is_stopped),
        cmocka_unit_test(test_stopped_timer_never_runs),
        cmocka_unit_test(test_every_post_of_every_thread_runs_once),
        cmocka_unit_test(test_other_thread_stops_an_idle_loop),
        cmocka_unit_test(test_watched_signal_is_told_on_the_loop),
        cmocka_unit_test(test_readable_descriptor_is_told_until_it_is_empty),
        cmocka_unit_test(test_no_memory_is_a_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
