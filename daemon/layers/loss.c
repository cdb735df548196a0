/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/layers/loss.h"

#include "daemon/layers/layer_table.h"

void mr_loss_run(mr_device *device, mr_loss kind, const mr_tensor *output, const mr_tensor *labels,
                 float scale, mr_tensor *doutput, double *loss) {
    MR_ASSERT((unsigned)kind < MR_LOSS_COUNT);
    if (kind == MR_LOSS_NONE)
        return;
    MR_ASSERT(doutput == NULL || mr_shape_equal(&doutput->shape, &output->shape));
    mr_tensor rows = mr_layer_rows(output);
    mr_tensor drows = doutput == NULL ? (mr_tensor){0} : mr_layer_rows(doutput);
    mr_tensor *gradient = doutput == NULL ? NULL : &drows;
    if (kind == MR_LOSS_CROSS_ENTROPY) {
        device->ops->cross_entropy(device, &rows, labels, scale, gradient, loss);
        return;
    }
    mr_tensor targets = mr_layer_rows(labels);
    device->ops->mean_squared_error(device, &rows, &targets, scale, gradient, loss);
}

double mr_loss_terms(mr_loss kind, const mr_shape *output, const mr_shape *labels) {
    size_t elements = 0;
    if (kind == MR_LOSS_NONE)
        return 0;
    MR_ASSERT(mr_shape_elements(kind == MR_LOSS_CROSS_ENTROPY ? labels : output, &elements));
    return (double)elements;
}
