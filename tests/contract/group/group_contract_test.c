/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: what group.h promises, for every implementation: sums have the bits of one sequential loop
 * in rank order, broadcasts and gathers reach everybody, members that disagree are told so, and
 * every wait ends by its bound, an interrupt or a member's end, and says whom it waited for.
 * Method: a thread for each of two to four members in one process, the gRPC ones over a real
 * loopback server; every test runs on every implementation. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/base/clock.h"
#include "tests/contract/group/group_rig.h"

static const group_maker *maker; /* under test */

static void open_members(size_t count, size_t bytes_max, mr_group **out_groups) {
    mr_group_options options = group_options(count);
    options.bytes_max = bytes_max;
    maker->open(&options, out_groups);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(out_groups[i]->member_count, count);
        assert_int_equal(out_groups[i]->member_index, i);
    }
}

static mr_status wrong(const char *what, size_t member, size_t place) {
    return MR_ERROR(INTERNAL, "member %zu: %s is wrong at %zu", member, what, place);
}

/* ---- sum ---- */

enum { PARTS_MAX = 3 };

typedef struct sum_case {
    size_t n;
    size_t part_counts[GROUP_MEMBERS_MAX];
    float *parts[GROUP_MEMBERS_MAX][PARTS_MAX];
    float *want; /* [n] */
} sum_case;

/* Values of many magnitudes, so that another order of additions gives other bits. */
static float sum_value(size_t member, size_t part, size_t i) {
    uint64_t mix = (member * 7919 + part * 104729 + i + 1) * 0x9E3779B97F4A7C15u;
    mix ^= mix >> 29;
    mix *= 0xBF58476D1CE4E5B9u;
    float mantissa = (float)(int32_t)(mix >> 32) * 0x1p-31f;
    int scale = (int)(mix & 31) - 16;
    return scale < 0 ? mantissa / (float)(1u << -scale) : mantissa * (float)(1u << scale);
}

static float *floats(size_t n) {
    float *made = calloc(n + 1, sizeof(*made));
    assert_non_null(made);
    return made;
}

static void sum_case_make(sum_case *self, size_t members) {
    bool begun = false;
    self->want = floats(self->n);
    for (size_t m = 0; m < members; m++) {
        for (size_t p = 0; p < self->part_counts[m]; p++) {
            float *part = self->parts[m][p] = floats(self->n);
            for (size_t i = 0; i < self->n; i++)
                part[i] = i == 3 ? -0.0f : sum_value(m, p, i);
            for (size_t i = 0; i < self->n; i++)
                self->want[i] = begun ? self->want[i] + part[i] : part[i];
            begun = true;
        }
    }
}

static void sum_case_free(sum_case *self) {
    free(self->want);
    for (size_t m = 0; m < GROUP_MEMBERS_MAX; m++)
        for (size_t p = 0; p < PARTS_MAX; p++)
            free(self->parts[m][p]);
}

/* Odd members sum into memory of their own, even ones into their first part, as a stage does. */
static mr_status sum_member(mr_group *group, void *context) {
    const sum_case *self = context;
    size_t m = group->member_index;
    size_t count = self->part_counts[m];
    const float *parts[PARTS_MAX];
    for (size_t p = 0; p < count; p++)
        parts[p] = self->parts[m][p];
    bool own = m % 2 == 1 || count == 0;
    float *out = own ? malloc((self->n + 1) * sizeof(*out)) : self->parts[m][0];
    mr_status status = mr_group_sum(group, parts, count, out, self->n, GROUP_LONG_MS);
    if (mr_status_is_ok(status) && memcmp(out, self->want, self->n * sizeof(*out)) != 0)
        status = wrong("a sum's bit pattern", m, self->n);
    if (own)
        free(out);
    return status;
}

static void sum_check(size_t members, size_t n, const size_t part_counts[GROUP_MEMBERS_MAX]) {
    mr_group *groups[GROUP_MEMBERS_MAX];
    sum_case self = {.n = n};
    memcpy(self.part_counts, part_counts, sizeof(self.part_counts));
    sum_case_make(&self, members);
    open_members(members, n * sizeof(float) + 4, groups);
    group_run_ok(groups, members, sum_member, &self);
    group_close_all(groups, members);
    sum_case_free(&self);
}

