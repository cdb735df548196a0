/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the shards of a parameter are a partition of it, in order, with every part cut for itself.
 * Method: each element of a whole carries its own index; the shards of all ranks are cut out run by
 * run and compared with the rows and columns written out by hand, or put together again. For every
 * parameter of a block, at every width that its heads allow, each element is in one shard exactly,
 * or in all of them where nothing is cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/model/shard.h"

enum { ELEMENTS_MAX = 4096 };

static mr_parameter parameter_make(size_t rows, size_t columns, mr_model_cut cut,
                                   mr_parameter_parts parts) {
    mr_parameter parameter = {
        .name = "weight",
        .whole = {.dtype = MR_DTYPE_F32,
                  .dim_count = columns > 0 ? 2 : 1,
                  .dims = {rows, columns}},
        .cut = cut,
        .parts = parts,
    };
    parameter.shape = parameter.whole;
    return parameter;
}

static mr_shard shard_of(const mr_parameter *parameter, size_t rank, size_t width) {
    mr_shard shard;
    mr_status status = mr_shard_make(parameter, rank, width, &shard);
    if (!mr_status_is_ok(status))
        fail_msg("%s", status.text);
    return shard;
}

/* The whole's indices of the shard's elements, in the shard's order. */
static size_t shard_indices(const mr_shard *shard, size_t out[ELEMENTS_MAX]) {
    size_t count = 0;
    for (size_t i = 0; i < shard->run_count; i++) {
        mr_shard_run run = mr_shard_run_at(shard, i);
        assert_int_equal(run.shard_first, count);
        for (size_t k = 0; k < run.count; k++)
            out[count++] = run.whole_first + k;
    }
    size_t elements = 0;
    assert_true(mr_shape_elements(&shard->shape, &elements));
    assert_int_equal(count, elements);
    return count;
}

static void check_indices(const mr_parameter *parameter, size_t rank, size_t width,
                          const size_t *wanted, size_t count) {
    size_t indices[ELEMENTS_MAX];
    mr_shard shard = shard_of(parameter, rank, width);
    assert_int_equal(shard_indices(&shard, indices), count);
    assert_memory_equal(indices, wanted, count * sizeof *wanted);
}

static void test_a_range_gives_the_first_ranks_one_more(void **state) {
    (void)state;
    static const size_t firsts[] = {0, 3, 6, 8, 10};
    for (size_t rank = 0; rank < 4; rank++) {
        mr_shard_range range = mr_shard_range_of(10, rank, 4);
        assert_int_equal(range.first, firsts[rank]);
        assert_int_equal(range.first + range.count, firsts[rank + 1]);
    }
    assert_int_equal(mr_shard_range_of(1, 1, 2).count, 0);
}

static void test_rows_are_neighbours_in_rank_order(void **state) {
    (void)state;
    mr_parameter vocabulary = parameter_make(5, 2, MR_MODEL_CUT_ROWS, (mr_parameter_parts){0});
    static const size_t first[] = {0, 1, 2, 3, 4, 5};
    static const size_t second[] = {6, 7, 8, 9};
    check_indices(&vocabulary, 0, 2, first, 6);
    check_indices(&vocabulary, 1, 2, second, 4);
}

static void test_columns_are_cut_in_every_row(void **state) {
    (void)state;
    mr_parameter matrix = parameter_make(2, 4, MR_MODEL_CUT_COLUMNS, (mr_parameter_parts){0});
    static const size_t first[] = {0, 1, 4, 5};
    static const size_t second[] = {2, 3, 6, 7};
    check_indices(&matrix, 0, 2, first, 4);
    check_indices(&matrix, 1, 2, second, 4);
}

