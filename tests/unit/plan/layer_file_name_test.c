/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: layer files are named as DESIGN section 4 says. Method: the page's own examples and numbers
 * of more than two digits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "daemon/plan/layer_file.h"

static void test_names_carry_the_model_rank_only_where_there_are_several(void **state) {
    (void)state;
    char name[MR_NAME_BYTES];
    mr_layer_file_name(0, 0, 1, name);
    assert_string_equal(name, "layer_00-model_states.safetensors");
    mr_layer_file_name(0, 1, 2, name);
    assert_string_equal(name, "layer_00-model_01-model_states.safetensors");
    mr_layer_file_name(100, 0, 1, name);
    assert_string_equal(name, "layer_100-model_states.safetensors");
    mr_layer_file_name(MR_LAYERS_MAX, MR_RANKS_MAX, MR_RANKS_MAX, name);
    assert_string_equal(name, "layer_16384-model_4096-model_states.safetensors");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_carry_the_model_rank_only_where_there_are_several),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
