/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a registered layer type is read, described, hashed and listed like a built-in one; a row
 * that is wrong is refused by its name, and no job is read until it is right.
 * Method: one good row, registered as a user's library does it; rows with one mistake each. The
 * wrong registration comes last, because it stays for the whole process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/model/layer_type.h"
#include "tests/unit/model/job_text.h"

typedef struct shift {
    size_t dim;
    double by;
    char label[16];
    bool often;
} shift;

static mr_status shift_describe(const mr_describe_input *in, mr_layer_description *out) {
    const shift *own = mr_layer_spec_own(in->spec);
    MR_TRY(mr_describe_check_width(in, "dim", own->dim));
    MR_TRY(mr_describe_add(in, out,
                           (mr_describe_parameter){.name = "offset", .rows = own->dim}));
    return mr_describe_output(in, out, own->dim);
}

static const mr_field shift_fields[] = {
    {.path = "dim",
     .kind = MR_FIELD_SIZE,
     .required = true,
     .minimum = 1,
     .maximum = 4096,
     .offset = offsetof(shift, dim)},
    {.path = "by", .kind = MR_FIELD_NUMBER, .fallback = "0.5", .high = 2,
     .offset = offsetof(shift, by)},
    {.path = "label", .kind = MR_FIELD_NAME, .capacity = 16, .offset = offsetof(shift, label)},
    {.path = "often", .kind = MR_FIELD_BOOL, .fallback = "false",
     .offset = offsetof(shift, often)},
};
static const mr_layer_type_row shift_row = {
    .name = "shift",
    .fields = shift_fields,
    .field_count = 4,
    .own_bytes = sizeof(shift),
    .describe = shift_describe,
};
MR_LAYER_TYPE_REGISTER(shift_row)

#define NORM "{type: layernorm, dim: 64}"

static mr_job *job_with(const char *layer) {
    return job_text_parse(job_text_edit(NORM, layer));
}

static void test_a_registered_type_is_one_more(void **state) {
    (void)state;
    assert_int_equal(mr_layer_type_count(), MR_LAYER_TYPE_COUNT + 1);
    assert_string_equal(mr_layer_type_name((mr_layer_type)MR_LAYER_TYPE_COUNT), "shift");
    assert_true(mr_status_is_ok(mr_layer_types_status()));
}

static void test_its_keys_are_read_into_its_own_struct(void **state) {
    (void)state;
    mr_job *job = job_with("{type: shift, dim: 64, label: here, name: mine}");
    const shift *own = mr_layer_spec_own(&job->layers[7]);
    assert_int_equal(own->dim, 64);
    assert_true(own->by == 0.5);
    assert_string_equal(own->label, "here");
    assert_false(own->often);
    assert_string_equal(job->layers[7].name, "mine");
    mr_job_destroy(job);
    job_text_refuse(job_text_edit(NORM, "{type: shift, dim: 5000}"), 8,
                    "model.layers[2].dim is 5000; it must be 1 to 4096");
    job_text_refuse(job_text_edit(NORM, "{type: shift}"), 8, "model.layers[2].dim is missing");
    job_text_refuse(job_text_edit(NORM, "{type: shift, dim: 64, heads: 2}"), 8,
                    "model.layers[2].heads is not a key of a layer of type shift; known: type, "
                    "repeat, name, tie, put, take, frozen, dim, by, label, often");
    job_text_refuse(job_text_edit(NORM, "{type: shift, dim: 63}"), 8,
                    "layer 7 (shift): dim is 63 but the input is f32 [4, 32, 64]; it must be 64");
}

