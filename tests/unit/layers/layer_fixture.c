/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/layers/layer_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/base/half.h"
#include "daemon/model/describe_own.h"

enum { GUARD_BYTES = 192, GUARD_VALUE = 0xa5 };

#define F32(...)                                                                                   \
    {                                                                                              \
        .dtype = MR_DTYPE_F32, .dim_count = sizeof((size_t[]){__VA_ARGS__}) / sizeof(size_t),      \
        .dims = {__VA_ARGS__}, .needs_gradient = true                                              \
    }
#define TOKENS(b, t) {.dtype = MR_DTYPE_I32, .dim_count = 2, .dims = {b, t}}
#define BLOCK(...)                                                                                 \
    {                                                                                              \
        .type = MR_LAYER_TYPE_TRANSFORMER_BLOCK, .dim = 12, .heads = 3, .kv_heads = 3, .ffn = 17,  \
        .norm = MR_NORM_LAYERNORM, .activation = MR_ACTIVATION_GELU_TANH,                          \
        .position = MR_POSITION_NONE, .eps = 1e-5, __VA_ARGS__                                     \
    }

const layer_case layer_cases[] = {
    {"embedding with positions",
     {.type = MR_LAYER_TYPE_EMBEDDING, .vocab = 11, .dim = 9, .positions = 7},
     TOKENS(3, 5)},
    {"embedding", {.type = MR_LAYER_TYPE_EMBEDDING, .vocab = 6, .dim = 7}, TOKENS(2, 9)},
    {"transformer_block", BLOCK(.bias = true, .causal = true), F32(2, 5, 12)},
    {"transformer_block without bias", BLOCK(.bias = false, .causal = true), F32(1, 7, 12)},
    {"transformer_block both ways", BLOCK(.bias = true, .causal = false), F32(3, 3, 12)},
    {"transformer_block with dropout", BLOCK(.bias = true, .causal = true, .dropout = 0.25),
     F32(2, 5, 12)},
    {"layernorm",
     {.type = MR_LAYER_TYPE_LAYERNORM, .dim = 13, .bias = true, .eps = 1e-5},
     F32(2, 3, 13)},
    {"lm_head", {.type = MR_LAYER_TYPE_LM_HEAD, .vocab = 11, .dim = 9}, F32(2, 3, 9)},
    {"tied lm_head",
     {.type = MR_LAYER_TYPE_LM_HEAD, .tie = "embed", .vocab = 11, .dim = 9},
     F32(1, 5, 9)},
    {"linear", {.type = MR_LAYER_TYPE_LINEAR, .in = 7, .out = 5, .bias = true}, F32(3, 3, 7)},
    {"linear without bias", {.type = MR_LAYER_TYPE_LINEAR, .in = 5, .out = 7}, F32(3, 5)},
    {"conv2d", {.type = MR_LAYER_TYPE_CONV2D}, F32(2, 3, 5, 6)},
    {"conv2d with stride and padding", {.type = MR_LAYER_TYPE_CONV2D}, F32(1, 2, 7, 4)},
    {"conv2d that leaves gaps", {.type = MR_LAYER_TYPE_CONV2D}, F32(3, 2, 5, 7)},
    {"maxpool2d", {.type = MR_LAYER_TYPE_MAXPOOL2D}, F32(2, 3, 5, 4)},
    {"maxpool2d that overlaps", {.type = MR_LAYER_TYPE_MAXPOOL2D}, F32(1, 2, 7, 6)},
    {"flatten", {.type = MR_LAYER_TYPE_FLATTEN}, F32(2, 3, 5, 2)},
    {"relu", {.type = MR_LAYER_TYPE_RELU}, F32(3, 37)},
    {"gelu", {.type = MR_LAYER_TYPE_GELU}, F32(3, 37)},
    {"silu", {.type = MR_LAYER_TYPE_SILU}, F32(3, 37)},
    {"dropout", {.type = MR_LAYER_TYPE_DROPOUT, .dropout = 0.3}, F32(3, 37)},
    {"identity", {.type = MR_LAYER_TYPE_IDENTITY}, F32(2, 3, 5)},
};
const size_t layer_case_count = sizeof layer_cases / sizeof layer_cases[0];

