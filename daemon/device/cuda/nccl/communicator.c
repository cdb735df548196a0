/* SPDX-License-Identifier: Apache-2.0 */
/* A communicator that does not block answers ncclInProgress and finishes in the background; nothing
 * may be queued on its stream meanwhile, so every call is settled before the next one. */
#include "daemon/device/cuda/nccl/communicator.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/clock.h"
#include "daemon/base/monitor.h"
#include "daemon/device/cuda/nccl/calls.h"

static_assert(MR_NCCL_ID_BYTES == NCCL_UNIQUE_ID_BYTES, "an id has NCCL's size");

enum {
    COMMUNICATOR_NAME_BYTES = 160,
    COMMUNICATOR_OTHERS_BYTES = 72,
    COMMUNICATOR_SPIN_NS = 200000, /* looks without a pause this long: most operations are short */
    COMMUNICATOR_NAP_MS = 1,
    COMMUNICATOR_SETTLE_MS = 20000, /* NCCL may connect on the first use of a communicator */
    COMMUNICATOR_CLOSE_MS = 1000,
    COMMUNICATOR_PRIORITY = -5, /* the highest; CUDA takes the nearest that the card has */
};

struct mr_communicator {
    mr_nccl_place place;
    ncclComm_t comm; /* NULL: not made, or aborted */
    cudaStream_t stream;
    cudaEvent_t before; /* compute stream's work that an operation waits for */
    cudaEvent_t after;  /* what the compute stream waits for */
    char name[COMMUNICATOR_NAME_BYTES];
    char others[COMMUNICATOR_OTHERS_BYTES]; /* "ranks 2, 6" */
    void *byte;                             /* NULL: not asked for */
    mr_status broken;                       /* OK: usable */
    bool grouping;
    mr_monitor monitor;    /* of what follows */
    mr_status interrupted; /* OK: not */
    _Atomic bool is_interrupted;
};

static const mr_nccl_calls *calls_of(const mr_communicator *self) {
    return self->place.calls;
}

/* ---- failures ---- */

/* The communicator is gone after this; the first reason stays. */
void mr_communicator_abort(mr_communicator *self, mr_status why) {
    if (mr_status_is_ok(self->broken))
        self->broken = why;
    ncclComm_t comm = self->comm;
    self->comm = NULL;
    if (comm != NULL)
        (void)calls_of(self)->ncclCommAbort(comm); /* there is nothing left to tell */
}

static mr_status communicator_fail(mr_communicator *self, mr_status why) {
    mr_communicator_abort(self, why);
    return self->broken;
}

static mr_code result_code(ncclResult_t result) {
    switch (result) {
    case ncclSystemError:
    case ncclRemoteError:
        return MR_CODE_UNAVAILABLE;
    case ncclInvalidArgument:
        return MR_CODE_INVALID_ARGUMENT;
    case ncclInvalidUsage:
        return MR_CODE_FAILED_PRECONDITION;
    default:
        return MR_CODE_INTERNAL;
    }
}

static mr_status nccl_failed(mr_communicator *self, const char *what, ncclResult_t result) {
    const char *relation = result == ncclRemoteError ? "lost" : "with";
    return communicator_fail(self, mr_status_make(result_code(result), __FILE__, __LINE__,
                                                  "%.80s: %s, %s %s: %.60s", self->name, what,
                                                  relation, self->others,
                                                  calls_of(self)->ncclGetErrorString(result)));
}

static mr_status cuda_failed(mr_communicator *self, const char *what, cudaError_t error) {
    return communicator_fail(self, MR_ERROR(INTERNAL, "%.80s: %s: %.80s", self->name, what,
                                            calls_of(self)->cudaGetErrorString(error)));
}

