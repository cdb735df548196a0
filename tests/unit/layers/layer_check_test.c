/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a layer that can be described but not computed is refused by name before anything runs.
 * Method: every form of layer_cases passes; each field that this build has no code for fails with a
 * text that names it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/layers/layer_table.h"
#include "daemon/model/layer_type.h"
#include "tests/unit/layers/layer_fixture.h"

static void assert_refused(mr_layer_spec spec, const char *named) {
    mr_status status = mr_layer_check(&spec);
    assert_int_equal(status.code, MR_CODE_UNIMPLEMENTED);
    assert_non_null(strstr(status.text, named));
}

static void test_computable_layers_pass(void **state) {
    (void)state;
    for (size_t i = 0; i < layer_case_count; i++)
        assert_true(mr_status_is_ok(mr_layer_check(&layer_cases[i].spec)));
}

static void test_other_layers_are_refused_by_name(void **state) {
    (void)state;
    const mr_layer_spec block = {
        .type = MR_LAYER_TYPE_TRANSFORMER_BLOCK, .dim = 12, .heads = 4, .kv_heads = 4, .ffn = 48};
    mr_layer_spec spec = block;
    spec.norm = MR_NORM_RMSNORM;
    assert_refused(spec, "norm");
    spec = block;
    spec.activation = MR_ACTIVATION_SWIGLU;
    assert_refused(spec, "activation");
    spec = block;
    spec.position = MR_POSITION_ROPE;
    assert_refused(spec, "position");
    spec = block;
    spec.kv_heads = 2;
    assert_refused(spec, "kv_heads is 2; it must be heads, 4");
    assert_refused((mr_layer_spec){.type = MR_LAYER_TYPE_RMSNORM, .dim = 12}, "rmsnorm");
}

static mr_status never_described(const mr_describe_input *in, mr_layer_description *out) {
    (void)in;
    (void)out;
    return MR_OK;
}

static const mr_layer_type_row lone_row = {.name = "lone", .describe = never_described};
MR_LAYER_TYPE_REGISTER(lone_row)

/* A user's type whose halves do not match: the second registration stays for the whole process, so
 * this is one test, in order. */
static void test_a_users_type_needs_whole_functions_once(void **state) {
    static const mr_layer_functions part = {.backward_weight = mr_layer_no_weight};
    const mr_layer_spec lone = {.type = (mr_layer_type)MR_LAYER_TYPE_COUNT};
    (void)state;
    assert_refused(lone, "layer type lone cannot be computed by this build");
    mr_layer_functions_register("lone", &part);
    mr_status status = mr_layer_check(&lone);
    assert_int_equal(status.code, MR_CODE_FAILED_PRECONDITION);
    assert_string_equal(status.text,
                        "layer type lone must have forward, backward_input and backward_weight");
    mr_layer_functions_register("lone", &mr_layer_identity);
    status = mr_layer_check(&lone);
    assert_string_equal(status.text, "the functions of layer type lone are registered twice");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_computable_layers_pass),
        cmocka_unit_test(test_other_layers_are_refused_by_name),
        cmocka_unit_test(test_a_users_type_needs_whole_functions_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
