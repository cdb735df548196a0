/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: two ranks of a job with a fabric find each other: ids are made while listening, handed to
 * all, and links and groups carry bytes, by CUDA IPC where both are on one machine and by NCCL
 * where they are not. Method: the stage's own connections for a plan of two stages, over the fake
 * NCCL and CUDA and real gRPC servers, a thread for each rank; the test is the coordinator. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/clock.h"
#include "daemon/device/cpu/create.h"
#include "daemon/device/cuda/nccl/calls.h"
#include "daemon/group/fake_nccl/fake_nccl.h"
#include "daemon/rpc/runtime.h"
#include "daemon/stage/connections.h"
#include "daemon/stage/fabric_cuda.h"

enum { RANKS = 2, WAIT_MS = 30000, GATHER_BYTES = 64 };

static const char job_file[] =
    "{schema: millrace.job/v1, name: tiny, model: {layers: [{type: embedding, tie: embed, vocab: "
    "32, dim: 16, positions: 8}, {type: transformer_block, repeat: 2, dim: 16, heads: 2}, {type: "
    "lm_head, tie: embed}], loss: cross_entropy}, pipeline: {topology: {pipe: 2, data: 1, model: "
    "1}, partition: uniform, schedule: 1f1b}, batch: {micro_batch_size: 1, micro_batches: 2, "
    "sequence_length: 8}, optimizer: {type: adamw, lr: 1e-3}, lr_schedule: {type: constant, "
    "total_steps: 2}}";

typedef struct rank_rig {
    uint32_t rank;
    mr_link_hub *links;
    mr_group_hub *groups;
    mr_rpc_server *server;
    mr_assignment *assignment;
    mr_device *device;
    mr_nccl_place place;
    mr_fabric *fabric;
    mr_connections connections;
    const mr_group_ids *ids;
    bool near;
    mr_status status;
    pthread_barrier_t *barrier;
} rank_rig;

static void ok(mr_status status) {
    if (!mr_status_is_ok(status))
        fail_msg("%s: %s", mr_code_name(status.code), status.text);
}

static void rank_serve(rank_rig *self) {
    ok(mr_link_hub_create(&self->links));
    ok(mr_group_hub_create(&self->groups));
    const mr_rpc_service services[] = {mr_link_hub_service(self->links),
                                       mr_group_hub_service(self->groups)};
    const mr_rpc_server_options options = {
        .listen = "127.0.0.1:0", .services = services, .service_count = 2};
    ok(mr_rpc_server_start(&options, &self->server));
}

/* Addresses of one host are near; the same machine by another name is not known to be. */
static void rank_assign(rank_rig *self, const rank_rig *ranks, bool near) {
    mr_plan *plan = NULL;
    mr_job *job = NULL;
    char addresses[RANKS][MR_ADDRESS_BYTES];
    Millrace__V1__Peer peers[RANKS];
    Millrace__V1__Peer *list[RANKS];
    Millrace__V1__Prepare order = MILLRACE__V1__PREPARE__INIT;
    ok(mr_job_parse(job_file, strlen(job_file), &job, NULL));
    ok(mr_plan_make(job, false, &plan));
    for (uint32_t r = 0; r < RANKS; r++) {
        const char *port = strrchr(mr_rpc_server_address(ranks[r].server), ':');
        (void)snprintf(addresses[r], sizeof(addresses[r]), "%s%s",
                       r == 1 && !near ? "localhost" : "127.0.0.1", port);
        millrace__v1__peer__init(&peers[r]);
        peers[r].rank = r;
        peers[r].address = addresses[r];
        list[r] = &peers[r];
    }
    order.job_id = (char *)(uintptr_t)"job-1";
    order.epoch = 7;
    order.job_file = (char *)(uintptr_t)job_file;
    order.mode = MILLRACE__V1__JOB_MODE__JOB_MODE_TRAIN;
    order.rank = self->rank;
    order.schedule_hash = plan->schedule_hash;
    order.n_peers = RANKS;
    order.peers = list;
    ok(mr_assignment_make(&order, &self->assignment));
    mr_plan_destroy(plan);
    mr_job_destroy(job);
}

