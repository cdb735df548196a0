/* SPDX-License-Identifier: Apache-2.0 */
/* The computing half: forward and both halves of backward, composed of device operations and so the
 * same on every device. Linked into millraced. */
#include "daemon/layers/layer_table.h"
#include "deploy/examples/user_layer/adapter.h"

/* Any number from MR_DROPOUT_SITE_COUNT on is the type's own. */
enum { SITE_DETOUR = MR_DROPOUT_SITE_COUNT };

/* The tensors of one call. */
typedef struct detour {
    mr_device *device;
    const mr_device_ops *ops;
    const mr_tensor *down;
    const mr_tensor *up;
    mr_pointwise activation;
    mr_dropout mask;
    mr_tensor narrow;
    mr_tensor activated;
    mr_tensor d_narrow;
    mr_tensor added;
} detour;

static detour detour_bind(const mr_layer *layer, const mr_layer_call *call) {
    static const mr_pointwise activations[] = {
        [ADAPTER_RELU] = MR_POINTWISE_RELU,
        [ADAPTER_GELU] = MR_POINTWISE_GELU_TANH,
        [ADAPTER_SILU] = MR_POINTWISE_SILU,
    };
    const adapter *a = mr_layer_spec_own(layer->spec);
    adapter_layout l;
    mr_status status = adapter_layout_make(layer->spec, &layer->input, &l);
    MR_ASSERT(mr_status_is_ok(status)); /* the layer was described */
    return (detour){
        .device = call->device,
        .ops = call->device->ops,
        .down = mr_layer_parameter(layer, "down.weight"),
        .up = mr_layer_parameter(layer, "up.weight"),
        .activation = activations[a->activation],
        .mask = mr_layer_mask_with(layer, call, a->dropout, SITE_DETOUR),
        .narrow = mr_layer_slice(call->saved, l.narrow, l.dtype, l.N, a->rank),
        .activated = mr_layer_slice(call->saved, l.activated, l.dtype, l.N, a->rank),
        .d_narrow = mr_layer_slice(call->retained, l.d_narrow, l.dtype, l.N, a->rank),
        .added = mr_layer_slice(call->scratch, l.detour, l.dtype, l.N, a->dim),
    };
}

static void adapter_forward(const mr_layer *layer, const mr_layer_call *call, const mr_tensor *x,
                            mr_tensor *y) {
    const mr_dropout none = {.probability = 0};
    detour d = detour_bind(layer, call);
    mr_tensor x_rows = mr_layer_rows(x);
    mr_tensor y_rows = mr_layer_rows(y);
    d.ops->linear_forward(d.device, &x_rows, d.down, NULL, &d.narrow);
    d.ops->pointwise_forward(d.device, d.activation, &d.narrow, &d.activated);
    d.ops->dropout(d.device, &d.mask, &d.activated, &d.activated);
    d.ops->linear_forward(d.device, &d.activated, d.up, NULL, &d.added);
    d.ops->add(d.device, &x_rows, &d.added, &none, &y_rows);
}

/* d_narrow is needed by backward_weight even where the input needs no gradient (dx NULL). */
static void adapter_backward_input(const mr_layer *layer, const mr_layer_call *call,
                                   const mr_tensor *x, const mr_tensor *dy, mr_tensor *dx) {
    (void)x;
    const mr_dropout none = {.probability = 0};
    detour d = detour_bind(layer, call);
    mr_tensor dy_rows = mr_layer_rows(dy);
    d.ops->linear_backward_input(d.device, &dy_rows, d.up, &d.d_narrow);
    d.ops->dropout(d.device, &d.mask, &d.d_narrow, &d.d_narrow);
    d.ops->pointwise_backward(d.device, d.activation, &d.narrow, &d.d_narrow, &d.d_narrow);
    if (dx == NULL)
        return;
    mr_tensor dx_rows = mr_layer_rows(dx);
    d.ops->linear_backward_input(d.device, &d.d_narrow, d.down, &d.added);
    d.ops->add(d.device, &dy_rows, &d.added, &none, &dx_rows);
}

static void adapter_backward_weight(const mr_layer *layer, const mr_layer_call *call,
                                    const mr_tensor *x, const mr_tensor *dy) {
    detour d = detour_bind(layer, call);
    mr_tensor x_rows = mr_layer_rows(x);
    mr_tensor dy_rows = mr_layer_rows(dy);
    d.ops->linear_backward_weight(d.device, &dy_rows, &d.activated,
                                  mr_layer_gradient(layer, "up.weight"), NULL);
    d.ops->linear_backward_weight(d.device, &d.d_narrow, &x_rows,
                                  mr_layer_gradient(layer, "down.weight"), NULL);
}

static const mr_layer_functions adapter_functions = {
    .forward = adapter_forward,
    .backward_input = adapter_backward_input,
    .backward_weight = adapter_backward_weight,
};
MR_LAYER_FUNCTIONS_REGISTER(adapter, adapter_functions)
