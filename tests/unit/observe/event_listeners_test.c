/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: listeners hear every event once and in order, sleep when there is none, and are bounded; a
 * keyed event takes the place of its earlier one. Method: listeners without sockets, whose sleep
 * and wake are counted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/clock.h"
#include "daemon/observe/event_stream.h"

static mr_event_stream *stream;
static int asleep;
static char heard[1 << 17];

static void count_sleep(void *context) {
    (void)context;
    asleep++;
}

static void count_wake(void *context) {
    (void)context;
    asleep--;
}

static const mr_event_listener_calls calls = {.sleep = count_sleep, .wake = count_wake};

static int setup(void **state) {
    (void)state;
    asleep = 0;
    assert_true(mr_status_is_ok(mr_event_stream_create(&stream)));
    return 0;
}

static int teardown(void **state) {
    (void)state;
    mr_event_stream_destroy(stream);
    return 0;
}

static mr_event_listener *listen_after(uint64_t after) {
    mr_event_listener *listener = NULL;
    assert_true(mr_status_is_ok(mr_event_stream_listen(stream, after, &calls, NULL, &listener)));
    return listener;
}

/* All there is, seven bytes at a time, so that events are cut anywhere. */
static mr_event_read hear(mr_event_listener *listener) {
    size_t used = 0;
    size_t bytes = 0;
    mr_event_read read;
    while ((read = mr_event_listener_read(listener, heard + used, 7, &bytes)) ==
           MR_EVENT_READ_SOME) {
        used += bytes;
        assert_true(used < sizeof(heard) - 8);
    }
    heard[used] = '\0';
    return read;
}

static void test_events_are_heard_once_and_in_order(void **state) {
    (void)state;
    assert_true(mr_event_stream_add(stream, "job", "", "{\"a\":1}"));
    mr_event_listener *all = listen_after(0);
    mr_event_listener *later = listen_after(MR_EVENT_FROM_NOW);
    assert_int_equal(hear(later), MR_EVENT_READ_NOTHING);
    assert_string_equal(heard, "retry: 2000\n\n");
    assert_int_equal(asleep, 1);
    assert_true(mr_event_stream_add(stream, "step", "", "{\"b\":2}"));
    assert_int_equal(asleep, 0);
    assert_int_equal(hear(later), MR_EVENT_READ_NOTHING);
    assert_string_equal(heard, "id: 2\nevent: step\ndata: {\"b\":2}\n\n");
    assert_int_equal(hear(all), MR_EVENT_READ_NOTHING);
    assert_string_equal(heard, "retry: 2000\n\nid: 1\nevent: job\ndata: {\"a\":1}\n\n"
                               "id: 2\nevent: step\ndata: {\"b\":2}\n\n");
    mr_event_listener_close(later);
    mr_event_listener_close(all);
}

static void test_keyed_event_replaces_its_earlier_one(void **state) {
    (void)state;
    mr_event_record records[4];
    assert_true(mr_event_stream_add(stream, "job", "", "{}"));
    for (int i = 0; i < 3 * MR_EVENTS_HELD_MAX; i++)
        assert_true(mr_event_stream_add(stream, "step", "one job", "{}"));
    assert_int_equal(mr_event_stream_read(stream, records, 4), 1);
    assert_int_equal(records[0].id, 1);
    mr_event_listener *listener = listen_after(1);
    assert_int_equal(hear(listener), MR_EVENT_READ_NOTHING);
    char last[64];
    (void)snprintf(last, sizeof(last), "retry: 2000\n\nid: %d\n", 3 * MR_EVENTS_HELD_MAX + 1);
    assert_int_equal(strncmp(heard, last, strlen(last)), 0);
    mr_event_listener_close(listener);
}

static void test_full_ring_forgets_the_oldest_events(void **state) {
    (void)state;
    mr_event_listener *slow = listen_after(0);
    for (int i = 0; i < MR_EVENTS_HELD_MAX + 10; i++)
        assert_true(mr_event_stream_add(stream, "job", "", "{}"));
    assert_int_equal(hear(slow), MR_EVENT_READ_NOTHING);
    assert_non_null(strstr(heard, "retry: 2000\n\nid: 11\n"));
    mr_event_listener_close(slow);
}

static void test_event_that_is_too_long_is_refused(void **state) {
    (void)state;
    static char text[MR_EVENT_BYTES_MAX + 1];
    memset(text, 'x', MR_EVENT_BYTES_MAX);
    assert_false(mr_event_stream_add(stream, "job", "", text));
    text[MR_EVENT_BYTES_MAX - 1] = '\0';
    assert_true(mr_event_stream_add(stream, "job", "", text));
}

static void test_quiet_listener_is_kept_company(void **state) {
    (void)state;
    mr_event_listener *listener = listen_after(0);
    assert_int_equal(hear(listener), MR_EVENT_READ_NOTHING);
    mr_event_stream_tick(stream, mr_clock_now_ms());
    assert_int_equal(asleep, 1);
    mr_event_stream_tick(stream, mr_clock_now_ms() + MR_EVENTS_KEEPALIVE_MS);
    assert_int_equal(asleep, 0);
    mr_event_listener_close(listener);
}

static void test_listeners_are_bounded_and_end_with_the_stream(void **state) {
    (void)state;
    mr_event_listener *listeners[MR_STATUS_LISTENERS_MAX];
    mr_event_listener *extra = NULL;
    for (int i = 0; i < MR_STATUS_LISTENERS_MAX; i++)
        listeners[i] = listen_after(0);
    mr_status status = mr_event_stream_listen(stream, 0, &calls, NULL, &extra);
    assert_int_equal(status.code, MR_CODE_RESOURCE_EXHAUSTED);
    assert_int_equal(hear(listeners[0]), MR_EVENT_READ_NOTHING);
    mr_event_stream_end(stream);
    assert_int_equal(asleep, 0);
    for (int i = 0; i < MR_STATUS_LISTENERS_MAX; i++) {
        assert_int_equal(hear(listeners[i]), MR_EVENT_READ_END);
        mr_event_listener_close(listeners[i]);
    }
    status = mr_event_stream_listen(stream, 0, &calls, NULL, &extra);
    assert_int_equal(status.code, MR_CODE_UNAVAILABLE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_events_are_heard_once_and_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_keyed_event_replaces_its_earlier_one, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full_ring_forgets_the_oldest_events, setup, teardown),
        cmocka_unit_test_setup_teardown(test_event_that_is_too_long_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_quiet_listener_is_kept_company, setup, teardown),
        cmocka_unit_test_setup_teardown(test_listeners_are_bounded_and_end_with_the_stream, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
