/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/device/cpu/create.h"

#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/limits.h"
#include "daemon/device/cpu/device_cpu.h"

mr_device_cpu *mr_device_cpu_of(mr_device *device) {
    return (mr_device_cpu *)device;
}

void mr_device_cpu_latch(mr_device_cpu *cpu, mr_status status) {
    if (mr_status_is_ok(cpu->error))
        cpu->error = status;
}

static void *cpu_arena_grow(mr_device_cpu *cpu, mr_arena *arena, size_t bytes) {
    if (bytes > arena->mapped) {
        mr_arena grown = {0};
        mr_status status = mr_arena_init(&grown, bytes);
        if (!mr_status_is_ok(status)) {
            mr_device_cpu_latch(cpu, status);
            return NULL;
        }
        mr_arena_deinit(arena);
        *arena = grown;
    }
    return arena->base;
}

void *mr_device_cpu_workspace(mr_device_cpu *cpu, size_t bytes) {
    return cpu_arena_grow(cpu, &cpu->workspace, bytes);
}

mr_device_cpu_stage mr_device_cpu_staging(mr_device_cpu *cpu, size_t floats) {
    mr_device_cpu_stage stage = {0};
    size_t bytes = 0;
    size_t all = 0;
    if (!mr_size_mul(floats, sizeof(float), &bytes) || mr_arena_rounded(bytes) < bytes ||
        !mr_size_mul(mr_arena_rounded(bytes), (size_t)mr_pool_threads(cpu->pool), &all)) {
        mr_device_cpu_latch(cpu, MR_ERROR(RESOURCE_EXHAUSTED,
                                          "an operation asks for %zu floats of staging for each "
                                          "thread",
                                          floats));
        return stage;
    }
    stage.base = cpu_arena_grow(cpu, &cpu->staging, all);
    stage.stride = mr_arena_rounded(bytes) / sizeof(float);
    return stage;
}

float *mr_device_cpu_stage_of(const mr_device_cpu_stage *stage, int thread) {
    return stage->base + (size_t)thread * stage->stride;
}

float *mr_device_cpu_floats(const mr_tensor *tensor) {
    MR_ASSERT(tensor->shape.dtype == MR_DTYPE_F32);
    return tensor->data;
}

uint16_t *mr_device_cpu_halves(const mr_tensor *tensor) {
    MR_ASSERT(mr_device_cpu_is_half(tensor));
    return tensor->data;
}

bool mr_device_cpu_is_half(const mr_tensor *tensor) {
    mr_dtype dtype = tensor->shape.dtype;
    MR_ASSERT(dtype == MR_DTYPE_F32 || dtype == MR_DTYPE_BF16 || dtype == MR_DTYPE_F16);
    return dtype != MR_DTYPE_F32;
}

const mr_cpu_kernels *mr_device_cpu_kernels(const mr_device_cpu *cpu, const mr_tensor *tensor) {
    return tensor->shape.dtype == MR_DTYPE_F16 ? cpu->kernels->f16 : cpu->kernels;
}

size_t mr_device_cpu_count(const mr_tensor *tensor) {
    size_t count = 0;
    bool fits = mr_shape_elements(&tensor->shape, &count);
    MR_ASSERT(fits);
    return count;
}

size_t mr_device_cpu_width(const mr_tensor *tensor) {
    return tensor->shape.dim_count == 0 ? 1 : tensor->shape.dims[tensor->shape.dim_count - 1];
}

size_t mr_device_cpu_rows(const mr_tensor *tensor) {
    size_t width = mr_device_cpu_width(tensor);
    return width == 0 ? 0 : mr_device_cpu_count(tensor) / width;
}

size_t mr_device_cpu_parts(size_t n, size_t part) {
    return n / part + (n % part != 0);
}

size_t mr_device_cpu_task_rows(size_t width) {
    size_t rows = width == 0 ? 1 : CPU_ROW_TASK / width;
    return rows == 0 ? 1 : rows;
}

static mr_status cpu_check(mr_device *device) {
    return mr_device_cpu_of(device)->error;
}

