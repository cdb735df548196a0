/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: layer ranges, layer files and tied groups are the field's, by the file names of DESIGN.
 * Method: every module case of tests/vectors/topology.json as a job with layers of the same kind at
 * the same places: a layer with parameters, a layer without, the two uses of a tied parameter. What
 * differs on purpose: files end in .safetensors; replicas always share the writing, so cases in
 * which the field's do not are compared as a whole; a tied use that the field runs
 * through a function, and so does not write (deepspeed.md 39), has its file; a group exists at one
 * stage too. Tied groups come in the order of their keys, whatever the order of the layers
 * (deepspeed.md 30). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/plan/plan.h"
#include "tests/unit/plan/vectors.h"

enum { LAYERS_MAX = 9 };

static size_t axis_size(json_t *vector, const char *axis) {
    json_t *axes = vectors_get(vector, "axes");
    for (size_t i = 0; i < json_array_size(axes); i++)
        if (strcmp(json_string_value(json_array_get(axes, i)), axis) == 0)
            return (size_t)json_integer_value(json_array_get(vectors_get(vector, "dims"), i));
    return 1;
}

static bool is_kind(json_t *vector, const char *kind) {
    return strcmp(json_string_value(vectors_get(vector, "model")), kind) == 0;
}

/* The layer at a place. Width 4 throughout, so that any order of kinds fits together. */
static const char *layer_text(json_t *vector, size_t layer) {
    bool spans_all = is_kind(vector, "tied") || is_kind(vector, "tied_fn");
    bool is_tied = spans_all || is_kind(vector, "tied_same_stage");
    if (is_tied && layer == 0)
        return "{type: embedding, tie: embed, vocab: 4, dim: 4}";
    if (layer == (spans_all ? 8u : 3u) && is_tied)
        return "{type: lm_head, tie: embed}";
    if (is_kind(vector, "plain") && layer == 7)
        return "{type: relu}";
    if (is_kind(vector, "two_keys") && (layer == 0 || layer == 7))
        return "{type: linear, in: 4, out: 4, tie: wte}";
    if (is_kind(vector, "two_keys") && (layer == 1 || layer == 6))
        return "{type: linear, in: 4, out: 4, tie: {key: alpha, parameters: [bias, weight]}}";
    return "{type: linear, in: 4, out: 4}";
}

static mr_job *job_from(json_t *vector) {
    char text[2048];
    json_t *parts = vectors_get(vector, "parts");
    size_t layers = (size_t)json_integer_value(json_array_get(parts, json_array_size(parts) - 1));
    assert_true(layers <= LAYERS_MAX);
    size_t used = (size_t)snprintf(text, sizeof(text),
                                   "schema: millrace.job/v1\nname: case\nmodel:\n  layers:\n");
    for (size_t layer = 0; layer < layers; layer++)
        used += (size_t)snprintf(text + used, sizeof(text) - used, "    - %s\n",
                                 layer_text(vector, layer));
    used += (size_t)snprintf(text + used, sizeof(text) - used,
                             "  loss: mse\n"
                             "pipeline:\n"
                             "  topology: {pipe: %zu, data: 1, model: 1}\n"
                             "  partition: uniform\n"
                             "batch: {micro_batch_size: 1, micro_batches: 2, sequence_length: 4}\n"
                             "optimizer: {type: adamw, lr: 1e-3}\n"
                             "lr_schedule: {type: constant, total_steps: 3}\n",
                             axis_size(vector, "pipe"));
    mr_job *job = NULL;
    mr_status status = mr_job_parse(text, used, &job, NULL);
    if (!mr_status_is_ok(status))
        fail_msg("%s\n%s", status.text, text);
    /* Set here, as a plan knows these axes whether or not a job file may ask for them. */
    job->data = axis_size(vector, "data");
    job->model = axis_size(vector, "model");
    return job;
}

/* "layer_00-model_states.pt" and "layer_00-model_states.safetensors" up to the point. */
static bool same_file(json_t *theirs, json_t *ours) {
    const char *a = json_string_value(theirs);
    const char *b = json_string_value(ours);
    size_t stem = strlen(a) - strlen(".pt");
    return strncmp(a, b, stem) == 0 && strcmp(b + stem, ".safetensors") == 0;
}

static bool files_hold(json_t *files, json_t *name, bool name_is_ours) {
    for (size_t i = 0; i < json_array_size(files); i++) {
        json_t *other = json_array_get(files, i);
        if (name_is_ours ? same_file(other, name) : same_file(name, other))
            return true;
    }
    return false;
}

static void check_rank_files(json_t *vector, json_t *theirs, json_t *ours) {
    json_t *wanted = vectors_get(theirs, "files_written");
    json_t *found = vectors_get(ours, "layer_files");
    bool shared = json_is_true(vectors_get(vector, "parallel_write"));
    if ((!shared && axis_size(vector, "data") > 1) || is_kind(vector, "tied_fn"))
        return;
    assert_int_equal(json_array_size(found), json_array_size(wanted));
    for (size_t i = 0; i < json_array_size(wanted); i++)
        assert_true(same_file(json_array_get(wanted, i), json_array_get(found, i)));
}

