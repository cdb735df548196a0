/* SPDX-License-Identifier: Apache-2.0 */
/* metrics.h: everything a daemon counts, declared in one table (metrics.def.h), and its text for
 * Prometheus.
 *   mr_series *series = mr_metrics_series(metrics, MR_METRIC_OPTIMIZER_STEPS, "7f3a", "applied");
 *   mr_series_add(series, 1);
 * A series is found or made once, in control code, and then updated from any thread without a lock
 * and without memory. When the table of series is full, mr_metrics_series gives a spare one that is
 * updated and never shown, so that callers need no error path; millrace_metrics_dropped_series_total
 * counts them.
 * Owner: observe. Thread: any. Limits: MR_METRICS_*.
 * Not here: HTTP (status_server.h), spans (trace.h). */
#ifndef MR_OBSERVE_METRICS_H
#define MR_OBSERVE_METRICS_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/base/limits.h"
#include "daemon/base/status.h"
#include "daemon/observe/metrics.def.h"

typedef enum mr_metric {
#define MR_METRIC_ENUM(id, kind, name, unit, labels, help) MR_METRIC_##id,
    MR_METRICS(MR_METRIC_ENUM)
#undef MR_METRIC_ENUM
        MR_METRIC_COUNT
} mr_metric;

typedef enum mr_metrics_format {
    MR_METRICS_TEXT,        /* text/plain; version=0.0.4 */
    MR_METRICS_OPENMETRICS, /* application/openmetrics-text; version=1.0.0 */
    MR_METRICS_FORMAT_COUNT
} mr_metrics_format;

typedef struct mr_metrics mr_metrics; /* opaque */
typedef struct mr_series mr_series;   /* opaque; lives as long as its metrics */

MR_MUST_CHECK mr_status mr_metrics_create(mr_metrics **out_metrics);
/* No thread may use it or its series any more. NULL is fine. */
void mr_metrics_destroy(mr_metrics *metrics);

/* The series of this metric with these label values: one const char * per label of the table, in its
 * order; values are copied and cut at MR_METRICS_LABEL_BYTES. Never NULL. Takes a lock: not on the
 * step path. mr_metrics_series(m, MR_METRIC_STAGE_UP, "0") */
#define mr_metrics_series(metrics, metric, ...)                                                    \
    mr_metrics_series_find((metrics), (metric), (const char *const[]){__VA_ARGS__},                \
                           sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *))
mr_series *mr_metrics_series_find(mr_metrics *metrics, mr_metric metric,
                                  const char *const *values, size_t value_count);
/* Forgets every series that has label (by name) at value, once nobody updates them any more: the
 * series of a job that ended, at the earliest one scrape interval later. */
void mr_metrics_drop(mr_metrics *metrics, const char *label, const char *value);

/* Counters and gauges. Adding to a counter less than 0 is ignored. Any thread, lock-free. */
void mr_series_add(mr_series *series, double value);
/* Gauges. */
void mr_series_set(mr_series *series, double value);
/* Histograms: one observation; the metric's unit (seconds). */
void mr_series_observe(mr_series *series, double value);
double mr_series_value(const mr_series *series);

/* All series as text; *out_text is freed with mr_free. Appends the process_* family of this process.
 * RESOURCE_EXHAUSTED: no memory. Any thread. */
MR_MUST_CHECK mr_status mr_metrics_render(mr_metrics *metrics, mr_metrics_format format,
                                          char **out_text, size_t *out_bytes);
/* The Content-Type of a format. */
const char *mr_metrics_content_type(mr_metrics_format format);

#endif