static mr_status cpu_memory_create(mr_device *device, size_t bytes, mr_device_memory *out_memory) {
    (void)device; /* host memory belongs to no device */
    mr_arena *arena = mr_alloc(sizeof(*arena));
    if (arena == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for an arena of %zu bytes", bytes);
    mr_status status = mr_arena_init(arena, bytes);
    if (!mr_status_is_ok(status)) {
        mr_free(arena);
        return status;
    }
    *out_memory = (mr_device_memory){.base = arena->base, .bytes = bytes, .handle = arena};
    return MR_OK;
}

static void cpu_memory_destroy(mr_device *device, mr_device_memory *memory) {
    (void)device;
    if (memory->handle != NULL)
        mr_arena_deinit(memory->handle);
    mr_free(memory->handle);
    *memory = (mr_device_memory){0};
}

static void cpu_destroy(mr_device *device) {
    mr_device_cpu *cpu = mr_device_cpu_of(device);
    mr_pool_destroy(cpu->pool);
    mr_onednn_destroy(cpu->onednn);
    mr_arena_deinit(&cpu->workspace);
    mr_arena_deinit(&cpu->staging);
    mr_processors_release(&cpu->processors);
    mr_free(cpu);
}

static const mr_device_ops cpu_ops = {
    .name = "cpu",
    .host_memory = true,
    .destroy = cpu_destroy,
    .check = cpu_check,
    .memory_create = cpu_memory_create,
    .memory_destroy = cpu_memory_destroy,
    .copy_in = mr_device_cpu_copy,
    .copy_out = mr_device_cpu_copy,
    .copy = mr_device_cpu_copy,
    .zero = mr_device_cpu_zero,
    .linear_forward = mr_device_cpu_linear_forward,
    .linear_backward_input = mr_device_cpu_linear_backward_input,
    .linear_backward_weight = mr_device_cpu_linear_backward_weight,
    .embedding_forward = mr_device_cpu_embedding_forward,
    .embedding_backward = mr_device_cpu_embedding_backward,
    .layernorm_forward = mr_device_cpu_layernorm_forward,
    .residual_layernorm_forward = mr_device_cpu_residual_layernorm_forward,
    .layernorm_backward_input = mr_device_cpu_layernorm_backward_input,
    .layernorm_backward_weight = mr_device_cpu_layernorm_backward_weight,
    .attention_forward = mr_device_cpu_attention_forward,
    .attention_backward = mr_device_cpu_attention_backward,
    .pointwise_forward = mr_device_cpu_pointwise_forward,
    .pointwise_backward = mr_device_cpu_pointwise_backward,
    .dropout = mr_device_cpu_dropout,
    .add = mr_device_cpu_add,
    .window_gather = mr_device_cpu_window_gather,
    .window_scatter = mr_device_cpu_window_scatter,
    .max_pool_forward = mr_device_cpu_max_pool_forward,
    .max_pool_backward = mr_device_cpu_max_pool_backward,
    .transpose = mr_device_cpu_transpose,
    .cross_entropy = mr_device_cpu_cross_entropy,
    .embedding_forward_share = mr_device_cpu_embedding_forward_share,
    .embedding_backward_share = mr_device_cpu_embedding_backward_share,
    .logit_statistics = mr_device_cpu_logit_statistics,
    .cross_entropy_share = mr_device_cpu_cross_entropy_share,
    .mean_squared_error = mr_device_cpu_mean_squared_error,
    .sum_of_squares = mr_device_cpu_sum_of_squares,
    .accumulate = mr_device_cpu_accumulate,
    .cast = mr_device_cpu_cast,
    .adamw = mr_device_cpu_adamw,
    .adam = mr_device_cpu_adam,
    .sgd = mr_device_cpu_sgd,
    .lion = mr_device_cpu_lion,
};

/* Everything that can fail; what was made so far is destroyed by the caller. */
static mr_status cpu_fill(mr_device_cpu *cpu, int threads, bool pin) {
    const int *processors = NULL;
    if (pin && mr_processors_claim(threads, &cpu->processors))
        processors = cpu->processors.number;
    MR_TRY(mr_onednn_create(threads, 1, &cpu->onednn));
    return mr_pool_create(threads, processors, mr_onednn_thread_start, &cpu->pool);
}

static mr_status cpu_create(const mr_device_options *options, const mr_cpu_kernels *kernels,
                            mr_device **out_device) {
    if (options->threads < 0 || options->threads > MR_DEVICE_THREADS_MAX)
        return MR_ERROR(INVALID_ARGUMENT, "threads is %d; it must be in [0, %d]", options->threads,
                        MR_DEVICE_THREADS_MAX);
    int threads = options->threads == 0 ? mr_processors_allowed() : options->threads;
    if (threads > MR_DEVICE_THREADS_MAX)
        threads = MR_DEVICE_THREADS_MAX;
    mr_device_cpu *cpu = mr_alloc(sizeof(*cpu));
    if (cpu == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a CPU device");
    cpu->base.ops = &cpu_ops;
    cpu->kernels = kernels;
    /* Kernels of a lesser set mean that the processor is to be taken for a lesser one. */
    cpu->bf16_products = kernels == mr_cpu_kernels_choose() && mr_onednn_has_bf16();
    mr_status status = cpu_fill(cpu, threads, options->pin);
    if (!mr_status_is_ok(status)) {
        cpu_destroy(&cpu->base);
        return status;
    }
    *out_device = &cpu->base;
    return MR_OK;
}

mr_status mr_device_cpu_create(const mr_device_options *options, mr_device **out_device) {
    return cpu_create(options, mr_cpu_kernels_choose(), out_device);
}

mr_status mr_device_cpu_create_with(const mr_device_options *options, const char *instruction_set,
                                    mr_device **out_device) {
    const mr_cpu_kernels *tables[3];
    size_t count = mr_cpu_kernels_all(tables);
    for (size_t i = 0; i < count; i++)
        if (strcmp(tables[i]->name, instruction_set) == 0)
            return cpu_create(options, tables[i], out_device);
    return MR_ERROR(UNAVAILABLE, "this processor or build has no kernels for %s", instruction_set);
}
