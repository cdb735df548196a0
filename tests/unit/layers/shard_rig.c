/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/layers/shard_rig.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/group/in_process.h"
#include "daemon/model/shard.h"

#define F32(...)                                                                                   \
    {                                                                                              \
        .dtype = MR_DTYPE_F32, .dim_count = sizeof((size_t[]){__VA_ARGS__}) / sizeof(size_t),      \
        .dims = {__VA_ARGS__}, .needs_gradient = true                                              \
    }
#define TOKENS(b, t) {.dtype = MR_DTYPE_I32, .dim_count = 2, .dims = {b, t}}
#define BLOCK(...)                                                                                 \
    {                                                                                              \
        .type = MR_LAYER_TYPE_TRANSFORMER_BLOCK, .dim = 12, .heads = 4, .kv_heads = 4, .ffn = 20,  \
        .norm = MR_NORM_LAYERNORM, .activation = MR_ACTIVATION_GELU_TANH,                          \
        .position = MR_POSITION_NONE, .eps = 1e-5, __VA_ARGS__                                     \
    }

const shard_case shard_cases[] = {
    {{"embedding with positions",
      {.type = MR_LAYER_TYPE_EMBEDDING, .vocab = 11, .dim = 9, .positions = 7},
      TOKENS(3, 5)},
     2, false},
    {{"embedding over four", {.type = MR_LAYER_TYPE_EMBEDDING, .vocab = 6, .dim = 7}, TOKENS(2, 9)},
     4, false},
    {{"transformer_block", BLOCK(.bias = true, .causal = true), F32(2, 5, 12)}, 2, false},
    {{"transformer_block over four", BLOCK(.bias = true, .causal = true), F32(2, 5, 12)}, 4, false},
    {{"transformer_block without bias", BLOCK(.causal = true), F32(1, 7, 12)}, 2, false},
    {{"transformer_block with dropout", BLOCK(.bias = true, .causal = false, .dropout = 0.25),
      F32(2, 5, 12)},
     2, false},
    {{"lm_head", {.type = MR_LAYER_TYPE_LM_HEAD, .vocab = 11, .dim = 9}, F32(2, 3, 9)}, 2, false},
    {{"tied lm_head over four",
      {.type = MR_LAYER_TYPE_LM_HEAD, .tie = "embed", .vocab = 11, .dim = 9},
      F32(1, 5, 9)},
     4, false},
    {{"column-parallel linear",
      {.type = MR_LAYER_TYPE_LINEAR,
       .in = 7,
       .out = 6,
       .bias = true,
       .parallel = MR_PARALLEL_COLUMN},
      F32(3, 3, 7)},
     2, false},
    {{"row-parallel linear",
      {.type = MR_LAYER_TYPE_LINEAR,
       .in = 6,
       .out = 5,
       .bias = true,
       .parallel = MR_PARALLEL_ROW},
      F32(3, 3, 6)},
     2, true},
    {{"linear over shares", {.type = MR_LAYER_TYPE_LINEAR, .in = 7, .out = 5}, F32(3, 7)}, 2, true},
    {{"layernorm over shares",
      {.type = MR_LAYER_TYPE_LAYERNORM, .dim = 13, .bias = true, .eps = 1e-5},
      F32(2, 3, 13)},
     4, true},
    {{"gelu of a share", {.type = MR_LAYER_TYPE_GELU}, F32(3, 37)}, 2, true},
    {{"dropout of a share", {.type = MR_LAYER_TYPE_DROPOUT, .dropout = 0.3}, F32(3, 37)}, 2, true},
    {{"linear of nothing cut",
      {.type = MR_LAYER_TYPE_LINEAR, .in = 7, .out = 5, .bias = true},
      F32(3, 7)},
     2, false},
};
const size_t shard_case_count = sizeof shard_cases / sizeof shard_cases[0];

static void rig_ok(mr_status status) {
    if (!mr_status_is_ok(status))
        fail_msg("%s: %s", mr_code_name(status.code), status.text);
}

/* Columns of a matrix [rows, W]. */
static float *columns_of(const float *whole, size_t rows, size_t W, mr_shard_range range) {
    float *out = mr_alloc_array(rows * range.count, sizeof *out);
    assert_non_null(out);
    for (size_t r = 0; r < rows; r++)
        memcpy(out + r * range.count, whole + r * W + range.first, range.count * sizeof *out);
    return out;
}

float *shard_of_activation(const shard_rank *rank, const mr_shape *shape, const float *whole) {
    size_t elements = 0;
    assert_true(mr_shape_elements(shape, &elements));
    size_t columns = shape->dims[shape->dim_count - 1];
    size_t W = shape->cut_from > 0 ? shape->cut_from : columns;
    mr_shard_range range = {0, W};
    if (shape->cut_from > 0)
        range = mr_shard_range_of(W, rank->rank, rank->of->width);
    assert_int_equal(range.count, columns);
    return columns_of(whole, elements / columns, W, range);
}

