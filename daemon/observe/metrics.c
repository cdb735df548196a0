/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/observe/metrics.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/clock.h"
#include "daemon/observe/metrics_internal.h"

static const double bucket_bounds[MR_METRIC_BUCKET_COUNT] = {
#define BUCKET_VALUE(bound) bound,
    MR_METRIC_BUCKETS(BUCKET_VALUE)
#undef BUCKET_VALUE
};

static const mr_metric_row table[MR_METRIC_COUNT] = {
#define TABLE_ROW(id, row_kind, row_name, row_unit, row_labels, row_help)                          \
    [MR_METRIC_##id] = {.kind = MR_METRIC_KIND_##row_kind,                                         \
                        .name = row_name,                                                          \
                        .unit = row_unit,                                                          \
                        .help = row_help,                                                          \
                        .labels = row_labels},
    MR_METRICS(TABLE_ROW)
#undef TABLE_ROW
};

/* Cuts "job_id,state" into labels. */
static void row_split_labels(mr_metric_row *row) {
    const char *rest = row->labels;
    while (*rest != '\0') {
        size_t bytes = strcspn(rest, ",");
        MR_ASSERT(row->label_count < MR_METRICS_LABELS_MAX);
        row->label[row->label_count] = rest;
        row->label_bytes[row->label_count] = bytes;
        row->label_count++;
        rest += bytes;
        rest += *rest == ',';
    }
}

