/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the metrics' text is what Prometheus reads, in both formats, to the byte; and the table
 * keeps its own rules.
 * Method: golden texts; rules checked over all rows; promtool where it is installed. */
#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/observe/metrics.h"

static void ok(mr_status status) {
    if (!mr_status_is_ok(status))
        fail_msg("%s: %s", mr_code_name(status.code), status.text);
}

static mr_metrics *metrics;

static int setup(void **state) {
    (void)state;
    ok(mr_metrics_create(&metrics));
    return 0;
}

static int teardown(void **state) {
    (void)state;
    mr_metrics_destroy(metrics);
    return 0;
}

/* The text up to the process_* families, which differ from run to run; freed with mr_free. */
static char *render(mr_metrics_format format) {
    char *text = NULL;
    size_t bytes = 0;
    ok(mr_metrics_render(metrics, format, &text, &bytes));
    assert_int_equal(strlen(text), bytes);
    char *process = strstr(text, format == MR_METRICS_TEXT ? "# HELP millrace_metrics_dropped"
                                                           : "# TYPE millrace_metrics_dropped");
    assert_non_null(process);
    *process = '\0';
    return text;
}

static void fill(void) {
    (void)mr_metrics_series(metrics, MR_METRIC_BUILD_INFO, "0.1.0", "abc", "cpu");
    mr_series_add(mr_metrics_series(metrics, MR_METRIC_OPTIMIZER_STEPS, "7f3a", "applied"), 3);
    mr_series_add(mr_metrics_series(metrics, MR_METRIC_OPTIMIZER_STEPS, "7f3a", "skipped"), 1);
    mr_series_set(mr_metrics_series(metrics, MR_METRIC_PIPELINE_BUBBLE, "7f3a"), 0.1);
    mr_series_set(mr_metrics_series(metrics, MR_METRIC_JOB_LOSS, "a\"b\\c\nd", "train"), 1e300);
    mr_series *duration = mr_metrics_series(metrics, MR_METRIC_STEP_DURATION, "7f3a");
    mr_series_observe(duration, 0.001); /* on a bound: in its bucket */
    mr_series_observe(duration, 0.7);
    mr_series_observe(duration, 1000);
}

static const char histogram[] =
    "millrace_step_duration_seconds_bucket{job_id=\"7f3a\",le=\"0.001\"} 1\n"
    "millrace_step_duration_seconds_bucket{job_id=\"7f3a\",le=\"0.0025\"} 1\n"
    "millrace_step_duration_seconds_bucket{job_id=\"7f3a\",le=\"0.005\"} 1\n"
    "millrace_step_duration_seconds_bucket{job_id=\"7f3a\",le=\"0.01\"} 1\n"
    "millrace_step_duration_seconds_bucket{job_id=\"7f3a\",le=\"0.025\"} 1\n"
    "millrace_step_duration_seconds_bucket{job_id=\"7f3a\",le=\"0.05\"} 1\n"
    "millrace_step_duration_seconds_bucket{job_id=\"7f3a\",le=\"0.1\"} 1\n"
    "millrace_step_duration_seconds_bucket{job_id=\"7f3a\",le=\"0.25\"} 1\n"
    "millrace_step_duration_seconds_bucket{job_id=\"7f3a\",le=\"0.5\"} 1\n"
    "millrace_step_duration_seconds_bucket{job_id=\"7f3a\",le=\"1.0\"} 2\n"
    "millrace_step_duration_seconds_bucket{job_id=\"7f3a\",le=\"2.5\"} 2\n"
    "millrace_step_duration_seconds_bucket{job_id=\"7f3a\",le=\"5.0\"} 2\n"
    "millrace_step_duration_seconds_bucket{job_id=\"7f3a\",le=\"10.0\"} 2\n"
    "millrace_step_duration_seconds_bucket{job_id=\"7f3a\",le=\"30.0\"} 2\n"
    "millrace_step_duration_seconds_bucket{job_id=\"7f3a\",le=\"60.0\"} 2\n"
    "millrace_step_duration_seconds_bucket{job_id=\"7f3a\",le=\"300.0\"} 2\n"
    "millrace_step_duration_seconds_bucket{job_id=\"7f3a\",le=\"+Inf\"} 3\n"
    "millrace_step_duration_seconds_sum{job_id=\"7f3a\"} 1000.701\n"
    "millrace_step_duration_seconds_count{job_id=\"7f3a\"} 3\n";

