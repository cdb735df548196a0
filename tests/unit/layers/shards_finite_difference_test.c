/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the gradients that the shards of a layer compute are the derivatives of what they compute
 * together.
 * Method: as layers_finite_difference_test, through a group of ranks in one process: every rank
 * steps the same element of the whole (where it holds it), all run forward, and the projections of
 * shares are added over the ranks; the difference quotient is compared with the gradient on every
 * rank that holds the element. Same step and tolerance. One seed: shards_whole_test compares with
 * the whole layer, whose gradients were tried with three. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <math.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/model/shard.h"
#include "tests/unit/layers/shard_rig.h"

static const float step = 0x1p-6f;
static const double tolerance_relative = 3e-4;
static const double tolerance_absolute = 1e-4;
static const float gradient_start = 0.25f;

enum { FAILURE_BYTES = 256, HOST_WAIT_MS = 30000 };

/* One rank's work and what it found. */
typedef struct difference_context {
    char failure[FAILURE_BYTES];
} difference_context;

/* Of all ranks together; every rank gets the same. */
static double projection(shard_rank *rank) {
    layer_fixture *f = &rank->fixture;
    double parts[SHARD_WIDTH_MAX];
    size_t bytes[SHARD_WIDTH_MAX];
    fixture_forward(f);
    float *y = fixture_read(f, &f->y);
    float *dy = fixture_read(f, &f->dy);
    double sum = 0;
    for (size_t i = 0; i < fixture_elements(&f->y); i++)
        sum += (double)dy[i] * (double)y[i];
    mr_free(dy);
    mr_free(y);
    if (f->y.shape.cut_from == 0)
        return sum;
    for (size_t i = 0; i < rank->of->width; i++)
        bytes[i] = sizeof(double);
    mr_status status = mr_group_gather(rank->group, &sum, bytes, parts, HOST_WAIT_MS);
    assert_true(mr_status_is_ok(status));
    sum = 0;
    for (size_t i = 0; i < rank->of->width; i++)
        sum += parts[i];
    return sum;
}

/* By the element of the whole that lies at place in this rank's tensor; SIZE_MAX: at none. */
static double difference(shard_rank *rank, const mr_tensor *tensor, float *values, size_t place) {
    const int at[4] = {-2, -1, 1, 2};
    double p[4];
    float kept = place == SIZE_MAX ? 0 : values[place];
    for (int k = 0; k < 4; k++) {
        if (place != SIZE_MAX) {
            values[place] = kept + (float)at[k] * step;
            fixture_write(&rank->fixture, tensor, values);
        }
        p[k] = projection(rank);
    }
    if (place != SIZE_MAX) {
        values[place] = kept;
        fixture_write(&rank->fixture, tensor, values);
    }
    return (8 * (p[2] - p[1]) - (p[3] - p[0])) / (12 * (double)step);
}

/* places[e]: where element e of the whole lies here. */
static void compare(shard_rank *rank, const char *what, const mr_tensor *tensor,
                    const mr_tensor *gradient, float start, const size_t *places, size_t count) {
    difference_context *context = rank->context;
    float *values = fixture_read(&rank->fixture, tensor);
    float *computed = fixture_read(&rank->fixture, gradient);
    double largest = 0;
    for (size_t i = 0; i < fixture_elements(gradient); i++)
        largest = fmax(largest, fabs((double)computed[i] - (double)start));
    double tolerance = tolerance_relative * largest + tolerance_absolute;
    for (size_t e = 0; e < count; e++) {
        size_t place = places[e];
        double wanted = difference(rank, tensor, values, place);
        if (place == SIZE_MAX || context->failure[0] != '\0')
            continue;
        double found = (double)computed[place] - (double)start;
        if (!(fabs(found - wanted) <= tolerance))
            (void)snprintf(context->failure, FAILURE_BYTES,
                           "%s, rank %zu, %s[%zu]: computed %.9g, difference quotient %.9g",
                           rank->layer.name, rank->rank, what, e, found, wanted);
    }
    mr_free(computed);
    mr_free(values);
}

/* For each element of a whole of count elements its place here, from the numbers that the rank's
 * part of 0, 1, 2, ... has; owned_part is freed. */
static size_t *places_make(size_t count, float *owned_part, size_t part_count) {
    size_t *places = mr_alloc_array(count, sizeof *places);
    assert_non_null(places);
    for (size_t e = 0; e < count; e++)
        places[e] = SIZE_MAX;
    for (size_t i = 0; i < part_count; i++)
        places[(size_t)owned_part[i]] = i;
    mr_free(owned_part);
    return places;
}

static float *count_up(size_t count) {
    float *numbers = mr_alloc_array(count, sizeof *numbers);
    assert_non_null(numbers);
    for (size_t i = 0; i < count; i++)
        numbers[i] = (float)i; /* below 2^24: exact */
    return numbers;
}

static void compare_input(shard_rank *rank) {
    layer_fixture *f = &rank->fixture;
    size_t elements = fixture_elements(&f->x);
    size_t columns = f->x.shape.dims[f->x.shape.dim_count - 1];
    size_t count = f->x.shape.cut_from == 0 ? elements : elements / columns * f->x.shape.cut_from;
    float *numbers = count_up(count);
    size_t *places =
        places_make(count, shard_of_activation(rank, &f->x.shape, numbers), elements);
    compare(rank, "x", &f->x, &f->dx, 0, places, count);
    mr_free(places);
    mr_free(numbers);
}

static void compare_parameter(shard_rank *rank, size_t i) {
    layer_fixture *f = &rank->fixture;
    const mr_parameter *parameter = &f->description.parameters[i];
    size_t count = 0;
    assert_true(mr_shape_elements(&parameter->whole, &count));
    float *numbers = count_up(count);
    size_t *places = places_make(count, shard_of_parameter(rank, i, numbers),
                                 fixture_elements(&f->parameters[i]));
    compare(rank, parameter->name, &f->parameters[i], &f->gradients[i], gradient_start, places,
            count);
    mr_free(places);
    mr_free(numbers);
}

static void difference_body(shard_rank *rank) {
    layer_fixture *f = &rank->fixture;
    fixture_forward(f);
    fixture_backward(f);
    if (fixture_dx(f) != NULL)
        compare_input(rank);
    for (size_t i = 0; i < f->description.parameter_count; i++)
        compare_parameter(rank, i);
}

static void test_every_shard_s_gradient_is_difference_quotient(void **state) {
    (void)state;
    for (size_t i = 0; i < shard_case_count; i++) {
        shard_rig rig;
        difference_context contexts[SHARD_WIDTH_MAX] = {0};
        shard_rig_init(&rig, &shard_cases[i], 1, MR_DTYPE_F32);
        shard_rig_run(&rig, difference_body, contexts, sizeof contexts[0]);
        for (size_t rank = 0; rank < shard_cases[i].width; rank++)
            if (contexts[rank].failure[0] != '\0')
                fail_msg("%s", contexts[rank].failure);
        shard_rig_deinit(&rig);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_shard_s_gradient_is_difference_quotient),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
