/* SPDX-License-Identifier: Apache-2.0 */
/* metrics.h: everything a daemon counts, declared in one table, and its text for Prometheus.
 *   mr_series *series = mr_metrics_series(metrics, MR_METRIC_OPTIMIZER_STEPS, "7f3a", "applied");
 *   mr_series_add(series, 1);
 * A series is found or made once, in control code, and then updated from any thread without a
 * lock and without memory. When the table of series is full,
 * mr_metrics_series gives a spare one that is updated and never shown, so that callers need no
 * error path; millrace_metrics_dropped_series_total counts them.
 * Owner: observe. Thread: any. Limits: MR_METRICS_*.
 * Not here: HTTP (status_server.h), spans (trace.h). */
#ifndef MR_OBSERVE_METRICS_H
#define MR_OBSERVE_METRICS_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/base/limits.h"
#include "daemon/base/status.h"

/* The table. One row: identifier, kind, name, unit, labels, help. Names are final as exposed in
 * text format 0.0.4: a counter ends in _total, a unit is the name's suffix (before _total), an info
 * ends in _info. No label is unbounded: never a step, a microbatch or a path. `job` and `instance`
 * are Prometheus' own labels, so a job is job_id. */
/* clang-format off */
#define MR_METRICS(X)                                                                              \
    X(BUILD_INFO, INFO, "millrace_build_info", "", "version,commit,backend",                       \
      "What this daemon was built from")                                                           \
    X(JOB_INFO, INFO, "millrace_job_info", "", "job_id,name,model,schedule,stages",                \
      "What a job is")                                                                             \
    X(JOBS, GAUGE, "millrace_jobs", "", "state",                                                   \
      "Jobs known to the coordinator by state")                                                    \
    X(JOB_STATE, GAUGE, "millrace_job_state", "", "job_id,state",                                  \
      "1 for the state that a job is in, 0 for the others")                                        \
    X(JOB_STEP, GAUGE, "millrace_job_step", "", "job_id",                                          \
      "Optimizer steps done")                                                                      \
    X(JOB_TARGET_STEPS, GAUGE, "millrace_job_target_steps", "", "job_id",                          \
      "Optimizer steps after which the job ends")                                                  \
    X(JOB_LOSS, GAUGE, "millrace_job_loss", "", "job_id,split",                                    \
      "Mean loss of the last step in nats per token")                                              \
    X(JOB_GRADIENT_NORM, GAUGE, "millrace_job_gradient_norm", "", "job_id",                        \
      "Norm of all gradients of the last step before clipping")                                    \
    X(JOB_LEARNING_RATE, GAUGE, "millrace_job_learning_rate", "", "job_id",                        \
      "Learning rate of the last step")                                                            \
    X(JOB_LOSS_SCALE, GAUGE, "millrace_job_loss_scale", "", "job_id",                              \
      "Factor of the last step's gradients against underflow; fp16 only")                          \
    X(TRAINED_TOKENS, COUNTER, "millrace_trained_tokens_total", "", "job_id",                      \
      "Tokens in applied steps")                                                                   \
    X(OPTIMIZER_STEPS, COUNTER, "millrace_optimizer_steps_total", "", "job_id,result",             \
      "Optimizer steps by result: applied or skipped")                                             \
    X(STEP_DURATION, HISTOGRAM, "millrace_step_duration_seconds", "seconds", "job_id",             \
      "Time of one whole step")                                                                    \
    X(PIPELINE_BUBBLE, GAUGE, "millrace_pipeline_bubble_ratio", "ratio", "job_id",                 \
      "Share of the last step in which devices waited")                                            \
    X(PIPELINE_PLANNED_BUBBLE, GAUGE, "millrace_pipeline_planned_bubble_ratio", "ratio", "job_id", \
      "Share of a step in which devices wait by the plan")                                         \
    X(MICROBATCHES, COUNTER, "millrace_microbatches_total", "", "stage,pass",                      \
      "Microbatches computed by pass: forward or backward")                                        \
    X(MICROBATCHES_IN_FLIGHT, GAUGE, "millrace_microbatches_in_flight", "", "stage",               \
      "Microbatches whose activations a stage holds")                                              \
    X(STAGE_BUSY, COUNTER, "millrace_stage_busy_seconds_total", "seconds", "stage,phase",          \
      "Time a stage worked by phase: forward, backward, send, reduce or optimizer")                \
    X(STAGE_IDLE, COUNTER, "millrace_stage_idle_seconds_total", "seconds", "stage,reason",         \
      "Time a stage did not train by reason: wait_prev, wait_next, no_work or checkpoint")         \
    X(STAGE_MEMORY, GAUGE, "millrace_stage_memory_bytes", "bytes", "stage,kind",                   \
      "Memory of a stage by kind")                                                                 \
    X(STAGE_LAYERS, GAUGE, "millrace_stage_layers", "", "stage",                                   \
      "Layers that a stage owns")                                                                  \
    X(STAGE_UP, GAUGE, "millrace_stage_up", "", "stage",                                           \
      "1 where the stage is attached and its heartbeat is fresh")                                  \
    X(STAGE_HEARTBEAT_AGE, GAUGE, "millrace_stage_heartbeat_age_seconds", "seconds", "stage",      \
      "Time since the last heartbeat of a stage")                                                  \
    X(STAGE_RESTARTS, COUNTER, "millrace_stage_restarts_total", "", "stage",                       \
      "Times that the stage at an address attached again")                                         \
    X(NONFINITE_VALUES, COUNTER, "millrace_nonfinite_values_total", "", "stage,where",             \
      "Infinite or undefined numbers seen in losses and gradients")                                \
    X(LINK_TRANSMIT, COUNTER, "millrace_link_transmit_bytes_total", "bytes",                       \
      "stage,peer,transport", "Bytes sent over a link")                                            \
    X(LINK_TRANSFER_DURATION, HISTOGRAM, "millrace_link_transfer_duration_seconds", "seconds",     \
      "stage,peer,transport", "Time from queueing a message to its last byte sent")                \
    X(CHECKPOINT_DURATION, HISTOGRAM, "millrace_checkpoint_duration_seconds", "seconds", "op",     \
      "Time of a checkpoint operation: save, load or verify")                                      \
    X(CHECKPOINT_SIZE, GAUGE, "millrace_checkpoint_size_bytes", "bytes", "job_id",                 \
      "Size of the newest committed checkpoint")                                                   \
    X(CHECKPOINT_LAST_SUCCESS, GAUGE, "millrace_checkpoint_last_success_timestamp_seconds",        \
      "seconds", "job_id", "When the newest checkpoint was committed, in Unix time")               \
    X(CHECKPOINT_INTERVAL, GAUGE, "millrace_checkpoint_interval_steps", "", "job_id",              \
      "Steps between checkpoints by the job file")                                                 \
    X(CHECKPOINT_LAST_STEP, GAUGE, "millrace_checkpoint_last_success_step", "", "job_id",          \
      "Step of the newest committed checkpoint, or of the one that the job continues from")        \
    X(CHECKPOINT_FAILURES, COUNTER, "millrace_checkpoint_failures_total", "", "job_id,reason",     \
      "Saves that were given up")                                                                  \
    X(RPC_SERVER_REQUESTS, COUNTER, "millrace_rpc_server_requests_total", "", "method,code",       \
      "Calls answered by method and status code")                                                  \
    X(RPC_SERVER_DURATION, HISTOGRAM, "millrace_rpc_server_duration_seconds", "seconds", "method", \
      "Time from a call's arrival to its status")                                                  \
    X(TLS_EXPIRY, GAUGE, "millrace_tls_certificate_expiry_timestamp_seconds", "seconds", "",       \
      "When this daemon's certificate ends, in Unix time")                                         \
    X(NODE_STAGES, GAUGE, "millrace_node_stages", "", "state",                                     \
      "Stage processes of this node by state")                                                     \
    X(NODE_STAGE_READY, GAUGE, "millrace_node_stage_ready", "", "device",                          \
      "1 where the stage of this device serves")                                                   \
    X(NODE_STAGE_STARTS, COUNTER, "millrace_node_stage_starts_total", "", "device",                \
      "Stage processes that were started for this device")                                         \
    X(NODE_STAGE_KILLS, COUNTER, "millrace_node_stage_kills_total", "", "device,reason",           \
      "Stage processes that were killed by reason: late or silent")                                \
    X(METRICS_DROPPED, COUNTER, "millrace_metrics_dropped_series_total", "", "",                   \
      "Series refused because the table of series is full")                                        \
    X(PROCESS_CPU, COUNTER, "process_cpu_seconds_total", "seconds", "",                            \
      "Processor time of this process")                                                            \
    X(PROCESS_RESIDENT, GAUGE, "process_resident_memory_bytes", "bytes", "",                       \
      "Resident memory of this process")                                                           \
    X(PROCESS_VIRTUAL, GAUGE, "process_virtual_memory_bytes", "bytes", "",                         \
      "Virtual memory of this process")                                                            \
    X(PROCESS_START, GAUGE, "process_start_time_seconds", "seconds", "",                           \
      "When this process started, in Unix time")                                                   \
    X(PROCESS_OPEN_FDS, GAUGE, "process_open_fds", "", "",                                         \
      "Open file descriptors of this process")                                                     \
    X(PROCESS_MAX_FDS, GAUGE, "process_max_fds", "", "",                                           \
      "Most file descriptors that this process may open")
