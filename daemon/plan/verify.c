/* SPDX-License-Identifier: Apache-2.0 */
/* The proof has three parts, each of which may rely on those before it.
 *
 * 1. Each list by itself (verify_list): what is there, once, on the right stage, after what it
 *    needs; and nothing is missing. What it needs from another stage is stood for by the receive.
 * 2. Each directed edge (verify_edge): the k-th send of a kind is the k-th receive of that kind.
 *    Part 1 makes the numbers equal.
 * 3. No deadlock (verify_replay): contract each send with its receive to one event; the step can
 *    end under blocking sends iff the orders of all lists together have no cycle. A topological
 *    sort is a replay: each stage stands at one instruction, computing ones pass, a message passes
 *    when both its ends are reached. The replay never has to choose, so if it stops, every run
 *    stops, and following whom each stage waits for leads into the cycle. */
#include "daemon/plan/verify.h"

#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/limits.h"

enum {
    VERIFY_KEYED_OPCODES = MR_OPCODE_SEND_GRADIENT + 1, /* those that carry a microbatch */
    VERIFY_END_OPCODES = 3,                             /* RT, RD, OP */
    VERIFY_CYCLE_SHOWN = 3,                             /* stages named in a deadlock's text */
    VERIFY_PLACE_BYTES = 96,
};

typedef struct verifier {
    const mr_schedule *schedules;
    mr_verify_shape shape;
    size_t pairs;   /* micro_batches * chunks */
    uint8_t *seen;  /* [VERIFY_KEYED_OPCODES][pairs] of the list under check */
    size_t *places; /* per stage: where the replay stands */
    size_t *ready;  /* stack of stages that may be able to go on */
    bool *is_ready; /* per stage: is it on the stack? */
} verifier;

/* "instruction 4 (SA1) of stage 0" */
static const char *place_text(const verifier *v, size_t stage, size_t place,
                              char out[VERIFY_PLACE_BYTES]) {
    char text[MR_INSTRUCTION_TEXT_BYTES] = "end";
    if (place < v->schedules[stage].count)
        mr_instruction_text(&v->schedules[stage].instructions[place], text);
    (void)snprintf(out, VERIFY_PLACE_BYTES, "instruction %zu (%s) of stage %zu", place, text,
                   stage); /* fits: three numbers */
    return out;
}

static mr_status verify_error(const verifier *v, size_t stage, size_t place, const char *problem) {
    char text[VERIFY_PLACE_BYTES];
    return MR_ERROR(INVALID_ARGUMENT, "%s %s", place_text(v, stage, place, text), problem);
}

static size_t part_of(const verifier *v, size_t stage, size_t chunk) {
    return chunk * v->shape.stage_count + stage;
}

static bool part_is_first(const verifier *v, size_t stage, size_t chunk) {
    return part_of(v, stage, chunk) == 0;
}

static bool part_is_last(const verifier *v, size_t stage, size_t chunk) {
    return part_of(v, stage, chunk) + 1 == v->shape.stage_count * v->shape.chunks;
}

static size_t stage_next(const verifier *v, size_t stage) {
    return stage + 1 == v->shape.stage_count ? 0 : stage + 1;
}

static size_t stage_previous(const verifier *v, size_t stage) {
    return stage == 0 ? v->shape.stage_count - 1 : stage - 1;
}

/* With one stage its parts hand tensors over without a message. */
static bool has_messages(const verifier *v) {
    return v->shape.stage_count > 1;
}

/* Must (or may) a stage have this opcode for a chunk of it? NULL, or why not. */
static const char *opcode_misplaced(const verifier *v, mr_opcode opcode, size_t stage,
                                    size_t chunk) {
    bool first = part_is_first(v, stage, chunk);
    bool last = part_is_last(v, stage, chunk);
    switch (opcode) {
    case MR_OPCODE_LOAD:
        return first ? NULL : "loads although this is not the model's first part";
    case MR_OPCODE_RECEIVE_ACTIVATION:
        return !first && has_messages(v) ? NULL : "receives from a stage that does not exist";
    case MR_OPCODE_SEND_ACTIVATION:
        return !last && has_messages(v) ? NULL : "sends to a stage that does not exist";
    case MR_OPCODE_FORWARD:
        return NULL;
    case MR_OPCODE_RECEIVE_GRADIENT:
        if (v->shape.training && !last && has_messages(v))
            return NULL;
        return v->shape.training ? "receives from a stage that does not exist"
                                 : "is backward work in an inference step";
    case MR_OPCODE_SEND_GRADIENT:
        if (v->shape.training && !first && has_messages(v))
            return NULL;
        return v->shape.training ? "sends to a stage that does not exist"
                                 : "is backward work in an inference step";
    default:
        return v->shape.training ? NULL : "is backward work in an inference step";
    }
}

