/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a status carries its code, place and text, cut at its size; names and retry flags are those
 * of gRPC's table; the control-flow macros return, jump and abort. Method: direct calls; the abort
 * in a child process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/base/status.h"

static void test_error_has_code_text_and_place(void **state) {
    (void)state;
    mr_status status = MR_ERROR(INVALID_ARGUMENT, "batch is %d; it must be at least %d", 0, 1);
    assert_int_equal(status.code, 3);
    assert_string_equal(status.text, "batch is 0; it must be at least 1");
    assert_non_null(strstr(status.file, "status_text_test.c"));
    assert_int_equal(status.line, __LINE__ - 4);
    assert_false(mr_status_is_ok(status));
    assert_true(mr_status_is_ok(MR_OK));
    assert_string_equal(MR_OK.text, "");
}

static void test_long_text_is_cut_and_terminated(void **state) {
    (void)state;
    char text[1000];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    mr_status status = MR_ERROR(INTERNAL, "%s", text);
    assert_int_equal(strlen(status.text), MR_STATUS_TEXT_BYTES - 1);
    status = mr_status_prefix(status, "%s", text);
    assert_int_equal(strlen(status.text), MR_STATUS_TEXT_BYTES - 1);
    assert_int_equal(status.code, MR_CODE_INTERNAL);
}

static void test_prefix_keeps_code_and_place(void **state) {
    (void)state;
    mr_status status = MR_ERROR(NOT_FOUND, "no such file");
    mr_status prefixed = mr_status_prefix(status, "layer %d", 7);
    assert_string_equal(prefixed.text, "layer 7: no such file");
    assert_int_equal(prefixed.code, status.code);
    assert_int_equal(prefixed.line, status.line);
    assert_ptr_equal(prefixed.file, status.file);
}

static void test_codes_are_those_of_grpc(void **state) {
    (void)state;
    static const char *const names[] = {
        "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
        "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
        "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
        "UNAUTHENTICATED",
    };
    assert_int_equal(MR_CODE_COUNT, sizeof(names) / sizeof(names[0]));
    for (int code = 0; code < MR_CODE_COUNT; code++)
        assert_string_equal(mr_code_name((mr_code)code), names[code]);
    assert_string_equal(mr_code_name((mr_code)1000), "UNKNOWN");
    assert_string_equal(mr_code_name((mr_code)-1), "UNKNOWN");
    assert_true(mr_code_retry(MR_CODE_UNAVAILABLE));
    assert_true(mr_code_retry(MR_CODE_RESOURCE_EXHAUSTED));
    assert_false(mr_code_retry(MR_CODE_INVALID_ARGUMENT));
    assert_false(mr_code_retry((mr_code)1000));
}

static mr_status fail_when(int failing, int *calls) {
    (*calls)++;
    return *calls == failing ? MR_ERROR(ABORTED, "call %d", *calls) : MR_OK;
}

static mr_status try_three(int failing, int *calls) {
    MR_TRY(fail_when(failing, calls));
    MR_TRY(fail_when(failing, calls));
    MR_TRY(fail_when(failing, calls));
    return MR_OK;
}

static mr_status try_goto(int failing, int *calls, int *cleanups) {
    mr_status status;
    MR_TRY_GOTO(status, fail_when(failing, calls), out);
    MR_TRY_GOTO(status, fail_when(failing, calls), out);
out:
    (*cleanups)++;
    return status;
}

static void test_try_stops_at_the_first_failure(void **state) {
    (void)state;
    int calls = 0;
    mr_status status = try_three(2, &calls);
    assert_int_equal(calls, 2);
    assert_string_equal(status.text, "call 2");
    calls = 0;
    status = try_three(0, &calls);
    assert_int_equal(calls, 3);
    assert_true(mr_status_is_ok(status));

    int cleanups = 0;
    calls = 0;
    status = try_goto(1, &calls, &cleanups);
    assert_int_equal(calls, 1);
    assert_int_equal(status.code, MR_CODE_ABORTED);
    calls = 0;
    status = try_goto(0, &calls, &cleanups);
    assert_int_equal(calls, 2);
    assert_true(mr_status_is_ok(status));
    assert_int_equal(cleanups, 2);
}

/* Runs a failing or holding assertion in a child; what is on its stderr goes to text. */
static int assert_in_child(int value, char *text, size_t text_bytes) {
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)signal(SIGABRT, SIG_DFL); /* cmocka's handler would report a failure of this test */
        (void)dup2(ends[1], STDERR_FILENO);
        MR_ASSERT(value == 1);
        _exit(0);
    }
    (void)close(ends[1]);
    size_t used = 0;
    for (ssize_t n = 1; n > 0 && used + 1 < text_bytes; used += (size_t)(n > 0 ? n : 0))
        n = read(ends[0], text + used, text_bytes - 1 - used);
    text[used] = '\0';
    (void)close(ends[0]);
    int result = 0;
    assert_int_equal(waitpid(child, &result, 0), child);
    return result;
}

static void test_failed_assertion_aborts_and_names_the_place(void **state) {
    (void)state;
    char text[512];
    int result = assert_in_child(1, text, sizeof(text));
    assert_true(WIFEXITED(result) && WEXITSTATUS(result) == 0);
    assert_string_equal(text, "");
    result = assert_in_child(2, text, sizeof(text));
    assert_true(WIFSIGNALED(result));
    assert_int_equal(WTERMSIG(result), SIGABRT);
    assert_non_null(strstr(text, "status_text_test.c"));
    assert_non_null(strstr(text, "value == 1"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error_has_code_text_and_place),
        cmocka_unit_test(test_long_text_is_cut_and_terminated),
        cmocka_unit_test(test_prefix_keeps_code_and_place),
        cmocka_unit_test(test_codes_are_those_of_grpc),
        cmocka_unit_test(test_try_stops_at_the_first_failure),
        cmocka_unit_test(test_failed_assertion_aborts_and_names_the_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
