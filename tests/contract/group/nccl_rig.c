/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/contract/group/nccl_rig.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/device/cpu/create.h"
#include "daemon/device/cuda/nccl/calls.h"
#include "daemon/group/fake_nccl/fake_nccl.h"

const uint32_t nccl_ranks[NCCL_MEMBERS_MAX] = {2, 5, 6, 9};

void nccl_ok(mr_status status) {
    if (!mr_status_is_ok(status))
        fail_msg("%s: %s", mr_code_name(status.code), status.text);
}

void nccl_fails(mr_status status, mr_code code, const char *text) {
    if (status.code != code || strstr(status.text, text) == NULL)
        fail_msg("got %s: %s; wanted %s with \"%s\"", mr_code_name(status.code), status.text,
                 mr_code_name(code), text);
}

void nccl_clean(void) {
    if (mr_fake_nccl_violations() > 0)
        fail_msg("%zu violations, the first: %s", mr_fake_nccl_violations(),
                 mr_fake_nccl_violation(0));
    assert_int_equal(mr_fake_nccl_live(), 0);
}

void nccl_violated(const char *text) {
    if (mr_fake_nccl_violations() < 1 || strstr(mr_fake_nccl_violation(0), text) == NULL)
        fail_msg("%zu violations, the first: \"%s\"; wanted \"%s\"", mr_fake_nccl_violations(),
                 mr_fake_nccl_violation(0), text);
}

mr_nccl_place nccl_place_make(void) {
    mr_nccl_place place = {.calls = mr_fake_nccl_calls()};
    cudaStream_t stream = NULL;
    MR_ASSERT(place.calls->cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, 0) ==
              cudaSuccess);
    place.compute_stream = stream;
    return place;
}

void nccl_place_end(mr_nccl_place *place) {
    MR_ASSERT(place->calls->cudaStreamDestroy(place->compute_stream) == cudaSuccess);
}

mr_group_options nccl_options(size_t members) {
    return (mr_group_options){
        .job_id = "job-a",
        .epoch = 7,
        .group_id = "tied/embed",
        .ranks = nccl_ranks,
        .rank_count = members,
        .bytes_max = NCCL_BYTES,
        .parts_max = 16,
    };
}

typedef struct rig_member {
    pthread_t thread;
    nccl_run *run;
    size_t index;
    const unsigned char *id;
} rig_member;

static mr_status member_life(const rig_member *self, const mr_nccl_place *place) {
    mr_group *group = NULL;
    mr_device *device = NULL;
    const mr_device_options cpu = {.kind = "cpu", .threads = 1};
    mr_group_options options = nccl_options(self->run->members);
    options.rank = nccl_ranks[self->index];
    options.bytes_max = self->run->bytes_max;
    MR_TRY(mr_device_cpu_create(&cpu, &device));
    mr_status status = mr_group_nccl_open(place, device, self->id, &options,
                                          self->run->open_timeout_ms, &group);
    if (mr_status_is_ok(status))
        status = self->run->fn(group, self->run->context);
    mr_group_close(group);
    device->ops->destroy(device);
    return status;
}

static void *member_main(void *context) {
    rig_member *self = context;
    mr_nccl_place place = nccl_place_make();
    self->run->statuses[self->index] = member_life(self, &place);
    nccl_place_end(&place);
    return NULL;
}

void nccl_run_members(nccl_run *run) {
    unsigned char id[MR_NCCL_ID_BYTES];
    rig_member members[NCCL_MEMBERS_MAX];
    const mr_nccl_place place = {.calls = mr_fake_nccl_calls()};
    nccl_ok(mr_communicator_id_make(&place, id));
    for (size_t i = 0; i < run->members; i++) {
        members[i] = (rig_member){.run = run, .index = i, .id = id};
        if (i != run->absent)
            assert_int_equal(pthread_create(&members[i].thread, NULL, member_main, &members[i]),
                             0);
    }
    for (size_t i = 0; i < run->members; i++)
        if (i != run->absent)
            assert_int_equal(pthread_join(members[i].thread, NULL), 0);
}

void nccl_run_ok(size_t members, size_t bytes_max, nccl_member fn, void *context) {
    nccl_run run = {
        .members = members,
        .absent = SIZE_MAX,
        .bytes_max = bytes_max,
        .open_timeout_ms = NCCL_LONG_MS,
        .fn = fn,
        .context = context,
    };
    mr_fake_nccl_reset();
    nccl_run_members(&run);
    for (size_t i = 0; i < members; i++)
        nccl_ok(run.statuses[i]);
    nccl_clean();
}