static uint8_t *seen_slot(const verifier *v, mr_opcode opcode, size_t micro_batch, size_t chunk) {
    return &v->seen[(size_t)opcode * v->pairs + chunk * v->shape.micro_batches + micro_batch];
}

static bool seen(const verifier *v, mr_opcode opcode, const mr_instruction *at) {
    return *seen_slot(v, opcode, at->micro_batch, at->chunk) != 0;
}

static bool seen_backward(const verifier *v, size_t micro_batch, size_t chunk) {
    return *seen_slot(v, MR_OPCODE_BACKWARD, micro_batch, chunk) != 0 ||
           *seen_slot(v, MR_OPCODE_BACKWARD_INPUT, micro_batch, chunk) != 0;
}

static bool forward_has_input(const verifier *v, size_t stage, const mr_instruction *at) {
    if (part_is_first(v, stage, at->chunk))
        return seen(v, MR_OPCODE_LOAD, at);
    if (has_messages(v))
        return seen(v, MR_OPCODE_RECEIVE_ACTIVATION, at);
    return *seen_slot(v, MR_OPCODE_FORWARD, at->micro_batch, at->chunk - 1) != 0;
}

static bool backward_has_gradient(const verifier *v, size_t stage, const mr_instruction *at) {
    if (part_is_last(v, stage, at->chunk))
        return true; /* the loss gives it */
    if (has_messages(v))
        return seen(v, MR_OPCODE_RECEIVE_GRADIENT, at);
    return seen_backward(v, at->micro_batch, at->chunk + 1);
}

/* What an instruction needs from those before it in its list. NULL, or what is wrong. */
static const char *order_problem(const verifier *v, size_t stage, const mr_instruction *at) {
    switch (at->opcode) {
    case MR_OPCODE_FORWARD:
        return forward_has_input(v, stage, at) ? NULL : "comes before its input";
    case MR_OPCODE_SEND_ACTIVATION:
        return seen(v, MR_OPCODE_FORWARD, at) ? NULL : "comes before its forward";
    case MR_OPCODE_SEND_GRADIENT:
        return seen_backward(v, at->micro_batch, at->chunk) ? NULL : "comes before its backward";
    case MR_OPCODE_BACKWARD:
    case MR_OPCODE_BACKWARD_INPUT:
        if (!seen(v, MR_OPCODE_FORWARD, at))
            return "comes before its forward";
        if (!backward_has_gradient(v, stage, at))
            return "comes before its gradient";
        return seen_backward(v, at->micro_batch, at->chunk) ? "repeats a backward" : NULL;
    case MR_OPCODE_BACKWARD_WEIGHT:
        return seen(v, MR_OPCODE_BACKWARD_INPUT, at) ? NULL : "comes before its I";
    default:
        return NULL;
    }
}

/* Backward and accumulation ascend by microbatch: all before this one must be done. */
static const char *ascent_problem(const verifier *v, const mr_instruction *at) {
    if (at->micro_batch == 0)
        return NULL;
    size_t before = at->micro_batch - 1;
    bool input_done = seen_backward(v, before, at->chunk);
    bool weight_done = *seen_slot(v, MR_OPCODE_BACKWARD, before, at->chunk) != 0 ||
                       *seen_slot(v, MR_OPCODE_BACKWARD_WEIGHT, before, at->chunk) != 0;
    bool is_input = at->opcode == MR_OPCODE_BACKWARD || at->opcode == MR_OPCODE_BACKWARD_INPUT;
    bool is_weight = at->opcode == MR_OPCODE_BACKWARD || at->opcode == MR_OPCODE_BACKWARD_WEIGHT;
    if ((is_input && !input_done) || (is_weight && !weight_done))
        return "comes before the backward of the microbatch before it";
    return NULL;
}

