/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: uniform cuts are the field's, balanced cuts are never worse than the field's and reach the
 * stated optima. Method: every uniform, balanced and method vector of tests/vectors/partition.json.
 * Loads of fractional weights depend on the order of summing, so they are compared within 1e-12.
 * That the largest load is the optimum and no stage is empty is what the field misses
 * (deepspeed.md 49, 52). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "daemon/plan/partition.h"
#include "tests/unit/plan/vectors.h"

enum { ITEMS_MAX = 256 };

static void test_uniform_vectors_are_equal(void **state) {
    (void)state;
    json_t *file;
    json_t *vectors = vectors_open("partition.json", "uniform", &file);
    size_t index;
    json_t *vector;
    json_array_foreach (vectors, index, vector) {
        size_t wanted[ITEMS_MAX];
        size_t found[ITEMS_MAX];
        size_t parts = vectors_size(vector, "num_parts");
        assert_int_equal(vectors_sizes(vectors_get(vector, "parts"), wanted, ITEMS_MAX), parts + 1);
        mr_partition_uniform(vectors_size(vector, "num_items"), parts, found);
        assert_memory_equal(wanted, found, (parts + 1) * sizeof(*found));
    }
    json_decref(file);
}

static size_t weights_of(json_t *array, double *out) {
    size_t count = json_array_size(array);
    assert_true(count < ITEMS_MAX);
    for (size_t i = 0; i < count; i++)
        out[i] = json_number_value(json_array_get(array, i));
    return count;
}

/* Largest load, range and number of empty parts of a cut. */
static void measure(const double *weights, const size_t *bounds, size_t parts, double *out_max,
                    double *out_range, size_t *out_empty) {
    double smallest = INFINITY;
    *out_max = 0.0;
    *out_empty = 0;
    for (size_t part = 0; part < parts; part++) {
        double load = 0.0;
        for (size_t i = bounds[part]; i < bounds[part + 1]; i++)
            load += weights[i];
        *out_max = fmax(*out_max, load);
        smallest = fmin(smallest, load);
        *out_empty += bounds[part] == bounds[part + 1];
    }
    *out_range = *out_max - smallest;
}

static void assert_at_most(const char *name, const char *what, double found, double bound) {
    if (found > bound + 1e-12 * fabs(bound))
        fail_msg("%s: %s is %.17g, more than %.17g", name, what, found, bound);
}

static void check_balanced(json_t *vector) {
    const char *name = json_string_value(vectors_get(vector, "name"));
    double weights[ITEMS_MAX];
    size_t bounds[ITEMS_MAX];
    size_t items = weights_of(vectors_get(vector, "weights"), weights);
    size_t parts = vectors_size(vector, "num_parts");
    assert_true(mr_status_is_ok(mr_partition_balanced(weights, items, parts, bounds)));
    double largest;
    double range;
    size_t empty;
    measure(weights, bounds, parts, &largest, &range, &empty);
    assert_int_equal(bounds[0], 0);
    assert_int_equal(bounds[parts], items);
    assert_int_equal(empty, items < parts ? parts - items : 0);
    assert_at_most(name, "largest load", largest,
                   json_number_value(vectors_get(vector, "max_load")));
    json_t *optimum = vectors_get(vector, "opt_max");
    if (json_is_number(optimum)) {
        assert_at_most(name, "largest load", largest, json_number_value(optimum));
        assert_at_most(name, "optimum", json_number_value(optimum), largest);
    }
    /* opt_range is the smallest range of any cut, so it is a bound from below. */
    json_t *smallest_range = vectors_get(vector, "opt_range");
    if (json_is_number(smallest_range))
        assert_at_most(name, "smallest range", json_number_value(smallest_range), range);
    if (json_is_number(optimum) &&
        fabs(json_number_value(vectors_get(vector, "max_load")) - largest) <= 1e-12 * largest)
        assert_at_most(name, "range", range, json_number_value(vectors_get(vector, "range")));
}

static void test_balanced_vectors_reach_the_optimum(void **state) {
    (void)state;
    json_t *file;
    json_t *vectors = vectors_open("partition.json", "balanced", &file);
    size_t index;
    json_t *vector;
    json_array_foreach (vectors, index, vector)
        check_balanced(vector);
    json_decref(file);
}

/* Layers of the type: vectors weigh 1 when they match; only the largest load is ours to equal, as
 * the field balances otherwise. method "uniform" is its uniform cut. */
static void test_method_vectors_are_no_worse(void **state) {
    (void)state;
    json_t *file;
    json_t *vectors = vectors_open("partition.json", "method", &file);
    size_t index;
    json_t *vector;
    json_array_foreach (vectors, index, vector) {
        json_t *parts_vector = json_object_get(vector, "parts");
        json_t *matched = json_object_get(vector, "matched_layers");
        if (parts_vector == NULL)
            continue;
        size_t theirs[ITEMS_MAX];
        size_t ours[ITEMS_MAX];
        size_t stages = vectors_size(vector, "num_stages");
        size_t items = json_array_size(vectors_get(vector, "layer_names"));
        (void)vectors_sizes(parts_vector, theirs, ITEMS_MAX);
        if (matched == NULL) {
            mr_partition_uniform(items, stages, ours);
            assert_memory_equal(ours, theirs, (stages + 1) * sizeof(*ours));
            continue;
        }
        double weights[ITEMS_MAX] = {0};
        for (size_t i = 0; i < json_array_size(matched); i++)
            weights[json_integer_value(json_array_get(matched, i))] = 1.0;
        assert_true(mr_status_is_ok(mr_partition_balanced(weights, items, stages, ours)));
        double our_max;
        double their_max;
        double range;
        size_t empty;
        measure(weights, ours, stages, &our_max, &range, &empty);
        assert_int_equal(empty, 0);
        measure(weights, theirs, stages, &their_max, &range, &empty);
        assert_true(our_max <= their_max);
    }
    json_decref(file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uniform_vectors_are_equal),
        cmocka_unit_test(test_balanced_vectors_reach_the_optimum),
        cmocka_unit_test(test_method_vectors_are_no_worse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