static void test_sum_has_the_bits_of_one_loop(void **state) {
    static const size_t counts[][GROUP_MEMBERS_MAX] = {
        {1, 1, 1, 1}, {2, 0, 3, 1}, {0, 1, 0, 0}, {0, 0, 2, 3}, {3, 3, 3, 3}, {0, 0, 0, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
        for (size_t members = 2; members <= GROUP_MEMBERS_MAX; members++)
            sum_check(members, 1 + 999 * (i % 3), counts[i]);
}

static void test_large_sum_has_the_bits_of_one_loop(void **state) {
    static const size_t counts[GROUP_MEMBERS_MAX] = {2, 1};
    (void)state;
    sum_check(2, (18u << 20) / sizeof(float) + 1, counts); /* more than one frame each */
}

static void test_sum_of_nothing_is_nothing(void **state) {
    static const size_t counts[GROUP_MEMBERS_MAX] = {1, 2, 0};
    (void)state;
    sum_check(3, 0, counts);
}

/* ---- broadcast and gather ---- */

static unsigned char pattern(size_t root, size_t i) {
    return (unsigned char)((root + 1) * 41 + i * 7 + (i >> 8));
}

typedef struct broadcast_case {
    size_t bytes;
    size_t root;
} broadcast_case;

static mr_status broadcast_member(mr_group *group, void *context) {
    const broadcast_case *self = context;
    unsigned char *data = calloc(self->bytes + 1, 1);
    for (size_t i = 0; group->member_index == self->root && i < self->bytes; i++)
        data[i] = pattern(self->root, i);
    mr_status status = mr_group_broadcast(group, data, self->bytes, self->root, GROUP_LONG_MS);
    for (size_t i = 0; mr_status_is_ok(status) && i < self->bytes; i++)
        if (data[i] != pattern(self->root, i))
            status = wrong("a byte", group->member_index, i);
    if (mr_status_is_ok(status) && data[self->bytes] != 0)
        status = wrong("the byte behind", group->member_index, self->bytes);
    free(data);
    return status;
}

static void test_broadcast_from_each_root_reaches_all(void **state) {
    static const size_t sizes[] = {64, 1, GROUP_BYTES};
    mr_group *groups[GROUP_MEMBERS_MAX];
    (void)state;
    for (size_t members = 2; members <= GROUP_MEMBERS_MAX; members++) {
        open_members(members, GROUP_BYTES, groups);
        for (size_t root = 0; root < members; root++) {
            for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
                broadcast_case self = {.bytes = sizes[s], .root = root};
                group_run_ok(groups, members, broadcast_member, &self);
            }
        }
        group_close_all(groups, members);
    }
}

static void test_large_broadcast_reaches_all(void **state) {
    mr_group *groups[GROUP_MEMBERS_MAX];
    (void)state;
    for (size_t root = 0; root < 3; root += 2) {
        broadcast_case self = {.bytes = (17u << 20) + 5, .root = root};
        open_members(3, self.bytes, groups);
        group_run_ok(groups, 3, broadcast_member, &self);
        group_close_all(groups, 3);
    }
}

typedef struct gather_case {
    size_t bytes[GROUP_MEMBERS_MAX];
    size_t total;
} gather_case;

static mr_status gather_member(mr_group *group, void *context) {
    const gather_case *self = context;
    size_t m = group->member_index;
    unsigned char *mine = malloc(self->bytes[m] + 1);
    unsigned char *all = calloc(self->total + 1, 1);
    for (size_t i = 0; i < self->bytes[m]; i++)
        mine[i] = pattern(m, i);
    mr_status status = mr_group_gather(group, mine, self->bytes, all, GROUP_LONG_MS);
    size_t at = 0;
    for (size_t from = 0; from < group->member_count; from++)
        for (size_t i = 0; i < self->bytes[from]; i++, at++)
            if (mr_status_is_ok(status) && all[at] != pattern(from, i))
                status = wrong("a gathered byte", m, at);
    if (mr_status_is_ok(status) && all[self->total] != 0)
        status = wrong("the byte behind", m, self->total);
    free(mine);
    free(all);
    return status;
}

static void test_gather_joins_different_sizes_in_rank_order(void **state) {
    static const gather_case cases[] = {
        {{8, 8, 8, 8}, 32},      {{300, 17, 1, 64}, 382}, {{0, 9, 0, 3}, 12},
        {{5, 0, 0, 0}, 5},       {{0, 0, 0, 7}, 7},       {{0, 0, 0, 0}, 0},
        {{1, 65535, 0, 0}, 65536},
    };
    mr_group *groups[GROUP_MEMBERS_MAX];
    (void)state;
    open_members(GROUP_MEMBERS_MAX, GROUP_BYTES, groups);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        gather_case self = cases[i];
        group_run_ok(groups, GROUP_MEMBERS_MAX, gather_member, &self);
    }
    group_close_all(groups, GROUP_MEMBERS_MAX);
}

