/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: what a daemon says to its manager arrives at a node, whole and with its sender; signs of
 * life come only from one that is alive, and when they are due; nothing is sent without a manager.
 * Method: base/notify.h on one end and notice.h on the other, in one process; its own environment
 * names the socket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/node/notice.h"

enum { WATCHDOG_MS = 4000 };

static int manager_open(void) {
    char setting[MR_NOTICE_NAME_BYTES];
    int fd = -1;
    mr_status status = mr_notice_open(&fd, setting);
    assert_int_equal(status.code, MR_CODE_OK);
    char *value = strchr(setting, '=');
    *value = '\0';
    assert_int_equal(setenv(setting, value + 1, 1), 0);
    assert_int_equal(setenv("WATCHDOG_USEC", "4000000", 1), 0);
    assert_int_equal(unsetenv("WATCHDOG_PID"), 0);
    return fd;
}

static void test_lines_are_read_and_others_mean_nothing(void **state) {
    (void)state;
    mr_notice notice = mr_notice_parse("READY=1\nSTATUS=serves = well\nX_OTHER=1\n\nREADY=2\n"
                                       "EXTEND_TIMEOUT_USEC=2500000\n"
                                       "X_MILLRACE_ADDRESS=127.0.0.1:1\nX_MILLRACE_STATUS_ADDRESS="
                                       "127.0.0.1:2\nWATCHDOG=1");
    assert_true(notice.ready);
    assert_true(notice.alive);
    assert_false(notice.stopping);
    assert_string_equal(notice.status, "serves = well");
    assert_int_equal(notice.extend_ms, 2500);
    assert_string_equal(notice.address, "127.0.0.1:1");
    assert_string_equal(notice.status_address, "127.0.0.1:2");
    notice = mr_notice_parse("READY=0\nWATCHDOG=trigger\nEXTEND_TIMEOUT_USEC=-5\nSTATUS");
    assert_false(notice.ready || notice.alive);
    assert_int_equal(notice.extend_ms, 0);
    notice = mr_notice_parse("EXTEND_TIMEOUT_USEC=99999999999999999999");
    assert_int_equal(notice.extend_ms, 3600 * 1000);
    notice = mr_notice_parse("");
    assert_string_equal(notice.status, "");
}

static void test_a_long_text_is_cut_and_stays_a_text(void **state) {
    (void)state;
    char text[4 * MR_NOTIFY_BYTES_MAX];
    memset(text, 'x', sizeof(text));
    memcpy(text, "STATUS=", 7);
    text[sizeof(text) - 1] = '\0';
    assert_string_equal(mr_notice_parse(text).status, ""); /* no such line is ever sent */
    text[MR_NOTIFY_BYTES_MAX - 1] = '\0';
    assert_int_equal(strlen(mr_notice_parse(text).status), MR_NOTIFY_STATUS_BYTES - 1);
}

static void test_what_is_said_arrives_with_its_sender(void **state) {
    (void)state;
    int fd = manager_open();
    mr_notify notify = {0};
    mr_notice notice;
    pid_t process = 0;
    mr_notify_ready(&notify, "serves");
    assert_true(mr_notice_read(fd, &notice, &process));
    assert_true(notice.ready);
    assert_string_equal(notice.status, "serves");
    assert_int_equal(process, getpid());
    mr_notify_extend(1500);
    assert_true(mr_notice_read(fd, &notice, &process));
    assert_int_equal(notice.extend_ms, 1500);
    mr_notify_stopping(200);
    assert_true(mr_notice_read(fd, &notice, &process));
    assert_true(notice.stopping);
    assert_int_equal(notice.extend_ms, 200);
    mr_notify_reloading();
    assert_true(mr_notice_read(fd, &notice, &process));
    assert_false(notice.ready);
    assert_false(mr_notice_read(fd, &notice, &process));
    (void)close(fd);
}

/* Signs of life and texts that come of ticks each 100 ms for a time. */
static void tick_through(mr_notify *notify, int fd, int64_t from_ms, int64_t to_ms, bool alive,
                         int *out_beats, int *out_texts) {
    *out_beats = 0;
    *out_texts = 0;
    for (int64_t now_ms = from_ms; now_ms < to_ms; now_ms += 100) {
        char text[64];
        mr_notice notice;
        pid_t process;
        (void)snprintf(text, sizeof(text), "step %d", (int)(now_ms / 300));
        mr_notify_tick(notify, now_ms, alive, text);
        while (mr_notice_read(fd, &notice, &process)) {
            *out_beats += notice.alive;
            *out_texts += notice.status[0] != '\0';
        }
    }
}

static void test_signs_of_life_come_four_times_in_the_period_and_only_from_the_living(
    void **state) {
    (void)state;
    int fd = manager_open();
    mr_notify notify = {0};
    int beats = 0;
    int texts = 0;
    tick_through(&notify, fd, 0, 2 * WATCHDOG_MS, true, &beats, &texts);
    assert_int_equal(beats, 8);
    assert_int_equal(texts, 8); /* changed each 300 ms, sent at most each second */
    tick_through(&notify, fd, 2 * WATCHDOG_MS, 4 * WATCHDOG_MS, false, &beats, &texts);
    assert_int_equal(beats, 0);
    assert_int_equal(texts, 8); /* people are still told */
    (void)close(fd);
}

static void test_a_period_that_is_meant_for_another_process_is_not_ours(void **state) {
    (void)state;
    int fd = manager_open();
    mr_notify notify = {0};
    int beats = 0;
    int texts = 0;
    assert_int_equal(setenv("WATCHDOG_PID", "1", 1), 0);
    tick_through(&notify, fd, 0, WATCHDOG_MS, true, &beats, &texts);
    assert_int_equal(beats, 0);
    (void)close(fd);
}

static void test_without_a_manager_nothing_happens(void **state) {
    (void)state;
    int fd = manager_open();
    mr_notify notify = {0};
    mr_notice notice;
    pid_t process;
    static const char *const none[] = {"", "relative", "/", "@"};
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
        assert_int_equal(setenv("NOTIFY_SOCKET", none[i], 1), 0);
        notify = (mr_notify){0};
        mr_notify_ready(&notify, "serves");
        mr_notify_tick(&notify, 0, true, "text");
    }
    assert_int_equal(unsetenv("NOTIFY_SOCKET"), 0);
    mr_notify_extend(1);
    assert_false(mr_notice_read(fd, &notice, &process));
    (void)close(fd);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines_are_read_and_others_mean_nothing),
        cmocka_unit_test(test_a_long_text_is_cut_and_stays_a_text),
        cmocka_unit_test(test_what_is_said_arrives_with_its_sender),
        cmocka_unit_test(
            test_signs_of_life_come_four_times_in_the_period_and_only_from_the_living),
        cmocka_unit_test(test_a_period_that_is_meant_for_another_process_is_not_ours),
        cmocka_unit_test(test_without_a_manager_nothing_happens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
