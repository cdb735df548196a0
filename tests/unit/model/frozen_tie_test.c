/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: frozen and tie, in each of their forms, say which parameters are meant; a name that the
 * layer does not have, and two uses of a tie that do not agree, are refused by line and by both
 * names. The memory of a plan leaves out what a frozen parameter does not have.
 * Method: edits of a good job file; descriptions of its layers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "tests/unit/model/job_text.h"

#define EMBEDDING "{type: embedding, tie: embed, vocab: 256, dim: 64, positions: 32}"
#define HEAD "{type: lm_head, tie: embed}"
#define BLOCKS "{type: transformer_block, repeat: 6, dim: 64, heads: 8}"
#define NORM "{type: layernorm, dim: 64}"

typedef struct described {
    mr_job *job;
    mr_layer_description *layers;
} described;

static described describe(const char *from, const char *to) {
    described d = {.job = job_text_parse(job_text_edit(from, to))};
    d.layers = mr_alloc_array(d.job->layer_count, sizeof(*d.layers));
    assert_non_null(d.layers);
    assert_true(mr_status_is_ok(mr_job_describe(d.job, d.layers)));
    return d;
}

static void described_free(described *d) {
    mr_free(d->layers);
    mr_job_destroy(d->job);
}

static size_t frozen_count(const mr_layer_description *layer) {
    size_t count = 0;
    for (size_t i = 0; i < layer->parameter_count; i++)
        count += layer->parameters[i].frozen;
    return count;
}

static void test_frozen_true_is_every_parameter_of_the_layer(void **state) {
    (void)state;
    described d = describe(BLOCKS, "{type: transformer_block, repeat: 6, dim: 64, heads: 8, "
                                   "frozen: true}");
    for (size_t i = 0; i < d.job->layer_count; i++) {
        bool block = i >= 1 && i <= 6;
        const mr_layer_description *layer = &d.layers[i];
        assert_int_equal(frozen_count(layer), block ? layer->parameter_count : 0);
        assert_int_equal(layer->trainable_elements, block ? 0 : layer->parameter_elements);
        assert_true(layer->output.needs_gradient); /* the embedding before is trained */
        assert_int_equal(layer->flops_backward_weight == 0, block);
    }
    assert_true(d.layers[1].flops_backward_input > 0);
    described_free(&d);
}

static void test_frozen_names_are_these_parameters_alone(void **state) {
    (void)state;
    described d = describe(BLOCKS, "{type: transformer_block, repeat: 6, dim: 64, heads: 8, "
                                   "frozen: [attn.qkv.weight, ln_1.bias]}");
    const mr_layer_description *block = &d.layers[3];
    assert_int_equal(frozen_count(block), 2);
    for (size_t i = 0; i < block->parameter_count; i++) {
        const mr_parameter *p = &block->parameters[i];
        assert_int_equal(p->frozen, strcmp(p->name, "attn.qkv.weight") == 0 ||
                                        strcmp(p->name, "ln_1.bias") == 0);
        assert_int_equal(p->shape.needs_gradient, !p->frozen);
    }
    assert_int_equal(block->parameter_elements - block->trainable_elements, 3 * 64 * 64 + 64);
    described_free(&d);
}

static void test_nothing_flows_back_to_layers_that_are_all_frozen(void **state) {
    (void)state;
    described d = describe(EMBEDDING "\n    - " BLOCKS "\n    - " NORM "\n    - " HEAD,
                           "{type: embedding, vocab: 256, dim: 64, frozen: true}\n    - "
                           "{type: transformer_block, dim: 64, heads: 8, frozen: true}\n    - "
                           "{type: layernorm, dim: 64}\n    - "
                           "{type: lm_head, vocab: 256, dim: 64}");
    assert_false(d.layers[0].output.needs_gradient);
    assert_false(d.layers[1].output.needs_gradient);
    assert_true(d.layers[1].flops_backward_input == 0);
    assert_true(d.layers[2].output.needs_gradient);
    assert_true(d.layers[2].flops_backward_input == 0);
    described_free(&d);
}

static void test_frozen_is_no_part_of_the_models_identity(void **state) {
    (void)state;
    described plain = describe("seed: 1234", "seed: 1234");
    described frozen = describe(NORM, "{type: layernorm, dim: 64, frozen: [bias]}");
    assert_string_equal(plain.job->model_hash, frozen.job->model_hash);
    described_free(&frozen);
    described_free(&plain);
}

static void test_a_tie_names_its_parameters_in_its_own_order(void **state) {
    (void)state;
    described d = describe(
        BLOCKS "\n    - " NORM,
        "{type: layernorm, dim: 64, tie: {key: nn, parameters: [bias, weight]}}\n    - "
        "{type: layernorm, dim: 64, tie: {key: nn, parameters: [bias, weight]}}");
    const mr_layer_description *first = &d.layers[1];
    assert_int_equal(first->tied_count, 2);
    assert_string_equal(mr_layer_description_tied(first, 0)->name, "bias");
    assert_string_equal(mr_layer_description_tied(first, 1)->name, "weight");
    assert_int_equal(d.layers[0].tied_count, 1);
    assert_string_equal(mr_layer_description_tied(&d.layers[0], 0)->name, "wte.weight");
    described_free(&d);
}

