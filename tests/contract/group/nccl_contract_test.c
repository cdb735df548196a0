/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: what group.h and group/nccl.h promise of a group over NCCL, as far as it shows without a
 * card: results, bounds, and the rules of NCCL (order, sizes, one thread, nothing after an end).
 * Method: the real group and communicator over the fake NCCL, a thread for each member with a CPU
 * device; every test ends without a violation of NCCL's rules and with nothing left behind. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/base/clock.h"
#include "daemon/device/cuda/nccl/calls.h"
#include "daemon/group/fake_nccl/fake_nccl.h"
#include "tests/contract/group/nccl_rig.h"

static mr_status wrong(const char *what, size_t member, size_t place) {
    return MR_ERROR(INTERNAL, "member %zu: %s is wrong at %zu", member, what, place);
}

/* ---- results ---- */

enum { PARTS_MAX = 3 };

typedef struct sum_case {
    size_t n;
    size_t part_counts[NCCL_MEMBERS_MAX];
} sum_case;

/* Values of many magnitudes, so that another order of additions gives other bits. */
static float sum_value(size_t member, size_t part, size_t i) {
    uint64_t mix = (member * 7919 + part * 104729 + i + 1) * 0x9E3779B97F4A7C15u;
    mix ^= mix >> 31;
    return (float)(int32_t)(mix >> 32) * 0x1p-31f * (float)(1u << (mix & 15));
}

static float sum_own(const sum_case *self, size_t member, size_t i) {
    size_t count = self->part_counts[member];
    float sum = count == 0 ? 0 : sum_value(member, 0, i);
    for (size_t p = 1; p < count; p++)
        sum += sum_value(member, p, i);
    return sum;
}

/* Odd members sum into memory of their own, even ones into their first part, as a stage does. */
static mr_status sum_member(mr_group *group, void *context) {
    const sum_case *self = context;
    size_t m = group->member_index;
    size_t count = self->part_counts[m];
    float *memory = malloc((PARTS_MAX + 1) * (self->n + 1) * sizeof(*memory));
    const float *parts[PARTS_MAX] = {NULL};
    for (size_t p = 0; p < count; p++) {
        parts[p] = memory + p * self->n;
        for (size_t i = 0; i < self->n; i++)
            memory[p * self->n + i] = sum_value(m, p, i);
    }
    float *out = m % 2 == 1 || count == 0 ? memory + PARTS_MAX * self->n : memory;
    mr_status status = mr_group_sum(group, parts, count, out, self->n, NCCL_LONG_MS);
    for (size_t i = 0; i < self->n && mr_status_is_ok(status); i++) {
        float want = sum_own(self, 0, i);
        for (size_t from = 1; from < group->member_count; from++)
            want += sum_own(self, from, i);
        if (memcmp(&want, &out[i], sizeof(want)) != 0)
            status = wrong("a sum's bit pattern", m, i);
    }
    free(memory);
    return status;
}

