/* SPDX-License-Identifier: Apache-2.0 */
/* What the stages did in a job's newest step: asked for beside the decisions, because no decision
 * hangs on it. All are asked for the same step, so that their answers can be laid under each
 * other. */
#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/clock.h"
#include "daemon/coordinator/runtime.h"
#include "millrace/v1/control.pb-c.h"

/* The first rank of each stage, which is that of the first replica. Returns how many stages there
 * are; 0: too many to be shown. */
static size_t spans_ranks(const mr_job_spec *spec, uint32_t ranks[MR_TIMELINE_STAGES_MAX]) {
    size_t count = 0;
    for (uint32_t rank = 0; rank < spec->rank_count; rank++) {
        if (spec->ranks[rank].stage < count)
            continue;
        if (count == MR_TIMELINE_STAGES_MAX || spec->ranks[rank].stage != count)
            return 0;
        ranks[count++] = rank;
    }
    return count;
}

static void spans_order(mr_coordinator *coordinator, const mr_job_record *job, uint32_t rank) {
    mr_rpc_stream *stream = mr_services_member_stream(coordinator, job->ranks[rank].member);
    if (stream == NULL)
        return;
    Millrace__V1__TellSpans body = MILLRACE__V1__TELL_SPANS__INIT;
    Millrace__V1__StageOrder order = MILLRACE__V1__STAGE_ORDER__INIT;
    body.job_id = (char *)(uintptr_t)job->facts.id; /* only packed */
    body.epoch = job->facts.epoch;
    body.step = job->facts.result.step;
    order.order_case = MILLRACE__V1__STAGE_ORDER__ORDER_TELL_SPANS;
    order.tell_spans = &body;
    mr_status sent = mr_rpc_stream_send(stream, &order.base, NULL);
    (void)sent; /* a full queue has more important things in it */
}

void mr_step_spans_ask(mr_coordinator *coordinator, mr_job_record *job) {
    uint32_t ranks[MR_TIMELINE_STAGES_MAX];
    int64_t now_ms = mr_clock_now_ms();
    if (coordinator->status_server == NULL || job->facts.state != MR_JOB_RUNNING ||
        (job->spans_ms > 0 && now_ms - job->spans_ms < MR_TIMELINE_PERIOD_MS))
        return;
    job->spans_ms = now_ms;
    size_t count = spans_ranks(job->spec, ranks);
    if (count == 0 || !mr_status_is_ok(mr_timeline_expect(coordinator->timeline, job->facts.id,
                                                          job->facts.result.step, count)))
        return;
    for (size_t i = 0; i < count; i++)
        spans_order(coordinator, job, ranks[i]);
}

/* A time of a peer in nanoseconds, held within what can be added without overflow. */
static int64_t spans_ns(uint64_t ns) {
    return ns > INT64_MAX / 4 ? INT64_MAX / 4 : (int64_t)ns;
}

static mr_timeline_span *spans_copy(const Millrace__V1__StepSpans *report, size_t count) {
    mr_timeline_span *spans = mr_alloc_array(count, sizeof(*spans));
    int64_t origin_ns = report->origin_ns < 0 ? 0 : spans_ns((uint64_t)report->origin_ns);
    for (size_t i = 0; i < count && spans != NULL; i++) {
        const Millrace__V1__StepSpan *from = report->spans[i];
        mr_timeline_span *to = &spans[i];
        (void)snprintf(to->name, sizeof(to->name), "%s", from->name); /* cut is intended */
        for (char *c = to->name; *c != '\0'; c++)
            if (*c < ' ' || *c > '~')
                *c = '?';
        to->start_ns = origin_ns + spans_ns(from->start_ns);
        to->end_ns = to->start_ns + spans_ns(from->duration_ns);
    }
    return spans;
}

void mr_step_spans_take(mr_coordinator *coordinator, uint64_t member,
                        const Millrace__V1__StepSpans *report) {
    const mr_member *from = mr_registry_find(&coordinator->state.registry, member);
    const mr_job_record *job =
        from == NULL ? NULL : mr_jobs_find(&coordinator->state.jobs, from->job);
    if (job == NULL || strcmp(job->facts.id, report->job_id) != 0 ||
        job->facts.epoch != report->epoch || from->rank >= job->spec->rank_count)
        return; /* of a job that it has no more */
    size_t count =
        report->n_spans < MR_TIMELINE_SPANS_MAX ? report->n_spans : MR_TIMELINE_SPANS_MAX;
    const mr_timeline_stage stage = {
        .stage = job->spec->ranks[from->rank].stage,
        .rank = from->rank,
        .memory = {.weights = report->weights_bytes,
                   .gradients = report->gradients_bytes,
                   .optimizer = report->optimizer_bytes,
                   .activations = report->activations_bytes},
        .whole = report->whole && count == report->n_spans,
        .span_count = count,
    };
    mr_timeline_span *spans = spans_copy(report, count);
    if (spans == NULL)
        return;
    mr_status added =
        mr_timeline_add(coordinator->timeline, job->facts.id, report->step, &stage, spans);
    (void)added; /* an answer to an order before the last is of no use any more */
}
