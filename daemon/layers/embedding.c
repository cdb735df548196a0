/* SPDX-License-Identifier: Apache-2.0 */
/* embedding: y[b, t] = wte[x[b, t]] + wpe[t]. Tokens have no gradient, so backward-input is empty
 * and all of backward is the scatter of dy into the rows that were read. A shard has a part of the
 * vocabulary's rows: the rank that has a token's row gives y there, the others zero. */
#include "daemon/layers/layer_table.h"
#include "daemon/model/shard.h"

static mr_vocabulary embedding_vocabulary(const mr_layer *layer) {
    const mr_layer_spec *spec = layer->spec;
    return (mr_vocabulary){
        .first = mr_shard_range_of(spec->vocab, spec->model_rank, spec->model_width).first,
        .whole = spec->vocab,
    };
}

/* The sum over the ranks has one part that is not zero, so it keeps that part's bits. */
static void embedding_forward(const mr_layer *layer, const mr_layer_call *call, const mr_tensor *x,
                              mr_tensor *y) {
    const mr_device_ops *ops = call->device->ops;
    const mr_tensor *wte = mr_layer_parameter(layer, "wte.weight");
    const mr_tensor *wpe = mr_layer_parameter(layer, "wpe.weight");
    if (!mr_layer_spec_is_shard(layer->spec)) {
        ops->embedding_forward(call->device, x, wte, wpe, y);
        return;
    }
    mr_vocabulary vocabulary = embedding_vocabulary(layer);
    ops->embedding_forward_share(call->device, x, &vocabulary, wte, wpe, y);
    mr_tensor part = mr_layer_sum_begin(layer, call, y);
    if (part.data != y->data)
        ops->cast(call->device, y, &part);
    mr_layer_sum_end(layer, call, &part, y);
}

static void embedding_backward_input(const mr_layer *layer, const mr_layer_call *call,
                                     const mr_tensor *x, const mr_tensor *dy, mr_tensor *dx) {
    (void)layer;
    (void)call;
    (void)x;
    (void)dy;
    MR_ASSERT(dx == NULL);
}

static void embedding_backward_weight(const mr_layer *layer, const mr_layer_call *call,
                                      const mr_tensor *x, const mr_tensor *dy) {
    const mr_device_ops *ops = call->device->ops;
    mr_tensor *dwte = mr_layer_gradient(layer, "wte.weight");
    mr_tensor *dwpe = mr_layer_gradient(layer, "wpe.weight");
    if (!mr_layer_spec_is_shard(layer->spec)) {
        ops->embedding_backward(call->device, x, dy, dwte, dwpe);
        return;
    }
    mr_vocabulary vocabulary = embedding_vocabulary(layer);
    ops->embedding_backward_share(call->device, x, &vocabulary, dy, dwte, dwpe);
}

const mr_layer_functions mr_layer_embedding = {
    .forward = embedding_forward,
    .backward_input = embedding_backward_input,
    .backward_weight = embedding_backward_weight,
};
