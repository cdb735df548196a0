/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: groups and neighbours of every rank are the field's, and so is the grid of a number of
 * ranks for which no topology is given; a number that does not fit is refused with both numbers.
 * Method: the grids of the topologies of tests/vectors/topology.json, and its vectors default_grid
 * and grid_mismatch, against topology.h and grid.h. The field's "ds model" group, all ranks of one
 * replica, is an axis list of data. Where the model axis has one rank its slices are the ranks
 * alone. The order is one and the same in every process, from the lists alone (deepspeed.md 30:
 * the origin walked a set and could hang). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/limits.h"
#include "daemon/plan/grid.h"
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
    return topology;
}

/* Of the ranks' coordinates; 0 on an axis that is not there. */
static size_t coordinate_of(const mr_topology *topology, uint32_t rank, const char *axis) {
    size_t coordinates[MR_AXES_MAX];
    assert_true(mr_status_is_ok(mr_topology_coordinates(topology, rank, coordinates)));
    for (size_t i = 0; i < topology->axis_count; i++)
        if (strcmp(topology->axes[i], axis) == 0)
            return coordinates[i];
    return 0;
}

/* The list of an axis that has the rank; the rank alone where the axis is not there. */
static size_t comm_list_of(const mr_topology *topology, uint32_t rank, const char *axis,
                           uint32_t *out) {
    size_t dim = mr_topology_dim(topology, axis);
    for (size_t i = 0; i < mr_topology_comm_list_count(topology, axis); i++) {
        mr_topology_comm_list(topology, axis, i, out);
        for (size_t j = 0; j < dim; j++)
            if (out[j] == rank)
                return dim;
    }
    out[0] = rank;
    return 1;
}

static uint32_t next_in_pipe(const mr_topology *topology, uint32_t rank) {
    uint32_t list[MR_RANKS_MAX];
    size_t count = comm_list_of(topology, rank, "pipe", list);
    return list[(coordinate_of(topology, rank, "pipe") + 1) % count];
}

static void check_order(json_t *order, const mr_topology *topology) {
    static const char *const axes[] = {"data", "pipe", "model"};
    uint32_t list[MR_RANKS_MAX];
    size_t count;
    size_t at = 0;
    for (size_t data = 0; data < mr_topology_dim(topology, "data"); data++) {
        assert_true(mr_status_is_ok(mr_topology_axis_list(topology, "data", data, list, &count)));
        vectors_assert_ranks(json_array_get(order, at++), list, count);
    }
    for (size_t i = 0; i < sizeof(axes) / sizeof(axes[0]); i++)
        for (size_t j = 0; j < mr_topology_comm_list_count(topology, axes[i]); j++) {
            mr_topology_comm_list(topology, axes[i], j, list);
            vectors_assert_ranks(json_array_get(order, at++), list,
                                 mr_topology_dim(topology, axes[i]));
        }
    if (mr_topology_dim(topology, "model") == 0)
        for (uint32_t rank = 0; rank < topology->world_size; rank++)
            vectors_assert_ranks(json_array_get(order, at++), &rank, 1);
    assert_int_equal(at, json_array_size(order));
}

static void check_rank(json_t *vector, const mr_topology *topology, uint32_t rank) {
    uint32_t list[MR_RANKS_MAX];
    size_t stage = coordinate_of(topology, rank, "pipe");
    size_t data = coordinate_of(topology, rank, "data");
    size_t count;
    assert_int_equal(vectors_size(vector, "rank"), rank);
    assert_int_equal(vectors_size(vector, "stage_id"), stage);
    assert_int_equal(vectors_size(vector, "data_parallel_id"), data);
    assert_int_equal(json_is_true(vectors_get(vector, "is_first")), stage == 0);
    assert_int_equal(json_is_true(vectors_get(vector, "is_last")),
                     stage + 1 == mr_topology_dim(topology, "pipe"));
    assert_true(mr_status_is_ok(mr_topology_axis_list(topology, "data", data, list, &count)));
    assert_int_equal(vectors_size(vector, "ds_model_world_size"), count);
    assert_int_equal(list[vectors_size(vector, "ds_model_rank")], rank);
    count = comm_list_of(topology, rank, "data", list);
    vectors_assert_ranks(vectors_get(vector, "dp_group"), list, count);
    count = comm_list_of(topology, rank, "pipe", list);
    vectors_assert_ranks(vectors_get(vector, "pp_group"), list, count);
    vectors_assert_ranks(vectors_get(vector, "stage_to_global"), list, count);
    count = comm_list_of(topology, rank, "model", list);
    vectors_assert_ranks(vectors_get(vector, "slice_group"), list, count);
    assert_int_equal(vectors_size(vector, "slice_rank"), coordinate_of(topology, rank, "model"));
}

