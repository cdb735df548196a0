/* SPDX-License-Identifier: Apache-2.0 */
/* linear: y = x w^T + bias over the last dimension. dx = dy w; dw = dy^T x; dbias = column sums.
 * A column-parallel shard has some of y's columns, so dx is a sum over the ranks; a row-parallel
 * one some of x's columns, so y is. */
#include "daemon/layers/layer_table.h"

static void linear_forward(const mr_layer *layer, const mr_layer_call *call, const mr_tensor *x,
                           mr_tensor *y) {
    mr_tensor x_rows = mr_layer_rows(x);
    mr_tensor y_rows = mr_layer_rows(y);
    const mr_tensor *weight = mr_layer_parameter(layer, "weight");
    const mr_tensor *bias = mr_layer_parameter(layer, "bias");
    if (layer->spec->parallel != MR_PARALLEL_ROW) {
        call->device->ops->linear_forward(call->device, &x_rows, weight, bias, &y_rows);
        return;
    }
    mr_tensor part = mr_layer_sum_begin(layer, call, &y_rows);
    call->device->ops->linear_forward(call->device, &x_rows, weight,
                                      mr_layer_sum_bias(layer, call, bias), &part);
    mr_layer_sum_end(layer, call, &part, &y_rows);
}

static void linear_backward_input(const mr_layer *layer, const mr_layer_call *call,
                                  const mr_tensor *x, const mr_tensor *dy, mr_tensor *dx) {
    (void)x;
    if (dx == NULL)
        return;
    mr_tensor dy_rows = mr_layer_rows(dy);
    mr_tensor dx_rows = mr_layer_rows(dx);
    const mr_tensor *weight = mr_layer_parameter(layer, "weight");
    if (layer->spec->parallel != MR_PARALLEL_COLUMN) {
        call->device->ops->linear_backward_input(call->device, &dy_rows, weight, &dx_rows);
        return;
    }
    mr_tensor part = mr_layer_sum_begin(layer, call, &dx_rows);
    call->device->ops->linear_backward_input(call->device, &dy_rows, weight, &part);
    mr_layer_sum_end(layer, call, &part, &dx_rows);
}

static void linear_backward_weight(const mr_layer *layer, const mr_layer_call *call,
                                   const mr_tensor *x, const mr_tensor *dy) {
    mr_tensor x_rows = mr_layer_rows(x);
    mr_tensor dy_rows = mr_layer_rows(dy);
    call->device->ops->linear_backward_weight(call->device, &dy_rows, &x_rows,
                                              mr_layer_gradient(layer, "weight"),
                                              mr_layer_gradient(layer, "bias"));
}

const mr_layer_functions mr_layer_linear = {
    .forward = linear_forward,
    .backward_input = linear_backward_input,
    .backward_weight = linear_backward_weight,
};
