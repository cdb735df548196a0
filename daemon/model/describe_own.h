/* SPDX-License-Identifier: Apache-2.0 */
/* describe_own.h: the built-in layer types whose keys are their own (layer_type.h): what each keeps
 * of the job file, and its functions. Sizes and strides are square, as [N, C, H, W] planes have
 * them in most nets.
 * Owner: model. Pure, any thread. */
#ifndef MR_MODEL_DESCRIBE_OWN_H
#define MR_MODEL_DESCRIBE_OWN_H

#include "daemon/model/describe.h"
#include "daemon/model/field_row.h"

/* y [N, O, OH, OW] = w * x + bias over x [N, I, H, W]; weight [O, I, K, K], bias [O]. */
typedef struct mr_conv2d {
    size_t in;  /* I */
    size_t out; /* O */
    size_t kernel;
    size_t stride;
    size_t padding;
    bool bias;
} mr_conv2d;

typedef struct mr_maxpool2d {
    size_t kernel;
    size_t stride; /* 0: kernel */
    size_t padding;
} mr_maxpool2d;

enum { MR_CONV2D_FIELDS = 6, MR_MAXPOOL2D_FIELDS = 3 };
extern const mr_field mr_conv2d_fields[MR_CONV2D_FIELDS];
extern const mr_field mr_maxpool2d_fields[MR_MAXPOOL2D_FIELDS];

/* The keys of a layer of that type. */
const mr_conv2d *mr_conv2d_of(const mr_layer_spec *spec);
const mr_maxpool2d *mr_maxpool2d_of(const mr_layer_spec *spec);
size_t mr_maxpool2d_stride(const mr_maxpool2d *pool);

/* INVALID_ARGUMENT: the padding is not below the kernel. */
MR_MUST_CHECK mr_status mr_conv2d_check(const mr_layer_spec *spec);
MR_MUST_CHECK mr_status mr_maxpool2d_check(const mr_layer_spec *spec);

/* Positions of a window along an input of that size: (size + 2 padding - kernel) / stride + 1.
 * field names what has size elements. INVALID_ARGUMENT: the window is larger than the padded input.
 * */
MR_MUST_CHECK mr_status mr_describe_positions(size_t size, size_t kernel, size_t stride,
                                              size_t padding, size_t *out_positions);

/* As in describe.h. flatten: [N, ...] to [N, product of the rest]. */
mr_status mr_describe_conv2d(const mr_describe_input *in, mr_layer_description *out);
mr_status mr_describe_maxpool2d(const mr_describe_input *in, mr_layer_description *out);
mr_status mr_describe_flatten(const mr_describe_input *in, mr_layer_description *out);

#endif