static void test_text_format_equals_golden(void **state) {
    (void)state;
    char golden[8192];
    (void)snprintf(
        golden, sizeof(golden), "%s%s%s",
        "# HELP millrace_build_info What this daemon was built from\n"
        "# TYPE millrace_build_info gauge\n"
        "millrace_build_info{version=\"0.1.0\",commit=\"abc\",backend=\"cpu\"} 1\n"
        "# HELP millrace_job_loss Mean loss of the last step in nats per token\n"
        "# TYPE millrace_job_loss gauge\n"
        "millrace_job_loss{job_id=\"a\\\"b\\\\c\\nd\",split=\"train\"} 1e+300\n"
        "# HELP millrace_optimizer_steps_total Optimizer steps by result: applied or skipped\n"
        "# TYPE millrace_optimizer_steps_total counter\n"
        "millrace_optimizer_steps_total{job_id=\"7f3a\",result=\"applied\"} 3\n"
        "millrace_optimizer_steps_total{job_id=\"7f3a\",result=\"skipped\"} 1\n"
        "# HELP millrace_step_duration_seconds Time of one whole step\n"
        "# TYPE millrace_step_duration_seconds histogram\n",
        histogram,
        "# HELP millrace_pipeline_bubble_ratio Share of the last step in which devices waited\n"
        "# TYPE millrace_pipeline_bubble_ratio gauge\n"
        "millrace_pipeline_bubble_ratio{job_id=\"7f3a\"} 0.1\n");
    fill();
    char *text = render(MR_METRICS_TEXT);
    assert_string_equal(text, golden);
    mr_free(text);
}

static void test_openmetrics_equals_golden(void **state) {
    (void)state;
    char golden[8192];
    (void)snprintf(
        golden, sizeof(golden), "%s%s%s",
        "# TYPE millrace_build info\n"
        "# HELP millrace_build What this daemon was built from\n"
        "millrace_build_info{version=\"0.1.0\",commit=\"abc\",backend=\"cpu\"} 1\n"
        "# TYPE millrace_job_loss gauge\n"
        "# HELP millrace_job_loss Mean loss of the last step in nats per token\n"
        "millrace_job_loss{job_id=\"a\\\"b\\\\c\\nd\",split=\"train\"} 1e+300\n"
        "# TYPE millrace_optimizer_steps counter\n"
        "# HELP millrace_optimizer_steps Optimizer steps by result: applied or skipped\n"
        "millrace_optimizer_steps_total{job_id=\"7f3a\",result=\"applied\"} 3\n"
        "millrace_optimizer_steps_total{job_id=\"7f3a\",result=\"skipped\"} 1\n"
        "# TYPE millrace_step_duration_seconds histogram\n"
        "# UNIT millrace_step_duration_seconds seconds\n"
        "# HELP millrace_step_duration_seconds Time of one whole step\n",
        histogram,
        "# TYPE millrace_pipeline_bubble_ratio gauge\n"
        "# UNIT millrace_pipeline_bubble_ratio ratio\n"
        "# HELP millrace_pipeline_bubble_ratio Share of the last step in which devices waited\n"
        "millrace_pipeline_bubble_ratio{job_id=\"7f3a\"} 0.1\n");
    fill();
    char *text = render(MR_METRICS_OPENMETRICS);
    assert_string_equal(text, golden);
    mr_free(text);
    size_t bytes = 0;
    ok(mr_metrics_render(metrics, MR_METRICS_OPENMETRICS, &text, &bytes));
    assert_string_equal(text + bytes - 6, "# EOF\n");
    assert_null(strstr(text, "\n\n"));
    mr_free(text);
}

