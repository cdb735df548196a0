/* SPDX-License-Identifier: Apache-2.0 */
/* loss.c: losses and sums of squares. A label outside the vocabulary is noted on the card, for
 * check to tell; its row counts as nothing. */
#include "daemon/device/cuda/device_cuda.h"

/* One double for each chunk. */
static double *loss_chunks(mr_device_cuda *cuda, size_t n) {
    size_t chunks = n / MR_CUDA_CHUNK + 1;
    return mr_device_cuda_workspace(cuda, chunks * sizeof(double));
}

void mr_device_cuda_cross_entropy(mr_device *device, const mr_tensor *logits,
                                  const mr_tensor *labels, float scale, mr_tensor *dlogits,
                                  double *loss) {
    mr_device_cuda *cuda = mr_device_cuda_of(device);
    size_t R = mr_device_cuda_rows(logits);
    size_t V = mr_device_cuda_width(logits);
    MR_ASSERT(labels->shape.dtype == MR_DTYPE_I32 && mr_device_cuda_count(labels) == R);
    MR_ASSERT(dlogits == NULL || mr_device_cuda_count(dlogits) == R * V);
    double *workspace = mr_device_cuda_workspace(cuda, (R + 1) * sizeof(double));
    if (workspace == NULL ||
        !mr_device_cuda_passed(cuda,
                               mr_cuda_indices_check(cuda->stream, labels->data, R, -1, V,
                                                     MR_CUDA_LABEL, cuda->bad),
                               "looking at labels"))
        return;
    (void)mr_device_cuda_passed(
        cuda,
        mr_cuda_cross_entropy(cuda->stream, mr_device_cuda_array(logits, MR_DTYPE_NONE),
                              labels->data, R, V, scale,
                              mr_device_cuda_array(dlogits, logits->shape.dtype), workspace, loss),
        "cross_entropy");
}

void mr_device_cuda_mean_squared_error(mr_device *device, const mr_tensor *y,
                                       const mr_tensor *target, float scale, mr_tensor *dy,
                                       double *loss) {
    mr_device_cuda *cuda = mr_device_cuda_of(device);
    size_t n = mr_device_cuda_count(y);
    double *workspace = loss_chunks(cuda, n);
    MR_ASSERT(mr_device_cuda_count(target) == n);
    MR_ASSERT(dy == NULL || mr_device_cuda_count(dy) == n);
    if (workspace != NULL)
        (void)mr_device_cuda_passed(
            cuda,
            mr_cuda_squared_error(cuda->stream, mr_device_cuda_array(y, MR_DTYPE_NONE),
                                  mr_device_cuda_array(target, MR_DTYPE_NONE), 2.0f * scale,
                                  mr_device_cuda_array(dy, y->shape.dtype), n, workspace, loss),
            "mean_squared_error");
}

void mr_device_cuda_sum_of_squares(mr_device *device, const mr_tensor *x, double *out) {
    mr_device_cuda *cuda = mr_device_cuda_of(device);
    size_t n = mr_device_cuda_count(x);
    double *workspace = loss_chunks(cuda, n);
    if (workspace != NULL)
        (void)mr_device_cuda_passed(
            cuda,
            mr_cuda_sum_of_squares(cuda->stream, mr_device_cuda_array(x, MR_DTYPE_NONE), n,
                                   workspace, out),
            "sum_of_squares");
}
