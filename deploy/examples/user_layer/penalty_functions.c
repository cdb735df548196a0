/* SPDX-License-Identifier: Apache-2.0 */
/* The computing half of a layer with a side loss: forward adds the sum of squares to
 * call->side_sum, and backward_input adds call->side_scale times that sum's gradient, 2 x, to dx.
 * Neither scales by anything else: weight, terms, microbatches and replicas are in side_scale. */
#include "daemon/layers/layer_table.h"

static mr_tensor penalty_zeros(const mr_layer_call *call, const mr_tensor *x) {
    size_t bytes = 0;
    mr_tensor zeros = {.data = (double *)call->scratch + 1, .shape = x->shape};
    zeros.shape.dtype = MR_DTYPE_F32;
    MR_ASSERT(mr_shape_bytes(&zeros.shape, &bytes));
    call->device->ops->zero(call->device, zeros.data, bytes);
    return zeros;
}

static void penalty_forward(const mr_layer *layer, const mr_layer_call *call, const mr_tensor *x,
                            mr_tensor *y) {
    (void)layer;
    size_t bytes = 0;
    mr_tensor zeros = penalty_zeros(call, x);
    mr_tensor x_rows = mr_layer_rows(x);
    mr_tensor zero_rows = mr_layer_rows(&zeros);
    MR_ASSERT(mr_shape_bytes(&x->shape, &bytes));
    call->device->ops->mean_squared_error(call->device, &x_rows, &zero_rows, 0, NULL,
                                          call->side_sum);
    call->device->ops->copy(call->device, y->data, x->data, bytes);
}

static void penalty_backward_input(const mr_layer *layer, const mr_layer_call *call,
                                   const mr_tensor *x, const mr_tensor *dy, mr_tensor *dx) {
    (void)layer;
    const mr_dropout none = {.probability = 0};
    if (dx == NULL)
        return;
    mr_tensor zeros = penalty_zeros(call, x);
    mr_tensor x_rows = mr_layer_rows(x);
    mr_tensor zero_rows = mr_layer_rows(&zeros);
    mr_tensor dx_rows = mr_layer_rows(dx);
    call->device->ops->mean_squared_error(call->device, &x_rows, &zero_rows, call->side_scale,
                                          &dx_rows, call->scratch);
    call->device->ops->add(call->device, dy, dx, &none, dx);
}

static const mr_layer_functions penalty_functions = {
    .forward = penalty_forward,
    .backward_input = penalty_backward_input,
    .backward_weight = mr_layer_no_weight,
};
MR_LAYER_FUNCTIONS_REGISTER(penalty, penalty_functions)
