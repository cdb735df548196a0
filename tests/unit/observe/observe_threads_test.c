/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: updates from many threads lose nothing and a reader at the same time sees whole spans only.
 * Method: threads that count, observe and write spans whose fields must agree, against a reader
 * that renders and checks; run under the thread sanitizer as well. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/observe/metrics.h"
#include "daemon/observe/trace.h"

enum { THREADS = 4, ROUNDS = 20000, SPANS = 64 };

static void ok(mr_status status) {
    if (!mr_status_is_ok(status))
        fail_msg("%s: %s", mr_code_name(status.code), status.text);
}

static mr_metrics *metrics;
static _Atomic int writers;

static void *count(void *context) {
    (void)context;
    mr_series *tokens = mr_metrics_series(metrics, MR_METRIC_TRAINED_TOKENS, "j");
    mr_series *duration = mr_metrics_series(metrics, MR_METRIC_STEP_DURATION, "j");
    for (int i = 0; i < ROUNDS; i++) {
        mr_series_add(tokens, 1);
        mr_series_observe(duration, 0.25);
    }
    atomic_fetch_sub(&writers, 1);
    return NULL;
}

static void test_counts_from_all_threads_add_up(void **state) {
    (void)state;
    pthread_t threads[THREADS];
    ok(mr_metrics_create(&metrics));
    atomic_store(&writers, THREADS);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count, NULL), 0);
    char *text = NULL;
    size_t bytes = 0;
    do {
        ok(mr_metrics_render(metrics, MR_METRICS_TEXT, &text, &bytes));
        mr_free(text);
    } while (atomic_load(&writers) > 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    ok(mr_metrics_render(metrics, MR_METRICS_TEXT, &text, &bytes));
    assert_non_null(strstr(text, "millrace_trained_tokens_total{job_id=\"j\"} 80000\n"));
    assert_non_null(strstr(text, "le=\"0.1\"} 0\n"));
    assert_non_null(strstr(text, "le=\"0.25\"} 80000\n"));
    assert_non_null(strstr(text, "_sum{job_id=\"j\"} 20000\n"));
    assert_non_null(strstr(text, "_count{job_id=\"j\"} 80000\n"));
    mr_free(text);
    mr_metrics_destroy(metrics);
}

static void *write_spans(void *context) {
    mr_trace_track *track = context;
    char name[MR_TRACE_NAME_BYTES];
    for (uint32_t i = 1; i <= ROUNDS; i++) {
        (void)snprintf(name, sizeof(name), "F%u", i);
        mr_trace_add(track, name, i, i, i, 2 * (int64_t)i);
    }
    atomic_fetch_sub(&writers, 1);
    return NULL;
}

static void test_reader_sees_whole_spans_in_order(void **state) {
    (void)state;
    mr_trace *trace = NULL;
    mr_trace_track *track = NULL;
    pthread_t thread;
    ok(mr_trace_create("stage 0", &trace));
    ok(mr_trace_track_add(trace, "exec", SPANS, &track));
    atomic_store(&writers, 1);
    assert_int_equal(pthread_create(&thread, NULL, write_spans, track), 0);
    bool last = false;
    size_t count_read = 0;
    do {
        last = atomic_load(&writers) == 0;
        mr_trace_span spans[SPANS];
        count_read = mr_trace_read(track, spans, SPANS);
        for (size_t i = 0; i < count_read; i++) {
            char name[MR_TRACE_NAME_BYTES];
            (void)snprintf(name, sizeof(name), "F%llu", (unsigned long long)spans[i].step);
            assert_string_equal(spans[i].name, name);
            assert_int_equal(spans[i].micro_batch, spans[i].step);
            assert_int_equal(spans[i].start_ns, spans[i].step);
            assert_int_equal(spans[i].end_ns, 2 * spans[i].step);
            assert_true(i == 0 || spans[i].step > spans[i - 1].step);
        }
    } while (!last);
    assert_int_equal(count_read, SPANS);
    assert_int_equal(pthread_join(thread, NULL), 0);
    mr_trace_destroy(trace);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts_from_all_threads_add_up),
        cmocka_unit_test(test_reader_sees_whole_spans_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
