/* SPDX-License-Identifier: Apache-2.0 */
/* linear: y = x w^T + bias over the last dimension. dx = dy w; dw = dy^T x; dbias = column sums. */
#include "daemon/layers/layer_table.h"

static void linear_forward(const mr_layer *layer, const mr_layer_call *call, const mr_tensor *x,
                           mr_tensor *y) {
    mr_tensor x_rows = mr_layer_rows(x);
    mr_tensor y_rows = mr_layer_rows(y);
    call->device->ops->linear_forward(call->device, &x_rows, mr_layer_parameter(layer, "weight"),
                                      mr_layer_parameter(layer, "bias"), &y_rows);
}

static void linear_backward_input(const mr_layer *layer, const mr_layer_call *call,
                                  const mr_tensor *x, const mr_tensor *dy, mr_tensor *dx) {
    (void)x;
    if (dx == NULL)
        return;
    mr_tensor dy_rows = mr_layer_rows(dy);
    mr_tensor dx_rows = mr_layer_rows(dx);
    call->device->ops->linear_backward_input(call->device, &dy_rows,
                                             mr_layer_parameter(layer, "weight"), &dx_rows);
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
