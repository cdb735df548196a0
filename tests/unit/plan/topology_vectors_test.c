/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: ranks, coordinates, lists, filters and texts are those of the field. Method: every topology
 * of tests/vectors/topology.json is built and asked each question of its vector; the field's
 * exceptions must come back as statuses (deepspeed.md 55). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/limits.h"
#include "daemon/plan/topology.h"
#include "tests/unit/plan/vectors.h"

static mr_topology topology_from(json_t *vector) {
    const char *axes[MR_AXES_MAX];
    size_t dims[MR_AXES_MAX];
    json_t *names = vectors_get(vector, "axes");
    size_t count = vectors_sizes(vectors_get(vector, "dims"), dims, MR_AXES_MAX);
    for (size_t i = 0; i < count; i++)
        axes[i] = json_string_value(json_array_get(names, i));
    mr_topology topology;
    assert_true(mr_status_is_ok(mr_topology_make(axes, dims, count, &topology)));
    assert_int_equal(topology.world_size, vectors_size(vector, "world_size"));
    return topology;
}

static void check_coordinates(json_t *vector, const mr_topology *topology) {
    json_t *coords = vectors_get(vector, "coords");
    for (uint32_t rank = 0; rank < topology->world_size; rank++) {
        size_t wanted[MR_AXES_MAX];
        size_t found[MR_AXES_MAX];
        uint32_t back;
        size_t count = vectors_sizes(json_array_get(coords, rank), wanted, MR_AXES_MAX);
        assert_true(mr_status_is_ok(mr_topology_coordinates(topology, rank, found)));
        assert_memory_equal(wanted, found, count * sizeof(*wanted));
        assert_true(mr_status_is_ok(mr_topology_rank(topology, wanted, &back)));
        assert_int_equal(back, rank);
    }
    const char *axis;
    json_t *dim;
    json_object_foreach (vectors_get(vector, "dim"), axis, dim)
        assert_int_equal(mr_topology_dim(topology, axis), json_integer_value(dim));
}

static void check_texts(json_t *vector, const mr_topology *topology) {
    static const struct {
        const char *key;
        const char *omit[2];
        size_t omit_count;
        const char *inner;
        const char *outer;
    } variants[] = {{"default", {"data", "pipe"}, 2, "_", "-"},
                    {"omit_none", {NULL}, 0, "_", "-"},
                    {"omit_pipe", {"pipe"}, 1, "_", "-"},
                    {"omit_data", {"data"}, 1, "_", "-"},
                    {"omit_none_inner_plus_outer_dot", {NULL}, 0, "+", "."}};
    json_t *texts = vectors_get(vector, "rank_repr");
    assert_int_equal(json_object_size(texts), sizeof(variants) / sizeof(variants[0]));
    for (size_t v = 0; v < sizeof(variants) / sizeof(variants[0]); v++)
        for (uint32_t rank = 0; rank < topology->world_size; rank++) {
            char text[MR_RANK_TEXT_BYTES];
            assert_true(mr_status_is_ok(
                mr_topology_rank_text(topology, rank, variants[v].omit, variants[v].omit_count,
                                      variants[v].inner, variants[v].outer, text)));
            assert_string_equal(
                text, json_string_value(json_array_get(vectors_get(texts, variants[v].key), rank)));
        }
}

static void check_lists(json_t *vector, const mr_topology *topology) {
    const char *axis;
    json_t *lists;
    uint32_t ranks[MR_RANKS_MAX];
    size_t count;
    json_object_foreach (vectors_get(vector, "axis_list"), axis, lists)
        for (size_t value = 0; value < json_array_size(lists); value++) {
            assert_true(
                mr_status_is_ok(mr_topology_axis_list(topology, axis, value, ranks, &count)));
            vectors_assert_ranks(json_array_get(lists, value), ranks, count);
        }
    json_object_foreach (vectors_get(vector, "comm_lists"), axis, lists) {
        assert_int_equal(mr_topology_comm_list_count(topology, axis), json_array_size(lists));
        for (size_t i = 0; i < json_array_size(lists); i++) {
            mr_topology_comm_list(topology, axis, i, ranks);
            vectors_assert_ranks(json_array_get(lists, i), ranks, mr_topology_dim(topology, axis));
        }
    }
}

