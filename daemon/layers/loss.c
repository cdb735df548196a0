/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/layers/loss.h"

#include "daemon/layers/layer_table.h"
#include "daemon/model/shard.h"

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

static size_t loss_rows(const mr_shape *output) {
    size_t elements = 0;
    MR_ASSERT(mr_shape_elements(output, &elements));
    return elements / output->dims[output->dim_count - 1];
}

size_t mr_loss_share_bytes(const mr_shape *output, size_t model_width) {
    size_t one = MR_LOGIT_STATISTIC_COUNT * loss_rows(output) * sizeof(float);
    return output->cut_from == 0 ? 0 : (model_width + 1) * one;
}

void mr_loss_run_share(mr_device *device, mr_reducer *model, const mr_tensor *output,
                       const mr_tensor *labels, float scale, mr_tensor *doutput, void *scratch,
                       double *loss) {
    size_t whole = output->shape.cut_from;
    MR_ASSERT(whole > 0);
    MR_ASSERT(doutput == NULL || mr_shape_equal(&doutput->shape, &output->shape));
    mr_tensor rows = mr_layer_rows(output);
    mr_tensor drows = doutput == NULL ? (mr_tensor){0} : mr_layer_rows(doutput);
    mr_vocabulary vocabulary = {
        .first = mr_shard_range_of(whole, model->rank, model->width).first,
        .whole = whole,
    };
    size_t each = MR_LOGIT_STATISTIC_COUNT * loss_rows(&output->shape);
    float *mine = scratch;
    float *all = mine + each;
    device->ops->logit_statistics(device, &rows, labels, &vocabulary, mine);
    model->gather(model, mine, model->width, each * sizeof(float), all);
    device->ops->cross_entropy_share(device, &rows, labels, &vocabulary, all, model->width, scale,
                                     doutput == NULL ? NULL : &drows, loss);
}

double mr_loss_terms(mr_loss kind, const mr_shape *output, const mr_shape *labels) {
    size_t elements = 0;
    if (kind == MR_LOSS_NONE)
        return 0;
    MR_ASSERT(mr_shape_elements(kind == MR_LOSS_CROSS_ENTROPY ? labels : output, &elements));
    return (double)elements;
}