static void test_exemplar_is_with_its_bucket_in_openmetrics_alone(void **state) {
    (void)state;
    mr_series *duration = mr_metrics_series(metrics, MR_METRIC_STEP_DURATION, "7f3a");
    mr_series_observe_step(duration, 0.7, 41);
    mr_series_observe_step(duration, 0.75, 42); /* the newer one stays */
    mr_series_observe_step(duration, 1000, 43);
    mr_series_observe(duration, 0.002); /* has no step */
    char *text = render(MR_METRICS_TEXT);
    assert_null(strstr(text, "step="));
    mr_free(text);
    text = render(MR_METRICS_OPENMETRICS);
    const char *half = strstr(text, ",le=\"1.0\"} 3 # {step=\"42\"} 0.75 ");
    assert_non_null(half);
    assert_true(strtod(strstr(half, "0.75 ") + 5, NULL) > 1e9); /* Unix time */
    assert_non_null(strstr(text, ",le=\"+Inf\"} 4 # {step=\"43\"} 1000 "));
    assert_non_null(strstr(text, ",le=\"0.0025\"} 1\n"));
    assert_null(strstr(text, "step=\"41\""));
    mr_free(text);
    mr_metrics_drop(metrics, "job_id", "7f3a");
    (void)mr_metrics_series(metrics, MR_METRIC_STEP_DURATION, "8000");
    text = render(MR_METRICS_OPENMETRICS);
    assert_null(strstr(text, "step=")); /* a new series has nothing of the old one */
    mr_free(text);
}

static void test_process_is_told(void **state) {
    (void)state;
    static const char *const names[] = {"\nprocess_cpu_seconds_total ",
                                        "\nprocess_resident_memory_bytes ",
                                        "\nprocess_virtual_memory_bytes ",
                                        "\nprocess_start_time_seconds ",
                                        "\nprocess_open_fds ",
                                        "\nprocess_max_fds "};
    char *text = NULL;
    size_t bytes = 0;
    ok(mr_metrics_render(metrics, MR_METRICS_TEXT, &text, &bytes));
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const char *at = strstr(text, names[i]);
        assert_non_null(at);
        if (i > 0) /* a new process may have used no tick of processor time */
            assert_true(strtod(at + strlen(names[i]), NULL) > 0);
    }
    mr_free(text);
}

static void test_same_labels_are_the_same_series(void **state) {
    (void)state;
    mr_series *a = mr_metrics_series(metrics, MR_METRIC_STAGE_UP, "0");
    assert_ptr_equal(a, mr_metrics_series(metrics, MR_METRIC_STAGE_UP, "0"));
    assert_ptr_not_equal(a, mr_metrics_series(metrics, MR_METRIC_STAGE_UP, "1"));
    assert_ptr_not_equal(a, mr_metrics_series(metrics, MR_METRIC_STAGE_LAYERS, "0"));
    mr_series_add(a, 1);
    mr_series_add(a, 0.0 / (1.0 - mr_series_value(a))); /* not a number: ignored */
    assert_true(mr_series_value(a) == 1);
}

static void test_dropped_job_is_gone_and_its_place_is_clean(void **state) {
    (void)state;
    fill();
    mr_metrics_drop(metrics, "job_id", "7f3a");
    char *text = render(MR_METRICS_TEXT);
    assert_null(strstr(text, "7f3a"));
    assert_non_null(strstr(text, "millrace_build_info{"));
    mr_free(text);
    for (int i = 0; i < 8; i++) {
        char stage[8];
        (void)snprintf(stage, sizeof(stage), "%d", i);
        assert_true(mr_series_value(mr_metrics_series(metrics, MR_METRIC_STAGE_UP, stage)) == 0);
    }
}

