/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: files of single ranks come together for a smaller topology as in the field, and what cannot
 * be is refused by axis and widths.
 * Method: every case of reshape_3d in tests/vectors/topology.json; whatever the topology, every
 * source is taken exactly once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/limits.h"
#include "daemon/checkpoint/rank_map.h"
#include "tests/unit/checkpoint/fixture.h"
#include "tests/unit/plan/vectors.h"

static mr_rank_map_widths widths_of(json_t *vector, const char *key) {
    size_t sizes[3];
    assert_int_equal(vectors_sizes(vectors_get(vector, key), sizes, 3), 3);
    return (mr_rank_map_widths){.pipe = sizes[0], .model = sizes[1], .data = sizes[2]};
}

static void expect_sources(json_t *wanted, const mr_rank_map *map, size_t data, size_t pipe,
                           size_t model) {
    size_t files[64];
    assert_int_equal(vectors_sizes(wanted, files, 64), map->each);
    assert_memory_equal(mr_rank_map_sources(map, data, pipe, model), files,
                        map->each * sizeof files[0]);
}

static void expect_map(json_t *vector, const mr_rank_map *map) {
    json_t *replicas = vectors_get(vector, "map");
    size_t data;
    size_t pipe;
    size_t model;
    json_t *stages;
    json_t *ranks;
    json_t *sources;
    assert_int_equal(json_array_size(replicas), map->to.data);
    json_array_foreach (replicas, data, stages) {
        assert_int_equal(json_array_size(stages), map->to.pipe);
        json_array_foreach (stages, pipe, ranks) {
            assert_int_equal(json_array_size(ranks), map->to.model);
            json_array_foreach (ranks, model, sources)
                expect_sources(sources, map, data, pipe, model);
        }
    }
}

/* The field's first error names the axis and both widths; so does ours. */
static void expect_refused(json_t *vector, mr_status status, const mr_rank_map_widths *from,
                           const mr_rank_map_widths *to) {
    const char *theirs = json_string_value(json_array_get(vectors_get(vector, "errors"), 0));
    char wanted[96];
    const char *found = strstr(theirs, "- ");
    if (found == NULL) { /* a bare assertion */
        assert_non_null(strstr(theirs, "not divisible"));
        (void)snprintf(wanted, sizeof wanted, "from width %zu to %zu; it must divide it evenly",
                       from->pipe, to->pipe);
    } else {
        const char *axis = strncmp(found, "- PP", 4) == 0   ? "pipe"
                           : strncmp(found, "- TP", 4) == 0 ? "model"
                                                            : "data";
        size_t widths[2];
        assert_int_equal(sscanf(strchr(found, ':'), ": %zu ---> %zu", &widths[0], &widths[1]), 2);
        (void)snprintf(wanted, sizeof wanted, "%s: from width %zu to %zu; files of single", axis,
                       widths[0], widths[1]);
    }
    fixture_fails(status, MR_CODE_INVALID_ARGUMENT, wanted);
}

static void test_every_case_has_the_field_s_map_or_error(void **state) {
    (void)state;
    json_t *file;
    json_t *vectors = vectors_open("topology.json", "reshape_3d", &file);
    size_t index;
    json_t *vector;
    json_array_foreach (vectors, index, vector) {
        mr_rank_map_widths from = widths_of(vector, "src_pp_tp_dp");
        mr_rank_map_widths to = widths_of(vector, "tgt_pp_tp_dp");
        mr_rank_map map = {0};
        mr_status status = mr_rank_map_make(&from, &to, &map);
        if (json_object_get(vector, "map") == NULL) {
            expect_refused(vector, status, &from, &to);
            continue;
        }
        fixture_ok(status);
        expect_map(vector, &map);
        mr_rank_map_deinit(&map);
    }
    json_decref(file);
}

static void test_every_source_is_taken_once(void **state) {
    (void)state;
    const mr_rank_map_widths from = {.pipe = 6, .model = 4, .data = 4};
    const mr_rank_map_widths to = {.pipe = 3, .model = 2, .data = 2};
    bool taken[6 * 4 * 4] = {false};
    mr_rank_map map = {0};
    fixture_ok(mr_rank_map_make(&from, &to, &map));
    assert_int_equal(map.each, 8);
    for (size_t i = 0; i < sizeof taken; i++) {
        assert_true(map.files[i] < sizeof taken);
        assert_false(taken[map.files[i]]);
        taken[map.files[i]] = true;
    }
    mr_rank_map_deinit(&map);
}

static void test_widths_out_of_bounds_are_refused_by_axis(void **state) {
    (void)state;
    mr_rank_map map = {0};
    const mr_rank_map_widths one = {1, 1, 1};
    const mr_rank_map_widths none = {1, 0, 1};
    const mr_rank_map_widths wide = {MR_RANKS_MAX, 1, 2};
    fixture_fails(mr_rank_map_make(&none, &one, &map), MR_CODE_INVALID_ARGUMENT,
                  "model: from width 0 to 1; both must be 1 to 4096");
    fixture_fails(mr_rank_map_make(&wide, &one, &map), MR_CODE_INVALID_ARGUMENT,
                  "4096 x 1 x 2 ranks; the most is 4096");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_case_has_the_field_s_map_or_error),
        cmocka_unit_test(test_every_source_is_taken_once),
        cmocka_unit_test(test_widths_out_of_bounds_are_refused_by_axis),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