/* ---- many operations, as a job has them ---- */

enum { STEPS = 60, WARM_STEPS = 20 };

/* One step: an order from rank 0, a tied sum, the norms, sometimes the logits from the last. */
static mr_status job_step(mr_group *group, uint64_t step) {
    uint64_t order = group->member_index == 0 ? step * 3 : 0;
    float part = (float)(step + group->member_index);
    const float *parts[1] = {&part};
    uint64_t mine = step * 10 + group->member_index;
    uint64_t all[GROUP_MEMBERS_MAX] = {0};
    const size_t bytes[GROUP_MEMBERS_MAX] = {8, 8, 8, 8};
    size_t members = group->member_count;
    MR_TRY(mr_group_broadcast(group, &order, sizeof(order), 0, -1));
    if (order != step * 3)
        return wrong("the order", group->member_index, step);
    MR_TRY(mr_group_sum(group, parts, 1, &part, 1, GROUP_LONG_MS));
    if (part != (float)(members * step + members * (members - 1) / 2))
        return wrong("the sum", group->member_index, step);
    MR_TRY(mr_group_gather(group, &mine, bytes, all, GROUP_LONG_MS));
    for (size_t i = 0; i < members; i++)
        if (all[i] != step * 10 + i)
            return wrong("a norm", group->member_index, step);
    size_t root = step % members;
    uint64_t result = group->member_index == root ? step + 77 : 0;
    MR_TRY(mr_group_broadcast(group, &result, sizeof(result), root, GROUP_LONG_MS));
    return result == step + 77 ? MR_OK : wrong("the result", group->member_index, step);
}

static mr_status job_member(mr_group *group, void *context) {
    uint64_t allocations = 0;
    (void)context;
    for (uint64_t step = 0; step < STEPS; step++) {
        if (step == WARM_STEPS)
            allocations = mr_alloc_count();
        MR_TRY(job_step(group, step));
    }
    if (mr_alloc_count() != allocations)
        return wrong("the number of allocations", group->member_index,
                     mr_alloc_count() - allocations);
    return MR_OK;
}

static void test_many_operations_keep_their_order_and_allocate_nothing(void **state) {
    mr_group *groups[GROUP_MEMBERS_MAX];
    (void)state;
    for (size_t members = 2; members <= GROUP_MEMBERS_MAX; members++) {
        open_members(members, GROUP_BYTES, groups);
        group_run_ok(groups, members, job_member, NULL);
        group_close_all(groups, members);
    }
}

/* ---- members that disagree ---- */

static mr_status disagree_kind(mr_group *group, void *context) {
    float values[4] = {1, 2, 3, 4};
    const float *parts[1] = {values};
    const size_t bytes[2] = {8, 8};
    (void)context;
    if (group->member_index == 0)
        return mr_group_sum(group, parts, 1, values, 4, GROUP_LONG_MS);
    return mr_group_gather(group, values, bytes, (unsigned char[16]){0}, GROUP_LONG_MS);
}

static mr_status disagree_size(mr_group *group, void *context) {
    float values[5] = {1, 2, 3, 4, 5};
    const float *parts[1] = {values};
    (void)context;
    return mr_group_sum(group, parts, 1, values, 4 + group->member_index, GROUP_LONG_MS);
}

static mr_status disagree_broadcast(mr_group *group, void *context) {
    float values[4] = {1, 2, 3, 4};
    const float *parts[1] = {values};
    (void)context;
    if (group->member_index == 0)
        return mr_group_broadcast(group, values, sizeof(values), 0, GROUP_LONG_MS);
    return mr_group_sum(group, parts, 1, values, 4, GROUP_LONG_MS);
}

static void disagree_check(group_member fn, const char *one, const char *other) {
    mr_group *groups[GROUP_MEMBERS_MAX];
    mr_status statuses[GROUP_MEMBERS_MAX];
    open_members(2, GROUP_BYTES, groups);
    int64_t start_ms = mr_clock_now_ms();
    group_run(groups, 2, fn, NULL, statuses);
    assert_true(mr_clock_now_ms() - start_ms < GROUP_SOON_MS);
    size_t aborted = 0;
    for (size_t i = 0; i < 2; i++) {
        if (statuses[i].code != MR_CODE_ABORTED)
            continue;
        aborted++;
        group_fails(statuses[i], MR_CODE_ABORTED, one);
        group_fails(statuses[i], MR_CODE_ABORTED, other);
        assert_true(strstr(statuses[i].text, "rank 5") != NULL ||
                    strstr(statuses[i].text, "rank 2") != NULL);
    }
    assert_true(aborted >= 1);
    group_close_all(groups, 2);
}

