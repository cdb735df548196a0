/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the shards of a layer together compute what the layer computes: output, gradient of the
 * input, gradients of all parameters; what is whole on every rank has the same bits on all, and a
 * mask of dropout does not know the width.
 * Method: every case of the rig, three seeds, in f32 and bf16: each rank's tensors against its part
 * of the whole layer's. In f32 they differ by rounding alone (tolerance 2e-5 of the largest number
 * and 2e-6), in bf16 by a rounding to 8 bits here and there (3e-2 and 1e-2). A call before a group
 * that breaks leaves the group's error in the axis. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <math.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "tests/unit/layers/shard_rig.h"

static void pass_body(shard_rank *rank) {
    fixture_forward(&rank->fixture);
    fixture_backward(&rank->fixture);
}

/* part: what the rank should have; owned. */
static void compare(const shard_rank *rank, const char *what, const mr_tensor *computed,
                    float *owned_part, mr_dtype precision) {
    bool narrow = precision == MR_DTYPE_BF16;
    size_t n = fixture_elements(computed);
    float *values = fixture_read(&rank->fixture, computed);
    double largest = 0;
    for (size_t i = 0; i < n; i++)
        largest = fmax(largest, fabs((double)owned_part[i]));
    double tolerance = narrow ? 3e-2 * largest + 1e-2 : 2e-5 * largest + 2e-6;
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)values[i] - (double)owned_part[i]) <= tolerance))
            fail_msg("%s, rank %zu, %s[%zu]: %.9g, the whole layer has %.9g, tolerance %.3g",
                     rank->layer.name, rank->rank, what, i, (double)values[i],
                     (double)owned_part[i], tolerance);
    mr_free(values);
    mr_free(owned_part);
}

static void compare_activation(const shard_rank *rank, const char *what, const mr_tensor *computed,
                               const layer_fixture *whole, const mr_tensor *wanted,
                               mr_dtype precision) {
    float *all = fixture_read(whole, wanted);
    compare(rank, what, computed, shard_of_activation(rank, &computed->shape, all), precision);
    mr_free(all);
}

static void compare_rank(shard_rank *rank, layer_fixture *whole, mr_dtype precision) {
    layer_fixture *f = &rank->fixture;
    compare_activation(rank, "y", &f->y, whole, &whole->y, precision);
    if (fixture_dx(f) != NULL)
        compare_activation(rank, "dx", &f->dx, whole, &whole->dx, precision);
    for (size_t i = 0; i < f->description.parameter_count; i++) {
        float *all = fixture_read(whole, &whole->gradients[i]);
        compare(rank, f->description.parameters[i].name, &f->gradients[i],
                shard_of_parameter(rank, i, all), precision);
        mr_free(all);
    }
}

/* What is not cut is the same on every rank, to the bit. */
static void compare_ranks(const shard_rank *first, const shard_rank *other) {
    const layer_fixture *f = &first->fixture;
    const layer_fixture *g = &other->fixture;
    if (f->y.shape.cut_from == 0)
        assert_true(fixture_same_bits(f, &f->y, g, &g->y));
    if (f->x.shape.cut_from == 0 && f->x.shape.dtype == f->y.shape.dtype)
        assert_true(fixture_same_bits(f, &f->dx, g, &g->dx));
    for (size_t i = 0; i < f->description.parameter_count; i++)
        if (f->description.parameters[i].cut == MR_MODEL_CUT_NONE)
            assert_true(fixture_same_bits(f, &f->gradients[i], g, &g->gradients[i]));
}

static void check_case(const shard_case *c, uint64_t seed, mr_dtype precision) {
    shard_rig rig;
    shard_rig_init(&rig, c, seed, precision);
    fixture_forward(&rig.whole);
    fixture_backward(&rig.whole);
    shard_rig_run(&rig, pass_body, NULL, 0);
    for (size_t i = 0; i < c->width; i++) {
        compare_rank(&rig.ranks[i], &rig.whole, precision);
        compare_ranks(&rig.ranks[0], &rig.ranks[i]);
    }
    shard_rig_deinit(&rig);
}

static void test_shards_compute_what_the_whole_layer_computes(void **state) {
    (void)state;
    for (size_t i = 0; i < shard_case_count; i++)
        for (uint64_t seed = 1; seed <= 3; seed++)
            check_case(&shard_cases[i], seed, MR_DTYPE_F32);
}

static void test_shards_in_bf16_compute_what_the_whole_layer_computes(void **state) {
    (void)state;
    for (size_t i = 0; i < shard_case_count; i++)
        for (uint64_t seed = 1; seed <= 3; seed++)
            check_case(&shard_cases[i], seed, MR_DTYPE_BF16);
}

static void test_an_embedding_s_shards_give_the_whole_s_bits(void **state) {
    (void)state;
    static const mr_dtype precisions[] = {MR_DTYPE_F32, MR_DTYPE_BF16};
    for (size_t p = 0; p < 2; p++) {
        shard_rig rig;
        shard_rig_init(&rig, &shard_cases[0], 1, precisions[p]);
        fixture_forward(&rig.whole);
        shard_rig_run(&rig, pass_body, NULL, 0);
        assert_true(fixture_same_bits(&rig.whole, &rig.whole.y, &rig.ranks[1].fixture,
                                      &rig.ranks[1].fixture.y));
        shard_rig_deinit(&rig);
    }
}

static void test_a_broken_group_is_told_by_the_axis(void **state) {
    (void)state;
    shard_rig rig;
    shard_rig_init(&rig, &shard_cases[2], 1, MR_DTYPE_F32);
    mr_group_interrupt(rig.ranks[0].group, "the job was cancelled");
    shard_rig_run(&rig, pass_body, NULL, 0);
    for (size_t i = 0; i < 2; i++) {
        mr_status status = mr_model_axis_check(rig.ranks[i].axis);
        assert_int_equal(status.code, MR_CODE_CANCELLED);
        assert_string_equal(status.text,
                            "sum over the model axis: interrupted: the job was cancelled");
        mr_model_axis_destroy(rig.ranks[i].axis); /* a fresh one, for the rig's own check */
        assert_true(mr_status_is_ok(mr_model_axis_create(rig.ranks[i].group, &rig.ranks[i].axis)));
    }
    shard_rig_deinit(&rig);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shards_compute_what_the_whole_layer_computes),
        cmocka_unit_test(test_shards_in_bf16_compute_what_the_whole_layer_computes),
        cmocka_unit_test(test_an_embedding_s_shards_give_the_whole_s_bits),
        cmocka_unit_test(test_a_broken_group_is_told_by_the_axis),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