static void test_every_own_key_is_part_of_the_models_identity(void **state) {
    static const char *const others[] = {
        "{type: shift, dim: 64, by: 1}",
        "{type: shift, dim: 64, label: a}",
        "{type: shift, dim: 64, often: true}",
    };
    (void)state;
    mr_job *plain = job_with("{type: shift, dim: 64}");
    mr_job *same = job_with("{type: shift, dim: 64, by: 0.5}");
    assert_string_equal(plain->model_hash, same->model_hash);
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        mr_job *other = job_with(others[i]);
        assert_string_not_equal(plain->model_hash, other->model_hash);
        mr_job_destroy(other);
    }
    mr_job_destroy(same);
    mr_job_destroy(plain);
}

static void test_it_may_be_listed_tied_and_matched(void **state) {
    (void)state;
    mr_job *job = job_text_parse(job_text_edit(
        "activation_checkpoint_interval: 0",
        "activation_checkpoint_interval: 1\n  checkpointable_layers: [shift, lm_head]"));
    assert_false(mr_job_layer_is_checkpointable(job, 0));
    assert_true(mr_job_layer_is_checkpointable(job, 8));
    mr_job_destroy(job);
    job = job_with("{type: shift, dim: 64, tie: twins, repeat: 2}");
    mr_layer_description layers[16];
    assert_true(mr_status_is_ok(mr_job_describe(job, layers)));
    assert_int_equal(layers[7].tied_count, 1);
    mr_job_destroy(job);
}

static void refuse_row(mr_layer_type_row row, const char *text) {
    mr_status status = mr_layer_type_row_check(&row);
    assert_int_equal(status.code, MR_CODE_FAILED_PRECONDITION);
    assert_string_equal(status.text, text);
}

static void refuse_field(mr_field field, const char *text) {
    refuse_row((mr_layer_type_row){.name = "other",
                                   .fields = &field,
                                   .field_count = 1,
                                   .own_bytes = 8,
                                   .describe = shift_describe},
               text);
}

static void test_a_wrong_row_is_refused_by_its_name(void **state) {
    (void)state;
    refuse_row((mr_layer_type_row){.name = "a-b", .describe = shift_describe},
               "a layer type is registered without a good name: 1 to 31 letters, digits and '_'");
    refuse_row((mr_layer_type_row){.name = "empty"},
               "layer type empty has no describe function");
    refuse_row(shift_row, "layer type shift is registered twice");
    refuse_row((mr_layer_type_row){.name = "linear", .describe = shift_describe},
               "layer type linear is registered twice");
    refuse_row((mr_layer_type_row){.name = "big", .describe = shift_describe, .own_bytes = 129},
               "layer type big has 129 own bytes and 0 keys; at most 128 and 16");
    refuse_field((mr_field){.path = "tie", .kind = MR_FIELD_BOOL},
                 "layer type other has a key tie, which all layers have");
    refuse_field((mr_field){.path = "a.b", .kind = MR_FIELD_BOOL},
                 "layer type other has a key without a good name");
    refuse_field((mr_field){.path = "pair", .kind = MR_FIELD_PAIR},
                 "key pair of layer type other is of a kind that it cannot be");
    refuse_field((mr_field){.path = "far", .kind = MR_FIELD_SIZE, .offset = 1},
                 "key far of layer type other lies outside its 8 own bytes");
}

static void test_no_job_is_read_after_a_wrong_registration(void **state) {
    (void)state;
    mr_job *job = NULL;
    mr_layer_type_register(&shift_row);
    mr_status status = mr_job_parse(job_text_good, strlen(job_text_good), &job, NULL);
    assert_int_equal(status.code, MR_CODE_FAILED_PRECONDITION);
    assert_string_equal(status.text, "layer type shift is registered twice");
    assert_null(job);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_registered_type_is_one_more),
        cmocka_unit_test(test_its_keys_are_read_into_its_own_struct),
        cmocka_unit_test(test_every_own_key_is_part_of_the_models_identity),
        cmocka_unit_test(test_it_may_be_listed_tied_and_matched),
        cmocka_unit_test(test_a_wrong_row_is_refused_by_its_name),
        cmocka_unit_test(test_no_job_is_read_after_a_wrong_registration),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