static void test_disagreement_is_aborted_and_names_both(void **state) {
    (void)state;
    disagree_check(disagree_kind, "sum", "gather");
    disagree_check(disagree_size, "16", "20");
    disagree_check(disagree_broadcast, "sum", "broadcast");
}

static mr_status too_large(mr_group *group, void *context) {
    static float values[GROUP_BYTES / sizeof(float) + 1];
    const float *parts[1] = {values};
    const size_t bytes[2] = {GROUP_BYTES, 1};
    (void)context;
    mr_status status = mr_group_sum(group, parts, 1, values, GROUP_BYTES / 4 + 1, GROUP_LONG_MS);
    if (status.code != MR_CODE_RESOURCE_EXHAUSTED)
        return wrong("the size of a sum", group->member_index, 0);
    status = mr_group_broadcast(group, values, GROUP_BYTES + 1, 0, GROUP_LONG_MS);
    if (status.code != MR_CODE_RESOURCE_EXHAUSTED)
        return wrong("the size of a broadcast", group->member_index, 0);
    status = mr_group_gather(group, values, bytes, values, GROUP_LONG_MS);
    if (status.code != MR_CODE_RESOURCE_EXHAUSTED)
        return wrong("the size of a gather", group->member_index, 0);
    return MR_OK;
}

static void test_more_bytes_than_planned_are_refused(void **state) {
    mr_group *groups[GROUP_MEMBERS_MAX];
    (void)state;
    open_members(2, GROUP_BYTES, groups);
    group_ok(too_large(groups[0], NULL));
    group_ok(too_large(groups[1], NULL));
    broadcast_case self = {.bytes = 64}; /* and nothing is broken by it */
    group_run_ok(groups, 2, broadcast_member, &self);
    group_close_all(groups, 2);
}

/* ---- waits that end ---- */

enum { SHORT_MS = 200 };

/* Rank 6, the third, does not come. */
static mr_status absent_member(mr_group *group, void *context) {
    float value = 1;
    const float *parts[1] = {&value};
    (void)context;
    if (group->member_index == 2)
        return MR_OK;
    return mr_group_sum(group, parts, 1, &value, 1,
                        group->member_index == 0 ? SHORT_MS : GROUP_LONG_MS);
}

static void test_timeout_names_the_rank_awaited(void **state) {
    mr_group *groups[GROUP_MEMBERS_MAX];
    mr_status statuses[GROUP_MEMBERS_MAX];
    (void)state;
    open_members(3, GROUP_BYTES, groups);
    int64_t start_ms = mr_clock_now_ms();
    group_run(groups, 3, absent_member, NULL, statuses);
    int64_t took_ms = mr_clock_now_ms() - start_ms;
    assert_true(took_ms >= SHORT_MS - 1 && took_ms < SHORT_MS + GROUP_SOON_MS);
    group_fails(statuses[0], MR_CODE_DEADLINE_EXCEEDED, "rank 6");
    assert_int_not_equal(statuses[1].code, MR_CODE_OK); /* the first has left: told at once */
    group_close_all(groups, 3);
}

typedef struct idle_member {
    pthread_t thread;
    mr_group *group;
    mr_status status;
    int64_t ended_ms;
} idle_member;

static void *idle_run(void *context) {
    idle_member *self = context;
    uint64_t record = 0;
    size_t root = self->group->member_index == 0 ? 1 : 0;
    self->status = mr_group_broadcast(self->group, &record, sizeof(record), root, -1);
    self->ended_ms = mr_clock_now_ms();
    return NULL;
}

static void idle_start(idle_member *self, mr_group *group) {
    *self = (idle_member){.group = group};
    assert_int_equal(pthread_create(&self->thread, NULL, idle_run, self), 0);
}

static void test_interrupt_ends_an_idle_wait_at_once(void **state) {
    (void)state;
    for (size_t who = 0; who < 2; who++) {
        mr_group *groups[GROUP_MEMBERS_MAX];
        idle_member idle;
        open_members(2, GROUP_BYTES, groups);
        idle_start(&idle, groups[who]);
        int64_t interrupted_ms = mr_clock_now_ms();
        mr_group_interrupt(groups[who], "the job is aborted");
        assert_int_equal(pthread_join(idle.thread, NULL), 0);
        assert_true(idle.ended_ms - interrupted_ms < GROUP_SOON_MS);
        group_fails(idle.status, MR_CODE_CANCELLED, "the job is aborted");
        mr_group_interrupt(groups[who], "another reason");
        uint64_t record = 0;
        group_fails(mr_group_broadcast(groups[who], &record, sizeof(record), 1 - who, -1),
                    MR_CODE_CANCELLED, "the job is aborted");
        group_close_all(groups, 2);
    }
}

