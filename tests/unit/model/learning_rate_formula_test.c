/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the learning rate of every optimizer step is DESIGN section 4's formula, which outsiders
 * repeat. Method: values worked out by hand at the corners and in the middle of each kind. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/model/job.h"

static void check(const mr_job *job, uint64_t step, double expected) {
    double rate = mr_job_learning_rate(job, step);
    if (fabs(rate - expected) > 1e-15 + 1e-12 * expected)
        fail_msg("step %llu: %.17g, expected %.17g", (unsigned long long)step, rate, expected);
}

static void test_warm_up_is_linear_in_every_kind(void **state) {
    (void)state;
    for (int kind = 0; kind < MR_LR_KIND_COUNT; kind++) {
        mr_job job = {.lr = 1e-3, .min_lr = 1e-4, .warmup_steps = 20, .total_steps = 300};
        job.lr_kind = (mr_lr_kind)kind;
        check(&job, 1, 5e-5);
        check(&job, 10, 5e-4);
        check(&job, 20, 1e-3);
    }
}

static void test_cosine_falls_from_lr_to_min(void **state) {
    mr_job job = {.lr = 1e-3, .min_lr = 1e-4, .warmup_steps = 20, .total_steps = 300};
    (void)state;
    job.lr_kind = MR_LR_COSINE;
    check(&job, 160, 5.5e-4);                                /* half-way: (lr + min) / 2 */
    check(&job, 90, 1e-4 + 9e-4 * (1 + sqrt(0.5)) / 2);      /* a quarter: cos(pi/4) */
    check(&job, 230, 1e-4 + 9e-4 * (1 - sqrt(0.5)) / 2);     /* three quarters */
    check(&job, 300, 1e-4);
    check(&job, 301, 1e-4); /* never rises again */
    check(&job, 10000, 1e-4);
}

static void test_linear_and_constant(void **state) {
    mr_job job = {.lr = 1e-3, .min_lr = 2e-4, .warmup_steps = 0, .total_steps = 100};
    (void)state;
    job.lr_kind = MR_LR_LINEAR;
    check(&job, 1, 2e-4 + 8e-4 * 0.99);
    check(&job, 25, 8e-4);
    check(&job, 100, 2e-4);
    check(&job, 200, 2e-4);
    job.lr_kind = MR_LR_CONSTANT;
    check(&job, 1, 1e-3);
    check(&job, 200, 1e-3);
}

static void test_warm_up_alone_ends_at_lr(void **state) {
    mr_job job = {.lr = 1, .min_lr = 0.5, .warmup_steps = 4, .total_steps = 4};
    (void)state;
    job.lr_kind = MR_LR_COSINE;
    check(&job, 4, 1);
    check(&job, 5, 0.5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_warm_up_is_linear_in_every_kind),
        cmocka_unit_test(test_cosine_falls_from_lr_to_min),
        cmocka_unit_test(test_linear_and_constant),
        cmocka_unit_test(test_warm_up_alone_ends_at_lr),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
