/* SPDX-License-Identifier: Apache-2.0 */
/* metrics.def.h: the table of metrics. One row: identifier, kind, name, unit, labels, help.
 * Names are final as exposed in text format 0.0.4: a counter ends in _total, a unit is the name's
 * suffix (before _total), an info ends in _info. No label is unbounded: never a step, a microbatch
 * or a path. Job and instance are Prometheus' own labels, so a job is job_id.
 * Owner: observe. Not here: values. */
#ifndef MR_OBSERVE_METRICS_DEF_H
#define MR_OBSERVE_METRICS_DEF_H

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
    X(TRAINED_TOKENS, COUNTER, "millrace_trained_tokens_total", "", "job_id",                      \
      "Tokens in applied steps")                                                                   \
    X(OPTIMIZER_STEPS, COUNTER, "millrace_optimizer_steps_total", "", "job_id,result",             \
      "Optimizer steps by result: applied or skipped")                                             \
    X(STEP_DURATION, HISTOGRAM, "millrace_step_duration_seconds", "seconds", "job_id",             \
      "Time of one whole step")                                                                    \
    X(PIPELINE_BUBBLE, GAUGE, "millrace_pipeline_bubble_ratio", "ratio", "job_id",                 \
      "Share of the last step in which devices waited")                                            \
    X(MICROBATCHES, COUNTER, "millrace_microbatches_total", "", "stage,pass",                      \
      "Microbatches computed by pass: forward or backward")                                        \
    X(MICROBATCHES_IN_FLIGHT, GAUGE, "millrace_microbatches_in_flight", "", "stage",               \
      "Microbatches whose activations a stage holds")                                              \
    X(STAGE_BUSY, COUNTER, "millrace_stage_busy_seconds_total", "seconds", "stage,phase",          \
      "Time a stage computed by phase: forward, backward, reduce or optimizer")                    \
    X(STAGE_IDLE, COUNTER, "millrace_stage_idle_seconds_total", "seconds", "stage,reason",         \
      "Time a stage waited by reason: wait_prev, wait_next, no_work or checkpoint")                \
    X(STAGE_MEMORY, GAUGE, "millrace_stage_memory_bytes", "bytes", "stage,kind",                   \
      "Memory of a stage by kind")                                                                 \
    X(STAGE_LAYERS, GAUGE, "millrace_stage_layers", "", "stage",                                   \
      "Layers that a stage owns")                                                                  \
    X(STAGE_UP, GAUGE, "millrace_stage_up", "", "stage",                                           \
      "1 where the stage is attached and its heartbeat is fresh")                                  \
    X(STAGE_HEARTBEAT_AGE, GAUGE, "millrace_stage_heartbeat_age_seconds", "seconds", "stage",      \
      "Time since the last heartbeat of a stage")                                                  \
    X(STAGE_RESTARTS, COUNTER, "millrace_stage_restarts_total", "", "stage",                       \
      "Times a stage attached again")                                                              \
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
    X(CHECKPOINT_FAILURES, COUNTER, "millrace_checkpoint_failures_total", "", "job_id,reason",     \
      "Saves that were given up")                                                                  \
    X(RPC_SERVER_REQUESTS, COUNTER, "millrace_rpc_server_requests_total", "", "method,code",       \
      "Calls answered by method and status code")                                                  \
    X(RPC_SERVER_DURATION, HISTOGRAM, "millrace_rpc_server_duration_seconds", "seconds", "method", \
      "Time from a call's arrival to its status")                                                  \
    X(METRICS_DROPPED, COUNTER, "millrace_metrics_dropped_series_total", "", "",                   \
      "Series refused because the table of series is full")
/* clang-format on */

#endif
