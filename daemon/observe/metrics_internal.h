/* SPDX-License-Identifier: Apache-2.0 */
/* metrics_internal.h: the table of series, as its keeper and its renderer see it.
 * Owner: observe; private to this folder.
 * Not here: anything for others. */
#ifndef MR_OBSERVE_METRICS_INTERNAL_H
#define MR_OBSERVE_METRICS_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "daemon/observe/metrics.h"

/* Upper bounds of the buckets of every histogram, in seconds; +Inf follows. */
/* clang-format off */
#define MR_METRIC_BUCKETS(X)                                                                       \
    X(0.001) X(0.0025) X(0.005) X(0.01) X(0.025) X(0.05) X(0.1) X(0.25)                            \
    X(0.5) X(1.0) X(2.5) X(5.0) X(10.0) X(30.0) X(60.0) X(300.0)
/* clang-format on */

enum {
#define MR_METRIC_BUCKET_COUNT_ONE(bound) +1
    MR_METRIC_BUCKET_COUNT = 0 MR_METRIC_BUCKETS(MR_METRIC_BUCKET_COUNT_ONE)
#undef MR_METRIC_BUCKET_COUNT_ONE
};

typedef struct mr_metric_row {
    mr_metric_kind kind;
    const char *name;
    const char *unit;
    const char *help;
    const char *labels;
    size_t label_count;
    const char *label[MR_METRICS_LABELS_MAX]; /* points into labels */
    size_t label_bytes[MR_METRICS_LABELS_MAX];
} mr_metric_row;

/* The newest observation of a bucket that has a step. The sequence is odd while it is written. */
typedef struct mr_exemplar {
    _Atomic uint64_t sequence; /* 0: there was none */
    _Atomic uint64_t step;
    _Atomic uint64_t bits; /* the observation */
    _Atomic int64_t wall_ms;
} mr_exemplar;

/* live, metric and values change under the table's lock; the numbers are atomic. A double is kept
 * as its bits. */
struct mr_series {
    bool live;
    mr_metric metric;
    char values[MR_METRICS_LABELS_MAX][MR_METRICS_LABEL_BYTES];
    _Atomic uint64_t bits;                                /* the value; of a histogram the sum */
    _Atomic uint64_t buckets[MR_METRIC_BUCKET_COUNT + 1]; /* the last one is above all bounds */
    mr_exemplar *exemplars; /* likewise; of a slot that once was a histogram, else NULL */
};

struct mr_metrics {
    pthread_mutex_t lock;
    mr_metric_row rows[MR_METRIC_COUNT];
    size_t series_used; /* slots that were ever live; under the lock */
    mr_series *dropped; /* counts what did not fit */
    mr_series spare;    /* what those that did not fit write to */
    mr_series series[MR_METRICS_SERIES_MAX];
};

typedef struct mr_exemplar_facts {
    uint64_t step;
    double value;
    int64_t wall_ms;
} mr_exemplar_facts;

/* False: there is none, or it is being written. */
bool mr_exemplar_read(const mr_exemplar *exemplar, mr_exemplar_facts *out_facts);

/* Sets the process_* series from /proc. */
void mr_metrics_refresh_process(mr_metrics *metrics);

#endif