static void test_lost_member_ends_an_idle_wait_and_is_named(void **state) {
    (void)state;
    for (size_t who = 0; who < 2; who++) {
        mr_group *groups[GROUP_MEMBERS_MAX];
        idle_member idle;
        open_members(2, GROUP_BYTES, groups);
        idle_start(&idle, groups[who]);
        mr_group_close(groups[1 - who]);
        assert_int_equal(pthread_join(idle.thread, NULL), 0);
        group_fails(idle.status, MR_CODE_UNAVAILABLE, who == 0 ? "rank 5" : "rank 2");
        mr_group_close(groups[who]);
    }
}

/* The third leaves while the others sum. */
static mr_status leaving_member(mr_group *group, void *context) {
    (void)context;
    if (group->member_index == 2)
        return MR_ERROR(CANCELLED, "leaves");
    float value = 1;
    const float *parts[1] = {&value};
    return mr_group_sum(group, parts, 1, &value, 1, GROUP_LONG_MS);
}

static void test_member_that_leaves_ends_the_sum_of_the_others(void **state) {
    mr_group *groups[GROUP_MEMBERS_MAX];
    mr_status statuses[GROUP_MEMBERS_MAX];
    (void)state;
    open_members(GROUP_MEMBERS_MAX, GROUP_BYTES, groups);
    int64_t start_ms = mr_clock_now_ms();
    group_run(groups, GROUP_MEMBERS_MAX, leaving_member, NULL, statuses);
    assert_true(mr_clock_now_ms() - start_ms < GROUP_SOON_MS);
    group_fails(statuses[0], MR_CODE_UNAVAILABLE, "rank 6");
    assert_int_not_equal(statuses[1].code, MR_CODE_OK);
    assert_int_not_equal(statuses[3].code, MR_CODE_OK);
    group_close_all(groups, GROUP_MEMBERS_MAX);
}

/* ---- a group of one ---- */

static void test_group_of_one_needs_nobody(void **state) {
    (void)state;
    mr_group_options options = group_options(1);
    mr_group *group = NULL;
    group_ok(mr_group_alone(&options, &group));
    assert_int_equal(group->member_count, 1);
    static const size_t counts[][GROUP_MEMBERS_MAX] = {{1}, {3}, {0}};
    for (size_t i = 0; i < 3; i++) {
        sum_case sum = {.n = 500};
        memcpy(sum.part_counts, counts[i], sizeof(sum.part_counts));
        sum_case_make(&sum, 1);
        group_ok(sum_member(group, &sum));
        sum_case_free(&sum);
    }
    broadcast_case broadcast = {.bytes = 64};
    group_ok(broadcast_member(group, &broadcast));
    gather_case gather = {.bytes = {77}, .total = 77};
    group_ok(gather_member(group, &gather));
    mr_group_close(group);
    options = group_options(2);
    group_fails(mr_group_alone(&options, &group), MR_CODE_INVALID_ARGUMENT, "2 ranks");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sum_has_the_bits_of_one_loop),
        cmocka_unit_test(test_large_sum_has_the_bits_of_one_loop),
        cmocka_unit_test(test_sum_of_nothing_is_nothing),
        cmocka_unit_test(test_broadcast_from_each_root_reaches_all),
        cmocka_unit_test(test_large_broadcast_reaches_all),
        cmocka_unit_test(test_gather_joins_different_sizes_in_rank_order),
        cmocka_unit_test(test_many_operations_keep_their_order_and_allocate_nothing),
        cmocka_unit_test(test_disagreement_is_aborted_and_names_both),
        cmocka_unit_test(test_more_bytes_than_planned_are_refused),
        cmocka_unit_test(test_timeout_names_the_rank_awaited),
        cmocka_unit_test(test_interrupt_ends_an_idle_wait_at_once),
        cmocka_unit_test(test_lost_member_ends_an_idle_wait_and_is_named),
        cmocka_unit_test(test_member_that_leaves_ends_the_sum_of_the_others),
        cmocka_unit_test(test_group_of_one_needs_nobody),
    };
    int failed = 0;
    for (size_t i = 0; i < sizeof(group_makers) / sizeof(group_makers[0]); i++) {
        maker = &group_makers[i];
        (void)printf("---- %s\n", maker->name);
        maker->start();
        failed += cmocka_run_group_tests(tests, NULL, NULL);
        maker->stop();
    }
    return failed;
}
