/* SPDX-License-Identifier: Apache-2.0 */
/* linear.c: products of activations and weights. A product that cuBLASLt has no fused form of is
 * run without the bias, and one that it has no algorithm for by our own kernel. */
#include "daemon/device/cuda/device_cuda.h"

/* Runs it by what takes it; bias added apart where it is not fused. */
static void linear_run(mr_device_cuda *cuda, mr_product_shape shape, const mr_tensor *a,
                       const mr_tensor *b, const mr_tensor *bias, mr_tensor *c, const char *what) {
    shape.operands = a->shape.dtype;
    shape.out = c->shape.dtype;
    if (shape.m == 0 || shape.n == 0)
        return;
    mr_status status = MR_ERROR(UNIMPLEMENTED, "not tried");
    bool same = a->shape.dtype == b->shape.dtype && shape.k > 0;
    if (bias != NULL && same && (uintptr_t)bias->data % 16 == 0) {
        shape.bias = true;
        shape.bias_dtype = bias->shape.dtype;
        status = mr_products_run(cuda->products, &shape, a->data, b->data, bias->data, c->data);
        if (status.code != MR_CODE_UNIMPLEMENTED) {
            mr_device_cuda_latch(cuda, status);
            return;
        }
        shape.bias = false;
    }
    if (same)
        status = mr_products_run(cuda->products, &shape, a->data, b->data, NULL, c->data);
    mr_cuda_array out = mr_device_cuda_array(c, MR_DTYPE_NONE);
    if (status.code == MR_CODE_UNIMPLEMENTED)
        (void)mr_device_cuda_passed(
            cuda,
            mr_cuda_product(cuda->stream, mr_device_cuda_array(a, MR_DTYPE_NONE),
                            mr_device_cuda_array(b, MR_DTYPE_NONE), out, shape.m, shape.n, shape.k,
                            shape.a_transposed, shape.b_transposed, shape.accumulate),
            what);
    else
        mr_device_cuda_latch(cuda, status);
    if (bias != NULL)
        (void)mr_device_cuda_passed(
            cuda,
            mr_cuda_bias_add(cuda->stream, out, mr_device_cuda_array(bias, MR_DTYPE_NONE), shape.m,
                             shape.n),
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
    MR_ASSERT(mr_device_cuda_count(dw) == OUT * shape.n);
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
