/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/stage/stage_meter.h"

#include <stdio.h>

#include "daemon/base/alloc.h"

enum { METER_STAGE_BYTES = 16 };

/* Times the messages to one neighbour. */
typedef struct meter_watch {
    mr_link_watch watch;
    mr_series *series; /* set before the link's first message */
} meter_watch;

struct mr_stage_meter {
    mr_metrics *table;
    uint32_t stage_number;
    char stage[METER_STAGE_BYTES];
    mr_series *busy[MR_METER_PHASE_COUNT];
    mr_series *idle[MR_METER_REASON_COUNT];
    mr_series *forward;
    mr_series *backward;
    mr_series *in_flight;
    mr_series *loss;
    mr_series *gradient_norm;
    mr_series *sent[MR_METER_PEER_COUNT]; /* NULL: no link to this neighbour */
    uint64_t sent_bytes[MR_METER_PEER_COUNT];
    meter_watch watches[MR_METER_PEER_COUNT];
    uint32_t flying;
    bool inference;
};

mr_status mr_stage_meter_create(mr_metrics *table, mr_stage_meter **out_meter) {
    mr_stage_meter *meter = mr_alloc(sizeof(*meter));
    if (meter == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a stage's meter");
    meter->table = table;
    *out_meter = meter;
    return MR_OK;
}

void mr_stage_meter_destroy(mr_stage_meter *meter) {
    mr_free(meter);
}

void mr_stage_meter_assign(mr_stage_meter *meter, const mr_assignment *assignment) {
    static const char *const phases[MR_METER_PHASE_COUNT] = {
        [MR_METER_FORWARD] = "forward",     [MR_METER_BACKWARD] = "backward",
        [MR_METER_SEND] = "send",           [MR_METER_REDUCE] = "reduce",
        [MR_METER_OPTIMIZER] = "optimizer",
    };
    static const char *const reasons[MR_METER_REASON_COUNT] = {
        [MR_METER_WAIT_PREV] = "wait_prev",
        [MR_METER_WAIT_NEXT] = "wait_next",
        [MR_METER_NO_WORK] = "no_work",
        [MR_METER_CHECKPOINT] = "checkpoint",
    };
    mr_metrics *table = meter->table;
    *meter = (mr_stage_meter){
        .table = table,
        .stage_number = assignment->stage,
        .inference = assignment->inference,
    };
    (void)snprintf(meter->stage, sizeof(meter->stage), "%u", assignment->stage);
    for (size_t i = 0; i < MR_METER_PHASE_COUNT; i++)
        meter->busy[i] = mr_metrics_series(table, MR_METRIC_STAGE_BUSY, meter->stage, phases[i]);
    for (size_t i = 0; i < MR_METER_REASON_COUNT; i++)
        meter->idle[i] = mr_metrics_series(table, MR_METRIC_STAGE_IDLE, meter->stage, reasons[i]);
    meter->forward = mr_metrics_series(table, MR_METRIC_MICROBATCHES, meter->stage, "forward");
    meter->backward = mr_metrics_series(table, MR_METRIC_MICROBATCHES, meter->stage, "backward");
    meter->in_flight = mr_metrics_series(table, MR_METRIC_MICROBATCHES_IN_FLIGHT, meter->stage);
    meter->loss = mr_metrics_series(table, MR_METRIC_NONFINITE_VALUES, meter->stage, "loss");
    meter->gradient_norm =
        mr_metrics_series(table, MR_METRIC_NONFINITE_VALUES, meter->stage, "gradient_norm");
}

void mr_stage_meter_connect(mr_stage_meter *meter, mr_meter_peer peer, const char *transport) {
    char number[METER_STAGE_BYTES];
    if (meter == NULL)
        return;
    (void)snprintf(number, sizeof(number), "%u",
                   peer == MR_METER_NEXT ? meter->stage_number + 1 : meter->stage_number - 1);
    meter->sent[peer] =
        mr_metrics_series(meter->table, MR_METRIC_LINK_TRANSMIT, meter->stage, number, transport);
    meter->sent_bytes[peer] = 0;
    meter->watches[peer].series = mr_metrics_series(meter->table, MR_METRIC_LINK_TRANSFER_DURATION,
                                                    meter->stage, number, transport);
}

/* Any thread. */
static void watch_sent(mr_link_watch *watch, int64_t ns) {
    const meter_watch *timed = (const meter_watch *)(const void *)watch;
    mr_series_observe(timed->series, (double)ns * 1e-9);
}

mr_link_watch *mr_stage_meter_watch(mr_stage_meter *meter, mr_meter_peer peer) {
    if (meter == NULL)
        return NULL;
    meter->watches[peer].watch.sent = watch_sent;
    return &meter->watches[peer].watch;
}

static void meter_fly(mr_stage_meter *meter, uint32_t count) {
    meter->flying = count;
    mr_series_set(meter->in_flight, count);
}

void mr_stage_meter_begin(mr_stage_meter *meter) {
    if (meter != NULL)
        meter_fly(meter, 0);
}

static void meter_busy(mr_stage_meter *meter, mr_meter_phase phase, int64_t ns) {
    mr_series_add(meter->busy[phase], (double)ns * 1e-9);
}

void mr_stage_meter_idle(mr_stage_meter *meter, mr_meter_reason reason, int64_t ns) {
    if (meter != NULL)
        mr_series_add(meter->idle[reason], (double)ns * 1e-9);
}

void mr_stage_meter_instruction(mr_stage_meter *meter, mr_opcode opcode, int64_t total_ns,
                                int64_t work_ns) {
    if (meter == NULL)
        return;
    switch (opcode) {
    case MR_OPCODE_LOAD:
    case MR_OPCODE_RECEIVE_ACTIVATION:
        mr_stage_meter_idle(meter, MR_METER_WAIT_PREV, total_ns);
        break;
    case MR_OPCODE_RECEIVE_GRADIENT:
        mr_stage_meter_idle(meter, MR_METER_WAIT_NEXT, total_ns);
        break;
    case MR_OPCODE_FORWARD: /* waits for room on the link to the next stage */
        meter_busy(meter, MR_METER_FORWARD, work_ns);
        mr_stage_meter_idle(meter, MR_METER_WAIT_NEXT, total_ns - work_ns);
        mr_series_add(meter->forward, 1);
        if (!meter->inference)
            meter_fly(meter, meter->flying + 1);
        break;
    case MR_OPCODE_BACKWARD: /* likewise, to the previous one */
    case MR_OPCODE_BACKWARD_INPUT:
    case MR_OPCODE_BACKWARD_WEIGHT:
        meter_busy(meter, MR_METER_BACKWARD, work_ns);
        mr_stage_meter_idle(meter, MR_METER_WAIT_PREV, total_ns - work_ns);
        if (opcode == MR_OPCODE_BACKWARD_INPUT)
            break; /* its weight half ends it */
        mr_series_add(meter->backward, 1);
        if (meter->flying > 0)
            meter_fly(meter, meter->flying - 1);
        break;
    case MR_OPCODE_SEND_ACTIVATION:
    case MR_OPCODE_SEND_GRADIENT:
        meter_busy(meter, MR_METER_SEND, total_ns);
        break;
    case MR_OPCODE_REDUCE_TIED:
    case MR_OPCODE_REDUCE_DATA:
        meter_busy(meter, MR_METER_REDUCE, total_ns);
        break;
    case MR_OPCODE_OPTIMIZER:
        meter_busy(meter, MR_METER_OPTIMIZER, total_ns);
        break;
    case MR_OPCODE_COUNT:
        break;
    }
}

void mr_stage_meter_sent(mr_stage_meter *meter, mr_meter_peer peer, uint64_t bytes) {
    if (meter == NULL || meter->sent[peer] == NULL || bytes < meter->sent_bytes[peer])
        return;
    mr_series_add(meter->sent[peer], (double)(bytes - meter->sent_bytes[peer]));
    meter->sent_bytes[peer] = bytes;
}

void mr_stage_meter_checkpoint(mr_stage_meter *meter, const char *operation, int64_t ns) {
    if (meter != NULL)
        mr_series_observe(
            mr_metrics_series(meter->table, MR_METRIC_CHECKPOINT_DURATION, operation),
            (double)ns * 1e-9);
}

void mr_stage_meter_nonfinite(mr_stage_meter *meter, bool loss) {
    if (meter != NULL)
        mr_series_add(loss ? meter->loss : meter->gradient_norm, 1);
}
