/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the replicas of a stage share a save out, each layer file is written by exactly one of them
 * with the bytes that a stage alone would write, whether the optimizer's state is split or not; and
 * any number of replicas loads each its part of that state. One whose files fail leaves the others
 * undisturbed.
 * Method: a thread for each replica, an in-process group between them; files are compared by their
 * SHA-256 with those of one replica. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/group/in_process.h"
#include "daemon/stage/layer_save.h"
#include "daemon/stage/layer_store.h"
#include "daemon/stage/optimizer.h"
#include "tests/unit/stage/stage_model.h"

enum { LAYERS = 5, FILES = 2 * LAYERS, REPLICAS_MAX = 7, GROUP_BYTES = 1 << 16 };

static void ok(mr_status status) {
    if (!mr_status_is_ok(status))
        fail_msg("%s: %s", mr_code_name(status.code), status.text);
}

static void make_folder(char *out, size_t bytes) {
    const char *base = getenv("TEST_TMPDIR");
    (void)snprintf(out, bytes, "%s/replicas-XXXXXX", base == NULL ? "/tmp" : base);
    assert_non_null(mkdtemp(out));
}

static void model_make(stage_model *m) {
    stage_model_init_gpt(m);
    m->job.optimizer = MR_OPTIMIZER_ADAMW;
    (void)snprintf(m->job.model_hash, sizeof m->job.model_hash, "%064d", 0);
}

static mr_parameters *parameters_make(const stage_model *m, size_t width, size_t index) {
    mr_parameters *parameters = NULL;
    mr_parameters_options options = {
        .device = m->device,
        .job = &m->job,
        .descriptions = m->descriptions,
        .layer_end = LAYERS,
        .training = true,
        .state_width = width,
        .state_index = index,
    };
    ok(mr_parameters_create(&options, &parameters));
    ok(mr_parameters_draw(parameters));
    return parameters;
}

/* One replica, on its own thread with a device of its own. */
typedef struct replica {
    mr_group *group; /* NULL: alone */
    const char *folder;
    size_t width; /* of the state */
    size_t index;
    _Atomic bool stop;
    stage_model model;
    mr_parameters *parameters;
    mr_status status;
    mr_layer_save_files files;
} replica;

/* What every step does besides the sums: the own part changes, the others' parts arrive. */
static void replica_step(replica *self) {
    mr_parameters *p = self->parameters;
    size_t bytes[REPLICAS_MAX];
    stage_fill_gradients(&self->model, p);
    mr_optimizer_step(p, 1, 1);
    if (self->width == 1)
        return;
    for (size_t i = 0; i < self->width; i++)
        bytes[i] = mr_parameters_weights_start(p, i + 1) - mr_parameters_weights_start(p, i);
    unsigned char *weights = mr_parameters_weights(p);
    ok(mr_group_gather(self->group, weights + mr_parameters_weights_start(p, self->index), bytes,
                       weights, 10000));
    mr_parameters_refresh(p);
}

static void *replica_run(void *context) {
    replica *self = context;
    mr_assignment assignment = {.epoch = 1, .job = &self->model.job};
    (void)snprintf(assignment.checkpoint_dir, sizeof assignment.checkpoint_dir, "%s",
                   self->folder);
    mr_layer_save_options options = {
        .assignment = &assignment,
        .parameters = self->parameters,
        .replicas = self->group,
        .tag = "step-000000000001",
        .step = 1,
        .stop = &self->stop,
    };
    replica_step(self);
    self->status = mr_layer_save(&options, &self->files);
    return NULL;
}

