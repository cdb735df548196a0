/* SPDX-License-Identifier: Apache-2.0 */
/* maxpool2d and flatten. Backward of the first finds the largest elements again from x; the second
 * only changes how the same elements are called. */
#include "daemon/layers/layer_table.h"
#include "daemon/model/describe_own.h"

static mr_window maxpool2d_window(const mr_layer *layer) {
    const mr_maxpool2d *pool = mr_maxpool2d_of(layer->spec);
    return (mr_window){
        .kernel = pool->kernel,
        .stride = mr_maxpool2d_stride(pool),
        .padding = pool->padding,
    };
}

static void maxpool2d_forward(const mr_layer *layer, const mr_layer_call *call, const mr_tensor *x,
                              mr_tensor *y) {
    mr_window window = maxpool2d_window(layer);
    call->device->ops->max_pool_forward(call->device, &window, x, y);
}

static void maxpool2d_backward_input(const mr_layer *layer, const mr_layer_call *call,
                                     const mr_tensor *x, const mr_tensor *dy, mr_tensor *dx) {
    mr_window window = maxpool2d_window(layer);
    if (dx != NULL)
        call->device->ops->max_pool_backward(call->device, &window, x, dy, dx);
}

static const char *maxpool2d_lacks(const mr_device_ops *ops) {
    if (ops->max_pool_forward == NULL)
        return "max_pool_forward";
    return ops->max_pool_backward == NULL ? "max_pool_backward" : NULL;
}

const mr_layer_functions mr_layer_maxpool2d = {
    .forward = maxpool2d_forward,
    .backward_input = maxpool2d_backward_input,
    .backward_weight = mr_layer_no_weight,
    .lacks = maxpool2d_lacks,
};

static void flatten_copy(const mr_layer_call *call, const mr_tensor *from, mr_tensor *to) {
    size_t bytes = 0;
    MR_ASSERT(mr_shape_bytes(&from->shape, &bytes));
    MR_ASSERT(to->shape.dtype == from->shape.dtype);
    call->device->ops->copy(call->device, to->data, from->data, bytes);
}

static void flatten_forward(const mr_layer *layer, const mr_layer_call *call, const mr_tensor *x,
                            mr_tensor *y) {
    (void)layer;
    flatten_copy(call, x, y);
}

static void flatten_backward_input(const mr_layer *layer, const mr_layer_call *call,
                                   const mr_tensor *x, const mr_tensor *dy, mr_tensor *dx) {
    (void)layer;
    (void)x;
    if (dx != NULL)
        flatten_copy(call, dy, dx);
}

const mr_layer_functions mr_layer_flatten = {
    .forward = flatten_forward,
    .backward_input = flatten_backward_input,
    .backward_weight = mr_layer_no_weight,
};
