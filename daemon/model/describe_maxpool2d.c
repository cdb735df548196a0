/* SPDX-License-Identifier: Apache-2.0 */
/* maxpool2d: y [N, C, OH, OW], the largest element of each window of x [N, C, H, W]; and flatten:
 * [N, ...] to [N, product of the rest]. Neither has parameters nor keeps anything: backward finds
 * the largest elements again. */
#include "daemon/model/describe_own.h"

#define OWN(member) .offset = offsetof(mr_maxpool2d, member)
#define SIZE_FROM(low) .kind = MR_FIELD_SIZE, .minimum = (low), .maximum = MR_DIMENSION_MAX

const mr_field mr_maxpool2d_fields[MR_MAXPOOL2D_FIELDS] = {
    {.path = "kernel",
     SIZE_FROM(1),
     .required = true,
     OWN(kernel),
     .help = "height and width of the window"},
    {.path = "stride", SIZE_FROM(1), OWN(stride), .help = "step of the window; default: kernel"},
    {.path = "padding",
     SIZE_FROM(0),
     .fallback = "0",
     OWN(padding),
     .help = "on each side, never the largest; at most half of kernel"},
};

const mr_maxpool2d *mr_maxpool2d_of(const mr_layer_spec *spec) {
    MR_ASSERT(spec->type == MR_LAYER_TYPE_MAXPOOL2D);
    return mr_layer_spec_own(spec);
}

size_t mr_maxpool2d_stride(const mr_maxpool2d *pool) {
    return pool->stride > 0 ? pool->stride : pool->kernel;
}

/* With more than half of padding a window could lie beside the input. */
mr_status mr_maxpool2d_check(const mr_layer_spec *spec) {
    const mr_maxpool2d *pool = mr_maxpool2d_of(spec);
    if (pool->padding > pool->kernel / 2)
        return MR_ERROR(INVALID_ARGUMENT, "padding is %zu; it must be at most half of kernel, %zu",
                        pool->padding, pool->kernel / 2);
    return MR_OK;
}

mr_status mr_describe_maxpool2d(const mr_describe_input *in, mr_layer_description *out) {
    const mr_maxpool2d *pool = mr_maxpool2d_of(in->spec);
    char text[MR_SHAPE_TEXT_BYTES];
    mr_shape output = *in->input;
    MR_TRY(mr_describe_check_type(in));
    if (output.dim_count != 4)
        return MR_ERROR(INVALID_ARGUMENT, "the input is %s; it must be [N, C, H, W]",
                        mr_shape_text(in->input, text));
    for (size_t i = 2; i < 4; i++)
        MR_TRY(mr_describe_positions(in->input->dims[i], pool->kernel, mr_maxpool2d_stride(pool),
                                     pool->padding, &output.dims[i]));
    MR_TRY(mr_describe_output_shape(in, out, &output));
    out->flops_forward = (double)in->elements;
    out->flops_backward_input = in->input->needs_gradient ? (double)in->elements : 0;
    return MR_OK;
}

mr_status mr_describe_flatten(const mr_describe_input *in, mr_layer_description *out) {
    mr_shape output = *in->input;
    MR_TRY(mr_describe_check_type(in));
    output.dim_count = 2;
    output.dims[1] = in->input->dims[0] == 0 ? 0 : in->elements / in->input->dims[0];
    MR_TRY(mr_describe_output_shape(in, out, &output));
    out->flops_forward = (double)in->elements;
    out->flops_backward_input = in->input->needs_gradient ? (double)in->elements : 0;
    return MR_OK;
}