static void test_sum_adds_own_parts_first_and_then_ranks(void **state) {
    static const sum_case cases[] = {
        {1000, {1, 1, 1, 1}}, {333, {2, 0, 3, 1}}, {1, {0, 0, 0, 0}}, {0, {1, 1, 1, 1}},
        {77, {3, 3, 3, 3}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        for (size_t members = 2; members <= NCCL_MEMBERS_MAX; members++) {
            sum_case self = cases[i];
            nccl_run_ok(members, NCCL_BYTES, sum_member, &self);
        }
}

static unsigned char pattern(size_t root, size_t i) {
    return (unsigned char)((root + 1) * 41 + i * 7 + (i >> 8));
}

static mr_status broadcast_member(mr_group *group, void *context) {
    size_t bytes = *(const size_t *)context;
    unsigned char *data = calloc(bytes + 1, 1);
    mr_status status = MR_OK;
    for (size_t root = 0; root < group->member_count && mr_status_is_ok(status); root++) {
        memset(data, 0, bytes + 1);
        for (size_t i = 0; group->member_index == root && i < bytes; i++)
            data[i] = pattern(root, i);
        status = mr_group_broadcast(group, data, bytes, root, NCCL_LONG_MS);
        for (size_t i = 0; i < bytes && mr_status_is_ok(status); i++)
            if (data[i] != pattern(root, i))
                status = wrong("a byte", group->member_index, i);
    }
    if (mr_status_is_ok(status) && data[bytes] != 0)
        status = wrong("the byte behind", group->member_index, bytes);
    free(data);
    return status;
}

static void test_broadcast_from_each_root_reaches_all(void **state) {
    size_t sizes[] = {1, 64, NCCL_BYTES, 0};
    (void)state;
    for (size_t i = 0; i < 4; i++)
        nccl_run_ok(2 + i % 3, NCCL_BYTES, broadcast_member, &sizes[i]);
}

static mr_status gather_member(mr_group *group, void *context) {
    const size_t *bytes = context;
    size_t m = group->member_index;
    unsigned char mine[512];
    unsigned char all[1025] = {0};
    for (size_t i = 0; i < bytes[m]; i++)
        mine[i] = pattern(m, i);
    MR_TRY(mr_group_gather(group, mine, bytes, all, NCCL_LONG_MS));
    size_t at = 0;
    for (size_t from = 0; from < group->member_count; from++)
        for (size_t i = 0; i < bytes[from]; i++, at++)
            if (all[at] != pattern(from, i))
                return wrong("a gathered byte", m, at);
    return all[at] == 0 ? MR_OK : wrong("the byte behind", m, at);
}

static void test_gather_joins_different_sizes_in_rank_order(void **state) {
    static size_t cases[][NCCL_MEMBERS_MAX] = {
        {8, 8, 8, 8}, {300, 17, 1, 64}, {0, 9, 0, 3}, {0, 0, 0, 7}, {0, 0, 0, 0}};
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        nccl_run_ok(NCCL_MEMBERS_MAX, NCCL_BYTES, gather_member, cases[i]);
}

static mr_status steps_member(mr_group *group, void *context) {
    size_t sizes[NCCL_MEMBERS_MAX] = {8, 8, 8, 8};
    uint64_t before = mr_alloc_count();
    (void)context;
    for (uint64_t step = 0; step < 40; step++) {
        float part = (float)(step + group->member_index);
        const float *parts[1] = {&part};
        uint64_t mine = step * 10 + group->member_index;
        uint64_t all[NCCL_MEMBERS_MAX] = {0};
        size_t members = group->member_count;
        MR_TRY(mr_group_sum(group, parts, 1, &part, 1, NCCL_LONG_MS));
        if (part != (float)(members * step + members * (members - 1) / 2))
            return wrong("a sum", group->member_index, step);
        MR_TRY(mr_group_gather(group, &mine, sizes, all, NCCL_LONG_MS));
        for (size_t i = 0; i < members; i++)
            if (all[i] != step * 10 + i)
                return wrong("a norm", group->member_index, step);
    }
    return mr_alloc_count() == before ? MR_OK : wrong("the allocations", group->member_index, 0);
}

static void test_many_operations_keep_their_order_and_allocate_nothing(void **state) {
    (void)state;
    for (size_t members = 2; members <= NCCL_MEMBERS_MAX; members++)
        nccl_run_ok(members, NCCL_BYTES, steps_member, NULL);
}

static mr_status too_large_member(mr_group *group, void *context) {
    static float values[NCCL_BYTES / sizeof(float) + 1];
    const float *parts[1] = {values};
    size_t bytes[2] = {NCCL_BYTES, 1};
    size_t good = 64;
    (void)context;
    if (mr_group_sum(group, parts, 1, values, NCCL_BYTES / 4 + 1, 0).code !=
            MR_CODE_RESOURCE_EXHAUSTED ||
        mr_group_broadcast(group, values, NCCL_BYTES + 1, 0, 0).code !=
            MR_CODE_RESOURCE_EXHAUSTED ||
        mr_group_gather(group, values, bytes, values, 0).code != MR_CODE_RESOURCE_EXHAUSTED)
        return wrong("a refusal", group->member_index, 0);
    return broadcast_member(group, &good); /* and nothing is broken by it */
}

static void test_more_bytes_than_planned_are_refused(void **state) {
    (void)state;
    nccl_run_ok(2, NCCL_BYTES, too_large_member, NULL);
}

/* ---- ends ---- */

static nccl_run run_of(size_t members, nccl_member fn, void *context) {
    mr_fake_nccl_reset();
    return (nccl_run){
        .members = members,
        .absent = SIZE_MAX,
        .bytes_max = NCCL_BYTES,
        .open_timeout_ms = NCCL_LONG_MS,
        .fn = fn,
        .context = context,
    };
}

static mr_status nothing_member(mr_group *group, void *context) {
    (void)group;
    (void)context;
    return MR_OK;
}

static void test_member_that_does_not_join_is_named_at_the_deadline(void **state) {
    (void)state;
    nccl_run run = run_of(2, nothing_member, NULL);
    run.absent = 1;
    run.open_timeout_ms = 100;
    nccl_run_members(&run);
    nccl_fails(run.statuses[0], MR_CODE_DEADLINE_EXCEEDED, "job-a/7/tied/embed");
    nccl_fails(run.statuses[0], MR_CODE_DEADLINE_EXCEEDED, "rank 5");
    nccl_clean();
}

enum { SHORT_MS = 150 };

static mr_status absent_member(mr_group *group, void *context) {
    float value = 1;
    const float *parts[1] = {&value};
    (void)context;
    if (group->member_index == 2) {
        int64_t end_ms = mr_clock_now_ms() + 4 * SHORT_MS; /* in the group until they gave up */
        while (mr_clock_now_ms() < end_ms)
            continue;
        return MR_OK;
    }
    mr_status first = mr_group_sum(group, parts, 1, &value, 1, SHORT_MS);
    mr_status second = mr_group_sum(group, parts, 1, &value, 1, SHORT_MS);
    return second.code == first.code ? first : wrong("the second reason", group->member_index, 0);
}

static void test_timeout_names_the_ranks_awaited_and_breaks_off(void **state) {
    (void)state;
    nccl_run run = run_of(3, absent_member, NULL);
    nccl_run_members(&run);
    bool late = run.statuses[0].code == MR_CODE_DEADLINE_EXCEEDED;
    nccl_fails(run.statuses[late ? 0 : 1], MR_CODE_DEADLINE_EXCEEDED, "ranks");
    nccl_fails(run.statuses[late ? 0 : 1], MR_CODE_DEADLINE_EXCEEDED, "6");
    assert_int_not_equal(run.statuses[late ? 1 : 0].code, MR_CODE_OK);
    nccl_clean();
}

/* Member 0 waits for a record; member 1 holds its end open until that wait has ended. */
static mr_status idle_wait(mr_group *group, _Atomic bool *ended) {
    uint64_t record = 0;
    mr_status status = MR_OK;
    if (group->member_index == 0) {
        status = mr_group_broadcast(group, &record, sizeof(record), 1, -1);
        atomic_store(ended, true);
    }
    int64_t end_ms = mr_clock_now_ms() + NCCL_SOON_MS;
    while (!atomic_load(ended) && mr_clock_now_ms() < end_ms)
        continue;
    return status;
}

static void *interrupt_main(void *context) {
    mr_group_interrupt(context, "the job is aborted");
    return NULL;
}

static mr_status interrupted_member(mr_group *group, void *context) {
    pthread_t thread;
    if (group->member_index == 0)
        MR_ASSERT(pthread_create(&thread, NULL, interrupt_main, group) == 0);
    mr_status status = idle_wait(group, context);
    if (group->member_index == 0)
        MR_ASSERT(pthread_join(thread, NULL) == 0);
    return status;
}

static void test_interrupt_ends_an_idle_wait_at_once(void **state) {
    (void)state;
    _Atomic bool ended = false;
    nccl_run run = run_of(2, interrupted_member, &ended);
    int64_t start_ms = mr_clock_now_ms();
    nccl_run_members(&run);
    assert_true(mr_clock_now_ms() - start_ms < NCCL_SOON_MS);
    nccl_fails(run.statuses[0], MR_CODE_CANCELLED, "the job is aborted");
    nccl_ok(run.statuses[1]);
    nccl_clean();
}

static mr_status leaving_member(mr_group *group, void *context) {
    return group->member_index == 1 ? MR_OK : idle_wait(group, context);
}

static void test_lost_member_ends_an_idle_wait_and_is_named(void **state) {
    (void)state;
    _Atomic bool ended = false;
    nccl_run run = run_of(2, leaving_member, &ended);
    int64_t start_ms = mr_clock_now_ms();
    nccl_run_members(&run);
    assert_true(mr_clock_now_ms() - start_ms < NCCL_SOON_MS);
    nccl_fails(run.statuses[0], MR_CODE_UNAVAILABLE, "lost rank 5");
    nccl_clean();
}

static mr_status failing_member(mr_group *group, void *context) {
    if (group->member_index == 0)
        mr_fake_nccl_fail_next(0, ncclSystemError);
    return idle_wait(group, context);
}

static void test_asynchronous_error_ends_the_wait_and_is_named(void **state) {
    (void)state;
    _Atomic bool ended = false;
    nccl_run run = run_of(2, failing_member, &ended);
    nccl_run_members(&run);
    nccl_fails(run.statuses[0], MR_CODE_UNAVAILABLE, "unhandled system error");
    nccl_fails(run.statuses[0], MR_CODE_UNAVAILABLE, "with rank 5");
    nccl_clean();
}

static mr_status disagreeing_member(mr_group *group, void *context) {
    float values[8] = {0};
    const float *parts[1] = {values};
    bool first = group->member_index == 0;
    if (*(const bool *)context && !first)
        return mr_group_broadcast(group, values, 16, 0, NCCL_LONG_MS);
    return mr_group_sum(group, parts, 1, values, first ? 4 : 8, NCCL_LONG_MS);
}

static void test_members_that_disagree_are_found_by_the_fake(void **state) {
    (void)state;
    for (int kinds = 0; kinds < 2; kinds++) {
        bool other_kind = kinds == 1;
        nccl_run run = run_of(2, disagreeing_member, &other_kind);
        nccl_run_members(&run);
        nccl_violated(other_kind ? "broadcast of 16" : "sum of 32");
        assert_int_not_equal(run.statuses[0].code, MR_CODE_OK);
        assert_int_not_equal(run.statuses[1].code, MR_CODE_OK);
        assert_int_equal(mr_fake_nccl_live(), 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sum_adds_own_parts_first_and_then_ranks),
        cmocka_unit_test(test_broadcast_from_each_root_reaches_all),
        cmocka_unit_test(test_gather_joins_different_sizes_in_rank_order),
        cmocka_unit_test(test_many_operations_keep_their_order_and_allocate_nothing),
        cmocka_unit_test(test_more_bytes_than_planned_are_refused),
        cmocka_unit_test(test_member_that_does_not_join_is_named_at_the_deadline),
        cmocka_unit_test(test_timeout_names_the_ranks_awaited_and_breaks_off),
        cmocka_unit_test(test_interrupt_ends_an_idle_wait_at_once),
        cmocka_unit_test(test_lost_member_ends_an_idle_wait_and_is_named),
        cmocka_unit_test(test_asynchronous_error_ends_the_wait_and_is_named),
        cmocka_unit_test(test_members_that_disagree_are_found_by_the_fake),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
