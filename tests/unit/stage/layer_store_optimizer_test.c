/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a checkpoint goes on only with the optimizer that wrote it; weights alone go anywhere.
 * Method: every kind saves, commits, and is loaded by every kind: what comes back is compared to
 * the bit, what is refused by its text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <unistd.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/stage/layer_save.h"
#include "daemon/stage/layer_store.h"
#include "daemon/stage/optimizer.h"
#include "tests/unit/stage/stage_model.h"

enum { LAYERS = 5 };

static const struct {
    mr_optimizer_kind kind;
    double momentum;
} kinds[] = {{MR_OPTIMIZER_ADAMW, 0},
             {MR_OPTIMIZER_ADAM, 0},
             {MR_OPTIMIZER_SGD, 0},
             {MR_OPTIMIZER_SGD, 0.9},
             {MR_OPTIMIZER_LION, 0}};
enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };

static void ok(mr_status status) {
    if (!mr_status_is_ok(status))
        fail_msg("%s: %s", mr_code_name(status.code), status.text);
}

static mr_parameters *make(stage_model *m, size_t kind, bool training) {
    stage_model_init_gpt(m);
    m->job.optimizer = kinds[kind].kind;
    m->job.momentum = kinds[kind].momentum;
    (void)snprintf(m->job.model_hash, sizeof m->job.model_hash, "%064d", 0);
    return stage_model_parameters(m, 0, LAYERS, training);
}

/* Trains a step and leaves the checkpoint dir/step-1. */
static mr_parameters *save(stage_model *m, size_t kind, const char *dir, char *out_path) {
    char tag[MR_NAME_BYTES];
    const _Atomic bool stop = false;
    mr_assignment assignment = {.epoch = 1, .job = &m->job};
    mr_layer_save_files files = {0};
    mr_parameters *p = make(m, kind, true);
    stage_fill_gradients(m, p);
    mr_optimizer_step(p, 1, 1);
    mr_layout_step_tag(1, tag);
    (void)snprintf(assignment.checkpoint_dir, sizeof assignment.checkpoint_dir, "%s", dir);
    mr_layer_save_options options = {
        .assignment = &assignment, .parameters = p, .tag = tag, .step = 1, .stop = &stop};
    ok(mr_layer_save(&options, &files));
    assert_int_equal(files.count,
                     mr_parameters_states(p).count > 0 ? 2 * LAYERS : LAYERS);
    mr_manifest manifest = {.job = "kinds",
                            .step = 1,
                            .epoch = 1,
                            .optimizer = {.steps = 1, .lr = 1e-2},
                            .files = files.files,
                            .file_count = files.count};
    memcpy(manifest.model_hash, m->job.model_hash, sizeof manifest.model_hash);
    (void)snprintf(manifest.optimizer.type, sizeof manifest.optimizer.type, "%s",
                   mr_optimizer_name(m->job.optimizer));
    ok(mr_manifest_commit(dir, tag, &manifest, NULL));
    ok(mr_layout_join(dir, tag, out_path, MR_PATH_BYTES));
    mr_free(files.files);
    return p;
}

static void expect_same(const stage_model *m, const mr_tensor *a, const mr_tensor *b) {
    float *left = stage_read(m, a);
    float *right = stage_read(m, b);
    assert_memory_equal(left, right, stage_elements(a) * sizeof *left);
    mr_free(right);
    mr_free(left);
}

static mr_status load(const char *path, stage_model *m, mr_parameters *q) {
    uint64_t step = 0;
    mr_applied applied = {0};
    mr_assignment assignment = {.epoch = 2, .job = &m->job};
    (void)snprintf(assignment.checkpoint_path, sizeof assignment.checkpoint_path, "%s", path);
    mr_status status = mr_layer_store_load(&assignment, q, &step, &applied);
    assert_true(!mr_status_is_ok(status) || step == 1);
    return status;
}

static void expect_load(const char *path, const mr_parameters *p, size_t from, size_t to) {
    stage_model m;
    char wanted[MR_STATUS_TEXT_BYTES];
    mr_parameters *q = make(&m, to, true);
    mr_status status = load(path, &m, q);
    if (kinds[from].kind != kinds[to].kind) {
        (void)snprintf(wanted, sizeof wanted,
                       "optimizer.type is %s but the checkpoint has the state of %s",
                       mr_optimizer_name(kinds[to].kind), mr_optimizer_name(kinds[from].kind));
        assert_int_equal(status.code, MR_CODE_FAILED_PRECONDITION);
        assert_string_equal(status.text, wanted);
    } else if (kinds[to].momentum > kinds[from].momentum) {
        assert_int_equal(status.code, MR_CODE_FAILED_PRECONDITION);
        assert_string_equal(status.text, "the checkpoint of sgd has no momentum: there is no "
                                         "layer_00-optim_states.safetensors");
    } else {
        ok(status);
        for (size_t k = 0; k < mr_parameters_count(p); k++) {
            const mr_stage_parameter *a = mr_parameters_at(p, k);
            const mr_stage_parameter *b = mr_parameters_at(q, k);
            expect_same(&m, &a->weight, &b->weight);
            for (size_t s = 0; s < mr_parameters_states(q).count; s++)
                expect_same(&m, &a->states[s], &b->states[s]);
        }
    }
    mr_parameters_destroy(q);
    stage_model_deinit(&m);
}

static void test_only_the_same_optimizer_goes_on(void **state) {
    (void)state;
    for (size_t from = 0; from < KINDS; from++) {
        stage_model m;
        stage_model reader;
        const char *base = getenv("TEST_TMPDIR");
        char dir[MR_PATH_BYTES / 2];
        char path[MR_PATH_BYTES];
        (void)snprintf(dir, sizeof dir, "%s/kinds-XXXXXX", base == NULL ? "/tmp" : base);
        assert_non_null(mkdtemp(dir));
        mr_parameters *p = save(&m, from, dir, path);
        for (size_t to = 0; to < KINDS; to++)
            expect_load(path, p, from, to);
        mr_parameters *weights = make(&reader, (from + 1) % KINDS, false);
        ok(load(path, &reader, weights));
        expect_same(&m, &mr_parameters_at(p, 0)->weight, &mr_parameters_at(weights, 0)->weight);
        mr_parameters_destroy(weights);
        stage_model_deinit(&reader);
        mr_parameters_destroy(p);
        stage_model_deinit(&m);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_the_same_optimizer_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
