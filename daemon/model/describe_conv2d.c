/* SPDX-License-Identifier: Apache-2.0 */
/* conv2d: y [N, O, OH, OW] from x [N, I, H, W], with weight [O, I, K, K] and bias [O]; positions
 * are those of the field: (H + 2 padding - kernel) / stride + 1, rounded down. Memory:
 * conv2d_layout.h. */
#include "daemon/model/conv2d_layout.h"

#define OWN(member) .offset = offsetof(mr_conv2d, member)
#define SIZE_FROM(low) .kind = MR_FIELD_SIZE, .minimum = (low), .maximum = MR_DIMENSION_MAX

const mr_field mr_conv2d_fields[MR_CONV2D_FIELDS] = {
    {.path = "in", SIZE_FROM(1), .required = true, OWN(in), .help = "input channels"},
    {.path = "out", SIZE_FROM(1), .required = true, OWN(out), .help = "output channels"},
    {.path = "kernel",
     SIZE_FROM(1),
     .required = true,
     OWN(kernel),
     .help = "height and width of the window"},
    {.path = "stride", SIZE_FROM(1), .fallback = "1", OWN(stride), .help = "step of the window"},
    {.path = "padding",
     SIZE_FROM(0),
     .fallback = "0",
     OWN(padding),
     .help = "zeros on each side; less than kernel"},
    {.path = "bias",
     .kind = MR_FIELD_BOOL,
     .fallback = "true",
     OWN(bias),
     .help = "adds a bias to each output channel"},
};

const mr_conv2d *mr_conv2d_of(const mr_layer_spec *spec) {
    MR_ASSERT(spec->type == MR_LAYER_TYPE_CONV2D);
    return mr_layer_spec_own(spec);
}

mr_status mr_conv2d_check(const mr_layer_spec *spec) {
    const mr_conv2d *conv = mr_conv2d_of(spec);
    if (conv->padding >= conv->kernel)
        return MR_ERROR(INVALID_ARGUMENT, "padding is %zu; it must be less than kernel, %zu",
                        conv->padding, conv->kernel);
    return MR_OK;
}

mr_status mr_describe_positions(size_t size, size_t kernel, size_t stride, size_t padding,
                                size_t *out_positions) {
    size_t padded = size + 2 * padding; /* both at most MR_DIMENSION_MAX */
    if (kernel > padded)
        return MR_ERROR(INVALID_ARGUMENT,
                        "kernel is %zu; it must be at most %zu, the input's side with padding",
                        kernel, padded);
    *out_positions = (padded - kernel) / stride + 1;
    return MR_OK;
}

mr_status mr_describe_conv2d(const mr_describe_input *in, mr_layer_description *out) {
    const mr_conv2d *conv = mr_conv2d_of(in->spec);
    mr_conv2d_layout layout;
    MR_TRY(mr_describe_check_type(in));
    MR_TRY(mr_conv2d_layout_make(in->spec, in->input, &layout));
    MR_TRY(mr_describe_add(in, out,
                           (mr_describe_parameter){"weight", conv->out, layout.K, MR_INIT_NORMAL,
                                                   MR_MODEL_CUT_NONE, false}));
    mr_parameter *weight = &out->parameters[out->parameter_count - 1];
    weight->shape.dim_count = 4;
    weight->shape.dims[1] = conv->in;
    weight->shape.dims[2] = conv->kernel;
    weight->shape.dims[3] = conv->kernel;
    weight->whole = weight->shape;
    if (conv->bias)
        MR_TRY(mr_describe_add(in, out,
                               (mr_describe_parameter){"bias", conv->out, 0, MR_INIT_ZERO,
                                                       MR_MODEL_CUT_NONE, false}));
    mr_shape output = *in->input;
    output.dims[1] = conv->out;
    output.dims[2] = layout.OH;
    output.dims[3] = layout.OW;
    MR_TRY(mr_describe_output_shape(in, out, &output));
    out->scratch_bytes = layout.scratch_bytes;
    double flops = 2.0 * (double)layout.N * (double)layout.P * (double)layout.K * (double)layout.O;
    out->flops_forward = flops;
    out->flops_backward_input = in->input->needs_gradient ? flops : 0;
    out->flops_backward_weight = flops;
    return MR_OK;
}