/* RT, RD, OP: exactly these, exactly at the end of a training list. */
static mr_status verify_list_end(const verifier *v, size_t stage) {
    static const mr_opcode wanted[VERIFY_END_OPCODES] = {
        MR_OPCODE_REDUCE_TIED, MR_OPCODE_REDUCE_DATA, MR_OPCODE_OPTIMIZER};
    const mr_schedule *list = &v->schedules[stage];
    if (!v->shape.training)
        return MR_OK;
    for (size_t i = 0; i < VERIFY_END_OPCODES; i++) {
        size_t place = list->count - VERIFY_END_OPCODES + i;
        if (list->count < VERIFY_END_OPCODES || list->instructions[place].opcode != wanted[i])
            return MR_ERROR(INVALID_ARGUMENT,
                            "the list of stage %zu must end with RT RD OP after its %zu "
                            "instructions of microbatches",
                            stage, list->count);
        if (list->instructions[place].micro_batch != 0 || list->instructions[place].chunk != 0)
            return verify_error(v, stage, place, "carries a microbatch or chunk");
    }
    return MR_OK;
}

static mr_status verify_instruction(const verifier *v, size_t stage, size_t place) {
    const mr_schedule *list = &v->schedules[stage];
    const mr_instruction *at = &list->instructions[place];
    if ((unsigned)at->opcode >= MR_OPCODE_COUNT)
        return verify_error(v, stage, place, "is no known instruction");
    if (!mr_opcode_has_micro_batch(at->opcode)) {
        if (v->shape.training && place + VERIFY_END_OPCODES >= list->count)
            return MR_OK; /* verify_list_end looked at it */
        return verify_error(v, stage, place, "belongs at the end of a training list only");
    }
    if (at->micro_batch >= v->shape.micro_batches)
        return verify_error(v, stage, place, "names a microbatch past the last");
    if (at->chunk >= v->shape.chunks)
        return verify_error(v, stage, place, "names a chunk past the last");
    const char *problem = opcode_misplaced(v, at->opcode, stage, at->chunk);
    if (problem == NULL && seen(v, at->opcode, at))
        problem = "is there twice";
    if (problem == NULL)
        problem = order_problem(v, stage, at);
    if (problem == NULL)
        problem = ascent_problem(v, at);
    if (problem != NULL)
        return verify_error(v, stage, place, problem);
    *seen_slot(v, at->opcode, at->micro_batch, at->chunk) = 1;
    return MR_OK;
}

/* After the whole list was seen: is anything missing? */
static mr_status verify_complete(const verifier *v, size_t stage) {
    for (uint32_t chunk = 0; chunk < v->shape.chunks; chunk++)
        for (uint32_t m = 0; m < v->shape.micro_batches; m++)
            for (mr_opcode opcode = MR_OPCODE_LOAD; opcode <= MR_OPCODE_SEND_GRADIENT; opcode++) {
                mr_instruction want = {.opcode = opcode, .micro_batch = m, .chunk = chunk};
                if (opcode_misplaced(v, opcode, stage, chunk) != NULL || seen(v, opcode, &want))
                    continue;
                bool split = seen(v, MR_OPCODE_BACKWARD_INPUT, &want);
                bool needless = (opcode == MR_OPCODE_BACKWARD && split) ||
                                opcode == MR_OPCODE_BACKWARD_INPUT ||
                                (opcode == MR_OPCODE_BACKWARD_WEIGHT && !split);
                if (needless)
                    continue;
                char text[MR_INSTRUCTION_TEXT_BYTES];
                mr_instruction_text(&want, text);
                return MR_ERROR(INVALID_ARGUMENT, "the list of stage %zu lacks %s", stage, text);
            }
    return MR_OK;
}

static mr_status verify_list(const verifier *v, size_t stage) {
    memset(v->seen, 0, VERIFY_KEYED_OPCODES * v->pairs * sizeof(*v->seen));
    MR_TRY(verify_list_end(v, stage));
    for (size_t place = 0; place < v->schedules[stage].count; place++)
        MR_TRY(verify_instruction(v, stage, place));
    return verify_complete(v, stage);
}

/* Place of the next instruction with this opcode; the list's length when there is none. */
static size_t place_find(const mr_schedule *list, mr_opcode opcode, size_t place) {
    while (place < list->count && list->instructions[place].opcode != opcode)
        place++;
    return place;
}

/* All messages of one kind from stage to its neighbour, in order. Activations go one part up,
 * gradients one part down. */
