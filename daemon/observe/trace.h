/* SPDX-License-Identifier: Apache-2.0 */
/* trace.h: what each thread did when: the last spans of every instruction, as a Chrome trace.
 * A track is one thread's ring of fixed size: writing one span is a handful of stores, never a
 * lock, an allocation or a system call, and the oldest span is overwritten. Readers may run at
 * any time and skip a span that is being overwritten.
 * Owner: observe. Thread: each track has one writer at a time; reading: any. Limits: MR_TRACE_*.
 * Not here: sums over spans (metrics.h). */
#ifndef MR_OBSERVE_TRACE_H
#define MR_OBSERVE_TRACE_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/base/limits.h"
#include "daemon/base/status.h"

enum { MR_TRACE_NAME_BYTES = 16 }; /* an instruction's text: "SG12.1" */

typedef struct mr_trace mr_trace;             /* opaque */
typedef struct mr_trace_track mr_trace_track; /* opaque; lives as long as its trace */

typedef struct mr_trace_span {
    char name[MR_TRACE_NAME_BYTES];
    uint64_t step;
    uint32_t micro_batch; /* UINT32_MAX: none */
    int64_t start_ns;     /* mr_clock_now_ns */
    int64_t end_ns;
} mr_trace_span;

/* process: shown as the process' name ("stage 2"); copied. */
MR_MUST_CHECK mr_status mr_trace_create(const char *process, mr_trace **out_trace);
void mr_trace_destroy(mr_trace *trace);
/* Renames the process, when a stage learns its rank. */
void mr_trace_process_set(mr_trace *trace, const char *process);
/* One more track of span_count spans, allocated now. RESOURCE_EXHAUSTED: MR_TRACE_TRACKS_MAX. */
MR_MUST_CHECK mr_status mr_trace_track_add(mr_trace *trace, const char *name, size_t span_count,
                                           mr_trace_track **out_track);
/* Records one span; name is cut at MR_TRACE_NAME_BYTES - 1. track NULL: nothing happens. */
void mr_trace_add(mr_trace_track *track, const char *name, uint64_t step, uint32_t micro_batch,
                  int64_t start_ns, int64_t end_ns);
/* Copies up to capacity spans of a track, oldest first; returns how many. */
size_t mr_trace_read(const mr_trace_track *track, mr_trace_span *out_spans, size_t capacity);
/* Chrome trace JSON (chrome://tracing, Perfetto) of the last steps steps on every track (0: all
 * that is held). Times are microseconds of the monotonic clock; otherData.wall_offset_ns turns them
 * into wall time, so that traces of several machines can be laid together. *out_text: mr_free. */
MR_MUST_CHECK mr_status mr_trace_render(mr_trace *trace, uint64_t steps, char **out_text,
                                        size_t *out_bytes);

#endif
