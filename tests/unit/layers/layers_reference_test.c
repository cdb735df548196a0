/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a whole small GPT-2-form model (embedding, one block, final layernorm, tied head, mean
 * cross entropy) has the activations, loss and gradients that an independent implementation has.
 * Method: tests/vectors/gpt2_reference.json, written by gpt2_reference.py (float64 numpy with its
 * own differentiator); the layers run forward and backward from the same float32 parameters, and
 * every element of every output, output gradient and parameter gradient must agree within 2e-5 of
 * the largest of its tensor (f32 against f64). The head's and the embedding's gradients of the tied
 * parameter are compared apart. Activations and linear, which are not layers of that
 * model, are compared with their formulas in double. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <math.h>

#include <cmocka.h>
#include <jansson.h>

#include "daemon/base/alloc.h"
#include "daemon/layers/loss.h"
#include "tests/unit/layers/layer_fixture.h"

enum { LAYERS = 4, VALUES_MAX = 4096 };

static const double tolerance = 2e-5;

typedef struct model {
    json_t *reference;
    mr_device *device;
    layer_case cases[LAYERS];
    layer_fixture layers[LAYERS];
    mr_tensor labels;
    mr_tensor loss;
} model;

static size_t reference_size(const model *m, const char *name) {
    return (size_t)json_integer_value(json_object_get(m->reference, name));
}

/* The list called "LAYER.NAME", or "LAYER", of a group of lists; checks its length. */
static const json_t *reference_list(const model *m, const char *group, size_t layer,
                                    const char *name, size_t n) {
    char key[64];
    (void)snprintf(key, sizeof key, "%zu%s%s", layer, name[0] == '\0' ? "" : ".", name);
    const json_t *list = json_object_get(json_object_get(m->reference, group), key);
    if (!json_is_array(list) || json_array_size(list) != n)
        fail_msg("reference %s %s: %zu values wanted", group, key, n);
    return list;
}

static void reference_load(const json_t *list, const layer_fixture *f, const mr_tensor *to) {
    float values[VALUES_MAX];
    int32_t tokens[VALUES_MAX];
    size_t n = fixture_elements(to);
    assert_true(n <= VALUES_MAX && n == json_array_size(list));
    for (size_t i = 0; i < n; i++) {
        values[i] = (float)json_number_value(json_array_get(list, i));
        tokens[i] = (int32_t)json_integer_value(json_array_get(list, i));
    }
    fixture_write(f, to, to->shape.dtype == MR_DTYPE_I32 ? (void *)tokens : (void *)values);
}

static void reference_compare(const model *m, const char *group, size_t layer, const char *name,
                              const mr_tensor *tensor, float start) {
    const layer_fixture *f = &m->layers[layer];
    size_t n = fixture_elements(tensor);
    const json_t *list = reference_list(m, group, layer, name, n);
    float *computed = fixture_read(f, tensor);
    double largest = 0;
    for (size_t i = 0; i < n; i++)
        largest = fmax(largest, fabs(json_number_value(json_array_get(list, i))));
    for (size_t i = 0; i < n; i++) {
        double wanted = json_number_value(json_array_get(list, i));
        double error = fabs((double)computed[i] - (double)start - wanted);
        if (!(error <= tolerance * largest))
            fail_msg("%s %zu.%s[%zu]: computed %.9g, reference %.9g, largest %.3g", group, layer,
                     name, i, (double)computed[i] - (double)start, wanted, largest);
    }
    mr_free(computed);
}

static void model_specs(model *m) {
    size_t B = reference_size(m, "B");
    size_t T = reference_size(m, "T");
    size_t C = reference_size(m, "C");
    size_t V = reference_size(m, "V");
    size_t heads = reference_size(m, "heads");
    mr_shape tokens = {.dtype = MR_DTYPE_I32, .dim_count = 2, .dims = {B, T}};
    mr_shape rows = {
        .dtype = MR_DTYPE_F32, .dim_count = 3, .dims = {B, T, C}, .needs_gradient = true};
    m->cases[0] = (layer_case){
        "embedding",
        {.type = MR_LAYER_TYPE_EMBEDDING, .tie = "embed", .vocab = V, .dim = C, .positions = T},
        tokens};
    m->cases[1] = (layer_case){"block",
                               {.type = MR_LAYER_TYPE_TRANSFORMER_BLOCK,
                                .dim = C,
                                .heads = heads,
                                .kv_heads = heads,
                                .ffn = reference_size(m, "ffn"),
                                .bias = true,
                                .causal = true,
                                .eps = 1e-5},
                               rows};
    m->cases[2] = (layer_case){
        "layernorm",
        {.type = MR_LAYER_TYPE_LAYERNORM, .dim = C, .bias = true, .eps = 1e-5},
        rows};
    m->cases[3] = (layer_case){
        "head", {.type = MR_LAYER_TYPE_LM_HEAD, .tie = "embed", .vocab = V, .dim = C}, rows};
}