#define CUDA_TRY(self, call)                                                                       \
    do {                                                                                           \
        cudaError_t cuda_error_ = calls_of(self)->call;                                            \
        if (cuda_error_ != cudaSuccess)                                                            \
            return cuda_failed(self, #call, cuda_error_);                                          \
    } while (0)

/* ---- looking and waiting ---- */

/* One look at the interrupt and at NCCL's own state. *out_busy: it works on a call. */
static mr_status communicator_look(mr_communicator *self, bool *out_busy) {
    MR_TRY(self->broken);
    if (atomic_load(&self->is_interrupted)) {
        mr_monitor_lock(&self->monitor);
        mr_status why = self->interrupted;
        mr_monitor_unlock(&self->monitor);
        return communicator_fail(self, why);
    }
    ncclResult_t state = ncclSuccess;
    ncclResult_t asked = calls_of(self)->ncclCommGetAsyncError(self->comm, &state);
    if (asked != ncclSuccess)
        return nccl_failed(self, "its state", asked);
    if (state != ncclSuccess && state != ncclInProgress)
        return nccl_failed(self, "an operation", state);
    *out_busy = state == ncclInProgress;
    return MR_OK;
}

void mr_communicator_nap(mr_communicator *self) {
    mr_monitor_lock(&self->monitor);
    if (!atomic_load(&self->is_interrupted))
        (void)mr_monitor_wait(&self->monitor, mr_monitor_deadline(COMMUNICATOR_NAP_MS));
    mr_monitor_unlock(&self->monitor);
}

/* Between two looks of a wait that began at start_ns. */
static void communicator_pause(mr_communicator *self, int64_t start_ns) {
    if (mr_clock_now_ns() - start_ns > COMMUNICATOR_SPIN_NS)
        mr_communicator_nap(self);
}

static mr_status communicator_late(mr_communicator *self, const char *what, int64_t timeout_ms) {
    return communicator_fail(self, MR_ERROR(DEADLINE_EXCEEDED,
                                            "%.80s: %s: %s did not answer within %" PRId64 " ms",
                                            self->name, what, self->others, timeout_ms));
}

/* Until NCCL has taken in the last call. */
static mr_status communicator_settle(mr_communicator *self, const char *what, int64_t timeout_ms) {
    int64_t start_ns = mr_clock_now_ns();
    for (;;) {
        bool busy = false;
        MR_TRY(communicator_look(self, &busy));
        if (!busy)
            return MR_OK;
        if ((mr_clock_now_ns() - start_ns) / 1000000 >= timeout_ms)
            return communicator_late(self, what, timeout_ms);
        communicator_pause(self, start_ns);
    }
}

/* What a call answered; inside a group NCCL works only at its end. */
static mr_status communicator_called(mr_communicator *self, const char *what,
                                     ncclResult_t result) {
    if (result != ncclSuccess && result != ncclInProgress)
        return nccl_failed(self, what, result);
    return self->grouping ? MR_OK : communicator_settle(self, what, COMMUNICATOR_SETTLE_MS);
}

mr_status mr_communicator_wait(mr_communicator *self, int64_t timeout_ms) {
    int64_t start_ns = mr_clock_now_ns();
    for (;;) {
        bool passed = false;
        MR_TRY(mr_communicator_mark_passed(self, self->after, &passed));
        if (passed)
            return MR_OK;
        if (timeout_ms >= 0 && (mr_clock_now_ns() - start_ns) / 1000000 >= timeout_ms)
            return communicator_late(self, "an operation", timeout_ms);
        communicator_pause(self, start_ns);
    }
}

/* ---- operations ---- */

mr_status mr_communicator_enter(mr_communicator *self) {
    bool busy = false;
    MR_TRY(communicator_look(self, &busy));
    MR_ASSERT(!busy); /* every call was settled */
    CUDA_TRY(self, cudaEventRecord(self->before, self->place.compute_stream));
    CUDA_TRY(self, cudaStreamWaitEvent(self->stream, self->before, 0));
    return MR_OK;
}

mr_status mr_communicator_leave(mr_communicator *self) {
    MR_TRY(self->broken);
    CUDA_TRY(self, cudaEventRecord(self->after, self->stream));
    CUDA_TRY(self, cudaStreamWaitEvent(self->place.compute_stream, self->after, 0));
    return MR_OK;
}

mr_status mr_communicator_group_begin(mr_communicator *self) {
    MR_TRY(self->broken);
    MR_ASSERT(!self->grouping);
    ncclResult_t result = calls_of(self)->ncclGroupStart();
    if (result != ncclSuccess)
        return nccl_failed(self, "a group's start", result);
    self->grouping = true;
    return MR_OK;
}

mr_status mr_communicator_group_end(mr_communicator *self) {
    MR_ASSERT(self->grouping);
    self->grouping = false;
    ncclResult_t result = calls_of(self)->ncclGroupEnd();
    MR_TRY(self->broken); /* a part of the group failed */
    return communicator_called(self, "a group", result);
}

mr_status mr_communicator_sum(mr_communicator *self, const float *from, float *to, size_t n) {
    MR_TRY(self->broken);
    return communicator_called(self, "a sum",
                               calls_of(self)->ncclAllReduce(from, to, n, ncclFloat32, ncclSum,
                                                             self->comm, self->stream));
}

mr_status mr_communicator_broadcast(mr_communicator *self, const void *from, void *to,
                                    size_t bytes, size_t root) {
    MR_TRY(self->broken);
    return communicator_called(self, "a broadcast",
                               calls_of(self)->ncclBroadcast(from, to, bytes, ncclUint8, (int)root,
                                                             self->comm, self->stream));
}

mr_status mr_communicator_send(mr_communicator *self, const void *data, size_t bytes, size_t to) {
    MR_TRY(self->broken);
    return communicator_called(self, "a send",
                               calls_of(self)->ncclSend(data, bytes, ncclUint8, (int)to,
                                                        self->comm, self->stream));
}

mr_status mr_communicator_receive(mr_communicator *self, void *data, size_t bytes, size_t from) {
    MR_TRY(self->broken);
    return communicator_called(self, "a receive",
                               calls_of(self)->ncclRecv(data, bytes, ncclUint8, (int)from,
                                                        self->comm, self->stream));
}

mr_status mr_communicator_byte(mr_communicator *self, void **out_byte) {
    if (self->byte == NULL)
        CUDA_TRY(self, cudaMalloc(&self->byte, 1));
    *out_byte = self->byte;
    return MR_OK;
}

/* ---- marks ---- */

mr_status mr_communicator_mark_create(mr_communicator *self, void **out_mark) {
    cudaEvent_t event = NULL;
    CUDA_TRY(self, cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    *out_mark = event;
    return MR_OK;
}

void mr_communicator_mark_destroy(mr_communicator *self, void *mark) {
    if (mark != NULL)
        (void)calls_of(self)->cudaEventDestroy(mark); /* an error here is the card's, and known */
}

mr_status mr_communicator_mark_set(mr_communicator *self, void *mark) {
    MR_TRY(self->broken);
    CUDA_TRY(self, cudaEventRecord(mark, self->stream));
    return MR_OK;
}

mr_status mr_communicator_mark_passed(mr_communicator *self, void *mark, bool *out_passed) {
    bool busy = false;
    MR_TRY(self->broken);
    cudaError_t state = calls_of(self)->cudaEventQuery(mark);
    MR_TRY(communicator_look(self, &busy)); /* after it: a failed operation passes marks, too */
    if (state != cudaSuccess && state != cudaErrorNotReady)
        return cuda_failed(self, "a mark", state);
    *out_passed = state == cudaSuccess;
    return MR_OK;
}

/* ---- open and close ---- */

mr_status mr_communicator_id_make(const mr_nccl_place *place,
                                  unsigned char out_id[MR_NCCL_ID_BYTES]) {
    ncclUniqueId id;
    ncclResult_t result = place->calls->ncclGetUniqueId(&id);
    if (result != ncclSuccess)
        return MR_ERROR(UNAVAILABLE, "NCCL makes no id: %s",
                        place->calls->ncclGetErrorString(result));
    memcpy(out_id, id.internal, MR_NCCL_ID_BYTES);
    return MR_OK;
}

/* "rank 5" or "ranks 2, 6"; of many, as many as fit. */
static void communicator_name_others(mr_communicator *self,
                                     const mr_communicator_options *options) {
    size_t at = (size_t)snprintf(self->others, sizeof(self->others), "%s",
                                 options->rank_count > 2 ? "ranks" : "rank");
    bool first = true;
    for (size_t i = 0; i < options->rank_count && at + 16 < sizeof(self->others); i++) {
        if (i == options->rank_index)
            continue;
        at += (size_t)snprintf(self->others + at, sizeof(self->others) - at, "%s%u",
                               first ? " " : ", ", options->ranks[i]);
        first = false;
    }
}

static mr_status communicator_join(mr_communicator *self, const mr_communicator_options *options,
                                   int64_t timeout_ms) {
    CUDA_TRY(self, cudaSetDevice(self->place.ordinal));
    CUDA_TRY(self, cudaStreamCreateWithPriority(&self->stream, cudaStreamNonBlocking,
                                                COMMUNICATOR_PRIORITY));
    CUDA_TRY(self, cudaEventCreateWithFlags(&self->before, cudaEventDisableTiming));
    CUDA_TRY(self, cudaEventCreateWithFlags(&self->after, cudaEventDisableTiming));
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    config.commName = self->name;
    if (options->ctas_max > 0)
        config.maxCTAs = options->ctas_max;
    ncclUniqueId id;
    memcpy(id.internal, options->id, sizeof(id.internal));
    ncclResult_t result = calls_of(self)->ncclCommInitRankConfig(
        &self->comm, (int)options->rank_count, id, (int)options->rank_index, &config);
    if (result != ncclSuccess && result != ncclInProgress)
        return nccl_failed(self, "joining", result);
    return communicator_settle(self, "joining", timeout_ms);
}

mr_status mr_communicator_open(const mr_communicator_options *options, int64_t timeout_ms,
                               mr_communicator **out_communicator) {
    MR_ASSERT(timeout_ms >= 0);
    mr_communicator *self = mr_alloc(sizeof(*self));
    if (self == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a communicator");
    self->place = options->place;
    mr_monitor_init(&self->monitor);
    (void)snprintf(self->name, sizeof(self->name), "%s/%" PRIu64 "/%s", options->job_id,
                   options->epoch, options->name); /* cut where it must */
    communicator_name_others(self, options);
    mr_status status = communicator_join(self, options, timeout_ms);
    if (!mr_status_is_ok(status)) {
        mr_communicator_close(self);
        return status;
    }
    *out_communicator = self;
    return MR_OK;
}

void mr_communicator_interrupt(mr_communicator *self, const char *reason) {
    mr_monitor_lock(&self->monitor);
    if (mr_status_is_ok(self->interrupted))
        self->interrupted = MR_ERROR(CANCELLED, "interrupted: %s", reason);
    atomic_store(&self->is_interrupted, true);
    mr_monitor_notify(&self->monitor);
    mr_monitor_unlock(&self->monitor);
}

/* All that was queued is done and NCCL has flushed it; false: it must be broken off. */
static bool communicator_finish(mr_communicator *self) {
    if (self->comm == NULL || atomic_load(&self->is_interrupted))
        return false;
    mr_status status = MR_OK;
    cudaError_t error = calls_of(self)->cudaEventRecord(self->after, self->stream);
    if (error == cudaSuccess)
        status = mr_communicator_wait(self, COMMUNICATOR_CLOSE_MS);
    if (error != cudaSuccess || !mr_status_is_ok(status))
        return false;
    ncclResult_t result = calls_of(self)->ncclCommFinalize(self->comm);
    if (result != ncclSuccess && result != ncclInProgress)
        return false;
    return mr_status_is_ok(communicator_settle(self, "the end", COMMUNICATOR_CLOSE_MS));
}

void mr_communicator_close(mr_communicator *self) {
    if (self == NULL)
        return;
    const mr_nccl_calls *calls = calls_of(self);
    if (communicator_finish(self))
        (void)calls->ncclCommDestroy(self->comm); /* flushed: nothing is lost by an error */
    else
        mr_communicator_abort(self, MR_ERROR(CANCELLED, "%.80s is closed", self->name));
    if (self->after != NULL)
        (void)calls->cudaEventDestroy(self->after); /* as above */
    if (self->before != NULL)
        (void)calls->cudaEventDestroy(self->before);
    if (self->stream != NULL)
        (void)calls->cudaStreamDestroy(self->stream);
    if (self->byte != NULL)
        (void)calls->cudaFree(self->byte);
    mr_monitor_deinit(&self->monitor);
    mr_free(self);
}
