/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/stage/stage_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/base/half.h"

static void stage_ok(mr_status status) {
    if (!mr_status_is_ok(status))
        fail_msg("%s: %s", mr_code_name(status.code), status.text);
}

/* Describes the layers already in m->layers. */
static void stage_model_finish(stage_model *m, size_t layer_count, size_t block_count) {
    mr_device_options options = {.kind = stage_model_device, .threads = 1};
    m->job.layers = m->layers;
    m->job.layer_count = layer_count;
    m->job.block_count = block_count;
    mr_shape input = mr_job_input_shape(&m->job);
    for (size_t i = 0; i < layer_count; i++) {
        stage_ok(mr_layer_describe(&m->layers[i], &input, block_count, &m->descriptions[i]));
        input = m->descriptions[i].output;
    }
    stage_ok(mr_device_create(&options, &m->device));
}

static const mr_job stage_job = {
    .name = "parameters",
    .seed = 1234,
    .seed_layers = true,
    .pipe = 1,
    .data = 1,
    .model = 1,
    .chunks = 1,
    .micro_batch_size = 2,
    .micro_batches = 2,
    .sequence_length = 5,
    .lr = 1e-2,
    .beta1 = 0.9,
    .beta2 = 0.95,
    .eps = 1e-8,
    .weight_decay = 0.1,
    .grad_clip = 1.0,
    .lr_kind = MR_LR_COSINE,
    .warmup_steps = 2,
    .total_steps = 10,
    .min_lr = 1e-3,
    .precision = MR_DTYPE_F32,
};

static void stage_model_init_gpt_in(stage_model *m, mr_dtype precision) {
    mr_layer_spec block = {
        .type = MR_LAYER_TYPE_TRANSFORMER_BLOCK,
        .dim = 12,
        .heads = 3,
        .kv_heads = 3,
        .ffn = 48,
        .bias = true,
        .causal = true,
        .eps = 1e-5,
    };
    *m = (stage_model){.job = stage_job};
    m->job.precision = precision;
    m->layers[0] = (mr_layer_spec){.type = MR_LAYER_TYPE_EMBEDDING,
                                   .tie = "embed",
                                   .vocab = 11,
                                   .dim = 12,
                                   .positions = 5};
    m->layers[1] = block;
    m->layers[2] = block;
    m->layers[3] = (mr_layer_spec){.type = MR_LAYER_TYPE_LAYERNORM, .dim = 12, .eps = 1e-5};
    m->layers[4] =
        (mr_layer_spec){.type = MR_LAYER_TYPE_LM_HEAD, .tie = "embed", .vocab = 11, .dim = 12};
    for (size_t i = 0; i < 5; i++)
        m->layers[i].precision = precision;
    stage_model_finish(m, 5, 2);
}

void stage_model_init_gpt(stage_model *m) {
    stage_model_init_gpt_in(m, MR_DTYPE_F32);
}

void stage_model_init_gpt_bf16(stage_model *m) {
    stage_model_init_gpt_in(m, MR_DTYPE_BF16);
}

void stage_model_init_thrice(stage_model *m) {
    mr_layer_spec head = {.type = MR_LAYER_TYPE_LM_HEAD, .tie = "embed", .vocab = 8, .dim = 8};
    *m = (stage_model){.job = stage_job};
    m->layers[0] =
        (mr_layer_spec){.type = MR_LAYER_TYPE_EMBEDDING, .tie = "embed", .vocab = 8, .dim = 8};
    m->layers[1] = head;
    m->layers[2] = (mr_layer_spec){.type = MR_LAYER_TYPE_LAYERNORM, .dim = 8, .eps = 1e-5};
    m->layers[3] = head;
    stage_model_finish(m, 4, 0);
}

void stage_model_init_pair(stage_model *m) {
    *m = (stage_model){.job = stage_job};
    m->job.loss = MR_LOSS_MSE;
    m->job.micro_batch_size = 1;
    m->job.sequence_length = 1;
    m->job.optimizer = MR_OPTIMIZER_SGD;
    m->job.lr = 0.1;
    m->job.lr_kind = MR_LR_CONSTANT;
    m->job.warmup_steps = 0;
    m->job.weight_decay = 0;
    m->job.grad_clip = 0;
    for (size_t i = 0; i < 2; i++)
        m->layers[i] = (mr_layer_spec){.type = MR_LAYER_TYPE_LINEAR,
                                       .in = 1,
                                       .out = 1,
                                       .precision = MR_DTYPE_F32};
    stage_model_finish(m, 2, 0);
}

void stage_model_deinit(stage_model *m) {
    stage_ok(m->device->ops->check(m->device));
    mr_device_destroy(m->device);
}

mr_parameters *stage_model_parameters(stage_model *m, size_t first, size_t end, bool training) {
    mr_parameters *parameters = NULL;
    mr_parameters_options options = {
        .device = m->device,
        .job = &m->job,
        .descriptions = m->descriptions,
        .layer_first = first,
        .layer_end = end,
        .training = training,
    };
    stage_ok(mr_parameters_create(&options, &parameters));
    stage_ok(mr_parameters_draw(parameters));
    return parameters;
}

size_t stage_elements(const mr_tensor *tensor) {
    size_t elements = 0;
    assert_true(mr_shape_elements(&tensor->shape, &elements));
    return elements;
}

float *stage_read(const stage_model *m, const mr_tensor *tensor) {
    size_t n = stage_elements(tensor);
    float *host = mr_alloc_array(n, sizeof *host);
    assert_non_null(host);
    m->device->ops->copy_out(m->device, host, tensor->data,
                             n * mr_dtype_bytes(tensor->shape.dtype));
    for (size_t i = n; tensor->shape.dtype == MR_DTYPE_BF16 && i-- > 0;) {
        uint16_t half;
        memcpy(&half, (const unsigned char *)host + i * sizeof half, sizeof half);
        host[i] = mr_half_widen(MR_DTYPE_BF16, half);
    }
    return host;
}

void stage_write(const stage_model *m, const mr_tensor *tensor, const float *host) {
    m->device->ops->copy_in(m->device, tensor->data, host, stage_elements(tensor) * sizeof *host);
}

void stage_fill_gradients(const stage_model *m, const mr_parameters *p) {
    for (size_t i = 0; i < mr_parameters_layer_count(p); i++) {
        const mr_layer *layer = mr_parameters_layer(p, i);
        for (size_t j = 0; j < layer->description->parameter_count; j++) {
            mr_random_key key = mr_random_key_make(77, MR_RANDOM_SAMPLE, layer->index, j, 0);
            size_t n = stage_elements(&layer->gradients[j]);
            float *host = mr_alloc_array(n, sizeof *host);
            assert_non_null(host);
            mr_random_normal(&key, 0, n, 0.5f, host);
            stage_write(m, &layer->gradients[j], host);
            mr_free(host);
        }
    }
}
