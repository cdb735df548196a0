/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the fake NCCL finds what it is there to find, and an order of calls that could hang is
 * found before a card hangs. Method: mutations, each a misuse that the fake must name; and the
 * schedules in use, issued instruction by instruction on the streams that links have, which must
 * run out, next to wrong orders, which must be found to be a cycle. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/device/cuda/nccl/calls.h"
#include "daemon/group/fake_nccl/fake_nccl.h"
#include "daemon/plan/plan.h"
#include "tests/contract/group/nccl_rig.h"

static const mr_nccl_calls *calls;

/* ---- two ranks in one thread ---- */

static ncclUniqueId id_make(void) {
    ncclUniqueId id;
    assert_int_equal(calls->ncclGetUniqueId(&id), ncclSuccess);
    return id;
}

static ncclComm_t comm_make(ncclUniqueId id, int rank_count, int rank) {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclComm_t comm = NULL;
    config.blocking = 0;
    config.commName = "edge";
    assert_int_equal(calls->ncclCommInitRankConfig(&comm, rank_count, id, rank, &config),
                     ncclInProgress);
    return comm;
}

static void comm_settle(ncclComm_t comm) {
    ncclResult_t state = ncclInProgress;
    for (int looks = 0; state == ncclInProgress && looks < 10; looks++)
        assert_int_equal(calls->ncclCommGetAsyncError(comm, &state), ncclSuccess);
    assert_int_equal(state, ncclSuccess);
}

typedef struct two {
    ncclComm_t comms[2];
    cudaStream_t streams[2];
} two;

static cudaStream_t stream_make(void) {
    cudaStream_t stream = NULL;
    assert_int_equal(calls->cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, 0),
                     cudaSuccess);
    return stream;
}

static two two_make(void) {
    two made;
    mr_fake_nccl_reset();
    ncclUniqueId id = id_make();
    for (int i = 0; i < 2; i++) {
        made.comms[i] = comm_make(id, 2, i);
        made.streams[i] = stream_make();
    }
    for (int i = 0; i < 2; i++)
        comm_settle(made.comms[i]);
    return made;
}

static void send(ncclComm_t comm, cudaStream_t stream, const void *data, size_t bytes, int peer) {
    assert_int_equal(calls->ncclSend(data, bytes, ncclUint8, peer, comm, stream), ncclInProgress);
    ncclResult_t state;
    for (int looks = 0; looks < 4; looks++)
        assert_int_equal(calls->ncclCommGetAsyncError(comm, &state), ncclSuccess);
}

static void receive(ncclComm_t comm, cudaStream_t stream, void *data, size_t bytes, int peer) {
    assert_int_equal(calls->ncclRecv(data, bytes, ncclUint8, peer, comm, stream), ncclInProgress);
    ncclResult_t state;
    for (int looks = 0; looks < 4; looks++)
        assert_int_equal(calls->ncclCommGetAsyncError(comm, &state), ncclSuccess);
}

static void test_pair_that_agrees_is_moved(void **state) {
    char from[8] = "payload";
    char to[8] = "";
    (void)state;
    two t = two_make();
    send(t.comms[0], t.streams[0], from, sizeof(from), 1);
    assert_int_equal(mr_fake_nccl_waiting(), 1); /* until its receive is there */
    receive(t.comms[1], t.streams[1], to, sizeof(to), 0);
    assert_int_equal(mr_fake_nccl_waiting(), 0);
    assert_string_equal(to, "payload");
    assert_int_equal(mr_fake_nccl_violations(), 0);
}

/* ---- mutations ---- */

static void test_sizes_that_differ_are_named(void **state) {
    char data[8] = {0};
    (void)state;
    two t = two_make();
    send(t.comms[0], t.streams[0], data, 8, 1);
    receive(t.comms[1], t.streams[1], data, 4, 0);
    nccl_violated("rank 0 sends 8 bytes and rank 1 receives 4");
}

static void test_use_after_abort_is_named(void **state) {
    char data[8] = {0};
    (void)state;
    two t = two_make();
    assert_int_equal(calls->ncclCommAbort(t.comms[0]), ncclSuccess);
    assert_int_equal(calls->ncclSend(data, 8, ncclUint8, 1, t.comms[0], t.streams[0]),
                     ncclInvalidArgument);
    nccl_violated("a call after its abort");
}

static void test_destruction_before_the_flush_is_named(void **state) {
    (void)state;
    two t = two_make();
    assert_int_equal(calls->ncclCommDestroy(t.comms[0]), ncclSuccess);
    nccl_violated("destroyed before it was finalized");
}

static void *second_thread(void *context) {
    ncclResult_t state;
    (void)calls->ncclCommGetAsyncError(context, &state);
    return NULL;
}