static void check_filters(json_t *vector, const mr_topology *topology) {
    size_t index;
    json_t *filter;
    json_array_foreach (vectors_get(vector, "filter_match"), index, filter) {
        mr_topology_match matches[MR_AXES_MAX];
        size_t match_count = 0;
        const char *axis;
        json_t *value;
        json_object_foreach (vectors_get(filter, "match"), axis, value)
            matches[match_count++] =
                (mr_topology_match){.axis = axis, .value = (size_t)json_integer_value(value)};
        uint32_t ranks[MR_RANKS_MAX];
        size_t count;
        assert_true(
            mr_status_is_ok(mr_topology_filter(topology, matches, match_count, ranks, &count)));
        vectors_assert_ranks(vectors_get(filter, "ranks"), ranks, count);
        if (match_count == topology->axis_count && count == 1) {
            uint32_t rank;
            assert_true(
                mr_status_is_ok(mr_topology_rank_of(topology, matches, match_count, &rank)));
            assert_int_equal(rank, ranks[0]);
        }
    }
}

/* The calls that the vectors name in words. */
static void check_errors(json_t *vector, const mr_topology *topology) {
    assert_int_equal(json_array_size(vectors_get(vector, "errors")), 6);
    mr_topology_match matches[MR_AXES_MAX];
    size_t coordinates[MR_AXES_MAX];
    uint32_t ranks[MR_RANKS_MAX];
    size_t count;
    size_t axes = topology->axis_count;
    for (size_t i = 0; i < axes; i++)
        matches[i] = (mr_topology_match){.axis = topology->axes[i], .value = 0};
    assert_int_equal(mr_topology_rank_of(topology, matches, axes - 1, ranks).code,
                     MR_CODE_INVALID_ARGUMENT);
    matches[0].value = topology->dims[0];
    assert_int_equal(mr_topology_rank_of(topology, matches, axes, ranks).code,
                     MR_CODE_OUT_OF_RANGE);
    matches[0].axis = "nosuch";
    assert_int_equal(mr_topology_rank_of(topology, matches, axes, ranks).code, MR_CODE_NOT_FOUND);
    assert_int_equal(
        mr_topology_coordinates(topology, (uint32_t)topology->world_size, coordinates).code,
        MR_CODE_OUT_OF_RANGE);
    assert_int_equal(mr_topology_axis_list(topology, "nosuch", 0, ranks, &count).code,
                     MR_CODE_NOT_FOUND);
    assert_int_equal(mr_topology_filter(topology, matches, 1, ranks, &count).code,
                     MR_CODE_NOT_FOUND);
}

static void test_each_vector_is_answered_as_the_field_does(void **state) {
    (void)state;
    json_t *file;
    json_t *vectors = vectors_open("topology.json", "topologies", &file);
    size_t index;
    json_t *vector;
    json_array_foreach (vectors, index, vector) {
        mr_topology topology = topology_from(vector);
        check_coordinates(vector, &topology);
        check_texts(vector, &topology);
        check_lists(vector, &topology);
        check_filters(vector, &topology);
        check_errors(vector, &topology);
    }
    json_decref(file);
}

static void test_impossible_topologies_are_refused_by_name(void **state) {
    (void)state;
    static const char *const axes[] = {"pipe", "data", "pipe"};
    mr_topology topology;
    mr_status status = mr_topology_make(axes, (size_t[]){2, 0}, 2, &topology);
    assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
    assert_non_null(strstr(status.text, "'data'"));
    status = mr_topology_make(axes, (size_t[]){2, 2, 2}, 3, &topology);
    assert_non_null(strstr(status.text, "'pipe' is named twice"));
    status = mr_topology_make(axes, (size_t[]){MR_RANKS_MAX, 2}, 2, &topology);
    assert_non_null(strstr(status.text, "4096"));
    status = mr_topology_make(axes, (size_t[]){SIZE_MAX, SIZE_MAX}, 2, &topology);
    assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
    assert_int_equal(mr_topology_make(axes, NULL, 0, &topology).code, MR_CODE_INVALID_ARGUMENT);
    status = mr_topology_make((const char *const[]){""}, (size_t[]){1}, 1, &topology);
    assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
}

static void test_an_axis_given_twice_or_out_of_range_is_named(void **state) {
    (void)state;
    static const char *const axes[] = {"pipe", "data"};
    mr_topology topology;
    uint32_t rank;
    assert_true(mr_status_is_ok(mr_topology_make(axes, (size_t[]){2, 3}, 2, &topology)));
    mr_topology_match twice[] = {{"data", 0}, {"data", 1}};
    assert_int_equal(mr_topology_rank_of(&topology, twice, 2, &rank).code,
                     MR_CODE_INVALID_ARGUMENT);
    mr_status status = mr_topology_rank(&topology, (size_t[]){1, 3}, &rank);
    assert_int_equal(status.code, MR_CODE_OUT_OF_RANGE);
    assert_string_equal(status.text, "coordinate 3 of axis 'data'; it must be below 3");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_vector_is_answered_as_the_field_does),
        cmocka_unit_test(test_impossible_topologies_are_refused_by_name),
        cmocka_unit_test(test_an_axis_given_twice_or_out_of_range_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