static mr_status settle(const rank_rig *self) {
    const mr_nccl_calls *calls = self->place.calls;
    cudaEvent_t event = NULL;
    int64_t end_ms = mr_clock_now_ms() + WAIT_MS;
    MR_ASSERT(calls->cudaEventCreateWithFlags(&event, cudaEventDisableTiming) == cudaSuccess);
    MR_ASSERT(calls->cudaEventRecord(event, self->place.compute_stream) == cudaSuccess);
    while (calls->cudaEventQuery(event) != cudaSuccess && mr_clock_now_ms() < end_ms)
        continue;
    MR_ASSERT(calls->cudaEventDestroy(event) == cudaSuccess);
    return MR_OK;
}

static mr_message message_of(float *values, size_t n) {
    mr_message message = {.tensor_count = 1};
    (void)snprintf(message.tensors[0].name, MR_TENSOR_NAME_BYTES, "tensor");
    message.tensors[0].tensor = (mr_tensor){
        .data = values, .shape = {.dtype = MR_DTYPE_F32, .dim_count = 1, .dims = {n}}};
    return message;
}

static mr_status pass_on(rank_rig *self, mr_link *out, mr_link *in, float value) {
    float values[16] = {0};
    mr_message received = {0};
    if (out != NULL) {
        values[3] = value;
        mr_message message = message_of(values, 16);
        MR_TRY(mr_link_send(out, &message));
        return mr_link_wait_sent(out, 0, WAIT_MS);
    }
    MR_TRY(mr_link_receive(in, 0, 0, 0, WAIT_MS, &received));
    MR_TRY(settle(self));
    float got = ((const float *)received.tensors[0].tensor.data)[3];
    mr_link_release(in, &received);
    return got == value ? MR_OK : MR_ERROR(INTERNAL, "%g came, not %g", got, value);
}

/* An activation down, a gradient up, a tied sum, and the pipe group's gather in host memory. */
static mr_status rank_work(rank_rig *self) {
    mr_connections *c = &self->connections;
    float part[4] = {1, 2, 3, (float)self->rank};
    const float *parts[1] = {part};
    size_t sizes[RANKS] = {1, 1};
    char all[RANKS] = "";
    char mine = (char)('a' + self->rank);
    MR_TRY(pass_on(self, c->activation_out, c->activation_in, 1.5f));
    MR_TRY(pass_on(self, c->gradient_out, c->gradient_in, -2.5f));
    if (c->tied_count != 1)
        return MR_ERROR(INTERNAL, "%zu tied groups", c->tied_count);
    MR_TRY(mr_group_sum(c->tied[0].group, parts, 1, part, 4, WAIT_MS));
    if (part[1] != 4 || part[3] != 1)
        return MR_ERROR(INTERNAL, "the tied sum is %g and %g", part[1], part[3]);
    MR_TRY(mr_group_gather(c->pipe, &mine, sizes, all, WAIT_MS));
    return all[0] == 'a' && all[1] == 'b' ? MR_OK : MR_ERROR(INTERNAL, "gathered %.2s", all);
}

static mr_status rank_names(const rank_rig *self) {
    const mr_connections *c = &self->connections;
    const mr_link *out = self->rank == 0 ? c->activation_out : c->gradient_out;
    const char *want = self->near ? "cuda ipc sender" : "nccl sender";
    if (strcmp(out->ops->name, want) != 0 || strcmp(c->tied[0].group->ops->name, "nccl") != 0)
        return MR_ERROR(INTERNAL, "%s and %s", out->ops->name, c->tied[0].group->ops->name);
    return MR_OK;
}

static mr_status rank_connect(rank_rig *self, const mr_transport *transport) {
    MR_TRY(mr_connections_open(&self->connections, self->assignment, transport, self->ids,
                               GATHER_BYTES));
    MR_TRY(rank_names(self));
    return rank_work(self);
}

