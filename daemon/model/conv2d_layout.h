/* SPDX-License-Identifier: Apache-2.0 */
/* conv2d_layout.h: how a conv2d layer cuts its microbatch into groups of samples, and where in
 * scratch the rows of one group lie. A convolution is a product over rows: a row of columns is what
 * lies under the kernel at one output position. Groups bound the memory; they depend on sizes
 * alone, because they decide the order of sums. Nothing is saved or retained: backward gathers the
 * columns again.
 * Owner: model. Pure, any thread. */
#ifndef MR_MODEL_CONV2D_LAYOUT_H
#define MR_MODEL_CONV2D_LAYOUT_H

#include "daemon/model/describe_own.h"

typedef struct mr_conv2d_layout {
    mr_dtype dtype;
    size_t N;
    size_t O;
    size_t OH;
    size_t OW;
    size_t P;       /* OH OW */
    size_t K;       /* I kernel kernel */
    size_t group;   /* samples of a group; the last group may have fewer */
    size_t columns; /* offset in scratch, [group P, K] */
    size_t rows;    /* offset in scratch, [group P, O]: outputs, position by position */
    size_t scratch_bytes;
} mr_conv2d_layout;

/* input: [N, I, H, W]. INVALID_ARGUMENT: another number of dimensions or channels, a window larger
 * than the input, a size whose products overflow. */
MR_MUST_CHECK mr_status mr_conv2d_layout_make(const mr_layer_spec *spec, const mr_shape *input,
                                              mr_conv2d_layout *out_layout);

#endif