static void test_query_key_and_value_are_cut_each_by_whole_heads(void **state) {
    (void)state;
    /* Four heads of one row and two of key and value: [Q Q Q Q | K K | V V]. */
    mr_parameter bias =
        parameter_make(8, 0, MR_MODEL_CUT_ROWS, (mr_parameter_parts){3, {4, 2, 2}, 1});
    static const size_t first[] = {0, 1, 4, 6};
    static const size_t second[] = {2, 3, 5, 7};
    check_indices(&bias, 0, 2, first, 4);
    check_indices(&bias, 1, 2, second, 4);
    mr_parameter heads =
        parameter_make(18, 0, MR_MODEL_CUT_ROWS, (mr_parameter_parts){3, {6, 6, 6}, 2});
    static const size_t of_three[] = {2, 3, 8, 9, 14, 15};
    check_indices(&heads, 1, 3, of_three, 6);
    static const size_t uneven[] = {0, 1, 2, 3, 6, 7, 8, 9, 12, 13, 14, 15};
    check_indices(&heads, 0, 2, uneven, 12);
}

static void test_without_a_cut_every_rank_holds_the_whole(void **state) {
    (void)state;
    mr_parameter norm = parameter_make(3, 0, MR_MODEL_CUT_NONE, (mr_parameter_parts){0});
    static const size_t all[] = {0, 1, 2};
    check_indices(&norm, 0, 1, all, 3);
    check_indices(&norm, 4, 5, all, 3);
    assert_int_equal(shard_of(&norm, 0, 1).run_count, 1);
}

static void test_a_width_that_cannot_be_is_refused_with_its_numbers(void **state) {
    (void)state;
    mr_shard shard;
    mr_parameter two = parameter_make(2, 3, MR_MODEL_CUT_ROWS, (mr_parameter_parts){0});
    mr_status status = mr_shard_make(&two, 0, 3, &shard);
    assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
    assert_string_equal(status.text,
                        "weight has 2 blocks of 1 rows; each of the 3 model ranks needs one");
    assert_int_equal(mr_shard_make(&two, 2, 2, &shard).code, MR_CODE_INVALID_ARGUMENT);
    assert_int_equal(mr_shard_make(&two, 0, 0, &shard).code, MR_CODE_INVALID_ARGUMENT);
}

/* Counts the shards that hold each element. */
static void check_partition(const mr_parameter *parameter, size_t width) {
    size_t holders[ELEMENTS_MAX] = {0};
    size_t indices[ELEMENTS_MAX];
    size_t elements = 0;
    assert_true(mr_shape_elements(&parameter->whole, &elements));
    assert_true(elements <= ELEMENTS_MAX);
    for (size_t rank = 0; rank < width; rank++) {
        mr_shard shard = shard_of(parameter, rank, width);
        size_t count = shard_indices(&shard, indices);
        for (size_t i = 0; i < count; i++)
            holders[indices[i]]++;
    }
    size_t wanted = parameter->cut == MR_MODEL_CUT_NONE ? width : 1;
    for (size_t i = 0; i < elements; i++)
        assert_int_equal(holders[i], wanted);
}

static void test_every_parameter_of_a_block_is_partitioned(void **state) {
    (void)state;
    mr_layer_spec spec = {.type = MR_LAYER_TYPE_TRANSFORMER_BLOCK,
                          .dim = 16,
                          .heads = 8,
                          .kv_heads = 4,
                          .ffn = 24,
                          .bias = true,
                          .causal = true};
    mr_shape input = {.dtype = MR_DTYPE_F32, .dim_count = 3, .dims = {1, 2, 16}};
    for (int gated = 0; gated < 2; gated++) {
        mr_layer_description description;
        spec.activation = gated ? MR_ACTIVATION_SWIGLU : MR_ACTIVATION_GELU_TANH;
        assert_true(mr_status_is_ok(mr_layer_describe(&spec, &input, 1, &description)));
        for (size_t width = 1; width <= 4; width *= 2)
            for (size_t i = 0; i < description.parameter_count; i++)
                check_partition(&description.parameters[i], width);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_range_gives_the_first_ranks_one_more),
        cmocka_unit_test(test_rows_are_neighbours_in_rank_order),
        cmocka_unit_test(test_columns_are_cut_in_every_row),
        cmocka_unit_test(test_query_key_and_value_are_cut_each_by_whole_heads),
        cmocka_unit_test(test_without_a_cut_every_rank_holds_the_whole),
        cmocka_unit_test(test_a_width_that_cannot_be_is_refused_with_its_numbers),
        cmocka_unit_test(test_every_parameter_of_a_block_is_partitioned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
