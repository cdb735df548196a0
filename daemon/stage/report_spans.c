/* SPDX-License-Identifier: Apache-2.0 */
/* StepSpans: what this rank did in one step, out of its trace. */
#include "daemon/base/alloc.h"
#include "daemon/base/clock.h"
#include "daemon/stage/reports.h"

enum { SPANS_READ_MAX = 2 * MR_TIMELINE_SPANS_MAX }; /* the newest; short steps go by quickly */

/* Spans, their messages and the list of these. */
typedef struct spans_memory {
    mr_trace_span *read;
    Millrace__V1__StepSpan *messages;
    Millrace__V1__StepSpan **list;
} spans_memory;

/* Puts the spans of the step into messages; false: the step is not held from its beginning on. */
static bool spans_pick(spans_memory *memory, size_t read_count, uint64_t step, int64_t *out_origin,
                       size_t *out_count) {
    size_t count = 0;
    bool whole = true;
    for (size_t i = 0; i < read_count; i++) {
        mr_trace_span *span = &memory->read[i];
        if (span->step != step)
            continue;
        if (count == MR_TIMELINE_SPANS_MAX) {
            whole = false;
            break;
        }
        if (count == 0) {
            *out_origin = span->start_ns;
            whole = i > 0 || read_count < SPANS_READ_MAX;
        }
        Millrace__V1__StepSpan *message = &memory->messages[count];
        millrace__v1__step_span__init(message);
        message->name = span->name;
        message->start_ns = (uint64_t)(span->start_ns - *out_origin);
        message->duration_ns = (uint64_t)(span->end_ns - span->start_ns);
        memory->list[count++] = message;
    }
    *out_count = count;
    return whole;
}

static void spans_send(mr_control *control, mr_report_subject subject, spans_memory *memory,
                       size_t read_count, uint64_t step, const mr_memory_held *held) {
    Millrace__V1__StageReport report = MILLRACE__V1__STAGE_REPORT__INIT;
    Millrace__V1__StepSpans body = MILLRACE__V1__STEP_SPANS__INIT;
    int64_t origin_ns = 0;
    body.job_id = (char *)(uintptr_t)subject.job_id; /* only packed */
    body.epoch = subject.epoch;
    body.step = step + 1; /* clients count from 1 */
    body.whole = spans_pick(memory, read_count, step, &origin_ns, &body.n_spans);
    body.origin_ns = origin_ns + mr_clock_wall_ns() - mr_clock_now_ns();
    body.spans = memory->list;
    body.weights_bytes = held->weights;
    body.gradients_bytes = held->gradients;
    body.optimizer_bytes = held->optimizer;
    body.activations_bytes = held->activations;
    report.report_case = MILLRACE__V1__STAGE_REPORT__REPORT_STEP_SPANS;
    report.step_spans = &body;
    mr_control_send(control, &report);
}

void mr_report_spans(mr_control *control, mr_report_subject subject, const mr_trace_track *track,
                     uint64_t step, const mr_memory_held *held) {
    spans_memory memory = {
        .read = mr_alloc_array(SPANS_READ_MAX, sizeof(*memory.read)),
        .messages = mr_alloc_array(MR_TIMELINE_SPANS_MAX, sizeof(*memory.messages)),
        .list = mr_alloc_array(MR_TIMELINE_SPANS_MAX, sizeof(*memory.list)),
    };
    if (memory.read != NULL && memory.messages != NULL && memory.list != NULL)
        spans_send(control, subject, &memory, mr_trace_read(track, memory.read, SPANS_READ_MAX),
                   step, held);
    mr_free(memory.list);
    mr_free(memory.messages);
    mr_free(memory.read);
}