static void *rank_main(void *context) {
    rank_rig *self = context;
    const mr_device_options cpu = {.kind = "cpu", .threads = 1};
    const mr_rpc_credentials credentials = {0};
    cudaStream_t stream = NULL;
    self->place.calls = mr_fake_nccl_calls();
    MR_ASSERT(self->place.calls->cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, 0) ==
              cudaSuccess);
    self->place.compute_stream = stream;
    MR_ASSERT(mr_status_is_ok(mr_device_cpu_create(&cpu, &self->device)));
    MR_ASSERT(mr_status_is_ok(mr_fabric_cuda_create(&self->place, self->device, &self->fabric)));
    const mr_transport transport = {.links = self->links,
                                    .groups = self->groups,
                                    .credentials = &credentials,
                                    .fabric = self->fabric};
    self->status = mr_connections_listen(&self->connections, self->assignment, &transport,
                                         GATHER_BYTES);
    (void)pthread_barrier_wait(self->barrier); /* both are Prepared */
    (void)pthread_barrier_wait(self->barrier); /* the ids are here */
    if (mr_status_is_ok(self->status))
        self->status = rank_connect(self, &transport);
    (void)pthread_barrier_wait(self->barrier); /* nobody leaves before the other is done */
    mr_connections_close(&self->connections);
    self->fabric->close(self->fabric);
    self->device->ops->destroy(self->device);
    MR_ASSERT(self->place.calls->cudaStreamDestroy(stream) == cudaSuccess);
    return NULL;
}

static void connect_check(bool near, const char *const *keys, size_t key_count) {
    rank_rig ranks[RANKS] = {{0}};
    pthread_t threads[RANKS];
    pthread_barrier_t barrier;
    mr_group_ids ids = {0};
    mr_fake_nccl_reset();
    ok(mr_rpc_start());
    assert_int_equal(pthread_barrier_init(&barrier, NULL, RANKS + 1), 0);
    for (uint32_t r = 0; r < RANKS; r++)
        rank_serve(&ranks[r]);
    for (uint32_t r = 0; r < RANKS; r++) {
        ranks[r].rank = r;
        ranks[r].barrier = &barrier;
        ranks[r].ids = &ids;
        ranks[r].near = near;
        rank_assign(&ranks[r], ranks, near);
        assert_int_equal(pthread_create(&threads[r], NULL, rank_main, &ranks[r]), 0);
    }
    (void)pthread_barrier_wait(&barrier);
    for (uint32_t r = 0; r < RANKS; r++)
        for (size_t i = 0; i < ranks[r].connections.made.count; i++) {
            const mr_group_id *id = &ranks[r].connections.made.items[i];
            ok(mr_group_ids_add(&ids, id->key, id->bytes, id->byte_count));
        }
    (void)pthread_barrier_wait(&barrier);
    (void)pthread_barrier_wait(&barrier);
    for (uint32_t r = 0; r < RANKS; r++)
        assert_int_equal(pthread_join(threads[r], NULL), 0);
    for (uint32_t r = 0; r < RANKS; r++) {
        mr_rpc_server_stop(ranks[r].server, WAIT_MS);
        mr_assignment_destroy(ranks[r].assignment);
    }
    mr_rpc_stop(); /* no stream uses a hub after it */
    for (uint32_t r = 0; r < RANKS; r++) {
        mr_group_hub_destroy(ranks[r].groups);
        mr_link_hub_destroy(ranks[r].links);
    }
    assert_int_equal(pthread_barrier_destroy(&barrier), 0);
    for (uint32_t r = 0; r < RANKS; r++)
        ok(ranks[r].status);
    assert_int_equal(ids.count, key_count);
    for (size_t i = 0; i < key_count; i++)
        assert_non_null(mr_group_ids_find(&ids, keys[i]));
    mr_group_ids_deinit(&ids);
    if (mr_fake_nccl_violations() > 0)
        fail_msg("a violation: %s", mr_fake_nccl_violation(0));
    assert_int_equal(mr_fake_nccl_live(), 0);
}

static void test_ranks_of_one_machine_link_by_cuda_ipc(void **state) {
    static const char *const keys[] = {"tied/embed/0"};
    (void)state;
    connect_check(true, keys, 1);
}

static void test_ranks_of_two_machines_link_by_nccl(void **state) {
    static const char *const keys[] = {"tied/embed/0", "link/0-1/activation", "link/1-0/gradient"};
    (void)state;
    connect_check(false, keys, 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranks_of_one_machine_link_by_cuda_ipc),
        cmocka_unit_test(test_ranks_of_two_machines_link_by_nccl),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
