/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the fields of layers refuse a value of a wrong type, one beyond each bound and one that
 * does not fit the rest, each with line, layer, key, value and what would be right.
 * frozen_tie_test.c has ties and frozen parameters, job_model_axis_test.c what the model axis
 * cannot cut.
 * Method: a table of layers that stand in for the norm of a good file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/model/job_text.h"

#define NORM "{type: layernorm, dim: 64}"
#define CONV "{type: conv2d, in: 3, out: 4, "
enum { NORM_LINE = 8 };

typedef struct mistake {
    const char *layer;
    const char *start;
} mistake;

static void check_all(const mistake *mistakes, size_t count) {
    for (size_t i = 0; i < count; i++)
        job_text_refuse(job_text_edit(NORM, mistakes[i].layer), NORM_LINE, mistakes[i].start);
}

#define CHECK(mistakes) check_all(mistakes, sizeof(mistakes) / sizeof((mistakes)[0]))

static void test_windows_are_checked(void **state) {
    static const mistake mistakes[] = {
        {"{type: conv2d, in: 3, out: 4}", "model.layers[2].kernel is missing; it must be a whole"},
        {"{type: conv2d, out: 4, kernel: 3}", "model.layers[2].in is missing; it must be a whole"},
        {"{type: conv2d, in: 3, kernel: 3}", "model.layers[2].out is missing; it must be a whole"},
        {"{type: conv2d, in: three, out: 4, kernel: 3}",
         "model.layers[2].in is three; it must be a whole number, 1 to 16777216"},
        {"{type: conv2d, in: 16777217, out: 4, kernel: 3}",
         "model.layers[2].in is 16777217; it must be 1 to 16777216"},
        {CONV "kernel: [3, 3]}", "model.layers[2].kernel is a list; it must be a whole number"},
        {CONV "kernel: 0}", "model.layers[2].kernel is 0; it must be 1 to 16777216"},
        {CONV "kernel: 3, stride: 0}", "model.layers[2].stride is 0; it must be 1 to 16777216"},
        {CONV "kernel: 3, stride: 1.5}", "model.layers[2].stride is 1.5; it must be a whole"},
        {CONV "kernel: 3, padding: -1}", "model.layers[2].padding is -1; it must be 0 to"},
        {CONV "kernel: 3, padding: same}", "model.layers[2].padding is same; it must be a whole"},
        {CONV "kernel: 3, bias: 1}", "model.layers[2].bias is 1; it must be true or false"},
        {CONV "kernel: 3, groups: 2}",
         "model.layers[2].groups is not a key of a layer of type conv2d; known: "},
        {CONV "kernel: 3}", "layer 7 (conv2d): the input is f32 [4, 32, 64]; it must be"},
        {"{type: maxpool2d}", "model.layers[2].kernel is missing; it must be a whole number"},
        {"{type: maxpool2d, kernel: 2, stride: 0}", "model.layers[2].stride is 0; it must be 1 to"},
        {"{type: maxpool2d, kernel: big}", "model.layers[2].kernel is big; it must be a whole"},
        {"{type: maxpool2d, kernel: 16777217}",
         "model.layers[2].kernel is 16777217; it must be 1 to 16777216"},
        {"{type: flatten, dim: 1}", "model.layers[2].dim is not a key of a layer of type flatten"},
    };
    (void)state;
    CHECK(mistakes);
}

static void test_a_window_must_fit_its_input(void **state) {
    static const char format[] = "schema: millrace.job/v1\nname: a\nmodel:\n"
                                 "  input: [3, 8, 8]\n  layers:\n    - %s\n"
                                 "  loss: none\n"
                                 "batch: {micro_batch_size: 2, sequence_length: 1}\n";
    static const mistake mistakes[] = {
        {"{type: conv2d, in: 3, out: 4, kernel: 9}",
         "layer 0 (conv2d): kernel is 9; it must be at most 8, the input's side with padding"},
        {"{type: conv2d, in: 4, out: 4, kernel: 3}",
         "layer 0 (conv2d): in is 4 but the input is f32 [2, 3, 8, 8]; it must be 3"},
        {"{type: maxpool2d, kernel: 11, padding: 1}",
         "layer 0 (maxpool2d): kernel is 11; it must be at most 10, the input's side with padding"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(mistakes) / sizeof(mistakes[0]); i++) {
        char text[512];
        (void)snprintf(text, sizeof(text), format, mistakes[i].layer);
        job_text_refuse(text, 6, mistakes[i].start);
    }
}

static void test_what_is_put_and_taken_is_checked(void **state) {
    static const mistake mistakes[] = {
        {"{type: layernorm, dim: 64, put: 3}",
         "model.layers[2].put is 3, which is not a text; write it in quotes"},
        {"{type: layernorm, dim: 64, put: [a]}", "model.layers[2].put is a list; it must be "},
        {"{type: layernorm, dim: 64, put: ''}", "model.layers[2].put is the text \"\"; it must be"},
        {"{type: layernorm, dim: 64, put: 'a b'}", "model.layers[2].put is the text \"a b\"; it"},
        {"{type: add, take: {a: b}}", "model.layers[2].take is a mapping; it must be "},
        {"{type: add, take: 'a/b'}", "model.layers[2].take is the text \"a/b\"; it must be"},
        {"{type: add, take: true}", "model.layers[2].take is true, which is not a text"},
    };
    (void)state;
    CHECK(mistakes);
}

static void test_ties_and_frozen_parameters_are_checked(void **state) {
    static const mistake mistakes[] = {
        {"{type: layernorm, dim: 64, tie: 3}",
         "model.layers[2].tie is 3, which is not a text; write it in quotes"},
        {"{type: layernorm, dim: 64, tie: 'a b'}", "model.layers[2].tie is the text \"a b\"; it"},
        {"{type: layernorm, dim: 64, tie: {key: 3, parameters: [bias]}}",
         "model.layers[2].tie.key is 3, which is not a text"},
        {"{type: layernorm, dim: 64, tie: {key: nn, parameters: bias}}",
         "model.layers[2].tie.parameters is bias; it must be a list of names of parameters"},
        {"{type: layernorm, dim: 64, tie: {key: nn, parameters: []}}",
         "model.layers[2].tie.parameters is an empty list; it must be a list of names"},
        {"{type: layernorm, dim: 64, tie: {key: nn, parameters: [bias, bias]}}",
         "model.layers[2].tie.parameters[1] is bias, which the list already has"},
        {"{type: layernorm, dim: 64, frozen: 'yes'}",
         "model.layers[2].frozen is the text \"yes\"; it must be true, false or a list of names"},
        {"{type: layernorm, dim: 64, frozen: {a: true}}",
         "model.layers[2].frozen is a mapping; it must be true, false or a list of names"},
        {"{type: linear, in: 64, out: 64, parallel: both}",
         "model.layers[2].parallel is both; it must be none, column or row"},
        {"{type: linear, in: 64, out: 64, parallel: 1}",
         "model.layers[2].parallel is 1; it must be none, column or row"},
        {"{type: dropout, p: often}", "model.layers[2].p is often; it must be a number"},
        {"{type: dropout, p: -0.1}", "model.layers[2].p is -0.1; it must be a number of at least"},
    };
    (void)state;
    CHECK(mistakes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_windows_are_checked),
        cmocka_unit_test(test_a_window_must_fit_its_input),
        cmocka_unit_test(test_what_is_put_and_taken_is_checked),
        cmocka_unit_test(test_ties_and_frozen_parameters_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
