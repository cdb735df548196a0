/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/stage/feed_window.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/arena.h"

enum { WINDOW_TENSORS = 2 };

/* A tensor that every microbatch of the job must bring. */
typedef struct window_tensor {
    const char *name;
    mr_shape shape;
    size_t bytes;
    size_t offset;      /* within the slot */
    int64_t vocabulary; /* ids must be below it; 0: not token ids */
    int64_t lowest;     /* smallest id allowed */
} window_tensor;

struct mr_feed_window {
    atomic_uint references;
    char job_id[MR_JOB_ID_BYTES];
    uint64_t epoch;
    uint64_t step_end; /* steps of the job; UINT64_MAX for inference */
    uint32_t micro_batches;
    size_t tensor_count;
    window_tensor tensors[WINDOW_TENSORS];
    size_t slot_bytes;
    mr_arena arena;
    _Atomic uint64_t next_step;
    atomic_bool *filled;                        /* [MR_FEED_WINDOW_STEPS][micro_batches] */
    atomic_uint arrived[MR_FEED_WINDOW_STEPS]; /* microbatches here, by step */
    /* Evaluation: a microbatch of the step asks for its logits; and what a step's logits take. */
    atomic_bool logits_wanted[MR_FEED_WINDOW_STEPS];
    atomic_uint counts[MR_FEED_WINDOW_STEPS];  /* microbatches of the step; 0: none is here */
    bool evaluates;
    size_t logit_bytes;
};

static void window_expect(mr_feed_window *window, const char *name, mr_shape shape,
                          int64_t vocabulary, int64_t lowest) {
    window_tensor *tensor = &window->tensors[window->tensor_count++];
    *tensor = (window_tensor){
        .name = name,
        .shape = shape,
        .offset = window->slot_bytes,
        .vocabulary = vocabulary,
        .lowest = lowest,
    };
    MR_ASSERT(mr_shape_bytes(&shape, &tensor->bytes)); /* checked by the plan */
    window->slot_bytes += mr_arena_rounded(tensor->bytes);
}

/* Which tensors a microbatch of this job has, from the job alone. */
static mr_status window_expect_all(mr_feed_window *window, const mr_assignment *assignment) {
    const mr_job *job = assignment->job;
    mr_shape inputs = mr_job_input_shape(job);
    int64_t vocabulary = inputs.dtype == MR_DTYPE_I32 ? (int64_t)job->layers[0].vocab : 0;
    window_expect(window, "inputs", inputs, vocabulary, 0);
    if (assignment->mode == MR_JOB_MODE_INFERENCE) {
        mr_shape position = {.dtype = MR_DTYPE_I32, .dim_count = 1, .dims = {1}};
        window_expect(window, "position", position, (int64_t)job->sequence_length, 0);
    } else if (job->loss != MR_LOSS_NONE) {
        mr_shape labels;
        MR_TRY(mr_job_label_shape(job, &labels));
        int64_t classes = labels.dtype == MR_DTYPE_I32
                              ? (int64_t)job->layers[job->layer_count - 1].vocab
                              : 0;
        window_expect(window, "labels", labels, classes, -1);
    }
    return MR_OK;
}

/* Bytes of all logits of a step, as f32. */
static size_t window_logit_bytes(const mr_assignment *assignment) {
    mr_shape output = mr_assignment_boundary(assignment, assignment->job->layer_count);
    size_t elements = 0;
    size_t bytes = 0;
    if (!mr_shape_elements(&output, &elements) ||
        !mr_size_mul(elements, assignment->job->micro_batches * sizeof(float), &bytes))
        return SIZE_MAX;
    return bytes;
}