/* clang-format on */

typedef enum mr_metric {
#define MR_METRIC_ENUM(id, kind, name, unit, labels, help) MR_METRIC_##id,
    MR_METRICS(MR_METRIC_ENUM)
#undef MR_METRIC_ENUM
        MR_METRIC_COUNT
} mr_metric;

typedef enum mr_metric_kind {
    MR_METRIC_KIND_COUNTER,
    MR_METRIC_KIND_GAUGE,
    MR_METRIC_KIND_HISTOGRAM,
    MR_METRIC_KIND_INFO, /* a gauge that is always 1 */
    MR_METRIC_KIND_COUNT
} mr_metric_kind;

typedef enum mr_metrics_format {
    MR_METRICS_TEXT,        /* text/plain; version=0.0.4 */
    MR_METRICS_OPENMETRICS, /* application/openmetrics-text; version=1.0.0 */
    MR_METRICS_FORMAT_COUNT
} mr_metrics_format;

typedef struct mr_metrics mr_metrics; /* opaque */
typedef struct mr_series mr_series;   /* opaque; lives as long as its metrics */

/* A table without series. RESOURCE_EXHAUSTED: no memory. Owner destroys it. */
MR_MUST_CHECK mr_status mr_metrics_create(mr_metrics **out_metrics);
/* No thread may use it or its series any more. NULL is fine. */
void mr_metrics_destroy(mr_metrics *metrics);

