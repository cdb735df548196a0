/* SPDX-License-Identifier: Apache-2.0 */
/* stage_model.h: small jobs with their descriptions, made in memory, for tests of what a stage does
 * with its parameters.
 * Owner: tests/unit/stage. */
#ifndef MR_TESTS_UNIT_STAGE_STAGE_MODEL_H
#define MR_TESTS_UNIT_STAGE_STAGE_MODEL_H

#include "daemon/stage/parameters.h"

enum { STAGE_MODEL_LAYERS_MAX = 8 };

typedef struct stage_model {
    mr_job job;
    mr_layer_spec layers[STAGE_MODEL_LAYERS_MAX];
    mr_layer_description descriptions[STAGE_MODEL_LAYERS_MAX];
    mr_device *device;
} stage_model;

/* The kind of device that the models are made with: device_cpu.c, or device_far.c. */
extern const char stage_model_device[];

/* embedding (tie embed), 2 blocks, layernorm, lm_head (tie embed): C 12, V 11, B 2, T 5. */
void stage_model_init_gpt(stage_model *m);
/* The same in bf16. */
void stage_model_init_gpt_bf16(stage_model *m);
/* Three uses of one tie: embedding, lm_head, layernorm, lm_head, all of width 8 = V. */
void stage_model_init_thrice(stage_model *m);
/* Two linear layers of one weight and no bias, squared error, M 2, B 1, SGD with a constant lr of
 * 0.1, no clipping. */
void stage_model_init_pair(stage_model *m);
void stage_model_deinit(stage_model *m);

/* The parameters of layers [first, end). */
mr_parameters *stage_model_parameters(stage_model *m, size_t first, size_t end, bool training);
size_t stage_elements(const mr_tensor *tensor);
/* Host copy, bf16 widened; the caller frees it with mr_free. */
float *stage_read(const stage_model *m, const mr_tensor *tensor);
void stage_write(const stage_model *m, const mr_tensor *tensor, const float *host);
/* Every accumulator of every parameter gets numbers that depend on (layer, parameter, element). */
void stage_fill_gradients(const stage_model *m, const mr_parameters *p);

#endif
