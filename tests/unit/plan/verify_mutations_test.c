/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a list that was altered is refused, unless the alteration is harmless; and nothing harmless
 * is refused. Method: every single drop, doubling, exchange, move and retargeting of an instruction
 * in small pipelines is given both to mr_verify and to an executor that knows nothing of it: it
 * runs the lists on tokens that stand for tensors, with sends and receives that block until they
 * meet, choosing among the stages at random, and fails when a token is missing, wrong, made twice
 * or left over, when gradients are not added in ascending order, or when it stops. Both must always
 * agree. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/base/random.h"
#include "tests/unit/plan/pipeline.h"

enum { STAGES = 4, MICRO_BATCHES = 5 };

/* What a stage has of one microbatch. */
typedef struct tokens {
    bool input;
    bool output;
    bool sent;
    bool gradient;       /* of the output */
    bool input_gradient; /* of the input */
    bool gradient_sent;
    bool input_done; /* B or I ran */
    bool added;      /* to the parameters' gradient */
} tokens;

typedef struct executor {
    const pipeline *line;
    tokens have[STAGES][MICRO_BATCHES];
    size_t places[STAGES];
    size_t input_next[STAGES]; /* microbatch that must be next in backward */
    size_t added_next[STAGES]; /* microbatch whose gradient must be added next */
    size_t ends[STAGES];       /* of RT, RD, OP, how many ran */
} executor;

static bool is_last(const executor *run, size_t stage) {
    return stage + 1 == run->line->shape.stage_count;
}

static const mr_instruction *at_place(const executor *run, size_t stage) {
    const mr_schedule *list = &run->line->lists[stage];
    return run->places[stage] < list->count ? &list->instructions[run->places[stage]] : NULL;
}

/* Sets a token that must be missing. */
static bool make(bool *token) {
    bool fresh = !*token;
    *token = true;
    return fresh;
}

static bool run_input_half(executor *run, size_t stage, size_t m) {
    tokens *have = &run->have[stage][m];
    bool ready = have->output && (is_last(run, stage) || have->gradient);
    return ready && make(&have->input_done) && make(&have->input_gradient) &&
           run->input_next[stage]++ == m;
}

static bool run_weight_half(executor *run, size_t stage, size_t m) {
    tokens *have = &run->have[stage][m];
    return have->input_done && make(&have->added) && run->added_next[stage]++ == m;
}

static bool run_end(executor *run, size_t stage, size_t which) {
    return run->line->shape.training && run->ends[stage]++ == which &&
           run->added_next[stage] == run->line->shape.micro_batches;
}

/* One instruction that is no message. */
static bool run_alone(executor *run, size_t stage, const mr_instruction *at) {
    size_t m = at->micro_batch;
    tokens *have = m < run->line->shape.micro_batches ? &run->have[stage][m] : NULL;
    if (have == NULL || at->chunk != 0 ||
        (run->ends[stage] > 0 && mr_opcode_has_micro_batch(at->opcode)))
        return false;
    switch (at->opcode) {
    case MR_OPCODE_LOAD:
        return stage == 0 && make(&have->input);
    case MR_OPCODE_FORWARD:
        return have->input && make(&have->output);
    case MR_OPCODE_BACKWARD:
        return run->line->shape.training && run_input_half(run, stage, m) &&
               run_weight_half(run, stage, m);
    case MR_OPCODE_BACKWARD_INPUT:
        return run->line->shape.training && run_input_half(run, stage, m);
    case MR_OPCODE_BACKWARD_WEIGHT:
        return run->line->shape.training && run_weight_half(run, stage, m);
    case MR_OPCODE_REDUCE_TIED:
        return m == 0 && run_end(run, stage, 0);
    case MR_OPCODE_REDUCE_DATA:
        return m == 0 && run_end(run, stage, 1);
    case MR_OPCODE_OPTIMIZER:
        return m == 0 && run_end(run, stage, 2);
    default:
        return false;
    }
}

/* A message between two neighbours; from is what the sender does, to what the receiver does. */
static bool run_message(executor *run, size_t sender, size_t receiver, const mr_instruction *from,
                        const mr_instruction *to) {
    size_t m = from->micro_batch;
    if (m >= run->line->shape.micro_batches || to->micro_batch != m || from->chunk != 0 ||
        to->chunk != 0 || run->ends[sender] > 0 || run->ends[receiver] > 0)
        return false;
    tokens *out = &run->have[sender][m];
    tokens *in = &run->have[receiver][m];
    if (from->opcode == MR_OPCODE_SEND_ACTIVATION)
        return out->output && make(&out->sent) && make(&in->input);
    return out->input_gradient && make(&out->gradient_sent) && make(&in->gradient);
}

typedef enum step_result { STEP_WAITS, STEP_DONE, STEP_FAILED } step_result;

