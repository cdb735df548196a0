/* SPDX-License-Identifier: Apache-2.0 */
/* identity: y = x and dx = dy. It copies, because every layer's output is memory of its own that
 * the executor keeps or sends independently of the input. */
#include "daemon/layers/layer_table.h"

static void identity_copy(const mr_layer_call *call, const mr_tensor *from, mr_tensor *to) {
    size_t bytes = 0;
    MR_ASSERT(mr_shape_bytes(&from->shape, &bytes));
    call->device->ops->copy(call->device, to->data, from->data, bytes);
}

static void identity_forward(const mr_layer *layer, const mr_layer_call *call, const mr_tensor *x,
                             mr_tensor *y) {
    (void)layer;
    identity_copy(call, x, y);
}

static void identity_backward_input(const mr_layer *layer, const mr_layer_call *call,
                                    const mr_tensor *x, const mr_tensor *dy, mr_tensor *dx) {
    (void)layer;
    (void)x;
    if (dx != NULL)
        identity_copy(call, dy, dx);
}

const mr_layer_functions mr_layer_identity = {
    .forward = identity_forward,
    .backward_input = identity_backward_input,
    .backward_weight = mr_layer_no_weight,
};