/* The series of this metric with these label values: one const char * per label of the table, in
 * its order; values are copied and cut at MR_METRICS_LABEL_BYTES. Never NULL. Takes a lock: not on
 * the step path. mr_metrics_series(m, MR_METRIC_STAGE_UP, "0") */
#define mr_metrics_series(metrics, metric, ...)                                                    \
    mr_metrics_series_find((metrics), (metric), (const char *const[]){__VA_ARGS__},                \
                           sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *))
mr_series *mr_metrics_series_find(mr_metrics *metrics, mr_metric metric, const char *const *values,
                                  size_t value_count);
/* Forgets every series that has label (by name) at value, once nobody updates them any more: the
 * series of a job that ended, at the earliest one scrape interval later. */
void mr_metrics_drop(mr_metrics *metrics, const char *label, const char *value);

/* Counters (only upwards) and gauges. What is not finite is ignored. Any thread, lock-free. */
void mr_series_add(mr_series *series, double value);
/* Gauges. */
void mr_series_set(mr_series *series, double value);
/* Histograms: one observation; the metric's unit (seconds). */
void mr_series_observe(mr_series *series, double value);
/* The same, and the step is shown with its bucket as an exemplar (OpenMetrics only), until the
 * bucket has a newer one. */
void mr_series_observe_step(mr_series *series, double value, uint64_t step);
double mr_series_value(const mr_series *series);

/* All series as text, the process_* ones refreshed; *out_text is freed with mr_free.
 * RESOURCE_EXHAUSTED: no memory. Any thread. */
MR_MUST_CHECK mr_status mr_metrics_render(mr_metrics *metrics, mr_metrics_format format,
                                          char **out_text, size_t *out_bytes);
/* The Content-Type of a format. */
const char *mr_metrics_content_type(mr_metrics_format format);

#endif