static void test_a_tie_without_names_shares_all_that_its_type_does_not_single_out(void **state) {
    (void)state;
    described d = describe(BLOCKS, "{type: transformer_block, repeat: 6, dim: 64, heads: 8, "
                                   "tie: shared}");
    assert_int_equal(d.layers[1].tied_count, d.layers[1].parameter_count);
    assert_int_equal(d.layers[1].parameters[3].tie_slot, 3);
    described_free(&d);
}

static void test_what_a_layer_does_not_have_is_refused(void **state) {
    (void)state;
    job_text_refuse(job_text_edit(NORM, "{type: layernorm, dim: 64, frozen: [wait]}"), 8,
                    "layer 7 (layernorm): frozen has wait, which is no parameter of layernorm; "
                    "known: weight, bias");
    job_text_refuse(job_text_edit(NORM, "{type: layernorm, dim: 64, frozen: 1}"), 8,
                    "model.layers[2].frozen is 1; it must be true, false or a list of names of "
                    "parameters");
    job_text_refuse(job_text_edit(NORM, "{type: layernorm, dim: 64, frozen: []}"), 8,
                    "model.layers[2].frozen is an empty list; it must be a list of names");
    job_text_refuse(job_text_edit(NORM, "{type: layernorm, dim: 64, frozen: [bias, bias]}"), 8,
                    "model.layers[2].frozen[1] is bias, which the list already has");
    job_text_refuse(job_text_edit(NORM, "{type: layernorm, dim: 64, frozen: [a b]}"), 8,
                    "model.layers[2].frozen[0] is a b; it must be the name");
    job_text_refuse(job_text_edit(NORM, NORM "\n    - {type: relu, frozen: true}"), 9,
                    "layer 8 (relu): frozen is given, but a layer of type relu has no parameters");
    job_text_refuse(job_text_edit(HEAD, "{type: lm_head, tie: {key: embed, parameters: [w]}}"), 9,
                    "layer 8 (lm_head): tie.parameters has w, which is no parameter of lm_head");
    job_text_refuse(job_text_edit(HEAD, "{type: lm_head, tie: {parameters: [wte.weight]}}"), 9,
                    "model.layers[3].tie.key is missing; it must be the tie's name");
    job_text_refuse(job_text_edit(HEAD, "{type: lm_head, tie: {key: embed, name: [w]}}"), 9,
                    "model.layers[3].tie.name is not a key of a tie");
    job_text_refuse_first(job_text_edit(HEAD, "{type: lm_head, tie: [embed]}"), 9,
                          "model.layers[3].tie is a list");
}

static void test_uses_of_a_tie_that_disagree_are_refused_by_both_names(void **state) {
    (void)state;
    job_text_refuse(job_text_edit(HEAD, "{type: lm_head, tie: embed, frozen: true}"), 9,
                    "layer 8 (lm_head): tie embed: wte.weight is frozen, but layer 0's wte.weight "
                    "is not");
    job_text_refuse(job_text_edit("tie: embed, vocab", "tie: embed, frozen: [wte.weight], vocab"),
                    9,
                    "layer 8 (lm_head): tie embed: wte.weight is not frozen, but layer 0's "
                    "wte.weight is");
    job_text_refuse(job_text_edit(NORM, "{type: layernorm, dim: 64, tie: nn}\n    - "
                                        "{type: linear, in: 64, out: 64, bias: false, tie: nn}"),
                    9,
                    "layer 8 (linear): tie nn shares 1 parameters of this layer but 2 of layer 7");
    job_text_refuse(
        job_text_edit(NORM, "{type: layernorm, dim: 64, tie: {key: nn, parameters: [bias]}}\n    - "
                            "{type: linear, in: 64, out: 64, "
                            "tie: {key: nn, parameters: [weight]}}"),
        9, "layer 8 (linear): tie nn: weight is f32 [64, 64], but layer 7's bias is f32 [64]");
    described both = describe("tie: embed, vocab", "tie: embed, vocab"); /* untouched: agrees */
    described_free(&both);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frozen_true_is_every_parameter_of_the_layer),
        cmocka_unit_test(test_frozen_names_are_these_parameters_alone),
        cmocka_unit_test(test_nothing_flows_back_to_layers_that_are_all_frozen),
        cmocka_unit_test(test_frozen_is_no_part_of_the_models_identity),
        cmocka_unit_test(test_a_tie_names_its_parameters_in_its_own_order),
        cmocka_unit_test(test_a_tie_without_names_shares_all_that_its_type_does_not_single_out),
        cmocka_unit_test(test_what_a_layer_does_not_have_is_refused),
        cmocka_unit_test(test_uses_of_a_tie_that_disagree_are_refused_by_both_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
