/* SPDX-License-Identifier: Apache-2.0 */
/* describe.h: what the description files of this folder share: one function per layer type, and the
 * steps they all take. A user's layer type is described by such a function, too (layer_type.h).
 * Owner: model. Pure, any thread. */
#ifndef MR_MODEL_DESCRIBE_H
#define MR_MODEL_DESCRIBE_H

#include "daemon/model/description.h"

/* What every description is made from. */
typedef struct mr_describe_input {
    const mr_layer_spec *spec;
    const mr_shape *input;
    size_t rows;        /* product of all dimensions of the input but the last */
    size_t elements;    /* of the input */
    size_t block_count; /* transformer blocks in the whole model, at least 1 */
    size_t model_rank;  /* whose shard is described */
    size_t model_width; /* at least 1 */
} mr_describe_input;

/* Fills a zeroed description of one type. */
typedef mr_status (*mr_describe_layer)(const mr_describe_input *in, mr_layer_description *out);

/* One per type, in the table of description.c; the parameters are DESIGN section 4's. Errors:
 * INVALID_ARGUMENT names the field of the spec or the input's dimension that does not fit. */
mr_status mr_describe_embedding(const mr_describe_input *in, mr_layer_description *out);
mr_status mr_describe_transformer_block(const mr_describe_input *in, mr_layer_description *out);
mr_status mr_describe_norm(const mr_describe_input *in, mr_layer_description *out);
mr_status mr_describe_lm_head(const mr_describe_input *in, mr_layer_description *out);
mr_status mr_describe_linear(const mr_describe_input *in, mr_layer_description *out);
mr_status mr_describe_pointwise(const mr_describe_input *in, mr_layer_description *out);

/* A parameter of the whole layer. columns 0: a vector of rows elements. */
typedef struct mr_describe_parameter {
    const char *name;
    size_t rows;
    size_t columns;
    mr_init init;
    mr_model_cut cut;
    bool tied; /* shared where the layer has a tie that names no parameters */
} mr_describe_parameter;

/* Appends a parameter. INVALID_ARGUMENT: more elements than MR_PARAMETER_ELEMENTS_MAX. */
MR_MUST_CHECK mr_status mr_describe_add(const mr_describe_input *in, mr_layer_description *out,
                                        mr_describe_parameter parameter);
/* What the shard has of n things that the model axis cuts; all n in a whole layer. */
size_t mr_describe_share(const mr_describe_input *in, size_t n);
/* The model axis must divide a size. INVALID_ARGUMENT names field, size and width. */
MR_MUST_CHECK mr_status mr_describe_check_divides(const mr_describe_input *in, const char *field,
                                                  size_t size);
/* Scratch for a sum over the model ranks of [rows, width], which runs in f32: none where the
 * activations are f32 themselves, or nothing is cut. It begins the scratch. INVALID_ARGUMENT: too
 * many bytes. */
MR_MUST_CHECK mr_status mr_describe_sum(const mr_describe_input *in, mr_layer_description *out,
                                        size_t width);
/* The parameter appended last consists of these parts along its cut. */
void mr_describe_parts(mr_layer_description *out, const mr_parameter_parts *parts);
/* The input must be f32, or of the layer's activations, with field's value as its last
 * dimension. */
MR_MUST_CHECK mr_status mr_describe_check_width(const mr_describe_input *in, const char *field,
                                                size_t width);
/* The input must be of the layer's activations, or f32 of a feed. */
MR_MUST_CHECK mr_status mr_describe_check_type(const mr_describe_input *in);
/* The output: a shape of the caller's, whole, in the layer's precision; it needs a gradient when
 * the input does or the layer trains parameters, so these are added before. INVALID_ARGUMENT: too
 * many elements. */
MR_MUST_CHECK mr_status mr_describe_output_shape(const mr_describe_input *in,
                                                 mr_layer_description *out, const mr_shape *shape);
/* The output: the input with another last dimension, whole, in the layer's precision; it needs a
 * gradient when the input does or the layer trains parameters. INVALID_ARGUMENT: too many
 * elements. */
MR_MUST_CHECK mr_status mr_describe_output(const mr_describe_input *in, mr_layer_description *out,
                                           size_t width);
/* The same, whose last dimension the model axis cuts: width is the whole's. */
MR_MUST_CHECK mr_status mr_describe_output_cut(const mr_describe_input *in,
                                               mr_layer_description *out, size_t width);
/* Flops of y = x w^T with the shard's sizes: 2 M N K forward and for each half of backward. */
void mr_describe_add_product(const mr_describe_input *in, mr_layer_description *out, size_t outputs,
                             size_t inputs);

#endif
