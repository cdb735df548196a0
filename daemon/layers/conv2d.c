/* SPDX-License-Identifier: Apache-2.0 */
/* conv2d: a product over rows, group by group of samples (conv2d_layout.h). With columns [P, K] of
 * a sample, y^T [P, O] = columns w^T + bias; d columns = dy^T w; dw += (dy^T)^T columns; dbias =
 * column sums of dy^T. Planes become rows and rows planes by transposition, so that every product
 * is one that the linear layer has, and so are its bits. */
#include "daemon/layers/layer_table.h"
#include "daemon/model/conv2d_layout.h"

typedef struct conv {
    const mr_device_ops *ops;
    mr_device *device;
    mr_conv2d_layout l;
    mr_window window;
    unsigned char *scratch;
} conv;

/* One group of samples: views of x and y (or their gradients), and rows of scratch. */
typedef struct conv_group {
    mr_tensor x;       /* [n, I, H, W] */
    mr_tensor y;       /* [n, O, P] */
    mr_tensor columns; /* [n P, K] */
    mr_tensor rows;    /* [n, P, O] */
    mr_tensor matrix;  /* rows as [n P, O] */
} conv_group;

static conv conv_bind(const mr_layer *layer, const mr_layer_call *call) {
    const mr_conv2d *keys = mr_conv2d_of(layer->spec);
    conv c = {
        .ops = call->device->ops,
        .device = call->device,
        .window = {.kernel = keys->kernel, .stride = keys->stride, .padding = keys->padding},
        .scratch = call->scratch,
    };
    mr_status status = mr_conv2d_layout_make(layer->spec, &layer->input, &c.l);
    MR_ASSERT(mr_status_is_ok(status)); /* the layer was described */
    return c;
}

/* n samples from number first on of [N, ...]. */
static mr_tensor conv_samples(const mr_tensor *tensor, size_t first, size_t n) {
    size_t bytes = 0;
    mr_tensor part = *tensor;
    MR_ASSERT(mr_shape_bytes(&tensor->shape, &bytes));
    part.data = (unsigned char *)tensor->data + bytes / tensor->shape.dims[0] * first;
    part.shape.dims[0] = n;
    return part;
}

static conv_group conv_group_at(const conv *c, const mr_tensor *x, const mr_tensor *y,
                                size_t first) {
    size_t n = c->l.N - first < c->l.group ? c->l.N - first : c->l.group;
    conv_group g = {
        .columns = mr_layer_slice(c->scratch, c->l.columns, c->l.dtype, n * c->l.P, c->l.K),
        .matrix = mr_layer_slice(c->scratch, c->l.rows, c->l.dtype, n * c->l.P, c->l.O),
        .y = conv_samples(y, first, n),
    };
    if (x != NULL)
        g.x = conv_samples(x, first, n);
    g.y.shape.dim_count = 3;
    g.y.shape.dims[2] = c->l.P;
    g.rows = g.matrix;
    g.rows.shape.dim_count = 3;
    g.rows.shape.dims[0] = n;
    g.rows.shape.dims[1] = c->l.P;
    g.rows.shape.dims[2] = c->l.O;
    return g;
}

/* [O, I, K, K] as [O, I K K]. */
static mr_tensor conv_matrix(const mr_tensor *weight, size_t K) {
    mr_tensor matrix = *weight;
    matrix.shape.dim_count = 2;
    matrix.shape.dims[1] = K;
    return matrix;
}

static void conv2d_forward(const mr_layer *layer, const mr_layer_call *call, const mr_tensor *x,
                           mr_tensor *y) {
    conv c = conv_bind(layer, call);
    mr_tensor w = conv_matrix(mr_layer_parameter(layer, "weight"), c.l.K);
    for (size_t first = 0; first < c.l.N; first += c.l.group) {
        conv_group g = conv_group_at(&c, x, y, first);
        c.ops->window_gather(c.device, &c.window, &g.x, &g.columns);
        c.ops->linear_forward(c.device, &g.columns, &w, mr_layer_parameter(layer, "bias"),
                              &g.matrix);
        c.ops->transpose(c.device, &g.rows, &g.y);
    }
}

static void conv2d_backward_input(const mr_layer *layer, const mr_layer_call *call,
                                  const mr_tensor *x, const mr_tensor *dy, mr_tensor *dx) {
    (void)x;
    if (dx == NULL)
        return;
    conv c = conv_bind(layer, call);
    mr_tensor w = conv_matrix(mr_layer_parameter(layer, "weight"), c.l.K);
    for (size_t first = 0; first < c.l.N; first += c.l.group) {
        conv_group g = conv_group_at(&c, dx, dy, first);
        c.ops->transpose(c.device, &g.y, &g.rows);
        c.ops->linear_backward_input(c.device, &g.matrix, &w, &g.columns);
        c.ops->window_scatter(c.device, &c.window, &g.columns, &g.x);
    }
}

static void conv2d_backward_weight(const mr_layer *layer, const mr_layer_call *call,
                                   const mr_tensor *x, const mr_tensor *dy) {
    conv c = conv_bind(layer, call);
    mr_tensor *gradient = mr_layer_gradient(layer, "weight");
    mr_tensor dw = {0};
    if (gradient != NULL)
        dw = conv_matrix(gradient, c.l.K);
    for (size_t first = 0; first < c.l.N; first += c.l.group) {
        conv_group g = conv_group_at(&c, x, dy, first);
        c.ops->window_gather(c.device, &c.window, &g.x, &g.columns);
        c.ops->transpose(c.device, &g.y, &g.rows);
        c.ops->linear_backward_weight(c.device, &g.matrix, &g.columns,
                                      gradient == NULL ? NULL : &dw,
                                      mr_layer_gradient(layer, "bias"));
    }
}

static const char *conv2d_lacks(const mr_device_ops *ops) {
    if (ops->window_gather == NULL)
        return "window_gather";
    if (ops->window_scatter == NULL)
        return "window_scatter";
    return ops->transpose == NULL ? "transpose" : NULL;
}

const mr_layer_functions mr_layer_conv2d = {
    .forward = conv2d_forward,
    .backward_input = conv2d_backward_input,
    .backward_weight = conv2d_backward_weight,
    .lacks = conv2d_lacks,
};