static void replicas_open(replica *all, size_t count, bool split, const char *folder) {
    static const uint32_t ranks[REPLICAS_MAX] = {0, 1, 2, 3, 4, 5, 6};
    mr_group *groups[REPLICAS_MAX] = {NULL};
    mr_group_options options = {.group_id = "data//0",
                                .ranks = ranks,
                                .rank_count = count,
                                .bytes_max = GROUP_BYTES,
                                .parts_max = 1};
    if (count > 1)
        ok(mr_group_in_process(&options, groups));
    for (size_t i = 0; i < count; i++) {
        all[i] = (replica){.group = groups[i], .folder = folder, .width = split ? count : 1};
        all[i].index = split ? i : 0;
        model_make(&all[i].model);
        all[i].parameters = parameters_make(&all[i].model, all[i].width, all[i].index);
    }
}

static void replicas_save(replica *all, size_t count) {
    pthread_t threads[REPLICAS_MAX];
    for (size_t i = 0; i < count; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, replica_run, &all[i]), 0);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
}

static void replicas_close(replica *all, size_t count) {
    for (size_t i = 0; i < count; i++) {
        mr_group_close(all[i].group);
        mr_parameters_destroy(all[i].parameters);
        stage_model_deinit(&all[i].model);
        mr_free(all[i].files.files);
    }
}

static const mr_checkpoint_file *file_find(const replica *one, const char *name) {
    for (size_t i = 0; i < one->files.count; i++)
        if (strcmp(one->files.files[i].name, name) == 0)
            return &one->files.files[i];
    return NULL;
}

/* Every file of alone is with exactly one of all, with its bytes. */
static void expect_dealt(const replica *all, size_t count, const replica *alone) {
    size_t found = 0;
    for (size_t i = 0; i < count; i++) {
        ok(all[i].status);
        found += all[i].files.count;
        assert_true((all[i].files.count > 0) == (i < LAYERS)); /* nobody idle while there is work */
    }
    assert_int_equal(found, FILES);
    for (size_t f = 0; f < FILES; f++) {
        const mr_checkpoint_file *wanted = &alone->files.files[f];
        size_t writers = 0;
        for (size_t i = 0; i < count; i++) {
            const mr_checkpoint_file *file = file_find(&all[i], wanted->name);
            writers += file != NULL;
            if (file != NULL)
                assert_string_equal(file->sha256, wanted->sha256);
        }
        assert_int_equal(writers, 1);
    }
}

static void test_every_replica_writes_its_share_and_the_bytes_are_those_of_one(void **state) {
    (void)state;
    char folder[MR_PATH_BYTES / 2];
    replica alone[1];
    replica all[REPLICAS_MAX];
    make_folder(folder, sizeof folder);
    replicas_open(alone, 1, false, folder);
    replicas_save(alone, 1);
    ok(alone[0].status);
    assert_int_equal(alone[0].files.count, FILES);
    for (size_t count = 2; count <= REPLICAS_MAX; count++)
        for (int split = 0; split < 2; split++) {
            char other[MR_PATH_BYTES / 2];
            make_folder(other, sizeof other);
            replicas_open(all, count, split == 1, other);
            replicas_save(all, count);
            expect_dealt(all, count, &alone[0]);
            replicas_close(all, count);
        }
    replicas_close(alone, 1);
}

static void test_a_replica_that_gives_up_leaves_the_others_their_files(void **state) {
    (void)state;
    char folder[MR_PATH_BYTES / 2];
    replica all[3];
    make_folder(folder, sizeof folder);
    replicas_open(all, 3, true, folder);
    all[1].stop = true;
    replicas_save(all, 3);
    ok(all[0].status);
    ok(all[2].status);
    assert_int_equal(all[1].status.code, MR_CODE_CANCELLED);
    assert_non_null(strstr(all[1].status.text, "abandoned before layer 2"));
    assert_int_equal(all[1].files.count, 0);
    assert_int_equal(all[0].files.count, 4);
    assert_int_equal(all[2].files.count, 2);
    replicas_close(all, 3);
}

