/* SPDX-License-Identifier: Apache-2.0 */
/* linear.c: products of activations and weights. An element of bf16 is rounded once, so a bias is
 * never added to what was rounded: it goes into cuBLASLt's epilogue as it is, or else as bf16, or
 * else our own kernel takes the product. f32 may add it apart. */
#include "daemon/device/cuda/device_cuda.h"

/* With the bias in the epilogue. UNIMPLEMENTED: not to be had. */
static mr_status linear_fused(mr_device_cuda *cuda, mr_product_shape shape, const mr_tensor *a,
                              const mr_tensor *b, const mr_tensor *bias, mr_tensor *c) {
    mr_status status = MR_ERROR(UNIMPLEMENTED, "not tried");
    shape.bias = true;
    shape.bias_dtype = bias->shape.dtype;
    if ((uintptr_t)bias->data % 16 == 0)
        status = mr_products_run(cuda->products, &shape, a->data, b->data, bias->data, c->data);
    if (status.code != MR_CODE_UNIMPLEMENTED || shape.out == bias->shape.dtype)
        return status;
    mr_cuda_array own = {.dtype = shape.out};
    own.data = mr_device_cuda_workspace(cuda, shape.n * mr_dtype_bytes(own.dtype));
    if (own.data == NULL ||
        !mr_device_cuda_passed(cuda,
                               mr_cuda_add(cuda->stream, (mr_cuda_array){.dtype = own.dtype},
                                           mr_device_cuda_array(bias, MR_DTYPE_NONE),
                                           mr_device_cuda_mask(NULL), own, shape.n),
                               "bias"))
        return MR_OK; /* latched */
    shape.bias_dtype = own.dtype;
    return mr_products_run(cuda->products, &shape, a->data, b->data, own.data, c->data);
}

/* By cuBLASLt. UNIMPLEMENTED: it has nothing, and nothing was done. */
static mr_status linear_library(mr_device_cuda *cuda, const mr_product_shape *shape,
                                const mr_tensor *a, const mr_tensor *b, const mr_tensor *bias,
                                mr_tensor *c) {
    mr_status status = MR_ERROR(UNIMPLEMENTED, "not tried");
    if (a->shape.dtype != b->shape.dtype || shape->k == 0)
        return status;
    if (bias != NULL)
        status = linear_fused(cuda, *shape, a, b, bias, c);
    if (status.code != MR_CODE_UNIMPLEMENTED || (bias != NULL && shape->out != MR_DTYPE_F32))
        return status;
    MR_TRY(mr_products_run(cuda->products, shape, a->data, b->data, NULL, c->data));
    if (bias != NULL)
        (void)mr_device_cuda_passed(
            cuda,
            mr_cuda_bias_add(cuda->stream, mr_device_cuda_array(c, MR_DTYPE_NONE),
                             mr_device_cuda_array(bias, MR_DTYPE_NONE), shape->m, shape->n),
            "bias");
    return MR_OK;
}

/* Runs it by what takes it. */
static void linear_run(mr_device_cuda *cuda, mr_product_shape shape, const mr_tensor *a,
                       const mr_tensor *b, const mr_tensor *bias, mr_tensor *c, const char *what) {
    shape.operands = a->shape.dtype;
    shape.out = c->shape.dtype;
    if (shape.m == 0 || shape.n == 0)
        return;
    mr_status status = linear_library(cuda, &shape, a, b, bias, c);
    if (status.code != MR_CODE_UNIMPLEMENTED) {
        mr_device_cuda_latch(cuda, status);
        return;
    }
    (void)mr_device_cuda_passed(
        cuda,
        mr_cuda_product(cuda->stream, mr_device_cuda_array(a, MR_DTYPE_NONE),
                        mr_device_cuda_array(b, MR_DTYPE_NONE),
                        mr_device_cuda_array(bias, MR_DTYPE_F32),
                        mr_device_cuda_array(c, MR_DTYPE_NONE), shape.m, shape.n, shape.k,
                        shape.a_transposed, shape.b_transposed, shape.accumulate),
        what);
}

void mr_device_cuda_linear_forward(mr_device *device, const mr_tensor *x, const mr_tensor *w,
                                   const mr_tensor *bias, mr_tensor *y) {
    mr_product_shape shape = {.m = mr_device_cuda_rows(x),
                              .n = mr_device_cuda_rows(w),
                              .k = mr_device_cuda_width(w),
                              .b_transposed = true};
    MR_ASSERT(mr_device_cuda_width(x) == shape.k);
    MR_ASSERT(mr_device_cuda_count(y) == shape.m * shape.n);
    MR_ASSERT(bias == NULL || mr_device_cuda_count(bias) == shape.n);
    linear_run(mr_device_cuda_of(device), shape, x, w, bias, y, "linear_forward");
}

void mr_device_cuda_linear_backward_input(mr_device *device, const mr_tensor *dy,
                                          const mr_tensor *w, mr_tensor *dx) {
    mr_product_shape shape = {.m = mr_device_cuda_rows(dy),
                              .n = mr_device_cuda_width(w),
                              .k = mr_device_cuda_rows(w)};
    MR_ASSERT(mr_device_cuda_width(dy) == shape.k);
    MR_ASSERT(mr_device_cuda_count(dx) == shape.m * shape.n);
    linear_run(mr_device_cuda_of(device), shape, dy, w, NULL, dx, "linear_backward_input");
}

void mr_device_cuda_linear_backward_weight(mr_device *device, const mr_tensor *dy,
                                           const mr_tensor *x, mr_tensor *dw, mr_tensor *dbias) {
    mr_device_cuda *cuda = mr_device_cuda_of(device);
    size_t R = mr_device_cuda_rows(dy);
    size_t OUT = mr_device_cuda_width(dy);
    mr_product_shape shape = {.m = OUT,
                              .n = mr_device_cuda_width(x),
                              .k = R,
                              .a_transposed = true,
                              .accumulate = true};
    MR_ASSERT(mr_device_cuda_rows(x) == R);
    MR_ASSERT(dw == NULL || mr_device_cuda_count(dw) == OUT * shape.n);
    if (dw != NULL)
        linear_run(cuda, shape, dy, x, NULL, dw, "linear_backward_weight");
    if (dbias == NULL)
        return;
    MR_ASSERT(mr_device_cuda_count(dbias) == OUT);
    void *workspace = mr_device_cuda_workspace(cuda, mr_cuda_columns_bytes(R, OUT));
    if (workspace != NULL)
        (void)mr_device_cuda_passed(
            cuda,
            mr_cuda_columns_sum(cuda->stream, mr_device_cuda_array(dy, MR_DTYPE_NONE), R, OUT,
                                workspace, mr_device_cuda_floats(dbias)),
            "linear_backward_weight");
}
