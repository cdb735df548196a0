/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/observe/trace.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/base/alloc.h"
#include "daemon/base/clock.h"
#include "daemon/observe/text.h"

enum { TRACE_WORDS = 6 }; /* of one span: name (2), step, microbatch, start, end */

/* One place of the ring, under a sequence lock of its own: odd while it is written. All words are
 * atomic, so a reader that races sees old or new words, and the sequence tells it. */
typedef struct trace_slot {
    _Atomic uint64_t sequence;
    _Atomic uint64_t words[TRACE_WORDS];
} trace_slot;

struct mr_trace_track {
    char name[MR_NAME_BYTES];
    size_t capacity;
    _Atomic uint64_t count; /* spans ever written; the next goes to count % capacity */
    trace_slot *slots;
};

struct mr_trace {
    pthread_mutex_t lock; /* process, and adding tracks */
    char process[MR_NAME_BYTES];
    _Atomic size_t track_count;
    mr_trace_track tracks[MR_TRACE_TRACKS_MAX];
};

mr_status mr_trace_create(const char *process, mr_trace **out_trace) {
    mr_trace *trace = mr_alloc(sizeof(*trace));
    if (trace == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a trace");
    if (pthread_mutex_init(&trace->lock, NULL) != 0) {
        mr_free(trace);
        return MR_ERROR(RESOURCE_EXHAUSTED, "no lock for a trace");
    }
    mr_trace_process_set(trace, process);
    *out_trace = trace;
    return MR_OK;
}

void mr_trace_destroy(mr_trace *trace) {
    if (trace == NULL)
        return;
    size_t count = atomic_load(&trace->track_count);
    for (size_t i = 0; i < count; i++)
        mr_free(trace->tracks[i].slots);
    (void)pthread_mutex_destroy(&trace->lock); /* nobody holds it any more */
    mr_free(trace);
}

void mr_trace_process_set(mr_trace *trace, const char *process) {
    MR_ASSERT(pthread_mutex_lock(&trace->lock) == 0);
    (void)snprintf(trace->process, sizeof(trace->process), "%s", process);
    MR_ASSERT(pthread_mutex_unlock(&trace->lock) == 0);
}

mr_status mr_trace_track_add(mr_trace *trace, const char *name, size_t span_count,
                             mr_trace_track **out_track) {
    if (span_count == 0 || span_count > MR_TRACE_SPANS_MAX)
        return MR_ERROR(INVALID_ARGUMENT, "a track of %zu spans; it must have 1 to %d", span_count,
                        MR_TRACE_SPANS_MAX);
    mr_status status = MR_OK;
    MR_ASSERT(pthread_mutex_lock(&trace->lock) == 0);
    size_t index = atomic_load_explicit(&trace->track_count, memory_order_relaxed);
    mr_trace_track *track = &trace->tracks[index < MR_TRACE_TRACKS_MAX ? index : 0];
    if (index == MR_TRACE_TRACKS_MAX) {
        status = MR_ERROR(RESOURCE_EXHAUSTED, "track %s is one too many; the most is %d", name,
                          MR_TRACE_TRACKS_MAX);
        goto out;
    }
    track->slots = mr_alloc_array(span_count, sizeof(track->slots[0]));
    if (track->slots == NULL) {
        status = MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a track of %zu spans", span_count);
        goto out;
    }
    track->capacity = span_count;
    (void)snprintf(track->name, sizeof(track->name), "%s", name);
    /* A reader that sees the count sees the track. */
    atomic_store_explicit(&trace->track_count, index + 1, memory_order_release);
    *out_track = track;
out:
    MR_ASSERT(pthread_mutex_unlock(&trace->lock) == 0);
    return status;
}

void mr_trace_add(mr_trace_track *track, const char *name, uint64_t step, uint32_t micro_batch,
                  int64_t start_ns, int64_t end_ns) {
    if (track == NULL)
        return;
    uint64_t words[TRACE_WORDS] = {0, 0, step, micro_batch, (uint64_t)start_ns, (uint64_t)end_ns};
    size_t bytes = strnlen(name, MR_TRACE_NAME_BYTES - 1);
    memcpy(words, name, bytes); /* the rest of the first two words stays zero */
    uint64_t count = atomic_load_explicit(&track->count, memory_order_relaxed);
    trace_slot *slot = &track->slots[count % track->capacity];
    uint64_t sequence = atomic_load_explicit(&slot->sequence, memory_order_relaxed);
    atomic_store_explicit(&slot->sequence, sequence + 1, memory_order_relaxed);
    /* Each release store comes after the odd sequence, for a reader that acquires the word. */
    for (size_t i = 0; i < TRACE_WORDS; i++)
        atomic_store_explicit(&slot->words[i], words[i], memory_order_release);
    atomic_store_explicit(&slot->sequence, sequence + 2, memory_order_release);
    atomic_store_explicit(&track->count, count + 1, memory_order_release);
}

/* Copies the span of this number; false where it is being overwritten or already was. */
static bool trace_read_span(const mr_trace_track *track, uint64_t number, mr_trace_span *out_span) {
    const trace_slot *slot = &track->slots[number % track->capacity];
    uint64_t wanted = 2 * (number / track->capacity + 1); /* two more with each round of the ring */
    uint64_t words[TRACE_WORDS];
    uint64_t before = atomic_load_explicit(&slot->sequence, memory_order_acquire);
    for (size_t i = 0; i < TRACE_WORDS; i++)
        words[i] = atomic_load_explicit(&slot->words[i], memory_order_acquire);
    uint64_t after = atomic_load_explicit(&slot->sequence, memory_order_relaxed);
    if (before != wanted || after != wanted)
        return false;
    memcpy(out_span->name, words, MR_TRACE_NAME_BYTES);
    out_span->step = words[2];
    out_span->micro_batch = (uint32_t)words[3];
    out_span->start_ns = (int64_t)words[4];
    out_span->end_ns = (int64_t)words[5];
    return true;
}

size_t mr_trace_read(const mr_trace_track *track, mr_trace_span *out_spans, size_t capacity) {
    uint64_t count = atomic_load_explicit(&track->count, memory_order_acquire);
    uint64_t held = count < track->capacity ? count : track->capacity;
    if (held > capacity)
        held = capacity;
    size_t read = 0;
    for (uint64_t i = count - held; i < count; i++)
        if (trace_read_span(track, i, &out_spans[read]))
            read++;
    return read;
}

/* Nanoseconds as microseconds with three decimals, without going through a double. */
static void trace_add_microseconds(mr_text *text, const char *key, int64_t ns) {
    if (ns < 0)
        ns = 0;
    mr_text_add(text, ",\"%s\":%" PRId64 ".%03" PRId64, key, ns / 1000, ns % 1000);
}

static void trace_add_span(mr_text *text, const mr_trace_span *span, size_t track) {
    mr_text_add(text, ",\n{\"ph\":\"X\",\"pid\":%d,\"tid\":%zu,\"name\":\"", (int)getpid(), track);
    mr_text_add_escaped(text, span->name);
    mr_text_add(text, "\"");
    trace_add_microseconds(text, "ts", span->start_ns);
    trace_add_microseconds(text, "dur", span->end_ns - span->start_ns);
    mr_text_add(text, ",\"args\":{\"step\":%" PRIu64, span->step);
    if (span->micro_batch != UINT32_MAX)
        mr_text_add(text, ",\"micro_batch\":%" PRIu32, span->micro_batch);
    mr_text_add(text, "}}");
}

/* A name for a process (track 0 stands for it) or a track. */
static void trace_add_name(mr_text *text, const char *kind, size_t track, const char *name) {
    mr_text_add(text, "{\"ph\":\"M\",\"pid\":%d,\"tid\":%zu,\"name\":\"%s\",\"args\":{\"name\":\"",
                (int)getpid(), track, kind);
    mr_text_add_escaped(text, name);
    mr_text_add(text, "\"}}");
}

static mr_status trace_add_track(mr_text *text, const mr_trace_track *track, size_t number,
                                 uint64_t steps) {
    mr_trace_span *spans = mr_alloc_array(track->capacity, sizeof(spans[0]));
    if (spans == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to read %zu spans", track->capacity);
    size_t count = mr_trace_read(track, spans, track->capacity);
    uint64_t newest = 0;
    for (size_t i = 0; i < count; i++)
        if (spans[i].step > newest)
            newest = spans[i].step;
    mr_text_add(text, ",\n");
    trace_add_name(text, "thread_name", number, track->name);
    for (size_t i = 0; i < count; i++)
        if (steps == 0 || newest - spans[i].step < steps)
            trace_add_span(text, &spans[i], number);
    mr_free(spans);
    return MR_OK;
}

mr_status mr_trace_render(mr_trace *trace, uint64_t steps, char **out_text, size_t *out_bytes) {
    mr_text text = {0};
    char process[MR_NAME_BYTES];
    char *bytes = NULL;
    size_t size = 0;
    MR_ASSERT(pthread_mutex_lock(&trace->lock) == 0);
    memcpy(process, trace->process, sizeof(process));
    MR_ASSERT(pthread_mutex_unlock(&trace->lock) == 0);
    mr_text_add(&text,
                "{\"displayTimeUnit\":\"ms\",\"otherData\":{\"wall_offset_ns\":%" PRId64
                "},\"traceEvents\":[\n",
                mr_clock_wall_ms() * 1000000 - mr_clock_now_ns());
    trace_add_name(&text, "process_name", 0, process);
    mr_status status = MR_OK;
    size_t count = atomic_load_explicit(&trace->track_count, memory_order_acquire);
    for (size_t i = 0; i < count && mr_status_is_ok(status); i++)
        status = trace_add_track(&text, &trace->tracks[i], i + 1, steps);
    mr_text_add(&text, "]}\n");
    mr_status taken = mr_text_take(&text, &bytes, &size);
    if (mr_status_is_ok(status))
        status = taken;
    if (!mr_status_is_ok(status)) {
        mr_free(bytes);
        return status;
    }
    *out_text = bytes;
    *out_bytes = size;
    return MR_OK;
}
