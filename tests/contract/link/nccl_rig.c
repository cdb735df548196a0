/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/contract/link/nccl_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/clock.h"
#include "daemon/device/cpu/create.h"
#include "daemon/device/cuda/nccl/calls.h"
#include "daemon/group/fake_nccl/fake_nccl.h"

typedef struct rig_end {
    pair_case *run;
    const unsigned char *id;
    mr_nccl_place place;
    mr_device *device;
    mr_link *link;
    mr_status status;
    pthread_barrier_t *listening; /* the receiver stands before the sender calls */
} rig_end;

void pair_clean(void) {
    if (mr_fake_nccl_violations() > 0)
        fail_msg("%zu violations, the first: %s", mr_fake_nccl_violations(),
                 mr_fake_nccl_violation(0));
    assert_int_equal(mr_fake_nccl_live(), 0);
}

pair_case pair_of(bool ipc, pair_end sender, pair_end receiver, void *context) {
    return (pair_case){
        .ipc = ipc,
        .options = link_options(),
        .sender = sender,
        .receiver = receiver,
        .context = context,
        .join_timeout_ms = LINK_LONG_MS,
    };
}

static mr_status end_join(rig_end *end) {
    return end->run->ipc ? mr_link_cuda_ipc_join(end->link)
                         : mr_link_nccl_join(end->link, end->id, end->run->join_timeout_ms);
}

static mr_status end_receive(rig_end *end) {
    const pair_case *run = end->run;
    mr_status status =
        run->ipc ? mr_link_cuda_ipc_receiver(&end->place, link_rig_hub(), &run->options,
                                             &end->link)
                 : mr_link_nccl_receiver(&end->place, end->device, link_rig_hub(), &run->options,
                                         &end->link);
    (void)pthread_barrier_wait(end->listening); /* tells which thread is last; nobody asks */
    if (mr_status_is_ok(status))
        status = end_join(end);
    (void)pthread_barrier_wait(end->listening); /* both have joined, or given up */
    MR_TRY(status);
    return run->receiver(end->link, &end->place, run->context);
}

static mr_status end_send(rig_end *end) {
    const pair_case *run = end->run;
    const mr_rpc_credentials credentials = {0};
    (void)pthread_barrier_wait(end->listening); /* as above */
    mr_status status =
        run->ipc ? mr_link_cuda_ipc_sender(&end->place, link_rig_address(), &credentials,
                                           &run->options, LINK_LONG_MS, &end->link)
                 : mr_link_nccl_sender(&end->place, link_rig_address(), &credentials,
                                       &run->options, LINK_LONG_MS, &end->link);
    if (mr_status_is_ok(status))
        status = end_join(end);
    (void)pthread_barrier_wait(end->listening); /* as there */
    MR_TRY(status);
    return run->sender(end->link, &end->place, run->context);
}

static void end_life(rig_end *end, mr_status (*live)(rig_end *)) {
    const mr_device_options cpu = {.kind = "cpu", .threads = 1};
    cudaStream_t stream = NULL;
    end->place.calls = mr_fake_nccl_calls();
    MR_ASSERT(end->place.calls->cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, 0) ==
              cudaSuccess);
    end->place.compute_stream = stream;
    MR_ASSERT(mr_status_is_ok(mr_device_cpu_create(&cpu, &end->device)));
    end->status = live(end);
    mr_link_close(end->link);
    end->device->ops->destroy(end->device);
    MR_ASSERT(end->place.calls->cudaStreamDestroy(stream) == cudaSuccess);
}

static void *sender_main(void *context) {
    end_life(context, end_send);
    return NULL;
}

static void *receiver_main(void *context) {
    end_life(context, end_receive);
    return NULL;
}

void pair_run(pair_case *self) {
    unsigned char id[MR_NCCL_ID_BYTES];
    pthread_barrier_t listening;
    pthread_t threads[2];
    const mr_nccl_place place = {.calls = mr_fake_nccl_calls()};
    mr_fake_nccl_reset();
    link_ok(mr_communicator_id_make(&place, id));
    assert_int_equal(pthread_barrier_init(&listening, NULL, 2), 0);
    rig_end sender = {.run = self, .id = id, .listening = &listening};
    rig_end receiver = sender;
    assert_int_equal(pthread_create(&threads[0], NULL, sender_main, &sender), 0);
    assert_int_equal(pthread_create(&threads[1], NULL, receiver_main, &receiver), 0);
    assert_int_equal(pthread_join(threads[0], NULL), 0);
    assert_int_equal(pthread_join(threads[1], NULL), 0);
    assert_int_equal(pthread_barrier_destroy(&listening), 0);
    self->sender_status = sender.status;
    self->receiver_status = receiver.status;
}

void pair_run_ok(bool ipc, pair_end sender, pair_end receiver, void *context) {
    pair_case run = pair_of(ipc, sender, receiver, context);
    pair_run(&run);
    link_ok(run.receiver_status);
    link_ok(run.sender_status);
    pair_clean();
}

mr_status pair_settle(const mr_nccl_place *place) {
    const mr_nccl_calls *calls = place->calls;
    cudaEvent_t event = NULL;
    int64_t end_ms = mr_clock_now_ms() + LINK_LONG_MS;
    MR_ASSERT(calls->cudaEventCreateWithFlags(&event, cudaEventDisableTiming) == cudaSuccess);
    MR_ASSERT(calls->cudaEventRecord(event, place->compute_stream) == cudaSuccess);
    bool passed = false;
    while (!passed && mr_clock_now_ms() < end_ms)
        passed = calls->cudaEventQuery(event) == cudaSuccess;
    MR_ASSERT(calls->cudaEventDestroy(event) == cudaSuccess);
    return passed ? MR_OK : MR_ERROR(DEADLINE_EXCEEDED, "the compute stream stands");
}

mr_status pair_check(const link_parcel *sent, const mr_message *received) {
    const mr_message *want = &sent->message;
    if (want->step != received->step || want->micro_batch != received->micro_batch ||
        want->chunk != received->chunk || want->tensor_count != received->tensor_count)
        return MR_ERROR(INTERNAL, "another message came");
    for (size_t i = 0; i < want->tensor_count; i++) {
        size_t bytes = 0;
        const mr_tensor *a = &want->tensors[i].tensor;
        const mr_tensor *b = &received->tensors[i].tensor;
        if (strcmp(want->tensors[i].name, received->tensors[i].name) != 0 ||
            !mr_shape_equal(&a->shape, &b->shape) || !mr_shape_bytes(&a->shape, &bytes) ||
            a->shape.needs_gradient != b->shape.needs_gradient)
            return MR_ERROR(INTERNAL, "tensor %zu has another name or shape", i);
        if ((uintptr_t)b->data % 64 != 0 || memcmp(a->data, b->data, bytes) != 0)
            return MR_ERROR(INTERNAL, "tensor %zu of microbatch %u has other bytes", i,
                            want->micro_batch);
    }
    return MR_OK;
}