static void commit(const replica *one, char *out_path) {
    mr_manifest manifest = {.job = "replicas",
                            .step = 1,
                            .epoch = 1,
                            .optimizer = {.steps = 1, .lr = 1e-2},
                            .files = one->files.files,
                            .file_count = one->files.count};
    memcpy(manifest.model_hash, one->model.job.model_hash, sizeof manifest.model_hash);
    (void)snprintf(manifest.optimizer.type, sizeof manifest.optimizer.type, "%s",
                   mr_optimizer_name(one->model.job.optimizer));
    ok(mr_manifest_commit(one->folder, "step-000000000001", &manifest, NULL));
    ok(mr_layout_join(one->folder, "step-000000000001", out_path, MR_PATH_BYTES));
}

/* The part that replica index of width loads is that part of the whole. */
static void expect_part(const replica *whole, const char *path, size_t width, size_t index) {
    uint64_t step = 0;
    mr_applied applied = {0};
    mr_assignment assignment = {.epoch = 2, .job = (mr_job *)(uintptr_t)&whole->model.job};
    (void)snprintf(assignment.checkpoint_path, sizeof assignment.checkpoint_path, "%s", path);
    mr_parameters *p = parameters_make(&whole->model, width, index);
    ok(mr_layer_store_load(&assignment, p, &step, &applied));
    assert_int_equal(step, 1);
    for (size_t k = 0; k < mr_parameters_count(p); k++) {
        const mr_stage_parameter *part = mr_parameters_at(p, k);
        const mr_stage_parameter *all = mr_parameters_at(whole->parameters, k);
        assert_memory_equal(part->weight.data, all->weight.data,
                            stage_elements(&all->weight) * sizeof(float));
        for (size_t s = 0; s < 2 && part->part.count > 0; s++)
            assert_memory_equal(part->states[s].data,
                                (const float *)all->states[s].data + part->part.first,
                                part->part.count * sizeof(float));
    }
    mr_parameters_destroy(p);
}

static void test_every_width_loads_its_parts(void **state) {
    (void)state;
    char folder[MR_PATH_BYTES / 2];
    char path[MR_PATH_BYTES];
    replica alone[1];
    make_folder(folder, sizeof folder);
    replicas_open(alone, 1, false, folder);
    replicas_save(alone, 1);
    ok(alone[0].status);
    commit(&alone[0], path);
    for (size_t width = 1; width <= REPLICAS_MAX; width++)
        for (size_t index = 0; index < width; index++)
            expect_part(&alone[0], path, width, index);
    replicas_close(alone, 1);
}

static void test_parts_cover_every_parameter_once_and_are_of_one_size(void **state) {
    (void)state;
    stage_model m;
    model_make(&m);
    for (size_t width = 1; width <= REPLICAS_MAX; width++) {
        mr_parameters *p = parameters_make(&m, width, 0);
        size_t largest = 0;
        size_t smallest = SIZE_MAX;
        for (size_t i = 0; i < width; i++) {
            mr_parameters *q = parameters_make(&m, width, i);
            size_t bytes = mr_parameters_bytes_held(q).optimizer;
            largest = bytes > largest ? bytes : largest;
            smallest = bytes < smallest ? bytes : smallest;
            mr_parameters_destroy(q);
        }
        assert_true(largest - smallest <= 2 * 64); /* a slice's unit of each of two states */
        assert_int_equal(mr_parameters_weights_start(p, 0), 0);
        for (size_t k = 0; k < mr_parameters_count(p); k++) {
            size_t at = 0;
            for (size_t i = 0; i < width; i++) {
                mr_parameter_part part = mr_parameters_part(p, mr_parameters_at(p, k), i);
                if (part.count > 0)
                    assert_int_equal(part.first, at);
                at += part.count;
            }
            assert_int_equal(at, stage_elements(&mr_parameters_at(p, k)->weight));
        }
        mr_parameters_destroy(p);
    }
    stage_model_deinit(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_replica_writes_its_share_and_the_bytes_are_those_of_one),
        cmocka_unit_test(test_a_replica_that_gives_up_leaves_the_others_their_files),
        cmocka_unit_test(test_every_width_loads_its_parts),
        cmocka_unit_test(test_parts_cover_every_parameter_once_and_are_of_one_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
