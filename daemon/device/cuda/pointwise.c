/* SPDX-License-Identifier: Apache-2.0 */
/* pointwise.c: activations, masks and sums, element by element. */
#include "daemon/device/cuda/device_cuda.h"

static mr_cuda_pointwise pointwise_kind(mr_pointwise kind) {
    static const mr_cuda_pointwise kinds[MR_POINTWISE_COUNT] = {
        [MR_POINTWISE_RELU] = MR_CUDA_RELU,
        [MR_POINTWISE_GELU_TANH] = MR_CUDA_GELU_TANH,
        [MR_POINTWISE_SILU] = MR_CUDA_SILU,
    };
    MR_ASSERT((unsigned)kind < MR_POINTWISE_COUNT);
    return kinds[kind];
}

void mr_device_cuda_pointwise_forward(mr_device *device, mr_pointwise kind, const mr_tensor *x,
                                      mr_tensor *y) {
    mr_device_cuda *cuda = mr_device_cuda_of(device);
    size_t n = mr_device_cuda_count(x);
    MR_ASSERT(mr_device_cuda_count(y) == n);
    (void)mr_device_cuda_passed(
        cuda,
        mr_cuda_pointwise_forward(cuda->stream, pointwise_kind(kind),
                                  mr_device_cuda_array(x, MR_DTYPE_NONE),
                                  mr_device_cuda_array(y, MR_DTYPE_NONE), n),
        "pointwise_forward");
}

void mr_device_cuda_pointwise_backward(mr_device *device, mr_pointwise kind, const mr_tensor *x,
                                       const mr_tensor *dy, mr_tensor *dx) {
    mr_device_cuda *cuda = mr_device_cuda_of(device);
    size_t n = mr_device_cuda_count(x);
    MR_ASSERT(mr_device_cuda_count(dy) == n && mr_device_cuda_count(dx) == n);
    (void)mr_device_cuda_passed(
        cuda,
        mr_cuda_pointwise_backward(cuda->stream, pointwise_kind(kind),
                                   mr_device_cuda_array(x, MR_DTYPE_NONE),
                                   mr_device_cuda_array(dy, MR_DTYPE_NONE),
                                   mr_device_cuda_array(dx, MR_DTYPE_NONE), n),
        "pointwise_backward");
}

/* out = a + dropout(b); a NULL: none. */
static void pointwise_add(mr_device *device, const mr_tensor *a, const mr_tensor *b,
                          const mr_dropout *dropout, mr_tensor *out, const char *what) {
    mr_device_cuda *cuda = mr_device_cuda_of(device);
    size_t n = mr_device_cuda_count(out);
    MR_ASSERT(a == NULL || mr_device_cuda_count(a) == n);
    MR_ASSERT(mr_device_cuda_count(b) == n);
    (void)mr_device_cuda_passed(
        cuda,
        mr_cuda_add(cuda->stream, mr_device_cuda_array(a, out->shape.dtype),
                    mr_device_cuda_array(b, MR_DTYPE_NONE), mr_device_cuda_mask(dropout),
                    mr_device_cuda_array(out, MR_DTYPE_NONE), n),
        what);
}

void mr_device_cuda_dropout(mr_device *device, const mr_dropout *dropout, const mr_tensor *x,
                            mr_tensor *y) {
    pointwise_add(device, NULL, x, dropout, y, "dropout");
}

void mr_device_cuda_add(mr_device *device, const mr_tensor *a, const mr_tensor *b,
                        const mr_dropout *dropout, mr_tensor *out) {
    pointwise_add(device, a, b, dropout, out, "add");
}

void mr_device_cuda_accumulate(mr_device *device, mr_tensor *a, const mr_tensor *b) {
    pointwise_add(device, a, b, NULL, a, "accumulate");
}

void mr_device_cuda_cast(mr_device *device, const mr_tensor *x, mr_tensor *y) {
    pointwise_add(device, NULL, x, NULL, y, "cast");
}