static const mr_conv2d conv = {.in = 3, .out = 5, .kernel = 3, .stride = 1, .bias = true};
static const mr_conv2d strided = {.in = 2, .out = 3, .kernel = 5, .stride = 2, .padding = 2};
static const mr_conv2d gaps = {.in = 2, .out = 2, .kernel = 2, .stride = 3, .padding = 1};
static const mr_maxpool2d pool = {.kernel = 2};
static const mr_maxpool2d overlap = {.kernel = 3, .stride = 2, .padding = 1};

/* Own keys of cases above: an initialiser cannot put a struct into bytes. */
static const struct {
    const char *name;
    const void *keys;
    size_t bytes;
} own_keys[] = {
    {"conv2d", &conv, sizeof(conv)},
    {"conv2d with stride and padding", &strided, sizeof(strided)},
    {"conv2d that leaves gaps", &gaps, sizeof(gaps)},
    {"maxpool2d", &pool, sizeof(pool)},
    {"maxpool2d that overlaps", &overlap, sizeof(overlap)},
};

static mr_layer_spec fixture_spec(const layer_case *c) {
    mr_layer_spec spec = c->spec;
    for (size_t i = 0; i < sizeof own_keys / sizeof own_keys[0]; i++)
        if (strcmp(own_keys[i].name, c->name) == 0)
            memcpy(spec.own.bytes, own_keys[i].keys, own_keys[i].bytes);
    return spec;
}

static void fixture_ok(mr_status status) {
    if (!mr_status_is_ok(status))
        fail_msg("%s: %s", mr_code_name(status.code), status.text);
}

mr_device *fixture_device(int threads) {
    mr_device *device = NULL;
    mr_device_options options = {.kind = "cpu", .threads = threads, .pin = false};
    fixture_ok(mr_device_create(&options, &device));
    return device;
}

/* bytes of device memory between guards, all NaN. */
static void *fixture_take(layer_fixture *f, size_t bytes) {
    assert_true(f->buffer_count < FIXTURE_BUFFERS_MAX);
    fixture_buffer *buffer = &f->buffers[f->buffer_count++];
    size_t all = bytes + 2 * GUARD_BYTES;
    unsigned char *host = mr_alloc(all);
    assert_non_null(host);
    memset(host, GUARD_VALUE, all);
    memset(host + GUARD_BYTES, 0xff, bytes);
    fixture_ok(f->device->ops->memory_create(f->device, all, &buffer->memory));
    buffer->bytes = bytes;
    f->device->ops->copy_in(f->device, buffer->memory.base, host, all);
    mr_free(host);
    return (unsigned char *)buffer->memory.base + GUARD_BYTES;
}

size_t fixture_elements(const mr_tensor *tensor) {
    size_t elements = 0;
    assert_true(mr_shape_elements(&tensor->shape, &elements));
    return elements;
}

static size_t fixture_bytes(const mr_tensor *tensor) {
    size_t bytes = 0;
    assert_true(mr_shape_bytes(&tensor->shape, &bytes));
    return bytes;
}

mr_tensor fixture_tensor(layer_fixture *f, const mr_shape *shape) {
    size_t bytes = 0;
    assert_true(mr_shape_bytes(shape, &bytes));
    return (mr_tensor){.data = fixture_take(f, bytes), .shape = *shape};
}

float fixture_number(uint64_t seed, uint64_t stream, uint64_t i) {
    mr_random_key key = mr_random_key_make(seed, MR_RANDOM_SAMPLE, stream, 0, 0);
    uint32_t word = mr_random_word(&key, i);
    float size = (float)(64 + (word >> 1) % 960) / 1024.0f;
    return (word & 1u) != 0 ? size : -size;
}

static void fixture_fill(const layer_fixture *f, const mr_tensor *tensor, uint64_t seed,
                         uint64_t stream, float centre, float spread) {
    size_t n = fixture_elements(tensor);
    float *host = mr_alloc_array(n, sizeof *host);
    assert_non_null(host);
    for (size_t i = 0; i < n; i++)
        host[i] = centre + spread * fixture_number(seed, stream, i);
    fixture_write(f, tensor, host);
    mr_free(host);
}

