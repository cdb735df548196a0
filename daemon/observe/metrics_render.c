/* SPDX-License-Identifier: Apache-2.0 */
/* metrics_render.c: the table as text. The two formats differ in a counter's family name
 * (OpenMetrics leaves _total to the samples), UNIT lines, the info type and the end mark. */
#include <inttypes.h>
#include <string.h>

#include "daemon/observe/metrics_internal.h"
#include "daemon/observe/text.h"

static const char *const bucket_names[MR_METRIC_BUCKET_COUNT] = {
#define BUCKET_NAME(bound) #bound,
    MR_METRIC_BUCKETS(BUCKET_NAME)
#undef BUCKET_NAME
};

const char *mr_metrics_content_type(mr_metrics_format format) {
    return format == MR_METRICS_OPENMETRICS
               ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
               : "text/plain; version=0.0.4; charset=utf-8";
}

/* Length of the name without a suffix that it has. */
static size_t render_without(const char *name, const char *suffix) {
    size_t bytes = strlen(name);
    size_t suffix_bytes = strlen(suffix);
    MR_ASSERT(bytes > suffix_bytes);
    MR_ASSERT(strcmp(name + bytes - suffix_bytes, suffix) == 0);
    return bytes - suffix_bytes;
}

static void render_head(mr_text *text, const mr_metric_row *row, mr_metrics_format format) {
    static const char *const words[MR_METRIC_KIND_COUNT] = {
        [MR_METRIC_KIND_COUNTER] = "counter",
        [MR_METRIC_KIND_GAUGE] = "gauge",
        [MR_METRIC_KIND_HISTOGRAM] = "histogram",
        [MR_METRIC_KIND_INFO] = "gauge",
    };
    if (format == MR_METRICS_TEXT) {
        mr_text_add(text, "# HELP %s %s\n# TYPE %s %s\n", row->name, row->help, row->name,
                    words[row->kind]);
        return;
    }
    size_t bytes = strlen(row->name);
    const char *word = words[row->kind];
    if (row->kind == MR_METRIC_KIND_COUNTER)
        bytes = render_without(row->name, "_total");
    if (row->kind == MR_METRIC_KIND_INFO) {
        bytes = render_without(row->name, "_info");
        word = "info";
    }
    mr_text_add(text, "# TYPE %.*s %s\n", (int)bytes, row->name, word);
    if (row->unit[0] != '\0')
        mr_text_add(text, "# UNIT %.*s %s\n", (int)bytes, row->name, row->unit);
    mr_text_add(text, "# HELP %.*s %s\n", (int)bytes, row->name, row->help);
}

/* {a="b",le="c"}; nothing where there is no label. */
static void render_labels(mr_text *text, const mr_metric_row *row, const mr_series *series,
                          const char *bound) {
    if (row->label_count == 0 && bound == NULL)
        return;
    for (size_t i = 0; i < row->label_count; i++) {
        mr_text_add(text, "%s%.*s=\"", i == 0 ? "{" : ",", (int)row->label_bytes[i], row->label[i]);
        mr_text_add_escaped(text, series->values[i]);
        mr_text_add(text, "\"");
    }
    if (bound != NULL)
        mr_text_add(text, "%sle=\"%s\"", row->label_count == 0 ? "{" : ",", bound);
    mr_text_add(text, "}");
}

/* A sample without the end of its line. */
static void render_value(mr_text *text, const mr_metric_row *row, const mr_series *series,
                         const char *suffix, const char *bound, double value) {
    mr_text_add(text, "%s%s", row->name, suffix);
    render_labels(text, row, series, bound);
    mr_text_add(text, " ");
    mr_text_add_number(text, value);
}

static void render_sample(mr_text *text, const mr_metric_row *row, const mr_series *series,
                          const char *suffix, const char *bound, double value) {
    render_value(text, row, series, suffix, bound, value);
    mr_text_add(text, "\n");
}

/* Which step it was, in OpenMetrics: the other format knows no exemplars. */
static void render_exemplar(mr_text *text, const mr_series *series, size_t bucket) {
    mr_exemplar_facts facts;
    if (series->exemplars == NULL || !mr_exemplar_read(&series->exemplars[bucket], &facts))
        return;
    mr_text_add(text, " # {step=\"%" PRIu64 "\"} ", facts.step);
    mr_text_add_number(text, facts.value);
    mr_text_add(text, " %" PRId64 ".%03" PRId64, facts.wall_ms / 1000, facts.wall_ms % 1000);
}

/* The count is the last bucket's, so that the two agree whoever observes meanwhile. */
static void render_histogram(mr_text *text, const mr_metric_row *row, const mr_series *series,
                             mr_metrics_format format) {
    uint64_t count = 0;
    for (size_t i = 0; i <= MR_METRIC_BUCKET_COUNT; i++) {
        count += atomic_load_explicit(&series->buckets[i], memory_order_relaxed);
        render_value(text, row, series, "_bucket",
                     i < MR_METRIC_BUCKET_COUNT ? bucket_names[i] : "+Inf", (double)count);
        if (format == MR_METRICS_OPENMETRICS)
            render_exemplar(text, series, i);
        mr_text_add(text, "\n");
    }
    render_sample(text, row, series, "_sum", NULL, mr_series_value(series));
    render_sample(text, row, series, "_count", NULL, (double)count);
}

/* One family; nothing where it has no series. */
static void render_family(mr_text *text, const mr_metrics *metrics, mr_metric metric,
                          mr_metrics_format format) {
    const mr_metric_row *row = &metrics->rows[metric];
    bool first = true;
    for (size_t i = 0; i < metrics->series_used; i++) {
        const mr_series *series = &metrics->series[i];
        if (!series->live || series->metric != metric)
            continue;
        if (first)
            render_head(text, row, format);
        first = false;
        if (row->kind == MR_METRIC_KIND_HISTOGRAM)
            render_histogram(text, row, series, format);
        else
            render_sample(text, row, series, "", NULL, mr_series_value(series));
    }
}

mr_status mr_metrics_render(mr_metrics *metrics, mr_metrics_format format, char **out_text,
                            size_t *out_bytes) {
    mr_text text = {0};
    mr_metrics_refresh_process(metrics);
    MR_ASSERT(pthread_mutex_lock(&metrics->lock) == 0);
    for (unsigned i = 0; i < MR_METRIC_COUNT; i++)
        render_family(&text, metrics, (mr_metric)i, format);
    MR_ASSERT(pthread_mutex_unlock(&metrics->lock) == 0);
    if (format == MR_METRICS_OPENMETRICS)
        mr_text_add(&text, "# EOF\n");
    return mr_text_take(&text, out_text, out_bytes);
}
