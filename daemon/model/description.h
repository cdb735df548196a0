/* SPDX-License-Identifier: Apache-2.0 */
/* description.h: what a layer is, known from its spec and its input alone: nothing is built to be
 * counted (law 6). One file per layer type in this folder fills a description.
 * Owner: model. Pure functions, any thread. */
#ifndef MR_MODEL_DESCRIPTION_H
#define MR_MODEL_DESCRIPTION_H

#include <stdint.h>

#include "daemon/base/status.h"
#include "daemon/model/layer_spec.h"
#include "daemon/model/shape.h"

typedef enum mr_init {
    MR_INIT_ZERO,
    MR_INIT_ONE,
    MR_INIT_NORMAL,          /* deviation 0.02 */
    MR_INIT_NORMAL_RESIDUAL, /* 0.02 / sqrt(2 x blocks): writes into the residual stream */
    MR_INIT_COUNT
} mr_init;

/* Along which dimension the model axis cuts a parameter. */
typedef enum mr_model_cut {
    MR_MODEL_CUT_NONE,
    MR_MODEL_CUT_ROWS,
    MR_MODEL_CUT_COLUMNS
} mr_model_cut;

/* Along the cut dimension a parameter may be several matrices, one after the other (Q, K and V;
 * gate and up): each is cut for itself, in blocks that stay whole (a head). */
enum { MR_PARAMETER_PARTS_MAX = 3 };
typedef struct mr_parameter_parts {
    size_t count; /* 0: one part, which is the whole dimension */
    size_t sizes[MR_PARAMETER_PARTS_MAX];
    size_t block; /* elements of the dimension; 0: 1 */
} mr_parameter_parts;

typedef struct mr_parameter {
    char name[MR_PARAMETER_NAME_BYTES]; /* "attn.qkv.weight", in safetensors */
    mr_shape shape; /* f32, [out, in] or [n]; what a rank of the model axis holds (shard.h) */
    mr_shape whole; /* what they hold together */
    mr_init init;
    bool decay; /* weight decay applies: two or more dimensions */
    bool tied;  /* shared with the other layers of the layer's tie */
    bool frozen; /* never trained: no gradient, no optimizer state */
    size_t tie_slot; /* of a tied one: which of the tie's parameters it is, from 0 */
    mr_model_cut cut;
    mr_parameter_parts parts; /* of the whole */
    double init_deviation; /* of the two normal inits, block_count applied; 0 for the others */
} mr_parameter;

/* The element type that layers read a parameter in, given the type of their activations: matrices
 * are read in it, vectors (norm weights and biases) in f32 always. Vectors are few, and they enter
 * sums that run in f32 anyway; rounding a norm weight near 1 to bf16 would hide its first hundreds
 * of updates. */
mr_dtype mr_parameter_compute_dtype(const mr_parameter *parameter, mr_dtype activation);

/* What a layer adds to the model's loss; see side_loss.h. Each call adds a sum over terms. */
typedef struct mr_side_loss {
    char name[MR_SIDE_LOSS_NAME_BYTES]; /* "": none */
    double weight;
    double terms; /* of one microbatch */
} mr_side_loss;

/* All byte counts are for one microbatch.
 * saved: kept from forward until the weight half of backward, besides the layer's input, which the
 * executor keeps. retained: from backward-input until backward-weight, besides the output gradient.
 * scratch: needed only during one call.
 * flops: matrix products count 2 M N K; attention counts the scores that causality leaves, once:
 * 2 T C a token forward, 5 T C backward with the scores computed again (twice that without
 * causality). A layer without a matrix product counts one operation per element and direction, so
 * that no layer is free. */
typedef struct mr_layer_description {
    mr_shape output;
    size_t parameter_count;
    mr_parameter parameters[MR_LAYER_PARAMETERS_MAX];
    size_t parameter_elements; /* sum over parameters, a tied one included */
    size_t trainable_elements; /* those of parameters that are not frozen */
    size_t tied_count;         /* parameters that the layer's tie shares */
    mr_side_loss side;
    bool puts; /* the output is put aside (aside.h) */
    size_t saved_bytes;
    size_t retained_bytes;
    size_t scratch_bytes;
    /* The input is f32 (a feed's numbers) but the layer computes in another type: forward keeps a
     * cast copy of it among the saved bytes, at input_cast. Such an input gets no gradient. */
    bool casts_input;
    size_t input_cast;
    /* The layer before gives each model rank its share and this one needs it whole: forward gathers
     * it into the saved bytes at input_gathered. gather_scratch, in scratch, has room for it once
     * more: for what comes from the other ranks, and for the whole's gradient. */
    bool gathers_input;
    size_t input_gathered;
    size_t gather_scratch;
    double flops_forward;
    double flops_backward_input;
    double flops_backward_weight;
} mr_layer_description;

/* The parameter in slot < tied_count of the layer's tie. */
const mr_parameter *mr_layer_description_tied(const mr_layer_description *description,
                                              size_t slot);
/* Elements that are drawn at random for the initial weights of all parameters before this one, in
 * order of layers and parameters; a tied use counts where it stands, though only the first is
 * drawn. descriptions: of all layers. */
uint64_t mr_layer_drawn_before(const mr_layer_description *descriptions, size_t layer,
                               size_t parameter);
/* Is any parameter trained? */
bool mr_layer_description_trains(const mr_layer_description *description);

/* Fills the description of a layer for one input shape. block_count: transformer blocks in the
 * whole model (residual init). INVALID_ARGUMENT names the field: input width other than dim, token
 * input that is not integer, a size whose products overflow. */
MR_MUST_CHECK mr_status mr_layer_describe(const mr_layer_spec *spec, const mr_shape *input,
                                          size_t block_count,
                                          mr_layer_description *out_description);

#endif
