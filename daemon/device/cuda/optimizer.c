/* SPDX-License-Identifier: Apache-2.0 */
/* optimizer.c: AdamW. The kernel takes many tensors in one launch; the slot has one. */
#include "daemon/device/cuda/device_cuda.h"

void mr_device_cuda_adamw(mr_device *device, const mr_adamw *options, const mr_tensor *gradient,
                          mr_tensor *parameter, mr_tensor *exp_avg, mr_tensor *exp_avg_sq) {
    mr_device_cuda *cuda = mr_device_cuda_of(device);
    mr_cuda_adamw_tensor tensor = {
        .gradient = mr_device_cuda_array(gradient, MR_DTYPE_NONE),
        .parameter = mr_device_cuda_floats(parameter),
        .exp_avg = mr_device_cuda_floats(exp_avg),
        .exp_avg_sq = mr_device_cuda_floats(exp_avg_sq),
        .n = mr_device_cuda_count(parameter),
        .weight_decay = options->weight_decay,
    };
    mr_cuda_adamw step = {
        .lr = options->lr,
        .beta1 = options->beta1,
        .beta2 = options->beta2,
        .eps = options->eps,
        .gradient_scale = options->gradient_scale,
        .bias_correction1 = options->bias_correction1,
        .bias_correction2 = options->bias_correction2,
    };
    MR_ASSERT(mr_device_cuda_count(gradient) == tensor.n);
    MR_ASSERT(mr_device_cuda_count(exp_avg) == tensor.n);
    MR_ASSERT(mr_device_cuda_count(exp_avg_sq) == tensor.n);
    (void)mr_device_cuda_passed(cuda, mr_cuda_adamw_update(cuda->stream, &step, &tensor, 1),
                                "adamw");
}