static void fixture_fill_tokens(const layer_fixture *f, uint64_t seed, size_t vocab) {
    size_t n = fixture_elements(&f->x);
    int32_t *host = mr_alloc_array(n, sizeof *host);
    assert_non_null(host);
    mr_random_key key = mr_random_key_make(seed, MR_RANDOM_SAMPLE, 99, 0, 0);
    for (size_t i = 0; i < n; i++)
        host[i] = (int32_t)(mr_random_word(&key, i) % vocab);
    fixture_write(f, &f->x, host);
    mr_free(host);
}

/* A permutation of multiples of 1/8 around 0: no two elements are near each other. */
static void fixture_fill_apart(const layer_fixture *f, uint64_t seed) {
    size_t n = fixture_elements(&f->x);
    float *host = mr_alloc_array(n, sizeof *host);
    assert_non_null(host);
    for (size_t i = 0; i < n; i++)
        host[i] = ((float)i - (float)(n / 2)) / 8.0f;
    mr_random_key key = mr_random_key_make(seed, MR_RANDOM_SAMPLE, 98, 0, 0);
    for (size_t i = n; i > 1; i--) {
        size_t j = mr_random_word(&key, i) % i;
        float kept = host[i - 1];
        host[i - 1] = host[j];
        host[j] = kept;
    }
    fixture_write(f, &f->x, host);
    mr_free(host);
}

static void fixture_bind_parameters(layer_fixture *f, uint64_t seed) {
    for (size_t i = 0; i < f->description.parameter_count; i++) {
        const mr_parameter *parameter = &f->description.parameters[i];
        mr_shape compute = parameter->shape;
        compute.dtype =
            mr_parameter_compute_dtype(parameter, mr_layer_spec_activation(f->layer.spec));
        f->parameters[i] = fixture_tensor(f, &compute);
        f->gradients[i] = fixture_tensor(f, &parameter->shape);
        float centre = parameter->init == MR_INIT_ONE ? 1.0f : 0.0f;
        fixture_fill(f, &f->parameters[i], seed, i, centre, 0.5f);
        fixture_fill(f, &f->gradients[i], seed, i, 0.25f, 0.0f);
    }
}

void fixture_init(layer_fixture *f, mr_device *device, const layer_case *c, uint64_t seed) {
    *f = (layer_fixture){.device = device, .spec = fixture_spec(c)};
    fixture_ok(mr_layer_check(&f->spec));
    fixture_ok(mr_layer_check_device(&f->spec, device));
    fixture_ok(mr_layer_describe(&f->spec, &c->input, 2, &f->description));
    f->layer = (mr_layer){
        .spec = &f->spec,
        .description = &f->description,
        .index = 3,
        .input = c->input,
        .parameters = f->parameters,
        .gradients = f->gradients,
    };
    fixture_bind_parameters(f, seed);
    f->x = fixture_tensor(f, &c->input);
    f->dx = fixture_tensor(f, &c->input);
    f->y = fixture_tensor(f, &f->description.output);
    f->dy = fixture_tensor(f, &f->description.output);
    f->call = (mr_layer_call){
        .device = device,
        .training = true,
        .seed = 42,
        .step = 5,
        .micro_batch = 2,
        .saved = fixture_take(f, f->description.saved_bytes),
        .retained = fixture_take(f, f->description.retained_bytes),
        .scratch = fixture_take(f, f->description.scratch_bytes),
    };
    if (c->input.dtype == MR_DTYPE_I32)
        fixture_fill_tokens(f, seed, c->spec.vocab);
    else if (c->spec.type == MR_LAYER_TYPE_MAXPOOL2D)
        fixture_fill_apart(f, seed);
    else
        fixture_fill(f, &f->x, seed, 100, 0.0f, 1.0f);
    fixture_fill(f, &f->dy, seed, 101, 0.0f, 1.0f);
}