static mr_status window_fill(mr_feed_window *window, const mr_assignment *assignment,
                             uint64_t next_step) {
    memcpy(window->job_id, assignment->job_id, sizeof(window->job_id));
    window->epoch = assignment->epoch;
    window->step_end = assignment->inference ? UINT64_MAX : assignment->job->total_steps;
    window->micro_batches = (uint32_t)assignment->job->micro_batches;
    window->next_step = next_step;
    window->evaluates = assignment->mode == MR_JOB_MODE_EVALUATION;
    window->logit_bytes = window_logit_bytes(assignment);
    MR_TRY(window_expect_all(window, assignment));
    size_t slots = (size_t)MR_FEED_WINDOW_STEPS * window->micro_batches;
    size_t bytes;
    if (!mr_size_mul(slots, window->slot_bytes, &bytes))
        return MR_ERROR(RESOURCE_EXHAUSTED, "a feed window of %zu microbatches is impossible",
                        slots);
    window->filled = mr_alloc_array(slots, sizeof(*window->filled));
    if (window->filled == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu microbatches", slots);
    return mr_arena_init(&window->arena, bytes);
}

mr_status mr_feed_window_create(const mr_assignment *assignment, uint64_t next_step,
                                mr_feed_window **out_window) {
    mr_feed_window *window = mr_alloc(sizeof(*window));
    if (window == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a feed window");
    window->references = 1;
    mr_status status = window_fill(window, assignment, next_step);
    if (!mr_status_is_ok(status)) {
        mr_feed_window_unref(window);
        return status;
    }
    *out_window = window;
    return MR_OK;
}

mr_feed_window *mr_feed_window_ref(mr_feed_window *window) {
    atomic_fetch_add(&window->references, 1);
    return window;
}

void mr_feed_window_unref(mr_feed_window *window) {
    if (window == NULL || atomic_fetch_sub(&window->references, 1) != 1)
        return;
    mr_arena_deinit(&window->arena);
    mr_free(window->filled);
    mr_free(window);
}

static size_t window_slot(const mr_feed_window *window, uint64_t step, uint32_t micro_batch) {
    return (size_t)(step % MR_FEED_WINDOW_STEPS) * window->micro_batches + micro_batch;
}

static unsigned char *window_slot_memory(const mr_feed_window *window, size_t slot) {
    return window->arena.base + slot * window->slot_bytes;
}

/* How many microbatches the request says its step has. */
static uint32_t window_asked(const mr_feed_window *window,
                             const Millrace__V1__FeedRequest *request) {
    return request->micro_batches == 0 ? window->micro_batches : request->micro_batches;
}

/* The first microbatch of a step says how many there are. */
static mr_status window_check_count(mr_feed_window *window,
                                    const Millrace__V1__FeedRequest *request) {
    atomic_uint *count = &window->counts[request->step % MR_FEED_WINDOW_STEPS];
    uint32_t asked = window_asked(window, request);
    unsigned known = atomic_load(count);
    if (known != 0 && known != asked)
        return MR_ERROR(INVALID_ARGUMENT,
                        "feed.micro_batches is %u; an earlier microbatch of step %" PRIu64
                        " said %u",
                        asked, request->step, known);
    return MR_OK;
}

static mr_status window_check_place(const mr_feed_window *window,
                                    const Millrace__V1__FeedRequest *request) {
    uint64_t next = atomic_load(&window->next_step);
    if (strcmp(request->job_id, window->job_id) != 0)
        return MR_ERROR(FAILED_PRECONDITION, "feed.job_id is %.40s; this stage runs %s",
                        request->job_id, window->job_id);
    if (request->epoch != window->epoch)
        return MR_ERROR(FAILED_PRECONDITION, "feed.epoch is %" PRIu64 "; the job is at %" PRIu64,
                        request->epoch, window->epoch);
    if (request->micro_batches > window->micro_batches)
        return MR_ERROR(OUT_OF_RANGE, "feed.micro_batches is %u; it must be at most the job's, %u",
                        request->micro_batches, window->micro_batches);
    if (request->index >= window_asked(window, request))
        return MR_ERROR(OUT_OF_RANGE, "feed.index is %u; the step has %u microbatches",
                        request->index, window_asked(window, request));
    if (request->step >= next + MR_FEED_WINDOW_STEPS || request->step >= window->step_end)
        return MR_ERROR(OUT_OF_RANGE,
                        "feed.step is %" PRIu64 "; the window is [%" PRIu64 ", %" PRIu64
                        ") of %" PRIu64 " steps",
                        request->step, next, next + MR_FEED_WINDOW_STEPS, window->step_end);
    if (request->want_logits && window->evaluates && window->logit_bytes > MR_FEED_LOGITS_BYTES_MAX)
        return MR_ERROR(INVALID_ARGUMENT,
                        "feed.want_logits: the logits of a step are %zu bytes; at most %d fit one "
                        "answer: fewer or smaller microbatches would",
                        window->logit_bytes, MR_FEED_LOGITS_BYTES_MAX);
    return MR_OK;
}

static mr_status window_check_tensor(const window_tensor *expected,
                                     const Millrace__V1__Tensor *tensor) {
    if (strcmp(tensor->name, expected->name) != 0)
        return MR_ERROR(INVALID_ARGUMENT, "feed.tensors.name is %.32s where %s is expected",
                        tensor->name, expected->name);
    bool same = (int)tensor->data_type == (int)expected->shape.dtype &&
                tensor->n_dims == expected->shape.dim_count;
    for (size_t i = 0; same && i < tensor->n_dims; i++)
        same = tensor->dims[i] == expected->shape.dims[i];
    if (!same)
        return MR_ERROR(INVALID_ARGUMENT,
                        "tensor %s has type %s, %zu dimensions, first %" PRIu64
                        "; the job needs %s, %zu, first %zu",
                        expected->name, mr_dtype_name((mr_dtype)tensor->data_type), tensor->n_dims,
                        tensor->n_dims > 0 ? tensor->dims[0] : 0,
                        mr_dtype_name(expected->shape.dtype), expected->shape.dim_count,
                        expected->shape.dims[0]);
    return MR_OK;
}

/* Token ids must index the vocabulary; one that does not would spoil the step for everybody. */
static mr_status window_check_ids(const window_tensor *expected, const int32_t *ids) {
    size_t count = expected->bytes / sizeof(*ids);
    for (size_t i = 0; i < count && expected->vocabulary > 0; i++)
        if (ids[i] < expected->lowest || ids[i] >= expected->vocabulary)
            return MR_ERROR(INVALID_ARGUMENT,
                            "tensor %s holds id %d at position %zu; ids must be below %lld",
                            expected->name, ids[i], i, (long long)expected->vocabulary);
    return MR_OK;
}

static mr_status window_copy(const mr_feed_window *window, const Millrace__V1__FeedRequest *request,
                             const mr_rpc_tail *tail, unsigned char *memory) {
    size_t offset = 0;
    if (request->n_tensors != window->tensor_count)
        return MR_ERROR(INVALID_ARGUMENT, "feed.tensors has %zu entries; the job needs %zu",
                        request->n_tensors, window->tensor_count);
    for (size_t i = 0; i < window->tensor_count; i++) {
        const window_tensor *expected = &window->tensors[i];
        MR_TRY(window_check_tensor(expected, request->tensors[i]));
        MR_TRY(mr_rpc_tail_copy(tail, offset, expected->bytes, memory + expected->offset));
        MR_TRY(window_check_ids(expected, (const int32_t *)(memory + expected->offset)));
        offset += expected->bytes;
    }
    if (offset != mr_rpc_tail_bytes(tail))
        return MR_ERROR(INVALID_ARGUMENT, "feed.payload has %zu bytes; the tensors have %zu",
                        mr_rpc_tail_bytes(tail), offset);
    return MR_OK;
}

mr_status mr_feed_window_offer(mr_feed_window *window, const Millrace__V1__FeedRequest *request,
                               const mr_rpc_tail *tail, mr_feed_offer *out_offer) {
    MR_TRY(window_check_place(window, request));
    size_t slot = window_slot(window, request->step, request->index);
    if (request->step < atomic_load(&window->next_step) || atomic_load(&window->filled[slot])) {
        *out_offer = MR_FEED_OFFER_DUPLICATE;
        return MR_OK;
    }
    MR_TRY(window_check_count(window, request));
    MR_TRY(window_copy(window, request, tail, window_slot_memory(window, slot)));
    uint32_t asked = window_asked(window, request);
    atomic_store(&window->counts[request->step % MR_FEED_WINDOW_STEPS], asked);
    atomic_store(&window->filled[slot], true);
    if (request->want_logits)
        atomic_store(&window->logits_wanted[request->step % MR_FEED_WINDOW_STEPS], true);
    unsigned arrived =
        atomic_fetch_add(&window->arrived[request->step % MR_FEED_WINDOW_STEPS], 1) + 1;
    *out_offer = arrived == asked ? MR_FEED_OFFER_COMPLETED : MR_FEED_OFFER_TAKEN;
    return MR_OK;
}

uint64_t mr_feed_window_next(const mr_feed_window *window) {
    return atomic_load(&window->next_step);
}

void mr_feed_window_take(mr_feed_window *window, uint64_t step, uint32_t micro_batch,
                         mr_message *out_message) {
    size_t slot = window_slot(window, step, micro_batch);
    MR_ASSERT(atomic_load(&window->filled[slot]));
    *out_message = (mr_message){
        .step = step,
        .micro_batch = micro_batch,
        .tensor_count = window->tensor_count,
    };
    for (size_t i = 0; i < window->tensor_count; i++) {
        const window_tensor *expected = &window->tensors[i];
        (void)strncpy(out_message->tensors[i].name, expected->name, MR_TENSOR_NAME_BYTES - 1);
        out_message->tensors[i].tensor = (mr_tensor){
            .data = window_slot_memory(window, slot) + expected->offset,
            .shape = expected->shape,
        };
    }
}

uint32_t mr_feed_window_micro_batches(const mr_feed_window *window, uint64_t step) {
    return atomic_load(&window->counts[step % MR_FEED_WINDOW_STEPS]);
}

bool mr_feed_window_ready(const mr_feed_window *window, uint64_t step) {
    uint64_t next = atomic_load(&window->next_step);
    return step >= next && step < next + MR_FEED_WINDOW_STEPS &&
           mr_feed_window_micro_batches(window, step) > 0 &&
           atomic_load(&window->arrived[step % MR_FEED_WINDOW_STEPS]) ==
               mr_feed_window_micro_batches(window, step);
}

bool mr_feed_window_wants_logits(const mr_feed_window *window, uint64_t step) {
    return window->evaluates && atomic_load(&window->logits_wanted[step % MR_FEED_WINDOW_STEPS]);
}

void mr_feed_window_done(mr_feed_window *window, uint64_t step) {
    MR_ASSERT(step == atomic_load(&window->next_step));
    for (uint32_t i = 0; i < window->micro_batches; i++)
        atomic_store(&window->filled[window_slot(window, step, i)], false);
    atomic_store(&window->arrived[step % MR_FEED_WINDOW_STEPS], 0);
    atomic_store(&window->logits_wanted[step % MR_FEED_WINDOW_STEPS], false);
    atomic_store(&window->counts[step % MR_FEED_WINDOW_STEPS], 0);
    atomic_store(&window->next_step, step + 1);
}