static mr_status verify_edge(const verifier *v, size_t stage, mr_opcode send, mr_opcode receive) {
    bool up = send == MR_OPCODE_SEND_ACTIVATION;
    size_t peer = up ? stage_next(v, stage) : stage_previous(v, stage);
    const mr_schedule *from = &v->schedules[stage];
    const mr_schedule *to = &v->schedules[peer];
    size_t sent = place_find(from, send, 0);
    size_t received = place_find(to, receive, 0);
    while (sent < from->count && received < to->count) {
        const mr_instruction *out = &from->instructions[sent];
        const mr_instruction *in = &to->instructions[received];
        size_t out_part = part_of(v, stage, out->chunk) + (up ? 1 : 0);
        size_t in_part = part_of(v, peer, in->chunk) + (up ? 0 : 1);
        if (out->micro_batch != in->micro_batch || out_part != in_part) {
            char a[VERIFY_PLACE_BYTES];
            char b[VERIFY_PLACE_BYTES];
            return MR_ERROR(INVALID_ARGUMENT, "%s would be received by %s",
                            place_text(v, stage, sent, a), place_text(v, peer, received, b));
        }
        sent = place_find(from, send, sent + 1);
        received = place_find(to, receive, received + 1);
    }
    if (sent < from->count)
        return verify_error(v, stage, sent, "is never received");
    if (received < to->count)
        return verify_error(v, peer, received, "is never sent");
    return MR_OK;
}

/* The stage whose instruction, opposite, must be reached for this one to pass; the own stage for
 * an instruction that passes by itself. */
static size_t instruction_peer(const verifier *v, size_t stage, const mr_instruction *at,
                               mr_opcode *out_opposite) {
    switch (at->opcode) {
    case MR_OPCODE_SEND_ACTIVATION:
        *out_opposite = MR_OPCODE_RECEIVE_ACTIVATION;
        return stage_next(v, stage);
    case MR_OPCODE_RECEIVE_ACTIVATION:
        *out_opposite = MR_OPCODE_SEND_ACTIVATION;
        return stage_previous(v, stage);
    case MR_OPCODE_SEND_GRADIENT:
        *out_opposite = MR_OPCODE_RECEIVE_GRADIENT;
        return stage_previous(v, stage);
    case MR_OPCODE_RECEIVE_GRADIENT:
        *out_opposite = MR_OPCODE_SEND_GRADIENT;
        return stage_next(v, stage);
    default:
        return stage;
    }
}

/* Moves one stage as far as it goes; peers that it met are put on the stack. The k-th send meets
 * the k-th receive (verify_edge), so equal opcodes are the same message. */
static void replay_stage(const verifier *v, size_t stage, size_t *ready_count) {
    const mr_schedule *list = &v->schedules[stage];
    while (v->places[stage] < list->count) {
        mr_opcode opposite = MR_OPCODE_COUNT;
        size_t peer = instruction_peer(v, stage, &list->instructions[v->places[stage]], &opposite);
        if (peer != stage) {
            const mr_schedule *other = &v->schedules[peer];
            size_t place = v->places[peer];
            if (place == other->count || other->instructions[place].opcode != opposite)
                return;
            v->places[peer]++;
            if (!v->is_ready[peer])
                v->ready[(*ready_count)++] = peer;
            v->is_ready[peer] = true;
        }
        v->places[stage]++;
    }
}

/* From a stage that stopped, follow whom each waits for into the cycle and name its members. */
static mr_status deadlock_error(const verifier *v, size_t stage) {
    mr_opcode ignored;
    for (size_t i = 0; i < v->shape.stage_count; i++)
        stage = instruction_peer(v, stage, &v->schedules[stage].instructions[v->places[stage]],
                                 &ignored);
    char shown[VERIFY_CYCLE_SHOWN][VERIFY_PLACE_BYTES];
    size_t at = stage;
    size_t length = 0;
    do {
        if (length < VERIFY_CYCLE_SHOWN)
            (void)place_text(v, at, v->places[at], shown[length]);
        length++;
        at = instruction_peer(v, at, &v->schedules[at].instructions[v->places[at]], &ignored);
    } while (at != stage);
    MR_ASSERT(length >= 2);
    return MR_ERROR(INVALID_ARGUMENT, "deadlock of %zu stages: %s waits for %s%s%s%s", length,
                    shown[0], shown[1], length > 2 ? ", that for " : "", length > 2 ? shown[2] : "",
                    length > VERIFY_CYCLE_SHOWN ? ", ..." : "");
}

