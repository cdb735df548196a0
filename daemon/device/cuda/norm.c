/* SPDX-License-Identifier: Apache-2.0 */
/* norm.c: layer norm, alone and behind a residual sum. */
#include "daemon/device/cuda/device_cuda.h"

/* branch NULL: none, and sum NULL with it. */
static void norm_forward(mr_device_cuda *cuda, const mr_tensor *x, const mr_tensor *branch,
                         const mr_dropout *dropout, const mr_tensor *w, const mr_tensor *b,
                         float eps, mr_tensor *sum, mr_tensor *y, mr_tensor *mean, mr_tensor *rstd,
                         const char *what) {
    size_t R = mr_device_cuda_rows(x);
    size_t C = mr_device_cuda_width(x);
    mr_dtype dtype = x->shape.dtype;
    MR_ASSERT(mr_device_cuda_count(w) == C && mr_device_cuda_count(b) == C);
    MR_ASSERT(mr_device_cuda_count(y) == R * C);
    MR_ASSERT(mr_device_cuda_count(mean) == R && mr_device_cuda_count(rstd) == R);
    (void)mr_device_cuda_passed(
        cuda,
        mr_cuda_layernorm_forward(
            cuda->stream, mr_device_cuda_array(x, dtype), mr_device_cuda_array(branch, dtype),
            mr_device_cuda_mask(dropout), mr_device_cuda_array(w, dtype),
            mr_device_cuda_array(b, dtype), eps, R, C, mr_device_cuda_array(sum, dtype),
            mr_device_cuda_array(y, dtype), mr_device_cuda_floats(mean),
            mr_device_cuda_floats(rstd)),
        what);
}

void mr_device_cuda_layernorm_forward(mr_device *device, const mr_tensor *x, const mr_tensor *w,
                                      const mr_tensor *b, float eps, mr_tensor *y, mr_tensor *mean,
                                      mr_tensor *rstd) {
    norm_forward(mr_device_cuda_of(device), x, NULL, NULL, w, b, eps, NULL, y, mean, rstd,
                 "layernorm_forward");
}

void mr_device_cuda_residual_layernorm_forward(mr_device *device, const mr_tensor *x,
                                               const mr_tensor *branch, const mr_dropout *dropout,
                                               const mr_tensor *w, const mr_tensor *b, float eps,
                                               mr_tensor *sum, mr_tensor *y, mr_tensor *mean,
                                               mr_tensor *rstd) {
    MR_ASSERT(mr_device_cuda_count(branch) == mr_device_cuda_count(x));
    MR_ASSERT(mr_device_cuda_count(sum) == mr_device_cuda_count(x));
    norm_forward(mr_device_cuda_of(device), x, branch, dropout, w, b, eps, sum, y, mean, rstd,
                 "residual_layernorm_forward");
}

void mr_device_cuda_layernorm_backward_input(mr_device *device, const mr_tensor *dy,
                                             const mr_tensor *x, const mr_tensor *w,
                                             const mr_tensor *mean, const mr_tensor *rstd,
                                             const mr_tensor *residual, mr_tensor *dx) {
    mr_device_cuda *cuda = mr_device_cuda_of(device);
    mr_dtype dtype = x->shape.dtype;
    size_t R = mr_device_cuda_rows(x);
    size_t C = mr_device_cuda_width(x);
    MR_ASSERT(mr_device_cuda_count(dy) == R * C && mr_device_cuda_count(dx) == R * C);
    MR_ASSERT(mr_device_cuda_count(w) == C);
    (void)mr_device_cuda_passed(
        cuda,
        mr_cuda_layernorm_backward_input(
            cuda->stream, mr_device_cuda_array(dy, dtype), mr_device_cuda_array(x, dtype),
            mr_device_cuda_array(w, dtype), mr_device_cuda_floats(mean),
            mr_device_cuda_floats(rstd), mr_device_cuda_array(residual, dtype), R, C,
            mr_device_cuda_array(dx, dtype)),
        "layernorm_backward_input");
}

void mr_device_cuda_layernorm_backward_weight(mr_device *device, const mr_tensor *dy,
                                              const mr_tensor *x, const mr_tensor *mean,
                                              const mr_tensor *rstd, mr_tensor *dw,
                                              mr_tensor *db) {
    mr_device_cuda *cuda = mr_device_cuda_of(device);
    size_t R = mr_device_cuda_rows(x);
    size_t C = mr_device_cuda_width(x);
    MR_ASSERT(mr_device_cuda_count(dy) == R * C);
    MR_ASSERT(mr_device_cuda_count(dw) == C && mr_device_cuda_count(db) == C);
    void *workspace = mr_device_cuda_workspace(cuda, mr_cuda_columns_bytes(R, C));
    if (workspace != NULL)
        (void)mr_device_cuda_passed(
            cuda,
            mr_cuda_layernorm_backward_weight(
                cuda->stream, mr_device_cuda_array(dy, MR_DTYPE_NONE),
                mr_device_cuda_array(x, MR_DTYPE_NONE), mr_device_cuda_floats(mean),
                mr_device_cuda_floats(rstd), R, C, workspace, mr_device_cuda_floats(dw),
                mr_device_cuda_floats(db)),
            "layernorm_backward_weight");
}
