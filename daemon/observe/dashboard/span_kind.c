/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/observe/dashboard/span_kind.h"

#include <string.h>

mr_span_kind mr_span_kind_of(const char *name) {
    static const struct {
        const char *start;
        mr_span_kind kind;
    } starts[] = {
        {"OP", MR_SPAN_OPTIMIZER}, {"RA", MR_SPAN_RECEIVE}, {"RG", MR_SPAN_RECEIVE},
        {"RT", MR_SPAN_REDUCE},    {"RD", MR_SPAN_REDUCE},  {"S", MR_SPAN_SEND},
        {"L", MR_SPAN_LOAD},       {"F", MR_SPAN_FORWARD},
    };
    for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++)
        if (strncmp(name, starts[i].start, strlen(starts[i].start)) == 0)
            return starts[i].kind;
    return MR_SPAN_BACKWARD; /* B, and its halves I and W */
}

const char *mr_span_kind_name(mr_span_kind kind) {
    static const char *const names[MR_SPAN_KIND_COUNT] = {
        [MR_SPAN_FORWARD] = "forward",     [MR_SPAN_BACKWARD] = "backward",
        [MR_SPAN_OPTIMIZER] = "optimizer", [MR_SPAN_SEND] = "send",
        [MR_SPAN_RECEIVE] = "receive",     [MR_SPAN_REDUCE] = "reduce",
        [MR_SPAN_LOAD] = "load",
    };
    return names[kind];
}

void mr_span_kind_sum(const mr_timeline_stage *stage, double out_seconds[MR_SPAN_KIND_COUNT]) {
    for (int kind = 0; kind < MR_SPAN_KIND_COUNT; kind++)
        out_seconds[kind] = 0;
    for (size_t i = 0; i < stage->span_count; i++) {
        const mr_timeline_span *span = &stage->spans[i];
        out_seconds[mr_span_kind_of(span->name)] += (double)(span->end_ns - span->start_ns) / 1e9;
    }
}

bool mr_span_kind_bounds(const mr_timeline_step *step, int64_t *out_start_ns,
                         int64_t *out_end_ns) {
    int64_t start_ns = INT64_MAX;
    int64_t end_ns = INT64_MIN;
    for (size_t i = 0; i < step->stage_count; i++)
        for (size_t j = 0; j < step->stages[i].span_count; j++) {
            const mr_timeline_span *span = &step->stages[i].spans[j];
            start_ns = span->start_ns < start_ns ? span->start_ns : start_ns;
            end_ns = span->end_ns > end_ns ? span->end_ns : end_ns;
        }
    if (end_ns <= start_ns)
        return false;
    *out_start_ns = start_ns;
    *out_end_ns = end_ns;
    return true;
}

double mr_span_kind_busy(const mr_timeline_stage *stage) {
    double seconds[MR_SPAN_KIND_COUNT];
    mr_span_kind_sum(stage, seconds);
    return seconds[MR_SPAN_FORWARD] + seconds[MR_SPAN_BACKWARD] + seconds[MR_SPAN_OPTIMIZER];
}

const mr_timeline_stage *mr_span_kind_slowest(const mr_timeline_step *step) {
    const mr_timeline_stage *slowest = NULL;
    if (step->stage_count < 2)
        return NULL;
    for (size_t i = 0; i < step->stage_count; i++)
        if (slowest == NULL || mr_span_kind_busy(&step->stages[i]) > mr_span_kind_busy(slowest))
            slowest = &step->stages[i];
    return slowest;
}
