/* SPDX-License-Identifier: Apache-2.0 */
/* layer_table.h: the registry of layer types, computing half: the row of functions that each type
 * gives, and the few ways in which all of them look at their tensors. A user's type registers its
 * functions under the name of its describing half (model/layer_type.h), from a library that is
 * linked whole into millraced:
 *
 *     static const mr_layer_functions scale_functions = {.forward = scale_forward, ...};
 *     MR_LAYER_FUNCTIONS_REGISTER(scale, scale_functions)
 *
 * Functions are composed of device operations, allocate nothing, keep nothing between calls, and
 * give the same bits for the same call (law 1).
 * Owner: layers. Thread: EXEC. */
#ifndef MR_LAYERS_LAYER_TABLE_H
#define MR_LAYERS_LAYER_TABLE_H

#include "daemon/layers/layer.h"

/* The three calls of one layer type; what each must do is said in layer.h. They are required: a
 * type without parameters has a backward_weight that does nothing. */
typedef struct mr_layer_functions {
    void (*forward)(const mr_layer *layer, const mr_layer_call *call, const mr_tensor *x,
                    mr_tensor *y);
    void (*backward_input)(const mr_layer *layer, const mr_layer_call *call, const mr_tensor *x,
                           const mr_tensor *dy, mr_tensor *dx);
    void (*backward_weight)(const mr_layer *layer, const mr_layer_call *call, const mr_tensor *x,
                            const mr_tensor *dy);
    /* Optional: an operation that the type needs and these do not have; NULL: they have all. */
    const char *(*lacks)(const mr_device_ops *ops);
} mr_layer_functions;

/* Adds the functions of a type, which must stay as long as the process; before main. What is wrong
 * (too many, a name given twice, a function missing) is said by mr_layer_check. */
void mr_layer_functions_register(const char *type, const mr_layer_functions *functions);

/* type: a name without quotes. */
#define MR_LAYER_FUNCTIONS_REGISTER(type, functions)                                               \
    __attribute__((constructor)) static void type##_functions_register(void) {                    \
        mr_layer_functions_register(#type, &functions);                                            \
    }

extern const mr_layer_functions mr_layer_embedding;
extern const mr_layer_functions mr_layer_transformer_block;
extern const mr_layer_functions mr_layer_layernorm;
extern const mr_layer_functions mr_layer_lm_head;
extern const mr_layer_functions mr_layer_linear;
extern const mr_layer_functions mr_layer_conv2d;
extern const mr_layer_functions mr_layer_maxpool2d;
extern const mr_layer_functions mr_layer_flatten;
extern const mr_layer_functions mr_layer_pointwise; /* relu, gelu, silu */
extern const mr_layer_functions mr_layer_dropout;
extern const mr_layer_functions mr_layer_identity;
extern const mr_layer_functions mr_layer_add;

/* backward_weight of a layer without parameters. */
void mr_layer_no_weight(const mr_layer *layer, const mr_layer_call *call, const mr_tensor *x,
                        const mr_tensor *dy);

/* The layer's parameter of this name and its gradient; NULL where the layer has none such (a bias
 * that the job switched off), and a NULL gradient for inference and for
 * a frozen matrix. A frozen vector has one that nobody reads. */
const mr_tensor *mr_layer_parameter(const mr_layer *layer, const char *name);
mr_tensor *mr_layer_gradient(const mr_layer *layer, const char *name);

/* The same elements as a matrix: all dimensions but the last are rows. */
mr_tensor mr_layer_rows(const mr_tensor *tensor);
/* A tensor at offset bytes of a buffer: [rows, columns], or [rows] where columns is 0. */
mr_tensor mr_layer_slice(void *buffer, size_t offset, mr_dtype dtype, size_t rows, size_t columns);

/* Sums over the ranks of the model axis, for a shard; a whole layer's calls pass through:
 *   part = begin(y); compute this rank's part into part, with bias(...) as its bias; end(part, y)
 * The sum runs in f32 in rank order and is rounded once, into y. A bias is added by the first rank
 * alone. begin gives y itself where y is f32, else the front of scratch. */
mr_tensor mr_layer_sum_begin(const mr_layer *layer, const mr_layer_call *call, const mr_tensor *y);
const mr_tensor *mr_layer_sum_bias(const mr_layer *layer, const mr_layer_call *call,
                                   const mr_tensor *bias);
void mr_layer_sum_end(const mr_layer *layer, const mr_layer_call *call, const mr_tensor *part,
                      mr_tensor *y);

/* Where dropout acts; part of the key, so that no two masks of a layer are related. */
typedef enum mr_dropout_site {
    MR_DROPOUT_SITE_ATTENTION, /* attention probabilities */
    MR_DROPOUT_SITE_ATTN_BRANCH,
    MR_DROPOUT_SITE_MLP_BRANCH,
    MR_DROPOUT_SITE_LAYER, /* a layer of type dropout */
    MR_DROPOUT_SITE_COUNT  /* from here on a user's type counts its own */
} mr_dropout_site;

/* The mask of this call at one site: probability 0 outside training. The same in forward and
 * backward, because only what identifies the microbatch goes in. */
mr_dropout mr_layer_mask(const mr_layer *layer, const mr_layer_call *call, mr_dropout_site site);
/* The same with a probability of the type's own, in [0, 1), and any site. */
mr_dropout mr_layer_mask_with(const mr_layer *layer, const mr_layer_call *call, double probability,
                              unsigned site);

#endif
