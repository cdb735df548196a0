/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a checkpoint does not know the model width: what V ranks saved, W ranks load, weights and
 * optimizer state, for every V and W, also where neither divides the other; and a rank whose state
 * is split over replicas gets its part of its shard. A checkpoint reshaped offline is, to the
 * byte, the one that ranks of the new width would have saved.
 * Method: a small GPT with 12 heads and 11 tokens (which 2, 3 and 4 ranks share unevenly) is
 * filled on each of V ranks with shards of the same whole, saved and committed; each of W ranks,
 * and each of two or three replicas of it with split state, loads it, and every element is
 * compared, by bits, with that of the whole which model/shard.h says it is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/checkpoint/catalog.h"
#include "daemon/checkpoint/reshape.h"
#include "daemon/model/shard.h"
#include "daemon/stage/layer_save.h"
#include "daemon/stage/layer_store.h"
#include "tests/unit/checkpoint/fixture.h"
#include "tests/unit/stage/stage_model.h"

enum { LAYERS = 5, WIDTH_MAX = 4, FILES_MAX = 2 * LAYERS * WIDTH_MAX };

static const char checkpoint_hash[] =
    "00000000000000000000000000000000000000000000000000000000000000aa";

/* replicas: over which the state is split; replica: which of them this is. */
static mr_parameters *make(stage_model *m, size_t rank, size_t width, size_t replica,
                           size_t replicas) {
    mr_parameters *p = NULL;
    stage_model_init_gpt(m);
    m->job.model = width;
    m->layers[1].heads = m->layers[1].kv_heads = 12;
    m->layers[2].heads = m->layers[2].kv_heads = 12;
    memcpy(m->job.model_hash, checkpoint_hash, sizeof checkpoint_hash);
    if (width > 1)
        mr_job_become_shard(&m->job, rank);
    fixture_ok(mr_job_describe(&m->job, m->descriptions));
    const mr_parameters_options options = {
        .device = m->device,
        .job = &m->job,
        .descriptions = m->descriptions,
        .layer_end = LAYERS,
        .training = true,
        .state_width = replicas,
        .state_index = replica,
    };
    fixture_ok(mr_parameters_create(&options, &p));
    return p;
}

/* A number for each element of the whole, other for every tensor (0: the weight). */
static float value_of(const mr_stage_parameter *held, size_t tensor, size_t element) {
    return (float)(held->layer * 4 + held->parameter % 4) + (float)tensor * 0.25f +
           (float)element / 4096.0f;
}

/* What the held tensor must be; freed with mr_free. */
static float *values_of(const mr_stage_parameter *held, size_t tensor, size_t rank, size_t width) {
    mr_shard shard;
    float *values = mr_alloc_array(stage_elements(&held->weight), sizeof *values);
    assert_non_null(values);
    fixture_ok(mr_shard_make(held->description, rank, width, &shard));
    for (size_t i = 0; i < shard.run_count; i++) {
        mr_shard_run run = mr_shard_run_at(&shard, i);
        for (size_t e = 0; e < run.count; e++)
            values[run.shard_first + e] = value_of(held, tensor, run.whole_first + e);
    }
    return values;
}

static void fill(const stage_model *m, const mr_parameters *p, size_t rank, size_t width) {
    for (size_t i = 0; i < mr_parameters_count(p); i++) {
        const mr_stage_parameter *held = mr_parameters_at(p, i);
        for (size_t t = 0; t <= mr_parameters_states(p).count; t++) {
            float *values = values_of(held, t, rank, width);
            stage_write(m, t == 0 ? &held->weight : &held->states[t - 1], values);
            mr_free(values);
        }
    }
}

static void expect_filled(const stage_model *m, const mr_parameters *p, size_t rank, size_t width) {
    for (size_t i = 0; i < mr_parameters_count(p); i++) {
        const mr_stage_parameter *held = mr_parameters_at(p, i);
        for (size_t t = 0; t <= mr_parameters_states(p).count; t++) {
            float *values = values_of(held, t, rank, width);
            const mr_tensor *tensor = t == 0 ? &held->weight : &held->states[t - 1];
            size_t first = t == 0 ? 0 : held->part.first;
            size_t count = t == 0 ? stage_elements(tensor) : held->part.count;
            if (count > 0) {
                float *read = stage_read(m, tensor);
                assert_memory_equal(read, values + first, count * sizeof *read);
                mr_free(read);
            }
            mr_free(values);
        }
    }
}

static size_t save_rank(const char *dir, size_t rank, size_t width, mr_checkpoint_file *out) {
    stage_model m;
    const _Atomic bool stop = false;
    mr_layer_save_files files = {0};
    mr_parameters *p = make(&m, rank, width, 0, 1);
    mr_assignment assignment = {.epoch = 1, .job = &m.job, .model_rank = (uint32_t)rank};
    (void)snprintf(assignment.checkpoint_dir, sizeof assignment.checkpoint_dir, "%s", dir);
    fill(&m, p, rank, width);
    const mr_layer_save_options options = {
        .assignment = &assignment, .parameters = p, .tag = "saved", .step = 7, .stop = &stop};
    fixture_ok(mr_layer_save(&options, &files));
    assert_true(files.count <= 2 * LAYERS);
    memcpy(out, files.files, files.count * sizeof *out);
    size_t count = files.count;
    mr_free(files.files);
    mr_parameters_destroy(p);
    stage_model_deinit(&m);
    return count;
}

