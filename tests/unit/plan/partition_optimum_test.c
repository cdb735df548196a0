/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the balanced cut is exactly the best one: smallest largest load, then smallest range, then
 * earliest parts longest. Method: thousands of small random cases, whole and fractional weights
 * with many zeros and ties, against every possible cut; then what is refused. The field's defects:
 * its objective is the range, found by a heuristic (deepspeed.md 49), and its older form leaves
 * stages empty (deepspeed.md 52). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/base/random.h"
#include "daemon/plan/partition.h"

enum { ITEMS_MAX = 12, CASES = 20000 };

typedef struct best_cut {
    double largest;
    double smallest;
    size_t bounds[ITEMS_MAX + 1];
    bool any;
} best_cut;

/* Loads are differences of running sums, as partition.h says. */
static void judge(const double *sums, const size_t *bounds, size_t parts, best_cut *best) {
    double largest = 0.0;
    double smallest = INFINITY;
    for (size_t part = 0; part < parts; part++) {
        double load = sums[bounds[part + 1]] - sums[bounds[part]];
        largest = fmax(largest, load);
        smallest = fmin(smallest, load);
    }
    int order = 0;
    if (best->any && largest != best->largest)
        order = largest < best->largest ? 1 : -1;
    else if (best->any && smallest != best->smallest)
        order = smallest > best->smallest ? 1 : -1;
    else if (best->any)
        for (size_t i = 0; i <= parts && order == 0; i++)
            order = (bounds[i] > best->bounds[i]) - (bounds[i] < best->bounds[i]);
    if (best->any && order <= 0)
        return;
    *best = (best_cut){.largest = largest, .smallest = smallest, .any = true};
    memcpy(best->bounds, bounds, (parts + 1) * sizeof(*bounds));
}

static void try_all(const double *sums, size_t items, size_t parts, size_t part, size_t *bounds,
                    best_cut *best) {
    if (part == parts) {
        if (bounds[parts] == items)
            judge(sums, bounds, parts, best);
        return;
    }
    for (size_t end = bounds[part] + 1; end <= items; end++) {
        bounds[part + 1] = end;
        try_all(sums, items, parts, part + 1, bounds, best);
    }
}

static double random_weight(const mr_random_key *key, uint64_t index, uint32_t kind) {
    uint32_t word = mr_random_word(key, index);
    switch (kind) {
    case 0:
        return word % 3;
    case 1:
        return word % 31;
    case 2:
        return word % 4 == 0 ? 1000.0 + word % 1000 : word % 10;
    case 3:
        return (word % 16) * 0.1;
    default:
        return word * 0x1p-32;
    }
}

static void test_random_cases_equal_the_best_of_all_cuts(void **state) {
    (void)state;
    mr_random_key key = mr_random_key_make(7, MR_RANDOM_SAMPLE, 1, 2, 3);
    uint64_t draw = 0;
    for (size_t round = 0; round < CASES; round++) {
        size_t items = 1 + mr_random_word(&key, draw++) % ITEMS_MAX;
        size_t parts = 1 + mr_random_word(&key, draw++) % items;
        uint32_t kind = mr_random_word(&key, draw++) % 5;
        double weights[ITEMS_MAX];
        double sums[ITEMS_MAX + 1] = {0};
        for (size_t i = 0; i < items; i++) {
            weights[i] = random_weight(&key, draw++, kind);
            sums[i + 1] = sums[i] + weights[i];
        }
        best_cut best = {0};
        size_t bounds[ITEMS_MAX + 1] = {0};
        try_all(sums, items, parts, 0, bounds, &best);
        assert_true(best.any);
        assert_true(mr_status_is_ok(mr_partition_balanced(weights, items, parts, bounds)));
        assert_memory_equal(bounds, best.bounds, (parts + 1) * sizeof(*bounds));
    }
}