static void model_init(model *m) {
    json_error_t error;
    *m = (model){.device = fixture_device(2)};
    m->reference = json_load_file("tests/vectors/gpt2_reference.json", 0, &error);
    if (m->reference == NULL)
        fail_msg("gpt2_reference.json: %s", error.text);
    model_specs(m);
    for (size_t l = 0; l < LAYERS; l++) {
        layer_fixture *f = &m->layers[l];
        fixture_init(f, m->device, &m->cases[l], 1);
        for (size_t p = 0; p < f->description.parameter_count; p++) {
            size_t from = l == 3 ? 0 : l; /* the head's weight is the embedding's */
            const json_t *list =
                reference_list(m, "parameters", from, f->description.parameters[p].name,
                               fixture_elements(&f->parameters[p]));
            reference_load(list, f, &f->parameters[p]);
        }
        if (l > 0)
            f->x = m->layers[l - 1].y;
    }
    mr_shape one = {.dtype = MR_DTYPE_F32, .dim_count = 1, .dims = {2}};
    m->labels = fixture_tensor(&m->layers[3], &m->cases[0].input);
    m->loss = fixture_tensor(&m->layers[3], &one); /* room for one double */
    reference_load(json_object_get(m->reference, "tokens"), &m->layers[0], &m->layers[0].x);
    reference_load(json_object_get(m->reference, "labels"), &m->layers[3], &m->labels);
}

static void model_deinit(model *m) {
    for (size_t l = 0; l < LAYERS; l++)
        fixture_deinit(&m->layers[l]);
    mr_device_destroy(m->device);
    json_decref(m->reference);
}

/* Mean loss; the logits' gradient is in the head's dy. */
static double model_forward(model *m) {
    double loss = 0;
    const mr_tensor *logits = &m->layers[3].y;
    double terms = mr_loss_terms(MR_LOSS_CROSS_ENTROPY, &logits->shape, &m->labels.shape);
    for (size_t l = 0; l < LAYERS; l++)
        fixture_forward(&m->layers[l]);
    m->device->ops->copy_in(m->device, m->loss.data, &loss, sizeof loss);
    mr_loss_run(m->device, MR_LOSS_CROSS_ENTROPY, logits, &m->labels, (float)(1 / terms),
                &m->layers[3].dy, (double *)m->loss.data);
    m->device->ops->copy_out(m->device, &loss, m->loss.data, sizeof loss);
    return loss / terms;
}

static void model_backward(model *m) {
    for (size_t l = LAYERS; l-- > 0;) {
        if (l + 1 < LAYERS)
            m->layers[l].dy = m->layers[l + 1].dx;
        fixture_backward(&m->layers[l]);
    }
}

static void test_model_matches_independent_implementation(void **state) {
    (void)state;
    model m;
    model_init(&m);
    double loss = model_forward(&m);
    double wanted = json_number_value(json_object_get(m.reference, "loss"));
    if (!(fabs(loss - wanted) < 1e-6 * wanted))
        fail_msg("loss %.9g, reference %.9g", loss, wanted);
    model_backward(&m);
    for (size_t l = 0; l < LAYERS; l++) {
        layer_fixture *f = &m.layers[l];
        reference_compare(&m, "outputs", l, "", &f->y, 0);
        reference_compare(&m, "output_gradients", l, "", &f->dy, 0);
        for (size_t p = 0; p < f->description.parameter_count; p++)
            reference_compare(&m, "gradients", l, f->description.parameters[p].name,
                              &f->gradients[p], 0.25f);
    }
    model_deinit(&m);
}

static double activation_formula(mr_layer_type type, double x) {
    const double pi = 3.14159265358979323846;
    if (type == MR_LAYER_TYPE_RELU)
        return fmax(x, 0);
    if (type == MR_LAYER_TYPE_SILU)
        return x / (1 + exp(-x));
    return 0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x * x * x)));
}

static void test_activations_compute_their_formula(void **state) {
    (void)state;
    const mr_layer_type types[] = {MR_LAYER_TYPE_RELU, MR_LAYER_TYPE_GELU, MR_LAYER_TYPE_SILU};
    mr_device *device = fixture_device(1);
    for (size_t k = 0; k < sizeof types / sizeof types[0]; k++) {
        layer_case c = {
            "activation", {.type = types[k]}, {MR_DTYPE_F32, 2, {3, 37}, true, 0}};
        layer_fixture f;
        fixture_init(&f, device, &c, 3);
        fixture_forward(&f);
        float *x = fixture_read(&f, &f.x);
        float *y = fixture_read(&f, &f.y);
        for (size_t i = 0; i < fixture_elements(&f.x); i++)
            assert_true(fabs((double)y[i] - activation_formula(types[k], (double)x[i])) < 1e-6);
        mr_free(x);
        mr_free(y);
        fixture_deinit(&f);
    }
    mr_device_destroy(device);
}

static void test_linear_computes_its_formula(void **state) {
    (void)state;
    layer_case c = {"linear",
                    {.type = MR_LAYER_TYPE_LINEAR, .in = 7, .out = 5, .bias = true},
                    {MR_DTYPE_F32, 2, {3, 7}, true, 0}};
    mr_device *device = fixture_device(1);
    layer_fixture f;
    fixture_init(&f, device, &c, 3);
    fixture_forward(&f);
    float *x = fixture_read(&f, &f.x);
    float *y = fixture_read(&f, &f.y);
    float *w = fixture_read(&f, &f.parameters[0]);
    float *bias = fixture_read(&f, &f.parameters[1]);
    for (size_t r = 0; r < 3; r++)
        for (size_t o = 0; o < 5; o++) {
            double wanted = (double)bias[o];
            for (size_t i = 0; i < 7; i++)
                wanted += (double)x[r * 7 + i] * (double)w[o * 7 + i];
            assert_true(fabs((double)y[r * 5 + o] - wanted) < 1e-6);
        }
    mr_free(bias);
    mr_free(w);
    mr_free(y);
    mr_free(x);
    fixture_deinit(&f);
    mr_device_destroy(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model_matches_independent_implementation),
        cmocka_unit_test(test_activations_compute_their_formula),
        cmocka_unit_test(test_linear_computes_its_formula),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