mr_status mr_metrics_create(mr_metrics **out_metrics) {
    mr_metrics *metrics = mr_alloc(sizeof(*metrics));
    if (metrics == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %d series", MR_METRICS_SERIES_MAX);
    if (pthread_mutex_init(&metrics->lock, NULL) != 0) {
        mr_free(metrics);
        return MR_ERROR(RESOURCE_EXHAUSTED, "no lock for the metrics");
    }
    memcpy(metrics->rows, table, sizeof(table));
    for (size_t i = 0; i < MR_METRIC_COUNT; i++)
        row_split_labels(&metrics->rows[i]);
    metrics->dropped = mr_metrics_series_find(metrics, MR_METRIC_METRICS_DROPPED, NULL, 0);
    mr_metrics_refresh_process(metrics); /* takes their places while there are some */
    *out_metrics = metrics;
    return MR_OK;
}

void mr_metrics_destroy(mr_metrics *metrics) {
    if (metrics == NULL)
        return;
    (void)pthread_mutex_destroy(&metrics->lock); /* nobody holds it any more */
    for (size_t i = 0; i < metrics->series_used; i++)
        mr_free(metrics->series[i].exemplars);
    mr_free(metrics);
}

static void metrics_lock(mr_metrics *metrics) {
    MR_ASSERT(pthread_mutex_lock(&metrics->lock) == 0);
}

static void metrics_unlock(mr_metrics *metrics) {
    MR_ASSERT(pthread_mutex_unlock(&metrics->lock) == 0);
}

/* Are these the series' values, as they would be cut? */
static bool series_matches(const mr_series *series, mr_metric metric, const char *const *values,
                           size_t value_count) {
    if (!series->live || series->metric != metric)
        return false;
    for (size_t i = 0; i < value_count; i++)
        if (strncmp(series->values[i], values[i], MR_METRICS_LABEL_BYTES - 1) != 0)
            return false;
    return true;
}

static void series_reset(mr_series *series) {
    atomic_store_explicit(&series->bits, 0, memory_order_relaxed);
    for (size_t i = 0; i <= MR_METRIC_BUCKET_COUNT; i++)
        atomic_store_explicit(&series->buckets[i], 0, memory_order_relaxed);
    for (size_t i = 0; series->exemplars != NULL && i <= MR_METRIC_BUCKET_COUNT; i++)
        atomic_store_explicit(&series->exemplars[i].sequence, 0, memory_order_relaxed);
}

/* A histogram has a place for each bucket's exemplar; where memory is short it has none. */
static void series_make_exemplars(mr_series *series) {
    if (series->exemplars == NULL)
        series->exemplars = mr_alloc_array(MR_METRIC_BUCKET_COUNT + 1, sizeof(mr_exemplar));
}

/* The slot that has the series, or the one it gets; NULL where all are taken. Under the lock. */
static mr_series *metrics_slot(mr_metrics *metrics, mr_metric metric, const char *const *values,
                               size_t value_count) {
    mr_series *empty = NULL;
    for (size_t i = 0; i < metrics->series_used; i++) {
        mr_series *series = &metrics->series[i];
        if (series_matches(series, metric, values, value_count))
            return series;
        if (!series->live && empty == NULL)
            empty = series;
    }
    if (empty == NULL && metrics->series_used < MR_METRICS_SERIES_MAX)
        empty = &metrics->series[metrics->series_used++];
    return empty;
}

mr_series *mr_metrics_series_find(mr_metrics *metrics, mr_metric metric, const char *const *values,
                                  size_t value_count) {
    MR_ASSERT((unsigned)metric < MR_METRIC_COUNT);
    MR_ASSERT(value_count == metrics->rows[metric].label_count);
    metrics_lock(metrics);
    mr_series *series = metrics_slot(metrics, metric, values, value_count);
    if (series != NULL && !series->live) {
        if (metrics->rows[metric].kind == MR_METRIC_KIND_HISTOGRAM)
            series_make_exemplars(series);
        series_reset(series);
        series->metric = metric;
        for (size_t i = 0; i < value_count; i++)
            (void)snprintf(series->values[i], sizeof(series->values[i]), "%s", values[i]);
        series->live = true;
        if (metrics->rows[metric].kind == MR_METRIC_KIND_INFO)
            mr_series_set(series, 1);
    }
    metrics_unlock(metrics);
    if (series != NULL)
        return series;
    mr_series_add(metrics->dropped, 1);
    return &metrics->spare;
}

void mr_metrics_drop(mr_metrics *metrics, const char *label, const char *value) {
    metrics_lock(metrics);
    for (size_t i = 0; i < metrics->series_used; i++) {
        mr_series *series = &metrics->series[i];
        const mr_metric_row *row = &metrics->rows[series->metric];
        for (size_t k = 0; series->live && k < row->label_count; k++)
            if (row->label_bytes[k] == strlen(label) &&
                memcmp(row->label[k], label, row->label_bytes[k]) == 0 &&
                strncmp(series->values[k], value, MR_METRICS_LABEL_BYTES - 1) == 0)
                series->live = false;
    }
    metrics_unlock(metrics);
}

static double bits_to_double(uint64_t bits) {
    double value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static uint64_t double_to_bits(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

/* Other threads may add at the same time; nothing is lost. */
static void series_add(mr_series *series, double value) {
    uint64_t old = atomic_load_explicit(&series->bits, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&series->bits, &old,
                                                  double_to_bits(bits_to_double(old) + value),
                                                  memory_order_relaxed, memory_order_relaxed)) {
    }
}

void mr_series_add(mr_series *series, double value) {
    if (isfinite(value))
        series_add(series, value);
}

void mr_series_set(mr_series *series, double value) {
    atomic_store_explicit(&series->bits, double_to_bits(value), memory_order_relaxed);
}

static size_t bucket_of(double value) {
    size_t bucket = 0;
    while (bucket < MR_METRIC_BUCKET_COUNT && value > bucket_bounds[bucket])
        bucket++;
    return bucket;
}

void mr_series_observe(mr_series *series, double value) {
    if (!isfinite(value))
        return;
    atomic_fetch_add_explicit(&series->buckets[bucket_of(value)], 1, memory_order_relaxed);
    series_add(series, value);
}

/* Of two who write at once, one's exemplar stays. */
static void exemplar_write(mr_exemplar *exemplar, double value, uint64_t step) {
    uint64_t sequence = atomic_load_explicit(&exemplar->sequence, memory_order_relaxed);
    if (sequence % 2 != 0 ||
        !atomic_compare_exchange_strong_explicit(&exemplar->sequence, &sequence, sequence + 1,
                                                 memory_order_relaxed, memory_order_relaxed))
        return;
    /* Each release store comes after the odd sequence, for a reader that acquires the word. */
    atomic_store_explicit(&exemplar->step, step, memory_order_release);
    atomic_store_explicit(&exemplar->bits, double_to_bits(value), memory_order_release);
    atomic_store_explicit(&exemplar->wall_ms, mr_clock_wall_ms(), memory_order_release);
    atomic_store_explicit(&exemplar->sequence, sequence + 2, memory_order_release);
}

void mr_series_observe_step(mr_series *series, double value, uint64_t step) {
    mr_series_observe(series, value);
    if (isfinite(value) && series->exemplars != NULL)
        exemplar_write(&series->exemplars[bucket_of(value)], value, step);
}

bool mr_exemplar_read(const mr_exemplar *exemplar, mr_exemplar_facts *out_facts) {
    uint64_t before = atomic_load_explicit(&exemplar->sequence, memory_order_acquire);
    out_facts->step = atomic_load_explicit(&exemplar->step, memory_order_acquire);
    out_facts->value =
        bits_to_double(atomic_load_explicit(&exemplar->bits, memory_order_acquire));
    out_facts->wall_ms = atomic_load_explicit(&exemplar->wall_ms, memory_order_acquire);
    uint64_t after = atomic_load_explicit(&exemplar->sequence, memory_order_relaxed);
    return before == after && before > 0 && before % 2 == 0;
}

double mr_series_value(const mr_series *series) {
    return bits_to_double(atomic_load_explicit(&series->bits, memory_order_relaxed));
}
