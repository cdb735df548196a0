/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: ranks that share a vocabulary compute the cross-entropy of the whole: loss and gradient, in
 * place or not, or the loss alone; the loss has the same bits on all of them.
 * Method: logits of a whole are cut over 2 to 4 ranks, whose threads meet in a group; against
 * mr_loss_run of the whole, whose value and gradient loss_finite_difference_test proves. Labels
 * fall on every rank, one counts as nothing; one row's logits are far from the others'. A wrong
 * label is latched with the whole vocabulary's bound. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <math.h>

#include <cmocka.h>

#include "daemon/group/in_process.h"
#include "daemon/layers/loss.h"
#include "daemon/model/shard.h"
#include "daemon/stage/model_axis.h"
#include "tests/unit/layers/layer_fixture.h"

enum { ROWS = 7, V = 11, WIDTH_MAX = 4, SCRATCH_BYTES = 4096 };

static const float scale = 0.125f;

/* One rank: what it works with and what it found. */
typedef struct share {
    mr_device *device;
    mr_group *group;
    size_t width;
    float logits[ROWS * V];
    float dlogits[ROWS * V];
    double loss;
    double loss_alone; /* without a gradient */
    unsigned char scratch[SCRATCH_BYTES];
    int32_t labels[ROWS];
    mr_status error;
} share;

static float whole_logit(size_t i) {
    float far = i / V == 2 ? 40.0f : 0.0f;
    return far + 4.0f * fixture_number(3, 1, i);
}

static void labels_fill(int32_t labels[ROWS]) {
    for (size_t r = 0; r < ROWS; r++)
        labels[r] = (int32_t)(r * 2 % V);
    labels[3] = -1;
}

static mr_tensor labels_tensor(int32_t labels[ROWS]) {
    return (mr_tensor){labels, {.dtype = MR_DTYPE_I32, .dim_count = 1, .dims = {ROWS}}};
}

static mr_tensor logits_tensor(float *logits, size_t columns, size_t cut_from) {
    return (mr_tensor){logits,
                       {.dtype = MR_DTYPE_F32,
                        .dim_count = 2,
                        .dims = {ROWS, columns},
                        .cut_from = cut_from}};
}

/* Evaluation, then the gradient beside the logits, then in their place. */
static void *share_main(void *context) {
    share *s = context;
    mr_model_axis *axis = NULL;
    mr_shard_range range = mr_shard_range_of(V, s->group->member_index, s->width);
    for (size_t r = 0; r < ROWS; r++)
        for (size_t c = 0; c < range.count; c++)
            s->logits[r * range.count + c] = whole_logit(r * V + range.first + c);
    mr_tensor logits = logits_tensor(s->logits, range.count, V);
    mr_tensor dlogits = logits_tensor(s->dlogits, range.count, V);
    mr_tensor labels = labels_tensor(s->labels);
    double again = 0;
    assert_true(mr_status_is_ok(mr_model_axis_create(s->group, &axis)));
    mr_reducer *model = mr_model_axis_reducer(axis);
    assert_true(mr_loss_share_bytes(&logits.shape, s->width) <= SCRATCH_BYTES);
    mr_loss_run_share(s->device, model, &logits, &labels, scale, NULL, s->scratch, &s->loss_alone);
    mr_loss_run_share(s->device, model, &logits, &labels, scale, &dlogits, s->scratch, &s->loss);
    mr_loss_run_share(s->device, model, &logits, &labels, scale, &logits, s->scratch, &again);
    assert_true(mr_status_is_ok(mr_model_axis_check(axis)));
    mr_model_axis_destroy(axis);
    s->error = s->device->ops->check(s->device);
    return NULL;
}

static void shares_run(size_t width, const int32_t labels[ROWS], share shares[WIDTH_MAX]) {
    static const uint32_t ranks[WIDTH_MAX] = {0, 1, 2, 3};
    mr_group *groups[WIDTH_MAX] = {0};
    pthread_t threads[WIDTH_MAX];
    mr_group_options options = {
        .job_id = "loss",
        .group_id = "model/0",
        .ranks = ranks,
        .rank_count = width,
        .bytes_max = 1 << 16,
        .parts_max = 1,
    };
    assert_true(mr_status_is_ok(mr_group_in_process(&options, groups)));
    for (size_t i = 0; i < width; i++) {
        shares[i] = (share){.device = fixture_device(1), .group = groups[i], .width = width};
        memcpy(shares[i].labels, labels, sizeof shares[i].labels);
    }
    for (size_t i = 0; i < width; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, share_main, &shares[i]), 0);
    for (size_t i = 0; i < width; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (size_t i = 0; i < width; i++) {
        mr_group_close(groups[i]);
        mr_device_destroy(shares[i].device);
    }
}

static void check_share(const share *s, size_t rank, double loss, const float *dlogits) {
    mr_shard_range range = mr_shard_range_of(V, rank, s->width);
    assert_true(mr_status_is_ok(s->error));
    if (!(fabs(s->loss - loss) <= 1e-6 * fabs(loss)))
        fail_msg("width %zu, rank %zu: loss %.12g, the whole's is %.12g", s->width, rank, s->loss,
                 loss);
    assert_true(s->loss == s->loss_alone);
    assert_memory_equal(s->logits, s->dlogits, ROWS * range.count * sizeof *s->logits);
    for (size_t r = 0; r < ROWS; r++)
        for (size_t c = 0; c < range.count; c++) {
            double found = (double)s->dlogits[r * range.count + c];
            double wanted = (double)dlogits[r * V + range.first + c];
            if (!(fabs(found - wanted) <= 1e-6 * (double)scale))
                fail_msg("width %zu, rank %zu, row %zu, column %zu: %.9g, the whole's is %.9g",
                         s->width, rank, r, c, found, wanted);
        }
}

static void test_shares_have_the_whole_s_loss_and_gradient(void **state) {
    (void)state;
    static share shares[WIDTH_MAX];
    static float logits[ROWS * V];
    static float dlogits[ROWS * V];
    int32_t tokens[ROWS];
    double loss = 0;
    labels_fill(tokens);
    for (size_t i = 0; i < ROWS * V; i++)
        logits[i] = whole_logit(i);
    mr_device *device = fixture_device(1);
    mr_tensor whole = logits_tensor(logits, V, 0);
    mr_tensor gradient = logits_tensor(dlogits, V, 0);
    mr_tensor labels = labels_tensor(tokens);
    mr_loss_run(device, MR_LOSS_CROSS_ENTROPY, &whole, &labels, scale, &gradient, &loss);
    mr_device_destroy(device);
    for (size_t width = 2; width <= WIDTH_MAX; width++) {
        shares_run(width, tokens, shares);
        for (size_t rank = 0; rank < width; rank++) {
            check_share(&shares[rank], rank, loss, dlogits);
            assert_memory_equal(&shares[rank].loss, &shares[0].loss, sizeof(double));
        }
    }
}

static void test_a_wrong_label_is_latched_on_every_rank(void **state) {
    (void)state;
    static share shares[WIDTH_MAX];
    int32_t labels[ROWS];
    labels_fill(labels);
    labels[5] = V;
    shares_run(2, labels, shares);
    for (size_t rank = 0; rank < 2; rank++) {
        assert_int_equal(shares[rank].error.code, MR_CODE_INVALID_ARGUMENT);
        assert_string_equal(shares[rank].error.text,
                            "label at position 5 is 11; it must be -1 or in [0, 11)");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shares_have_the_whole_s_loss_and_gradient),
        cmocka_unit_test(test_a_wrong_label_is_latched_on_every_rank),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