float *shard_of_parameter(const shard_rank *rank, size_t i, const float *whole) {
    mr_shard shard;
    size_t elements = 0;
    const mr_parameter *parameter = &rank->fixture.description.parameters[i];
    rig_ok(mr_shard_make(parameter, rank->rank, rank->of->width, &shard));
    assert_true(mr_shape_equal(&shard.shape, &parameter->shape));
    assert_true(mr_shape_elements(&shard.shape, &elements));
    float *out = mr_alloc_array(elements, sizeof *out);
    assert_non_null(out);
    for (size_t r = 0; r < shard.run_count; r++) {
        mr_shard_run run = mr_shard_run_at(&shard, r);
        memcpy(out + run.shard_first, whole + run.whole_first, run.count * sizeof *out);
    }
    return out;
}

/* The rank's tensors get their parts of the whole's. */
static void rank_fill(shard_rank *rank, const layer_fixture *whole) {
    layer_fixture *f = &rank->fixture;
    for (size_t i = 0; i < f->description.parameter_count; i++) {
        float *all = fixture_read(whole, &whole->parameters[i]);
        float *part = shard_of_parameter(rank, i, all);
        fixture_write(f, &f->parameters[i], part);
        mr_free(part);
        mr_free(all);
    }
    float *dy = fixture_read(whole, &whole->dy);
    float *part = shard_of_activation(rank, &f->dy.shape, dy);
    fixture_write(f, &f->dy, part);
    mr_free(part);
    mr_free(dy);
    float *x = fixture_read(whole, &whole->x); /* tokens are copied as they are */
    part = shard_of_activation(rank, &f->x.shape, x);
    fixture_write(f, &f->x, part);
    mr_free(part);
    mr_free(x);
}

static void rank_init(shard_rank *rank, const layer_case *whole, uint64_t seed) {
    const shard_case *c = rank->of;
    rank->layer = *whole;
    rank->layer.spec.model_rank = rank->rank;
    rank->layer.spec.model_width = c->width;
    mr_shape *input = &rank->layer.input;
    if (c->input_cut) {
        size_t *last = &input->dims[input->dim_count - 1];
        input->cut_from = *last;
        *last = mr_shard_range_of(*last, rank->rank, c->width).count;
    }
    rank->device = fixture_device(1);
    fixture_init(&rank->fixture, rank->device, &rank->layer, seed);
    rig_ok(mr_model_axis_create(rank->group, &rank->axis));
    rank->fixture.call.model = mr_model_axis_reducer(rank->axis);
}

void shard_rig_init(shard_rig *rig, const shard_case *c, uint64_t seed, mr_dtype precision) {
    static const uint32_t ranks[SHARD_WIDTH_MAX] = {0, 1, 2, 3};
    static layer_case whole; /* the fixture borrows it */
    mr_group *groups[SHARD_WIDTH_MAX] = {0};
    mr_group_options options = {
        .job_id = "shards",
        .group_id = "model/0",
        .ranks = ranks,
        .rank_count = c->width,
        .bytes_max = 1 << 16,
        .parts_max = 1,
    };
    *rig = (shard_rig){.device = fixture_device(1)};
    whole = precision == MR_DTYPE_BF16 ? fixture_bf16(&c->layer) : c->layer;
    fixture_init(&rig->whole, rig->device, &whole, seed);
    rig_ok(mr_group_in_process(&options, groups));
    for (size_t i = 0; i < c->width; i++) {
        rig->ranks[i] = (shard_rank){.rank = i, .of = c, .group = groups[i]};
        rank_init(&rig->ranks[i], &whole, seed);
        rank_fill(&rig->ranks[i], &rig->whole);
    }
}

static void *rank_thread(void *context) {
    shard_rank *rank = context;
    rank->body(rank);
    return NULL;
}

void shard_rig_run(shard_rig *rig, void (*body)(shard_rank *rank), void *contexts,
                   size_t context_bytes) {
    pthread_t threads[SHARD_WIDTH_MAX];
    size_t width = rig->ranks[0].of->width;
    for (size_t i = 0; i < width; i++) {
        rig->ranks[i].body = body;
        rig->ranks[i].context = (unsigned char *)contexts + i * context_bytes;
        assert_int_equal(pthread_create(&threads[i], NULL, rank_thread, &rig->ranks[i]), 0);
    }
    for (size_t i = 0; i < width; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
}

void shard_rig_deinit(shard_rig *rig) {
    for (size_t i = 0; i < rig->ranks[0].of->width; i++) {
        rig_ok(mr_model_axis_check(rig->ranks[i].axis));
        mr_model_axis_destroy(rig->ranks[i].axis);
        fixture_deinit(&rig->ranks[i].fixture);
        mr_device_destroy(rig->ranks[i].device);
    }
    for (size_t i = 0; i < rig->ranks[0].of->width; i++)
        mr_group_close(rig->ranks[i].group);
    fixture_deinit(&rig->whole);
    mr_device_destroy(rig->device);
}
