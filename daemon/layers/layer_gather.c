/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/layers/layer_gather.h"

#include "daemon/model/shard.h"

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
