/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: runs of layers are cut as the field cuts them, and pipeline.checkpointable_layers chooses
 * among them as its list does. Method: the cases of tests/vectors/topology.json, "checkpointable",
 * as jobs with layers of the same kinds. What differs on purpose: without a list every run is
 * computed again, while the field leaves out runs without parameters and, for classes of two names,
 * everything but one class of layer; such classes change what a list means there, too, so of them
 * only the number of runs is compared. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/plan/activation_layout.h"
#include "tests/unit/plan/vectors.h"

enum { LAYERS_MAX = 16 };

typedef struct kind {
    const char *field; /* its class there */
    const char *type;
    const char *rest;
} kind;

static const kind kinds[] = {
    {"ReLU", "relu", ""},
    {"Lin", "linear", ", in: 4, out: 4"},
    {"fn", "layernorm", ", dim: 4"}, /* a layer of a size, as a model needs one */
    {"EmbeddingPipe", "embedding", ", vocab: 4, dim: 4"},
    {"ParallelTransformerLayerPipe", "transformer_block", ", dim: 4, heads: 2"},
};

static const kind *kind_of(json_t *name) {
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (strcmp(kinds[i].field, json_string_value(name)) == 0)
            return &kinds[i];
    fail_msg("no layer stands for %s", json_string_value(name));
    return NULL;
}

static mr_job *job_from(json_t *vector) {
    char text[2048] = "schema: millrace.job/v1\nname: case\nmodel:\n  layers:\n";
    size_t used = strlen(text);
    json_t *layers = vectors_get(vector, "layers");
    json_t *list = vectors_get(vector, "checkpointable_layers");
    for (size_t i = 0; i < json_array_size(layers); i++) {
        const kind *k = kind_of(json_array_get(layers, i));
        used += (size_t)snprintf(text + used, sizeof(text) - used, "    - {type: %s%s}\n", k->type,
                                 k->rest);
    }
    used += (size_t)snprintf(text + used, sizeof(text) - used,
                             "  loss: mse\npipeline:\n  activation_checkpoint_interval: %zu\n",
                             vectors_size(vector, "interval"));
    for (size_t i = 0; i < json_array_size(list); i++)
        used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%s%s",
                                 i == 0 ? "  checkpointable_layers: [" : ", ",
                                 kind_of(json_array_get(list, i))->type,
                                 i + 1 == json_array_size(list) ? "]\n" : "");
    used += (size_t)snprintf(text + used, sizeof(text) - used,
                             "batch: {micro_batch_size: 2, sequence_length: 4}\n"
                             "lr_schedule: {total_steps: 1}\n");
    mr_job *job = NULL;
    mr_status status = mr_job_parse(text, used, &job, NULL);
    if (!mr_status_is_ok(status))
        fail_msg("%s in\n%s", status.text, text);
    return job;
}

static void check_vector(json_t *vector) {
    json_t *chunks = vectors_get(vector, "chunks");
    bool listed = json_is_array(vectors_get(vector, "checkpointable_layers"));
    bool plain = strcmp(json_string_value(vectors_get(vector, "module_class")),
                        "PipelineModule") == 0;
    mr_activation_layout layout;
    mr_activation_layer layers[LAYERS_MAX];
    mr_plan *plan = NULL;
    mr_job *job = job_from(vector);
    assert_true(mr_status_is_ok(mr_plan_make(job, false, &plan)));
    assert_true(job->layer_count <= LAYERS_MAX);
    mr_activation_layout_make(plan, &plan->stages[0], plan->job->checkpoint_interval, &layout,
                              layers);
    size_t run = 0;
    for (size_t i = 0; i < job->layer_count; i = layers[i].run_end, run++) {
        assert_int_equal(layers[i].run_first, i);
        bool computed_again = !layers[i].saved.in_slot;
        if (!listed)
            assert_true(computed_again);
        else if (plain)
            assert_int_equal(computed_again, json_is_true(json_array_get(chunks, run)));
    }
    assert_int_equal(run, json_array_size(chunks));
    mr_plan_destroy(plan);
    mr_job_destroy(job);
}

static void test_runs_are_chosen_by_the_list(void **state) {
    (void)state;
    json_t *file = NULL;
    json_t *cases = vectors_open("topology.json", "checkpointable", &file);
    assert_true(json_array_size(cases) > 10);
    for (size_t i = 0; i < json_array_size(cases); i++)
        check_vector(json_array_get(cases, i));
    json_decref(file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_runs_are_chosen_by_the_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