static void test_full_table_counts_what_it_refuses(void **state) {
    (void)state;
    for (int i = 0; i < MR_METRICS_SERIES_MAX + 5; i++) {
        char stage[16];
        (void)snprintf(stage, sizeof(stage), "%d", i);
        mr_series *series = mr_metrics_series(metrics, MR_METRIC_STAGE_UP, stage);
        assert_non_null(series);
        mr_series_set(series, 1);
    }
    char *text = NULL;
    size_t bytes = 0;
    ok(mr_metrics_render(metrics, MR_METRICS_TEXT, &text, &bytes));
    const char *dropped = strstr(text, "\nmillrace_metrics_dropped_series_total ");
    assert_non_null(dropped);
    /* 2048 places less the seven that are always taken. */
    assert_int_equal(strtol(strchr(dropped, ' '), NULL, 10), 12);
    mr_free(text);
}

/* What promtool's linter and OpenMetrics ask of names, over every row. */
static void test_every_row_keeps_the_rules(void **state) {
    (void)state;
    static const struct {
        const char *kind;
        const char *name;
        const char *unit;
        const char *labels;
        const char *help;
    } rows[] = {
#define ROW(id, kind, name, unit, labels, help) {#kind, name, unit, labels, help},
        MR_METRICS(ROW)
#undef ROW
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char base[128];
        (void)snprintf(base, sizeof(base), "%s", rows[i].name);
        size_t bytes = strlen(base);
        bool counter = strcmp(rows[i].kind, "COUNTER") == 0;
        bool total = bytes > 6 && strcmp(base + bytes - 6, "_total") == 0;
        bool info = bytes > 5 && strcmp(base + bytes - 5, "_info") == 0;
        assert_int_equal(counter, total);
        assert_int_equal(strcmp(rows[i].kind, "INFO") == 0, info);
        if (total)
            base[bytes - 6] = '\0';
        size_t unit = strlen(rows[i].unit);
        if (unit > 0)
            assert_string_equal(base + strlen(base) - unit, rows[i].unit);
        assert_true(strncmp(base, "millrace_", 9) == 0 || strncmp(base, "process_", 8) == 0);
        for (const char *c = base; *c != '\0'; c++)
            assert_true(islower((unsigned char)*c) || *c == '_');
        assert_true(strlen(rows[i].help) > 0);
        assert_null(strpbrk(rows[i].help, "\n\\\""));
        assert_null(strstr(rows[i].labels, " "));
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(rows[i].name, rows[k].name);
    }
}

static void test_promtool_has_nothing_to_say(void **state) {
    (void)state;
    if (access("/usr/bin/promtool", X_OK) != 0) {
        print_message("skipped: no /usr/bin/promtool\n");
        skip();
    }
    fill();
    char *text = NULL;
    size_t bytes = 0;
    ok(mr_metrics_render(metrics, MR_METRICS_TEXT, &text, &bytes));
    FILE *pipe = popen("/usr/bin/promtool check metrics", "w");
    assert_non_null(pipe);
    assert_int_equal(fwrite(text, 1, bytes, pipe), bytes);
    assert_int_equal(pclose(pipe), 0);
    mr_free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_text_format_equals_golden, setup, teardown),
        cmocka_unit_test_setup_teardown(test_openmetrics_equals_golden, setup, teardown),
        cmocka_unit_test_setup_teardown(test_exemplar_is_with_its_bucket_in_openmetrics_alone,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_process_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(test_same_labels_are_the_same_series, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dropped_job_is_gone_and_its_place_is_clean, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_full_table_counts_what_it_refuses, setup, teardown),
        cmocka_unit_test(test_every_row_keeps_the_rules),
        cmocka_unit_test_setup_teardown(test_promtool_has_nothing_to_say, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
