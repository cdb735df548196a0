/* SPDX-License-Identifier: Apache-2.0 */
/* layer_sum.c: sums over the ranks of the model axis, and shares of activations that are put
 * together and taken apart. */
#include "daemon/layers/layer_gather.h"
#include "daemon/layers/layer_table.h"
#include "daemon/model/shard.h"

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

mr_tensor mr_layer_gathered(const mr_layer *layer, void *buffer, size_t offset) {
    mr_tensor whole = {.data = (unsigned char *)buffer + offset, .shape = layer->input};
    whole.shape.dims[whole.shape.dim_count - 1] = layer->input.cut_from;
    whole.shape.cut_from = 0;
    return whole;
}

/* Rows of count elements go from one matrix to a place in another, whose rows are longer. */
typedef struct columns_copy {
    unsigned char *to;
    size_t to_stride; /* bytes */
    const unsigned char *from;
    size_t from_stride;
    size_t bytes; /* of one row */
} columns_copy;

static void columns_copy_run(mr_device *device, const columns_copy *copy, size_t rows) {
    for (size_t r = 0; r < rows; r++)
        device->ops->copy(device, copy->to + r * copy->to_stride,
                          copy->from + r * copy->from_stride, copy->bytes);
}

/* Rows of a matrix that a share is columns of, and the bytes of an element. */
static size_t share_rows(const mr_tensor *share, size_t *out_element) {
    size_t elements = 0;
    MR_ASSERT(mr_shape_elements(&share->shape, &elements));
    *out_element = mr_dtype_bytes(share->shape.dtype);
    return elements / share->shape.dims[share->shape.dim_count - 1];
}

void mr_layer_gather(const mr_layer *layer, const mr_layer_call *call, const mr_tensor *x,
                     mr_tensor *whole) {
    size_t element = 0;
    size_t rows = share_rows(x, &element);
    size_t W = layer->input.cut_from;
    unsigned char *shares =
        (unsigned char *)call->scratch + layer->description->gather_scratch;
    call->model->gather(call->model, x->data, W, rows * element, shares);
    for (size_t rank = 0; rank < call->model->width; rank++) {
        mr_shard_range range = mr_shard_range_of(W, rank, call->model->width);
        columns_copy copy = {
            .to = (unsigned char *)whole->data + range.first * element,
            .to_stride = W * element,
            .from = shares + range.first * rows * element,
            .from_stride = range.count * element,
            .bytes = range.count * element,
        };
        columns_copy_run(call->device, &copy, rows);
    }
}

void mr_layer_take_share(const mr_layer *layer, const mr_layer_call *call, const mr_tensor *whole,
                         mr_tensor *share) {
    size_t element = 0;
    size_t rows = share_rows(share, &element);
    size_t W = layer->input.cut_from;
    mr_shard_range range = mr_shard_range_of(W, call->model->rank, call->model->width);
    columns_copy copy = {
        .to = share->data,
        .to_stride = range.count * element,
        .from = (const unsigned char *)whole->data + range.first * element,
        .from_stride = W * element,
        .bytes = range.count * element,
    };
    columns_copy_run(call->device, &copy, rows);
}