static step_result run_step(executor *run, size_t stage) {
    const mr_instruction *at = at_place(run, stage);
    if (at == NULL)
        return STEP_WAITS;
    bool up = at->opcode == MR_OPCODE_SEND_ACTIVATION || at->opcode == MR_OPCODE_RECEIVE_GRADIENT;
    bool down = at->opcode == MR_OPCODE_RECEIVE_ACTIVATION || at->opcode == MR_OPCODE_SEND_GRADIENT;
    if (!up && !down) {
        run->places[stage]++;
        return run_alone(run, stage, at) ? STEP_DONE : STEP_FAILED;
    }
    if ((up && is_last(run, stage)) || (down && stage == 0))
        return STEP_FAILED;
    size_t peer = up ? stage + 1 : stage - 1;
    const mr_instruction *other = at_place(run, peer);
    size_t sends = at->opcode == MR_OPCODE_SEND_ACTIVATION || at->opcode == MR_OPCODE_SEND_GRADIENT;
    mr_opcode opposite = at->opcode == MR_OPCODE_SEND_ACTIVATION      ? MR_OPCODE_RECEIVE_ACTIVATION
                         : at->opcode == MR_OPCODE_RECEIVE_ACTIVATION ? MR_OPCODE_SEND_ACTIVATION
                         : at->opcode == MR_OPCODE_SEND_GRADIENT      ? MR_OPCODE_RECEIVE_GRADIENT
                                                                      : MR_OPCODE_SEND_GRADIENT;
    if (other == NULL || other->opcode != opposite)
        return STEP_WAITS;
    run->places[stage]++;
    run->places[peer]++;
    bool good =
        sends ? run_message(run, stage, peer, at, other) : run_message(run, peer, stage, other, at);
    return good ? STEP_DONE : STEP_FAILED;
}

/* Every list at its end, every tensor made and, where it was meant to be, sent and used. */
static bool run_is_complete(const executor *run) {
    const mr_verify_shape *shape = &run->line->shape;
    for (size_t stage = 0; stage < shape->stage_count; stage++) {
        if (at_place(run, stage) != NULL || run->ends[stage] != (shape->training ? 3u : 0u))
            return false;
        for (size_t m = 0; m < shape->micro_batches; m++) {
            const tokens *have = &run->have[stage][m];
            if (!have->output || have->sent == is_last(run, stage))
                return false;
            if (shape->training && (!have->added || have->gradient_sent == (stage == 0)))
                return false;
        }
    }
    return true;
}

static bool execute(const pipeline *line, mr_random_key *key, uint64_t *draw) {
    executor run = {.line = line};
    size_t stages = line->shape.stage_count;
    for (;;) {
        size_t start = mr_random_word(key, (*draw)++) % stages;
        step_result result = STEP_WAITS;
        for (size_t i = 0; i < stages && result == STEP_WAITS; i++)
            result = run_step(&run, (start + i) % stages);
        if (result == STEP_FAILED)
            return false;
        if (result == STEP_WAITS)
            return run_is_complete(&run);
    }
}

typedef struct tally {
    mr_random_key key;
    uint64_t draw;
    size_t refused;
    size_t harmless;
} tally;

static void judge(const pipeline *line, tally *count, const char *what, size_t stage,
                  size_t place) {
    bool runs = execute(line, &count->key, &count->draw);
    mr_status status = pipeline_verify(line);
    if (runs != mr_status_is_ok(status))
        fail_msg("%s at instruction %zu of stage %zu (%zu stages, %zu microbatches): %s, but "
                 "verified as '%s'",
                 what, place, stage, line->shape.stage_count, line->shape.micro_batches,
                 runs ? "runs" : "fails", status.text);
    if (runs)
        count->harmless++;
    else
        count->refused++;
}

static void insert(mr_schedule *list, size_t place, mr_instruction instruction) {
    memmove(list->instructions + place + 1, list->instructions + place,
            (list->count - place) * sizeof(instruction));
    list->instructions[place] = instruction;
    list->count++;
}

static mr_instruction take(mr_schedule *list, size_t place) {
    mr_instruction taken = list->instructions[place];
    list->count--;
    memmove(list->instructions + place, list->instructions + place + 1,
            (list->count - place) * sizeof(taken));
    return taken;
}