static void fixture_check_guards(const layer_fixture *f) {
    for (size_t b = 0; b < f->buffer_count; b++) {
        const fixture_buffer *buffer = &f->buffers[b];
        size_t all = buffer->bytes + 2 * GUARD_BYTES;
        unsigned char *host = mr_alloc(all);
        assert_non_null(host);
        f->device->ops->copy_out(f->device, host, buffer->memory.base, all);
        for (size_t i = 0; i < GUARD_BYTES; i++)
            if (host[i] != GUARD_VALUE || host[all - 1 - i] != GUARD_VALUE)
                fail_msg("buffer %zu of %zu bytes: written outside", b, buffer->bytes);
        mr_free(host);
    }
}

void fixture_deinit(layer_fixture *f) {
    fixture_ok(f->device->ops->check(f->device));
    fixture_check_guards(f);
    for (size_t b = 0; b < f->buffer_count; b++)
        f->device->ops->memory_destroy(f->device, &f->buffers[b].memory);
    *f = (layer_fixture){0};
}

mr_tensor *fixture_dx(layer_fixture *f) {
    return f->x.shape.dtype == f->y.shape.dtype ? &f->dx : NULL;
}

void fixture_forward(layer_fixture *f) {
    mr_layer_forward(&f->layer, &f->call, &f->x, &f->y);
}

void fixture_backward(layer_fixture *f) {
    mr_layer_backward_input(&f->layer, &f->call, &f->x, &f->dy, fixture_dx(f));
    mr_layer_backward_weight(&f->layer, &f->call, &f->x, &f->dy);
}

static void fixture_poison_bytes(const layer_fixture *f, void *at, size_t bytes) {
    unsigned char *host = mr_alloc(bytes);
    assert_non_null(host);
    memset(host, 0xff, bytes);
    f->device->ops->copy_in(f->device, at, host, bytes);
    mr_free(host);
}

void fixture_poison(layer_fixture *f) {
    fixture_poison_bytes(f, f->call.saved, f->description.saved_bytes);
    fixture_poison_bytes(f, f->call.retained, f->description.retained_bytes);
    fixture_poison_bytes(f, f->call.scratch, f->description.scratch_bytes);
    fixture_poison_bytes(f, f->y.data, fixture_bytes(&f->y));
    fixture_poison_bytes(f, f->dx.data, fixture_bytes(&f->dx));
}

float *fixture_read(const layer_fixture *f, const mr_tensor *tensor) {
    size_t n = fixture_elements(tensor);
    float *host = mr_alloc_array(n, sizeof *host);
    assert_non_null(host);
    f->device->ops->copy_out(f->device, host, tensor->data, fixture_bytes(tensor));
    for (size_t i = n; tensor->shape.dtype == MR_DTYPE_BF16 && i-- > 0;) {
        uint16_t half;
        memcpy(&half, (const unsigned char *)host + i * sizeof half, sizeof half);
        host[i] = mr_half_widen(MR_DTYPE_BF16, half);
    }
    return host;
}

void fixture_write(const layer_fixture *f, const mr_tensor *tensor, const void *host) {
    size_t n = fixture_elements(tensor);
    if (tensor->shape.dtype != MR_DTYPE_BF16) {
        f->device->ops->copy_in(f->device, tensor->data, host, fixture_bytes(tensor));
        return;
    }
    uint16_t *halves = mr_alloc_array(n, sizeof *halves);
    assert_non_null(halves);
    for (size_t i = 0; i < n; i++)
        halves[i] = mr_half_round(MR_DTYPE_BF16, ((const float *)host)[i]);
    f->device->ops->copy_in(f->device, tensor->data, halves, fixture_bytes(tensor));
    mr_free(halves);
}

layer_case fixture_bf16(const layer_case *c) {
    layer_case narrow = *c;
    narrow.spec.precision = MR_DTYPE_BF16;
    if (narrow.input.dtype == MR_DTYPE_F32)
        narrow.input.dtype = MR_DTYPE_BF16;
    return narrow;
}

bool fixture_same_bits(const layer_fixture *f, const mr_tensor *a, const layer_fixture *g,
                       const mr_tensor *b) {
    float *first = fixture_read(f, a);
    float *second = fixture_read(g, b);
    bool same = fixture_elements(a) == fixture_elements(b) &&
                memcmp(first, second, fixture_elements(a) * sizeof *first) == 0;
    mr_free(first);
    mr_free(second);
    return same;
}