/* All files of all ranks; of the field's functions only the second tied use is ours alone. */
static void check_all_files(json_t *vector, json_t *ranks) {
    json_t *wanted = vectors_get(vector, "files");
    json_t *found = json_array();
    for (size_t i = 0; i < json_array_size(ranks); i++)
        (void)json_array_extend(found, vectors_get(json_array_get(ranks, i), "layer_files"));
    for (size_t i = 0; i < json_array_size(wanted); i++)
        assert_true(files_hold(found, json_array_get(wanted, i), false));
    for (size_t i = 0; i < json_array_size(found); i++) {
        const char *name = json_string_value(json_array_get(found, i));
        bool own = is_kind(vector, "tied_fn") && strncmp(name, "layer_08-", 9) == 0;
        assert_true(own || files_hold(wanted, json_array_get(found, i), true));
    }
    json_decref(found);
}

static bool group_has(const mr_group_plan *group, size_t rank) {
    for (size_t i = 0; i < group->rank_count; i++)
        if (group->ranks[i] == rank)
            return true;
    return false;
}

/* The tied groups of a rank: their keys and ranks. */
static void check_tied(size_t rank, json_t *theirs, const mr_plan *plan) {
    json_t *tied = vectors_get(theirs, "tied");
    size_t found = 0;
    if (plan->stage_count == 1)
        return;
    for (size_t i = 0; i < plan->group_count; i++) {
        const mr_group_plan *group = &plan->groups[i];
        if (group->kind != MR_GROUP_TIED || !group_has(group, rank))
            continue;
        json_t *wanted = json_object_get(tied, group->key);
        assert_non_null(wanted);
        assert_true(i == 0 || strcmp(plan->groups[i - 1].key, group->key) <= 0);
        vectors_assert_ranks(vectors_get(wanted, "ranks"), group->ranks, group->rank_count);
        found++;
    }
    assert_int_equal(found, json_object_size(tied));
}

/* The field's path of a rank's own state is made of the rank's name in the case's topology. */
static void check_prefix(json_t *vector, uint32_t rank, json_t *theirs) {
    static const char *const omit[] = {"data"};
    const char *axes[MR_AXES_MAX];
    size_t dims[MR_AXES_MAX];
    char name[MR_RANK_TEXT_BYTES];
    char prefix[MR_RANK_TEXT_BYTES + 32];
    mr_topology topology;
    json_t *names = vectors_get(vector, "axes");
    size_t count = vectors_sizes(vectors_get(vector, "dims"), dims, MR_AXES_MAX);
    for (size_t i = 0; i < count; i++)
        axes[i] = json_string_value(json_array_get(names, i));
    assert_true(mr_status_is_ok(mr_topology_make(axes, dims, count, &topology)));
    assert_true(mr_status_is_ok(mr_topology_rank_text(&topology, rank, omit, 1, "_", "-", name)));
    (void)snprintf(prefix, sizeof(prefix), "ROOT/TAG/module-%s", name);
    assert_string_equal(prefix, json_string_value(vectors_get(theirs, "ckpt_prefix")));
}

static void check_case(json_t *vector) {
    mr_job *job = job_from(vector);
    mr_plan *plan = NULL;
    char *text = NULL;
    mr_status status = mr_plan_make(job, false, &plan);
    if (!mr_status_is_ok(status))
        fail_msg("%s", status.text);
    assert_true(mr_status_is_ok(mr_plan_json(plan, &text)));
    json_t *json = json_loads(text, 0, NULL);
    assert_true(json_equal(vectors_get(json, "bounds"), vectors_get(vector, "parts")));
    json_t *ranks = vectors_get(json, "ranks");
    json_t *their_ranks = vectors_get(vector, "ranks");
    assert_int_equal(json_array_size(ranks), json_array_size(their_ranks));
    for (size_t rank = 0; rank < json_array_size(ranks); rank++) {
        json_t *ours = json_array_get(ranks, rank);
        json_t *theirs = json_array_get(their_ranks, rank);
        assert_int_equal(vectors_size(ours, "rank"), vectors_size(theirs, "rank"));
        assert_int_equal(vectors_size(ours, "pipe"), vectors_size(theirs, "stage"));
        assert_true(json_equal(vectors_get(ours, "layers"), vectors_get(theirs, "layers")));
        check_rank_files(vector, theirs, ours);
        check_tied(rank, theirs, plan);
        check_prefix(vector, (uint32_t)rank, theirs);
    }
    check_all_files(vector, ranks);
    json_decref(json);
    mr_free(text);
    mr_plan_destroy(plan);
    mr_job_destroy(job);
}

static void test_module_cases_have_the_field_s_ranges_files_and_groups(void **state) {
    (void)state;
    json_t *file;
    json_t *vectors = vectors_open("topology.json", "module_cases", &file);
    size_t index;
    json_t *vector;
    json_array_foreach (vectors, index, vector)
        check_case(vector);
    json_decref(file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_module_cases_have_the_field_s_ranges_files_and_groups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