static void mutate_place(pipeline *line, size_t stage, size_t place, tally *count) {
    mr_schedule *list = &line->lists[stage];
    mr_instruction kept = list->instructions[place];
    (void)take(list, place);
    judge(line, count, "drop", stage, place);
    for (size_t to = 0; to <= list->count; to++) { /* to == place puts it back */
        insert(list, to, kept);
        judge(line, count, "move", stage, place);
        (void)take(list, to);
    }
    insert(list, place, kept);
    for (size_t to = 0; to <= list->count; to++) {
        insert(list, to, kept);
        judge(line, count, "doubling", stage, place);
        (void)take(list, to);
    }
    for (size_t other = place + 1; other < list->count; other++) {
        mr_instruction there = list->instructions[other];
        list->instructions[place] = there;
        list->instructions[other] = kept;
        judge(line, count, "exchange", stage, place);
        list->instructions[other] = there;
    }
    list->instructions[place] = kept;
    for (uint32_t m = 0; m <= line->shape.micro_batches; m++) {
        list->instructions[place].micro_batch = m;
        judge(line, count, "other microbatch", stage, place);
    }
    list->instructions[place] = kept;
    for (mr_opcode opcode = MR_OPCODE_LOAD; opcode <= MR_OPCODE_OPTIMIZER; opcode++) {
        list->instructions[place].opcode = opcode;
        judge(line, count, "other opcode", stage, place);
    }
    list->instructions[place] = kept;
    list->instructions[place].chunk = 1;
    judge(line, count, "other chunk", stage, place);
    list->instructions[place] = kept;
}

/* Room for one instruction more in each list. */
static void widen(pipeline *line) {
    for (size_t stage = 0; stage < line->shape.stage_count; stage++) {
        mr_schedule *list = &line->lists[stage];
        mr_instruction *wide =
            mr_realloc_array(list->instructions, list->count, list->count + 1, sizeof(*wide));
        assert_non_null(wide);
        list->instructions = wide;
    }
}

static void mutate_all(pipeline *line, tally *count) {
    widen(line);
    judge(line, count, "nothing", 0, 0);
    assert_int_equal(count->refused + count->harmless > 0, 1);
    for (size_t stage = 0; stage < line->shape.stage_count; stage++)
        for (size_t place = 0; place < line->lists[stage].count; place++)
            mutate_place(line, stage, place, count);
}

static tally tally_new(void) {
    return (tally){.key = mr_random_key_make(11, MR_RANDOM_SAMPLE, 0, 0, 0)};
}

static void test_each_single_mutation_is_refused_or_harmless(void **state) {
    (void)state;
    tally count = tally_new();
    for (mr_schedule_kind kind = MR_SCHEDULE_GPIPE; kind <= MR_SCHEDULE_INFERENCE; kind++)
        for (size_t stages = 1; stages <= STAGES; stages++)
            for (size_t m = 1; m <= MICRO_BATCHES; m += stages < STAGES ? 1 : 2) {
                pipeline line;
                pipeline_init(&line, kind, stages, m);
                mutate_all(&line, &count);
                pipeline_deinit(&line);
            }
    assert_true(count.refused > 10 * count.harmless);
    assert_true(count.harmless > 0);
}

static void test_each_single_mutation_of_a_split_backward_is_judged_right(void **state) {
    (void)state;
    tally count = tally_new();
    pipeline line;
    mr_verify_shape shape = {3, 2, 1, true};
    pipeline_init_texts(&line, shape,
                        (const char *const[]){
                            "L0 F0 SA0 L1 F1 SA1 RG0 I0 W0 RG1 I1 W1 RT RD OP",
                            "RA0 F0 SA0 RA1 F1 RG0 SA1 I0 SG0 W0 RG1 I1 SG1 W1 RT RD OP",
                            "RA0 F0 I0 SG0 RA1 F1 W0 B1 SG1 RT RD OP",
                        });
    mr_status status = pipeline_verify(&line);
    if (!mr_status_is_ok(status))
        fail_msg("%s", status.text);
    mutate_all(&line, &count);
    pipeline_deinit(&line);
    assert_true(count.refused > count.harmless);
}

/* Two alterations at once, drawn at random: they may undo each other or agree. */
static void test_random_double_mutations_are_judged_right(void **state) {
    (void)state;
    tally count = tally_new();
    for (size_t round = 0; round < 30000; round++) {
        size_t stages = 1 + mr_random_word(&count.key, count.draw++) % STAGES;
        size_t m = 1 + mr_random_word(&count.key, count.draw++) % MICRO_BATCHES;
        mr_schedule_kind kind = (mr_schedule_kind)(mr_random_word(&count.key, count.draw++) % 3);
        pipeline line;
        pipeline_init(&line, kind, stages, m);
        for (size_t i = 0; i < 2; i++) {
            size_t stage = mr_random_word(&count.key, count.draw++) % stages;
            mr_schedule *list = &line.lists[stage];
            size_t a = mr_random_word(&count.key, count.draw++) % list->count;
            size_t b = mr_random_word(&count.key, count.draw++) % list->count;
            mr_instruction kept = list->instructions[a];
            list->instructions[a] = list->instructions[b];
            list->instructions[b] = kept;
        }
        judge(&line, &count, "two exchanges", 0, 0);
        pipeline_deinit(&line);
    }
    assert_true(count.harmless > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_single_mutation_is_refused_or_harmless),
        cmocka_unit_test(test_each_single_mutation_of_a_split_backward_is_judged_right),
        cmocka_unit_test(test_random_double_mutations_are_judged_right),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