static mr_status verify_replay(const verifier *v) {
    size_t ready_count = 0;
    for (size_t stage = v->shape.stage_count; stage-- > 0;) {
        v->ready[ready_count++] = stage;
        v->is_ready[stage] = true;
    }
    while (ready_count > 0) {
        size_t stage = v->ready[--ready_count];
        v->is_ready[stage] = false;
        replay_stage(v, stage, &ready_count);
    }
    for (size_t stage = 0; stage < v->shape.stage_count; stage++)
        if (v->places[stage] < v->schedules[stage].count)
            return deadlock_error(v, stage);
    return MR_OK;
}

static size_t list_peak(const verifier *v, size_t stage) {
    size_t held = 0;
    size_t peak = 0;
    for (size_t place = 0; place < v->schedules[stage].count; place++) {
        const mr_instruction *at = &v->schedules[stage].instructions[place];
        bool forward = at->opcode == MR_OPCODE_FORWARD;
        bool takes = forward;
        bool drops = at->opcode == MR_OPCODE_BACKWARD || at->opcode == MR_OPCODE_BACKWARD_WEIGHT;
        if (!v->shape.training) {
            /* An input may come while the output before it is still to be sent. */
            takes = at->opcode == MR_OPCODE_LOAD || at->opcode == MR_OPCODE_RECEIVE_ACTIVATION;
            drops = at->opcode == MR_OPCODE_SEND_ACTIVATION;
        }
        if (takes && ++held > peak)
            peak = held;
        /* In inference nobody asks for the last part's result, or for one without messages. */
        bool kept_by_none =
            !v->shape.training && (!has_messages(v) || part_is_last(v, stage, at->chunk));
        if (drops || (forward && kept_by_none))
            held--;
    }
    return peak;
}

static mr_status verify_all(const verifier *v, size_t *out_peaks) {
    for (size_t stage = 0; stage < v->shape.stage_count; stage++)
        MR_TRY(verify_list(v, stage));
    for (size_t stage = 0; stage < v->shape.stage_count; stage++) {
        MR_TRY(verify_edge(v, stage, MR_OPCODE_SEND_ACTIVATION, MR_OPCODE_RECEIVE_ACTIVATION));
        MR_TRY(verify_edge(v, stage, MR_OPCODE_SEND_GRADIENT, MR_OPCODE_RECEIVE_GRADIENT));
    }
    MR_TRY(verify_replay(v));
    for (size_t stage = 0; stage < v->shape.stage_count && out_peaks != NULL; stage++)
        out_peaks[stage] = list_peak(v, stage);
    return MR_OK;
}

mr_status mr_verify(const mr_schedule *schedules, const mr_verify_shape *shape, size_t *out_peaks) {
    verifier v = {.schedules = schedules, .shape = *shape};
    if (shape->stage_count == 0 || shape->stage_count > MR_STAGES_MAX ||
        shape->micro_batches == 0 || shape->micro_batches > MR_MICRO_BATCHES_MAX ||
        shape->chunks == 0 || shape->chunks > MR_CHUNKS_MAX)
        return MR_ERROR(INVALID_ARGUMENT,
                        "a schedule of %zu stages, %zu microbatches and %zu chunks; each must be "
                        "at least 1 and at most %d, %d and %d",
                        shape->stage_count, shape->micro_batches, shape->chunks, MR_STAGES_MAX,
                        MR_MICRO_BATCHES_MAX, MR_CHUNKS_MAX);
    v.pairs = shape->micro_batches * shape->chunks;
    v.seen = mr_alloc_array(VERIFY_KEYED_OPCODES * v.pairs, sizeof(*v.seen));
    v.places = mr_alloc_array(shape->stage_count, sizeof(*v.places));
    v.ready = mr_alloc_array(shape->stage_count, sizeof(*v.ready));
    v.is_ready = mr_alloc_array(shape->stage_count, sizeof(*v.is_ready));
    mr_status status = MR_OK;
    if (v.seen == NULL || v.places == NULL || v.ready == NULL || v.is_ready == NULL)
        status = MR_ERROR(RESOURCE_EXHAUSTED, "no memory to verify %zu stages", shape->stage_count);
    else
        status = verify_all(&v, out_peaks);
    mr_free(v.is_ready);
    mr_free(v.ready);
    mr_free(v.places);
    mr_free(v.seen);
    return status;
}
