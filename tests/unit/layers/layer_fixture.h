/* SPDX-License-Identifier: Apache-2.0 */
/* layer_fixture.h: one layer on a real device with all the memory that its calls need, each buffer
 * between guard bytes; and the list of layers that every layer test runs through.
 * A layer whose spec says bf16 gets bf16 activations and matrices; host copies are floats either
 * way.
 * Fresh buffers hold NaN, so that a call which reads what nobody wrote is seen in its result.
 * Owner: tests/unit/layers. */
#ifndef MR_TESTS_UNIT_LAYERS_LAYER_FIXTURE_H
#define MR_TESTS_UNIT_LAYERS_LAYER_FIXTURE_H

#include "daemon/layers/layer.h"

enum { FIXTURE_BUFFERS_MAX = 64 };

typedef struct layer_case {
    const char *name;
    mr_layer_spec spec;
    mr_shape input;
} layer_case;

/* Every built-in layer type and every form of it, at sizes that no vector width divides. */
extern const layer_case layer_cases[];
extern const size_t layer_case_count;

typedef struct fixture_buffer {
    mr_device_memory memory;
    size_t bytes; /* between the guards */
} fixture_buffer;

typedef struct layer_fixture {
    mr_device *device;
    mr_layer_spec spec; /* the case's; one of layer_cases gets the own keys that belong to it */
    mr_layer_description description;
    mr_tensor parameters[MR_LAYER_PARAMETERS_MAX];
    mr_tensor gradients[MR_LAYER_PARAMETERS_MAX];
    mr_layer layer;
    mr_layer_call call;
    mr_tensor x;
    mr_tensor y;
    mr_tensor dy;
    mr_tensor dx;
    size_t buffer_count;
    fixture_buffer buffers[FIXTURE_BUFFERS_MAX];
} layer_fixture;

/* A cpu device. Fails the test where there is none. */
mr_device *fixture_device(int threads);
/* Builds the layer on device (borrowed) and fills x, dy and the parameters from seed; gradients are
 * 0.25 everywhere. */
void fixture_init(layer_fixture *f, mr_device *device, const layer_case *c, uint64_t seed);
/* Checks the device and every guard byte, then frees. */
void fixture_deinit(layer_fixture *f);

/* f->dx, or NULL for a layer over tokens. */
mr_tensor *fixture_dx(layer_fixture *f);
void fixture_forward(layer_fixture *f);
void fixture_backward(layer_fixture *f);
/* Overwrites saved, retained, scratch, y and dx with NaN. */
void fixture_poison(layer_fixture *f);

/* A guarded device tensor, freed by fixture_deinit. */
mr_tensor fixture_tensor(layer_fixture *f, const mr_shape *shape);
size_t fixture_elements(const mr_tensor *tensor);
/* The case in bf16: its precision, and its input where that is no tokens. */
layer_case fixture_bf16(const layer_case *c);
/* Host copies; bf16 is widened when read, rounded when written. The caller frees what fixture_read
 * gives with mr_free. */
float *fixture_read(const layer_fixture *f, const mr_tensor *tensor);
void fixture_write(const layer_fixture *f, const mr_tensor *tensor, const void *host);
bool fixture_same_bits(const layer_fixture *f, const mr_tensor *a, const layer_fixture *g,
                       const mr_tensor *b);
/* Element i of a stream of multiples of 2^-10 in (-1, 1), none of them within 1/16 of 0: steps of a
 * power of two are exact, and relu's corner is out of reach. */
float fixture_number(uint64_t seed, uint64_t stream, uint64_t i);

#endif
