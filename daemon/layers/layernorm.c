/* SPDX-License-Identifier: Apache-2.0 */
/* layernorm over the last dimension (arXiv:1607.06450). Forward saves mean and reciprocal deviation
 * of each row; the normalised rows are computed again from them where backward needs them. */
#include "daemon/layers/layer_table.h"
#include "daemon/model/norm_layout.h"

/* Views of what this layer saved. */
typedef struct layernorm_views {
    mr_tensor mean; /* [N] */
    mr_tensor rstd; /* [N] */
} layernorm_views;

static layernorm_views layernorm_bind(const mr_layer *layer, const mr_layer_call *call) {
    mr_norm_layout layout = {0};
    mr_status status = mr_norm_layout_make(layer->spec, &layer->input, &layout);
    MR_ASSERT(mr_status_is_ok(status)); /* the description was made from the same sizes */
    return (layernorm_views){
        .mean = mr_layer_slice(call->saved, layout.mean, MR_DTYPE_F32, layout.rows, 0),
        .rstd = mr_layer_slice(call->saved, layout.rstd, MR_DTYPE_F32, layout.rows, 0),
    };
}

static void layernorm_forward(const mr_layer *layer, const mr_layer_call *call, const mr_tensor *x,
                              mr_tensor *y) {
    layernorm_views v = layernorm_bind(layer, call);
    mr_tensor x_rows = mr_layer_rows(x);
    mr_tensor y_rows = mr_layer_rows(y);
    call->device->ops->layernorm_forward(
        call->device, &x_rows, mr_layer_parameter(layer, "weight"),
        mr_layer_parameter(layer, "bias"), (float)layer->spec->eps, &y_rows, &v.mean, &v.rstd);
}

static void layernorm_backward_input(const mr_layer *layer, const mr_layer_call *call,
                                     const mr_tensor *x, const mr_tensor *dy, mr_tensor *dx) {
    if (dx == NULL)
        return;
    layernorm_views v = layernorm_bind(layer, call);
    mr_tensor x_rows = mr_layer_rows(x);
    mr_tensor dy_rows = mr_layer_rows(dy);
    mr_tensor dx_rows = mr_layer_rows(dx);
    call->device->ops->layernorm_backward_input(call->device, &dy_rows, &x_rows,
                                                mr_layer_parameter(layer, "weight"), &v.mean,
                                                &v.rstd, NULL, &dx_rows);
}

static void layernorm_backward_weight(const mr_layer *layer, const mr_layer_call *call,
                                      const mr_tensor *x, const mr_tensor *dy) {
    layernorm_views v = layernorm_bind(layer, call);
    mr_tensor x_rows = mr_layer_rows(x);
    mr_tensor dy_rows = mr_layer_rows(dy);
    call->device->ops->layernorm_backward_weight(
        call->device, &dy_rows, &x_rows, &v.mean, &v.rstd, mr_layer_gradient(layer, "weight"),
        mr_layer_gradient(layer, "bias"));
}

const mr_layer_functions mr_layer_layernorm = {
    .forward = layernorm_forward,
    .backward_input = layernorm_backward_input,
    .backward_weight = layernorm_backward_weight,
};