static void test_second_thread_is_named(void **state) {
    pthread_t thread;
    (void)state;
    two t = two_make();
    assert_int_equal(pthread_create(&thread, NULL, second_thread, t.comms[1]), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    nccl_violated("from a second thread");
}

static void test_id_used_twice_is_named(void **state) {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclComm_t comm = NULL;
    (void)state;
    mr_fake_nccl_reset();
    ncclUniqueId id = id_make();
    (void)comm_make(id, 2, 0);
    config.blocking = 0;
    config.commName = "epoch 8";
    assert_int_equal(calls->ncclCommInitRankConfig(&comm, 2, id, 0, &config), ncclInvalidArgument);
    nccl_violated("is used twice by rank 0");
}

static void test_blocking_communicator_is_named(void **state) {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclComm_t comm = NULL;
    (void)state;
    mr_fake_nccl_reset();
    config.commName = "edge";
    assert_int_equal(calls->ncclCommInitRankConfig(&comm, 2, id_make(), 0, &config),
                     ncclInvalidArgument);
    nccl_violated("blocks");
}

static void test_stream_used_while_a_call_is_in_progress_is_named(void **state) {
    char data[8] = {0};
    cudaEvent_t event = NULL;
    (void)state;
    two t = two_make();
    assert_int_equal(calls->cudaEventCreateWithFlags(&event, cudaEventDisableTiming), cudaSuccess);
    assert_int_equal(calls->ncclSend(data, 8, ncclUint8, 1, t.comms[0], t.streams[0]),
                     ncclInProgress);
    assert_int_equal(calls->cudaEventRecord(event, t.streams[0]), cudaSuccess);
    nccl_violated("a stream is used while a call of edge is in progress");
}

static void test_group_that_was_not_begun_is_named(void **state) {
    (void)state;
    mr_fake_nccl_reset();
    assert_int_equal(calls->ncclGroupEnd(), ncclInvalidUsage);
    nccl_violated("was not begun");
}

/* Both ends send first and receive after, on one stream: with NCCL's own buffer it may work. */
static void test_sends_that_face_each_other_are_a_cycle(void **state) {
    char data[4][8] = {{0}};
    (void)state;
    two t = two_make();
    for (int i = 0; i < 2; i++)
        send(t.comms[i], t.streams[i], data[i], 8, 1 - i);
    for (int i = 0; i < 2; i++)
        receive(t.comms[i], t.streams[i], data[2 + i], 8, 1 - i);
    assert_int_equal(mr_fake_nccl_waiting(), 4);
    nccl_violated("cycle");
}

static void test_sends_that_face_each_other_in_one_group_are_none(void **state) {
    char data[4][8] = {"from 0", "from 1", "", ""};
    (void)state;
    two t = two_make();
    for (int i = 0; i < 2; i++) {
        assert_int_equal(calls->ncclGroupStart(), ncclSuccess);
        (void)calls->ncclSend(data[i], 8, ncclUint8, 1 - i, t.comms[i], t.streams[i]);
        (void)calls->ncclRecv(data[2 + i], 8, ncclUint8, 1 - i, t.comms[i], t.streams[i]);
        assert_int_equal(calls->ncclGroupEnd(), ncclInProgress);
    }
    assert_int_equal(mr_fake_nccl_waiting(), 0);
    assert_int_equal(mr_fake_nccl_violations(), 0);
    assert_string_equal(data[2], "from 1");
    assert_string_equal(data[3], "from 0");
}

static void test_memory_freed_while_open_is_named(void **state) {
    void *memory = NULL;
    void *opened = NULL;
    cudaIpcMemHandle_t handle;
    (void)state;
    mr_fake_nccl_reset();
    assert_int_equal(calls->cudaMalloc(&memory, 64), cudaSuccess);
    assert_int_equal(calls->cudaIpcGetMemHandle(&handle, memory), cudaSuccess);
    assert_int_equal(calls->cudaIpcOpenMemHandle(&opened, handle, cudaIpcMemLazyEnablePeerAccess),
                     cudaSuccess);
    assert_int_equal(calls->cudaFree(memory), cudaSuccess);
    nccl_violated("freed while 1 peers have it open");
}

/* ---- schedules ---- */

enum { STAGES_MAX = 4, SCHEDULE_BYTES = 16, EVENTS_MAX = 512 };

/* What a stage issues on: its compute stream, and for each of its four link ends a communicator
 * with a stream. With shared, both directions of an edge have one of each. */
typedef struct stage_rig {
    cudaStream_t compute;
    ncclComm_t comms[MR_OPCODE_COUNT];
    cudaStream_t streams[MR_OPCODE_COUNT];
} stage_rig;

typedef struct schedule_rig {
    bool shared;
    stage_rig stages[STAGES_MAX];
    cudaEvent_t events[EVENTS_MAX];
    size_t event_count;
    char bytes[2][SCHEDULE_BYTES];
} schedule_rig;

static cudaEvent_t rig_event(schedule_rig *rig) {
    assert_true(rig->event_count < EVENTS_MAX);
    cudaEvent_t *event = &rig->events[rig->event_count++];
    assert_int_equal(calls->cudaEventCreateWithFlags(event, cudaEventDisableTiming), cudaSuccess);
    return *event;
}

static void rig_edge(schedule_rig *rig, size_t from, mr_opcode send_code, size_t to,
                     mr_opcode receive_code) {
    ncclUniqueId id = id_make();
    stage_rig *a = &rig->stages[from];
    stage_rig *b = &rig->stages[to];
    a->comms[send_code] = comm_make(id, 2, 0);
    b->comms[receive_code] = comm_make(id, 2, 1);
    a->streams[send_code] = stream_make();
    b->streams[receive_code] = stream_make();
    comm_settle(a->comms[send_code]);
    comm_settle(b->comms[receive_code]);
}

static void rig_make(schedule_rig *rig, size_t stages, bool shared) {
    mr_fake_nccl_reset();
    *rig = (schedule_rig){.shared = shared};
    for (size_t s = 0; s < stages; s++)
        rig->stages[s].compute = stream_make();
    for (size_t s = 0; s + 1 < stages; s++) {
        rig_edge(rig, s, MR_OPCODE_SEND_ACTIVATION, s + 1, MR_OPCODE_RECEIVE_ACTIVATION);
        rig_edge(rig, s + 1, MR_OPCODE_SEND_GRADIENT, s, MR_OPCODE_RECEIVE_GRADIENT);
        if (!shared)
            continue;
        rig->stages[s].streams[MR_OPCODE_RECEIVE_GRADIENT] =
            rig->stages[s].streams[MR_OPCODE_SEND_ACTIVATION];
        rig->stages[s + 1].streams[MR_OPCODE_SEND_GRADIENT] =
            rig->stages[s + 1].streams[MR_OPCODE_RECEIVE_ACTIVATION];
    }
}

/* A link's stream goes on behind compute's work, and compute behind a receive, as links do it. */
static void rig_issue(schedule_rig *rig, size_t s, mr_opcode code) {
    stage_rig *stage = &rig->stages[s];
    bool sends = code == MR_OPCODE_SEND_ACTIVATION || code == MR_OPCODE_SEND_GRADIENT;
    bool receives = code == MR_OPCODE_RECEIVE_ACTIVATION || code == MR_OPCODE_RECEIVE_GRADIENT;
    if (!sends && !receives)
        return;
    cudaEvent_t before = rig_event(rig);
    assert_int_equal(calls->cudaEventRecord(before, stage->compute), cudaSuccess);
    assert_int_equal(calls->cudaStreamWaitEvent(stage->streams[code], before, 0), cudaSuccess);
    if (sends) {
        send(stage->comms[code], stage->streams[code], rig->bytes[0], SCHEDULE_BYTES, 1);
        return;
    }
    cudaEvent_t after = rig_event(rig);
    receive(stage->comms[code], stage->streams[code], rig->bytes[1], SCHEDULE_BYTES, 0);
    assert_int_equal(calls->cudaEventRecord(after, stage->streams[code]), cudaSuccess);
    assert_int_equal(calls->cudaStreamWaitEvent(stage->compute, after, 0), cudaSuccess);
}

static mr_plan *plan_make(const char *schedule, size_t stages, mr_job **out_job) {
    char text[900];
    mr_plan *plan = NULL;
    (void)snprintf(text, sizeof(text),
                   "{schema: millrace.job/v1, name: tiny, model: {layers: [{type: embedding, tie: "
                   "embed, vocab: 32, dim: 16, positions: 8}, {type: transformer_block, repeat: 4, "
                   "dim: 16, heads: 2}, {type: layernorm, dim: 16}, {type: lm_head, tie: embed}], "
                   "loss: cross_entropy}, pipeline: {topology: {pipe: %zu, data: 1, model: 1}, "
                   "partition: uniform, schedule: %s}, batch: {micro_batch_size: 1, "
                   "micro_batches: 8, sequence_length: 8}, optimizer: {type: adamw, lr: 1e-3}, "
                   "lr_schedule: {type: constant, total_steps: 2}}",
                   stages, schedule);
    nccl_ok(mr_job_parse(text, strlen(text), out_job, NULL));
    nccl_ok(mr_plan_make(*out_job, false, &plan));
    return plan;
}

/* Every stage queues its whole step at once: the order within a stage is all that counts. */
static void schedule_issue(schedule_rig *rig, const mr_plan *plan) {
    for (size_t s = 0; s < plan->stage_count; s++)
        for (size_t i = 0; i < plan->schedules[s].count; i++)
            rig_issue(rig, s, plan->schedules[s].instructions[i].opcode);
}

/* On a stream for each direction, and on one for both: a schedule is proved for sends that block
 * (law 2), so even that runs out. */
static void test_schedules_in_use_run_out(void **state) {
    static const char *const names[] = {"gpipe", "1f1b"};
    schedule_rig rig;
    (void)state;
    for (size_t n = 0; n < 4; n++)
        for (size_t stages = 2; stages <= STAGES_MAX; stages++) {
            mr_job *job = NULL;
            mr_plan *plan = plan_make(names[n % 2], stages, &job);
            rig_make(&rig, stages, n >= 2);
            schedule_issue(&rig, plan);
            assert_int_equal(mr_fake_nccl_waiting(), 0);
            assert_int_equal(mr_fake_nccl_violations(), 0);
            mr_plan_destroy(plan);
            mr_job_destroy(job);
        }
}

/* The first stage sends its second activation before it asks for the first gradient. */
static void schedule_break(mr_schedule *schedule) {
    mr_instruction *at = schedule->instructions;
    for (size_t i = 0; i + 1 < schedule->count; i++) {
        if (at[i].opcode != MR_OPCODE_RECEIVE_GRADIENT ||
            at[i + 1].opcode != MR_OPCODE_SEND_ACTIVATION)
            continue;
        mr_instruction moved = at[i];
        at[i] = at[i + 1];
        at[i + 1] = moved;
        return;
    }
    fail_msg("the schedule receives no gradient before an activation is sent");
}

/* Then an activation goes down while a gradient goes up: on one stream for both directions neither
 * side comes to receive, and on a stream for each direction, as links have them, both do. */
static void test_transfers_that_cross_are_a_cycle_on_one_stream_only(void **state) {
    schedule_rig rig;
    mr_job *job = NULL;
    (void)state;
    mr_plan *plan = plan_make("1f1b", 2, &job);
    schedule_break(&plan->schedules[0]);
    rig_make(&rig, 2, false);
    schedule_issue(&rig, plan);
    assert_int_equal(mr_fake_nccl_waiting(), 0);
    assert_int_equal(mr_fake_nccl_violations(), 0);
    rig_make(&rig, 2, true);
    schedule_issue(&rig, plan);
    assert_true(mr_fake_nccl_waiting() > 0);
    nccl_violated("cycle");
    mr_plan_destroy(plan);
    mr_job_destroy(job);
}

/* The first stage asks for a gradient before it has sent the activation that leads to it. */
static void test_receive_before_its_cause_is_a_cycle(void **state) {
    schedule_rig rig;
    (void)state;
    rig_make(&rig, 2, false);
    rig_issue(&rig, 0, MR_OPCODE_RECEIVE_GRADIENT);
    rig_issue(&rig, 0, MR_OPCODE_SEND_ACTIVATION);
    rig_issue(&rig, 1, MR_OPCODE_RECEIVE_ACTIVATION);
    rig_issue(&rig, 1, MR_OPCODE_SEND_GRADIENT);
    assert_true(mr_fake_nccl_waiting() > 0);
    nccl_violated("cycle");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pair_that_agrees_is_moved),
        cmocka_unit_test(test_sizes_that_differ_are_named),
        cmocka_unit_test(test_use_after_abort_is_named),
        cmocka_unit_test(test_destruction_before_the_flush_is_named),
        cmocka_unit_test(test_second_thread_is_named),
        cmocka_unit_test(test_id_used_twice_is_named),
        cmocka_unit_test(test_blocking_communicator_is_named),
        cmocka_unit_test(test_stream_used_while_a_call_is_in_progress_is_named),
        cmocka_unit_test(test_group_that_was_not_begun_is_named),
        cmocka_unit_test(test_sends_that_face_each_other_are_a_cycle),
        cmocka_unit_test(test_sends_that_face_each_other_in_one_group_are_none),
        cmocka_unit_test(test_memory_freed_while_open_is_named),
        cmocka_unit_test(test_schedules_in_use_run_out),
        cmocka_unit_test(test_transfers_that_cross_are_a_cycle_on_one_stream_only),
        cmocka_unit_test(test_receive_before_its_cause_is_a_cycle),
    };
    calls = mr_fake_nccl_calls();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