/* Saves dir/saved at width. */
static void save(const char *dir, size_t width) {
    mr_checkpoint_file files[FILES_MAX];
    size_t count = 0;
    for (size_t rank = 0; rank < width; rank++)
        count += save_rank(dir, rank, width, files + count);
    assert_int_equal(count, 2 * LAYERS * width);
    mr_manifest manifest = {.job = "widths",
                            .step = 7,
                            .epoch = 1,
                            .optimizer = {.type = "adamw", .steps = 7, .lr = 1e-2},
                            .files = files,
                            .file_count = count};
    memcpy(manifest.model_hash, checkpoint_hash, sizeof checkpoint_hash);
    fixture_ok(mr_manifest_commit(dir, "saved", &manifest, NULL));
}

static mr_status load_rank(const char *dir, stage_model *m, mr_parameters *p, size_t rank) {
    uint64_t step = 0;
    mr_applied applied = {0};
    mr_assignment assignment = {.epoch = 2, .job = &m->job, .model_rank = (uint32_t)rank};
    fixture_path(assignment.checkpoint_path, dir, "saved", NULL);
    mr_status status = mr_layer_store_load(&assignment, p, &step, &applied);
    assert_true(!mr_status_is_ok(status) || step == 7);
    return status;
}

static void expect_loads(const char *dir, size_t width, size_t replicas) {
    for (size_t rank = 0; rank < width; rank++)
        for (size_t replica = 0; replica < replicas; replica++) {
            stage_model m;
            mr_parameters *p = make(&m, rank, width, replica, replicas);
            fixture_ok(load_rank(dir, &m, p, rank));
            expect_filled(&m, p, rank, width);
            mr_parameters_destroy(p);
            stage_model_deinit(&m);
        }
}

static void test_every_width_loads_what_every_width_saved(void **state) {
    (void)state;
    for (size_t from = 1; from <= WIDTH_MAX; from++) {
        char dir[FIXTURE_PATH_BYTES];
        fixture_make(dir);
        save(dir, from);
        for (size_t width = 1; width <= WIDTH_MAX; width++)
            expect_loads(dir, width, 1);
        expect_loads(dir, 2, 2);
        expect_loads(dir, 1, 3);
        fixture_remove(dir);
    }
}

/* Files of dir/tag, by name and digest. */
static void expect_same_files(const char *dir, const char *tag, const char *other_dir) {
    char path[FIXTURE_PATH_BYTES];
    mr_manifest a;
    mr_manifest b;
    fixture_path(path, dir, tag, NULL);
    fixture_ok(mr_catalog_verify(path, NULL, NULL, NULL));
    fixture_ok(mr_manifest_read(path, &a));
    fixture_path(path, other_dir, "saved", NULL);
    fixture_ok(mr_manifest_read(path, &b));
    assert_int_equal(a.file_count, b.file_count);
    assert_int_equal(a.step, b.step);
    for (size_t i = 0; i < a.file_count; i++) {
        assert_string_equal(a.files[i].name, b.files[i].name);
        assert_string_equal(a.files[i].sha256, b.files[i].sha256);
    }
    mr_manifest_deinit(&a);
    mr_manifest_deinit(&b);
}

static void test_a_reshaped_checkpoint_is_what_ranks_of_that_width_save(void **state) {
    (void)state;
    char dirs[WIDTH_MAX][FIXTURE_PATH_BYTES];
    for (size_t i = 0; i < WIDTH_MAX; i++) {
        fixture_make(dirs[i]);
        save(dirs[i], i + 1);
    }
    for (size_t from = 0; from < WIDTH_MAX; from++)
        for (size_t to = 0; to < WIDTH_MAX; to++) {
            char path[FIXTURE_PATH_BYTES];
            char tag[MR_NAME_BYTES];
            mr_reshape_result result;
            fixture_path(path, dirs[from], "saved", NULL);
            (void)snprintf(tag, sizeof tag, "for-%zu", to + 1);
            const mr_reshape_options options = {
                .source = path, .dir = dirs[from], .tag = tag, .width = to + 1};
            fixture_ok(mr_reshape(&options, &result));
            assert_int_equal(result.from_width, from + 1);
            expect_same_files(dirs[from], tag, dirs[to]);
        }
    for (size_t i = 0; i < WIDTH_MAX; i++)
        fixture_remove(dirs[i]);
}

/* A merge reads every file: damage in any of them is found and named. */
static void test_damage_in_a_file_of_another_rank_is_named(void **state) {
    (void)state;
    char dir[FIXTURE_PATH_BYTES];
    char path[FIXTURE_PATH_BYTES];
    stage_model m;
    size_t bytes = 0;
    fixture_make(dir);
    save(dir, 2);
    fixture_path(path, dir, "saved", "layer_01-model_01-model_states.safetensors");
    unsigned char *file = fixture_get(path, &bytes);
    file[bytes - 1] ^= 1;
    fixture_put(path, file, bytes);
    free(file);
    mr_parameters *p = make(&m, 0, 1, 0, 1);
    fixture_fails(load_rank(dir, &m, p, 0), MR_CODE_DATA_LOSS,
                  "E_CKPT_SHA256 file=layer_01-model_01-model_states.safetensors");
    mr_parameters_destroy(p);
    stage_model_deinit(&m);
    fixture_remove(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_width_loads_what_every_width_saved),
        cmocka_unit_test(test_a_reshaped_checkpoint_is_what_ranks_of_that_width_save),
        cmocka_unit_test(test_damage_in_a_file_of_another_rank_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
