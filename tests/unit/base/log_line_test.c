/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a log line is one JSON object with the pairs that were given, whatever they hold, and a
 * call site cannot flood. Method: stderr is a file while a line is written; jansson reads it back.
 * The rate limit's clock is its site's own field, which is set back to reach the next second. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "daemon/base/clock.h"
#include "daemon/base/log.h"

enum { TEXT_BYTES = 1 << 16 };

static char captured[TEXT_BYTES];
static int capture_fd = -1;
static int stderr_fd = -1;

static int capture_setup(void **state) {
    (void)state;
    capture_fd = memfd_create("log", 0);
    stderr_fd = dup(STDERR_FILENO);
    return capture_fd < 0 || stderr_fd < 0 ? -1 : 0;
}

static int capture_teardown(void **state) {
    (void)state;
    return close(capture_fd) + close(stderr_fd);
}

static void capture_begin(void) {
    assert_int_equal(ftruncate(capture_fd, 0), 0);
    assert_int_equal(lseek(capture_fd, 0, SEEK_SET), 0);
    assert_true(dup2(capture_fd, STDERR_FILENO) >= 0);
}

/* What was written since capture_begin; valid until the next one. */
static const char *capture_end(void) {
    assert_true(dup2(stderr_fd, STDERR_FILENO) >= 0);
    ssize_t bytes = pread(capture_fd, captured, sizeof(captured) - 1, 0);
    assert_true(bytes >= 0);
    captured[bytes] = '\0';
    return captured;
}

/* The one line of text as an object; the caller's. */
static json_t *line_parse(const char *text) {
    const char *newline = strchr(text, '\n');
    assert_non_null(newline);
    assert_int_equal(newline[1], '\0');
    json_error_t error;
    json_t *line = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    if (line == NULL)
        fail_msg("%s in: %s", error.text, text);
    return line;
}

static const char *line_string(const json_t *line, const char *key) {
    const char *value = json_string_value(json_object_get(line, key));
    assert_non_null(value);
    return value;
}

static void test_line_holds_time_level_message_and_pairs(void **state) {
    (void)state;
    capture_begin();
    MR_LOG(INFO, "stage ready", MR_S("job", "tiny"), MR_I("stage", -3), MR_F("seconds", 0.25));
    json_t *line = line_parse(capture_end());
    assert_int_equal(json_object_size(line), 6);
    assert_string_equal(line_string(line, "level"), "info");
    assert_string_equal(line_string(line, "message"), "stage ready");
    assert_string_equal(line_string(line, "job"), "tiny");
    assert_int_equal(json_integer_value(json_object_get(line, "stage")), -3);
    assert_true(json_real_value(json_object_get(line, "seconds")) == 0.25);
    int year, month, day, hour, minute, second, ms, used = 0;
    const char *time = line_string(line, "time");
    assert_int_equal(sscanf(time, "%4d-%2d-%2dT%2d:%2d:%2d.%3dZ%n", &year, &month, &day, &hour,
                            &minute, &second, &ms, &used), 7);
    assert_int_equal(used, 24);
    assert_int_equal(time[24], '\0');
    json_decref(line);
}

static void test_awkward_values_stay_one_valid_line(void **state) {
    (void)state;
    static const char awkward[] = "a\"b\\c\nd\te\x01\x7f \xc3\xa9";
    capture_begin();
    MR_LOG(ERROR, "awkward", MR_S("text", awkward), MR_S("none", NULL), MR_S("empty", ""),
           MR_F("nan", NAN), MR_F("infinite", -INFINITY), MR_I("least", INT64_MIN));
    json_t *line = line_parse(capture_end());
    assert_string_equal(line_string(line, "text"), awkward);
    assert_true(json_is_null(json_object_get(line, "none")));
    assert_string_equal(line_string(line, "empty"), "");
    assert_non_null(strstr(line_string(line, "nan"), "nan"));
    assert_string_equal(line_string(line, "infinite"), "-inf");
    assert_true(json_integer_value(json_object_get(line, "least")) == INT64_MIN);
    json_decref(line);
}

static void test_line_that_is_too_long_is_cut_at_a_pair(void **state) {
    (void)state;
    static char big[MR_LOG_LINE_BYTES];
    memset(big, 'x', sizeof(big) - 1);
    capture_begin();
    MR_LOG(INFO, "long", MR_I("before", 1), MR_S("big", big), MR_I("after", 2));
    json_t *line = line_parse(capture_end());
    assert_non_null(json_object_get(line, "before"));
    assert_null(json_object_get(line, "big"));
    assert_null(json_object_get(line, "after"));
    json_decref(line);

    /* The longest value that fits, and one more: a cut never breaks the line. */
    for (size_t length = MR_LOG_LINE_BYTES - 120; length < MR_LOG_LINE_BYTES - 80; length++) {
        big[length] = '\0';
        capture_begin();
        MR_LOG(INFO, "long", MR_S("big", big));
        const char *text = capture_end();
        if (text[0] != '\0')
            json_decref(line_parse(text));
        big[length] = 'x';
    }
}

