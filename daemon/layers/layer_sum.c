/* SPDX-License-Identifier: Apache-2.0 */
/* layer_sum.c: sums over the ranks of the model axis. */
#include "daemon/layers/layer_table.h"

mr_tensor mr_layer_sum_begin(const mr_layer *layer, const mr_layer_call *call, const mr_tensor *y) {
    mr_tensor part = *y;
    if (!mr_layer_spec_is_shard(layer->spec) || y->shape.dtype == MR_DTYPE_F32)
        return part;
    part.shape.dtype = MR_DTYPE_F32;
    part.data = call->scratch;
    return part;
}

const mr_tensor *mr_layer_sum_bias(const mr_layer *layer, const mr_layer_call *call,
                                   const mr_tensor *bias) {
    return mr_layer_spec_is_shard(layer->spec) && call->model->rank > 0 ? NULL : bias;
}

void mr_layer_sum_end(const mr_layer *layer, const mr_layer_call *call, const mr_tensor *part,
                      mr_tensor *y) {
    size_t elements = 0;
    if (!mr_layer_spec_is_shard(layer->spec))
        return;
    MR_ASSERT(mr_shape_elements(&part->shape, &elements));
    call->model->sum(call->model, part->data, elements);
    if (part->data != y->data)
        call->device->ops->cast(call->device, part, y);
}