static void test_groups_and_neighbours_of_every_rank_are_the_field_s_deepspeed_30(void **state) {
    (void)state;
    json_t *file;
    json_t *vectors = vectors_open("topology.json", "topologies", &file);
    size_t checked = 0;
    for (size_t i = 0; i < json_array_size(vectors); i++) {
        json_t *vector = json_array_get(vectors, i);
        json_t *grid = json_object_get(vector, "grid");
        if (!json_is_object(grid) || json_object_get(grid, "error") != NULL)
            continue; /* the field makes none without both axes */
        mr_topology topology = topology_from(vector);
        check_order(vectors_get(grid, "group_creation_order"), &topology);
        json_t *ranks = vectors_get(grid, "ranks");
        json_t *neighbours = vectors_get(grid, "p2p_groups");
        assert_int_equal(json_array_size(ranks), topology.world_size);
        assert_int_equal(json_array_size(neighbours), topology.world_size);
        for (uint32_t rank = 0; rank < topology.world_size; rank++) {
            uint32_t pair[] = {rank, next_in_pipe(&topology, rank)};
            vectors_assert_ranks(json_array_get(neighbours, rank), pair, 2);
            check_rank(json_array_get(ranks, rank), &topology, rank);
        }
        checked++;
    }
    assert_true(checked >= 8);
    json_decref(file);
}

static void test_ranks_without_a_topology_get_the_field_s_grid(void **state) {
    (void)state;
    json_t *file;
    json_t *vectors = vectors_open("topology.json", "default_grid", &file);
    for (size_t i = 0; i < json_array_size(vectors); i++) {
        json_t *vector = json_array_get(vectors, i);
        size_t world = vectors_size(vector, "world_size");
        mr_grid grid = {.model = 1};
        assert_true(mr_status_is_ok(mr_grid_fit(world, &grid)));
        assert_int_equal(grid.pipe, vectors_size(vector, "num_pp"));
        assert_int_equal(grid.data, vectors_size(vector, "num_dp"));
        assert_int_equal(grid.model, 1);
    }
    json_decref(file);
}

static void test_a_width_follows_from_the_stages(void **state) {
    (void)state;
    mr_grid grid = {.pipe = 4, .model = 1};
    assert_true(mr_status_is_ok(mr_grid_fit(12, &grid)));
    assert_int_equal(grid.data, 3);
    grid = (mr_grid){.pipe = 2, .model = 3};
    assert_true(mr_status_is_ok(mr_grid_fit(12, &grid)));
    assert_int_equal(grid.data, 2);
    grid = (mr_grid){.data = 3, .model = 2};
    assert_true(mr_status_is_ok(mr_grid_fit(12, &grid)));
    assert_int_equal(grid.pipe, 2);
    grid = (mr_grid){.model = 4};
    assert_true(mr_status_is_ok(mr_grid_fit(12, &grid)));
    assert_int_equal(grid.pipe, 3);
    assert_int_equal(grid.data, 1);
}

static void refuse(size_t world, mr_grid grid, const char *text) {
    mr_grid before = grid;
    mr_status status = mr_grid_fit(world, &grid);
    assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
    assert_string_equal(status.text, text);
    assert_memory_equal(&grid, &before, sizeof(grid));
}

static void test_ranks_that_do_not_divide_are_refused_with_both_numbers(void **state) {
    (void)state;
    refuse(7, (mr_grid){.pipe = 2, .model = 1},
           "7 ranks do not divide over pipe 2; a multiple of 2 does");
    refuse(8, (mr_grid){.pipe = 2, .data = 3, .model = 1},
           "8 ranks do not fit pipe 2 x data 3; it must be 6");
    refuse(9, (mr_grid){.model = 2}, "9 ranks do not divide over model 2; a multiple of 2 does");
    refuse(4, (mr_grid){.data = 3, .model = 2},
           "4 ranks do not divide over data 3 x model 2; a multiple of 6 does");
    refuse(0, (mr_grid){.pipe = 1, .model = 1}, "0 ranks; it must be 1 to 4096");
    refuse(MR_RANKS_MAX + 1, (mr_grid){.pipe = 1, .model = 1},
           "4097 ranks; it must be 1 to 4096");
}

static void test_worlds_of_another_size_are_refused(void **state) {
    (void)state;
    json_t *file;
    json_t *vectors = vectors_open("topology.json", "grid_mismatch", &file);
    for (size_t i = 0; i < json_array_size(vectors); i++) {
        json_t *vector = json_array_get(vectors, i);
        mr_topology topology = topology_from(vector);
        mr_grid grid = {.pipe = mr_topology_dim(&topology, "pipe"),
                        .data = mr_topology_dim(&topology, "data"),
                        .model = 1};
        mr_status status = mr_grid_fit(vectors_size(vector, "world"), &grid);
        assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
    }
    json_decref(file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_groups_and_neighbours_of_every_rank_are_the_field_s_deepspeed_30),
        cmocka_unit_test(test_ranks_without_a_topology_get_the_field_s_grid),
        cmocka_unit_test(test_a_width_follows_from_the_stages),
        cmocka_unit_test(test_ranks_that_do_not_divide_are_refused_with_both_numbers),
        cmocka_unit_test(test_worlds_of_another_size_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