static void test_level_and_role_hold_for_every_later_line(void **state) {
    (void)state;
    mr_log_level_set(MR_LOG_WARN);
    capture_begin();
    MR_LOG(INFO, "not seen", MR_I("n", 1));
    assert_string_equal(capture_end(), "");
    mr_log_level_set(MR_LOG_DEBUG);
    mr_log_role_set("stage");
    capture_begin();
    MR_LOG(DEBUG, "seen", MR_I("n", 1));
    json_t *line = line_parse(capture_end());
    assert_string_equal(line_string(line, "role"), "stage");
    assert_string_equal(line_string(line, "level"), "debug");
    json_decref(line);
    mr_log_role_set(NULL);
    mr_log_level_set(MR_LOG_INFO);
}

/* Lines of a site that wrote attempts times within one second. */
static size_t site_flood(mr_log_site *site, int attempts) {
    for (;;) {
        atomic_store(&site->count, 0);
        int64_t second = mr_clock_now_ms() / 1000;
        atomic_store(&site->second, second);
        capture_begin();
        for (int i = 0; i < attempts; i++)
            mr_log_write(MR_LOG_INFO, site, "flood", NULL, 0);
        const char *text = capture_end();
        if (mr_clock_now_ms() / 1000 != second)
            continue; /* the second ended in between: its count began anew */
        size_t lines = 0;
        for (const char *c = text; *c != '\0'; c++)
            lines += *c == '\n';
        return lines;
    }
}

static void test_site_writes_its_burst_and_counts_the_rest(void **state) {
    (void)state;
    mr_log_site site = {0};
    assert_int_equal(site_flood(&site, MR_LOG_BURST - 1), MR_LOG_BURST - 1);
    assert_int_equal(site_flood(&site, MR_LOG_BURST + 7), MR_LOG_BURST);

    atomic_store(&site.second, 0); /* that was long ago */
    capture_begin();
    mr_log_write(MR_LOG_INFO, &site, "flood", NULL, 0);
    json_t *line = line_parse(capture_end());
    assert_int_equal(json_integer_value(json_object_get(line, "held_back")), 7);
    json_decref(line);

    capture_begin();
    mr_log_write(MR_LOG_INFO, &site, "flood", NULL, 0);
    line = line_parse(capture_end());
    assert_null(json_object_get(line, "held_back"));
    json_decref(line);
}

/* JOURNAL_STREAM as the service manager sets it for this descriptor. */
static void journal_name(int fd) {
    struct stat facts;
    char stream[64];
    assert_int_equal(fstat(fd, &facts), 0);
    (void)snprintf(stream, sizeof(stream), "%ju:%ju", (uintmax_t)facts.st_dev,
                   (uintmax_t)facts.st_ino);
    assert_int_equal(setenv("JOURNAL_STREAM", stream, 1), 0);
}

static void test_journal_lines_begin_with_their_priority(void **state) {
    (void)state;
    static const char *const priorities[] = {"<7>{", "<6>{", "<4>{", "<3>{"};
    static mr_log_site site;
    journal_name(capture_fd);
    mr_log_level_set(MR_LOG_DEBUG);
    for (int level = 0; level < MR_LOG_COUNT; level++) {
        capture_begin();
        mr_log_journal_detect();
        mr_log_write((mr_log_level)level, &site, "a line", NULL, 0);
        const char *text = capture_end();
        assert_int_equal(strncmp(text, priorities[level], 4), 0);
        json_t *line = line_parse(text + 3);
        assert_string_equal(line_string(line, "message"), "a line");
        json_decref(line);
    }
    mr_log_level_set(MR_LOG_INFO);
}

static void test_priority_is_for_the_journals_own_stream(void **state) {
    (void)state;
    static const char *const others[] = {"", "1:2", "8", "a:b"};
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        assert_int_equal(setenv("JOURNAL_STREAM", others[i], 1), 0);
        capture_begin();
        mr_log_journal_detect();
        MR_LOG(INFO, "a line", MR_I("n", i));
        assert_int_equal(capture_end()[0], '{');
    }
    journal_name(stderr_fd); /* inherited, but stderr was sent elsewhere since */
    capture_begin();
    mr_log_journal_detect();
    MR_LOG(INFO, "a line", MR_I("n", 0));
    assert_int_equal(capture_end()[0], '{');
    assert_int_equal(unsetenv("JOURNAL_STREAM"), 0);
    mr_log_journal_detect();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_line_holds_time_level_message_and_pairs),
        cmocka_unit_test(test_awkward_values_stay_one_valid_line),
        cmocka_unit_test(test_line_that_is_too_long_is_cut_at_a_pair),
        cmocka_unit_test(test_level_and_role_hold_for_every_later_line),
        cmocka_unit_test(test_site_writes_its_burst_and_counts_the_rest),
        cmocka_unit_test(test_journal_lines_begin_with_their_priority),
        cmocka_unit_test(test_priority_is_for_the_journals_own_stream),
    };
    return cmocka_run_group_tests(tests, capture_setup, capture_teardown);
}