static void test_fewer_items_than_parts_leave_the_last_empty(void **state) {
    (void)state;
    size_t bounds[6];
    const size_t wanted[] = {0, 1, 2, 2, 2, 2};
    assert_true(mr_status_is_ok(mr_partition_balanced((double[]){5, 1}, 2, 5, bounds)));
    assert_memory_equal(bounds, wanted, sizeof(wanted));
    assert_true(mr_status_is_ok(mr_partition_balanced(NULL, 0, 2, bounds)));
    assert_int_equal(bounds[2], 0);
}

static void test_equal_weights_are_cut_uniformly(void **state) {
    (void)state;
    enum { N = 200 };
    double weights[N];
    for (size_t i = 0; i < N; i++)
        weights[i] = 7.0;
    for (size_t parts = 1; parts <= N; parts++) {
        size_t uniform[N + 1];
        size_t balanced[N + 1];
        mr_partition_uniform(N, parts, uniform);
        assert_true(mr_status_is_ok(mr_partition_balanced(weights, N, parts, balanced)));
        assert_memory_equal(uniform, balanced, (parts + 1) * sizeof(*uniform));
    }
}

static void test_weights_that_are_no_loads_are_refused(void **state) {
    (void)state;
    size_t bounds[3] = {9, 9, 9};
    mr_status status = mr_partition_balanced((double[]){1, -2, 3}, 3, 2, bounds);
    assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
    assert_string_equal(status.text, "weight 1 is -2; it must be finite and at least 0");
    assert_int_equal(mr_partition_balanced((double[]){1, NAN, 3}, 3, 2, bounds).code,
                     MR_CODE_INVALID_ARGUMENT);
    assert_int_equal(mr_partition_balanced((double[]){1e308, 1e308, 3}, 3, 2, bounds).code,
                     MR_CODE_INVALID_ARGUMENT);
    assert_int_equal(mr_partition_balanced((double[]){1}, 1, 0, bounds).code,
                     MR_CODE_INVALID_ARGUMENT);
    assert_int_equal(bounds[0], 9); /* nothing is written on an error */
}

static void test_a_failing_allocation_is_a_status(void **state) {
    (void)state;
    for (uint64_t n = 1; n <= 4; n++) {
        size_t bounds[3];
        mr_alloc_fail_at(n);
        mr_status status = mr_partition_balanced((double[]){1, 2, 3}, 3, 2, bounds);
        mr_alloc_fail_at(0);
        assert_int_equal(status.code, MR_CODE_RESOURCE_EXHAUSTED);
    }
}

static void test_given_bounds_must_cover_without_gaps(void **state) {
    (void)state;
    assert_true(mr_status_is_ok(mr_partition_check((size_t[]){0, 4, 9}, 3, 9, 2)));
    static const struct {
        size_t bounds[3];
        size_t count;
        const char *text;
    } wrong[] = {
        {{0, 4, 9}, 2, "pipeline.partition has 2 bounds; 2 stages need 3"},
        {{1, 4, 9}, 3, "pipeline.partition[0] is 1; it must be 0"},
        {{0, 0, 9}, 3, "pipeline.partition[1] is 0; it must be above pipeline.partition[0]"},
        {{0, 5, 4}, 3, "pipeline.partition[2] is 4; it must be above pipeline.partition[1]"},
        {{0, 4, 8}, 3, "pipeline.partition[2] is 8; it must be 9, the number of layers"},
        {{0, 4, 10}, 3, "pipeline.partition[2] is 10; it must be 9, the number of layers"},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        mr_status status = mr_partition_check(wrong[i].bounds, wrong[i].count, 9, 2);
        assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
        if (strncmp(status.text, wrong[i].text, strlen(wrong[i].text)) != 0)
            fail_msg("'%s' instead of '%s'", status.text, wrong[i].text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_cases_equal_the_best_of_all_cuts),
        cmocka_unit_test(test_fewer_items_than_parts_leave_the_last_empty),
        cmocka_unit_test(test_equal_weights_are_cut_uniformly),
        cmocka_unit_test(test_weights_that_are_no_loads_are_refused),
        cmocka_unit_test(test_a_failing_allocation_is_a_status),
        cmocka_unit_test(test_given_bounds_must_cover_without_gaps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
