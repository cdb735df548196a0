/* SPDX-License-Identifier: Apache-2.0 */
/* span_kind.h: what an instruction is about, by its text ("F0", "RA3.1"), and sums over it.
 * Owner: observe; private to this folder. Thread: any. */
#ifndef MR_OBSERVE_DASHBOARD_SPAN_KIND_H
#define MR_OBSERVE_DASHBOARD_SPAN_KIND_H

#include "daemon/observe/timeline.h"

typedef enum mr_span_kind {
    MR_SPAN_FORWARD,
    MR_SPAN_BACKWARD, /* whole, or one of its halves */
    MR_SPAN_OPTIMIZER,
    MR_SPAN_SEND,
    MR_SPAN_RECEIVE, /* with the wait for the neighbour: a bubble */
    MR_SPAN_REDUCE,
    MR_SPAN_LOAD,
    MR_SPAN_KIND_COUNT
} mr_span_kind;

/* Of any text; what is unknown counts as backward. */
mr_span_kind mr_span_kind_of(const char *name);
/* For people and as a class in the HTML: "forward". */
const char *mr_span_kind_name(mr_span_kind kind);
/* Seconds of each kind on a stage. */
void mr_span_kind_sum(const mr_timeline_stage *stage, double out_seconds[MR_SPAN_KIND_COUNT]);
/* First start and last end of all stages; false: there is no span. */
bool mr_span_kind_bounds(const mr_timeline_step *step, int64_t *out_start_ns, int64_t *out_end_ns);
/* The stage that computes longest; NULL: fewer than two stages are known. */
const mr_timeline_stage *mr_span_kind_slowest(const mr_timeline_step *step);
/* Seconds that a stage computes. */
double mr_span_kind_busy(const mr_timeline_stage *stage);

#endif
