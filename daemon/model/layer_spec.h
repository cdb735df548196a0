/* SPDX-License-Identifier: Apache-2.0 */
/* layer_spec.h: one entry of model.layers as the job file says it, with defaults filled in.
 * Owner: model. Plain data. See DESIGN section 4, table of layer types. */
#ifndef MR_MODEL_LAYER_SPEC_H
#define MR_MODEL_LAYER_SPEC_H

#include <stdbool.h>
#include <stddef.h>

#include "daemon/base/dtype.h"
#include "daemon/base/limits.h"

/* X(NAME, "text in the job file") */
#define MR_LAYER_TYPES(X)                                                                          \
    X(EMBEDDING, "embedding")                                                                      \
    X(TRANSFORMER_BLOCK, "transformer_block")                                                      \
    X(LAYERNORM, "layernorm")                                                                      \
    X(RMSNORM, "rmsnorm")                                                                          \
    X(LM_HEAD, "lm_head")                                                                          \
    X(LINEAR, "linear")                                                                            \
    X(RELU, "relu")                                                                                \
    X(GELU, "gelu")                                                                                \
    X(SILU, "silu")                                                                                \
    X(DROPOUT, "dropout")                                                                          \
    X(IDENTITY, "identity")

typedef enum mr_layer_type {
#define MR_LAYER_TYPE_ENUM(name, text) MR_LAYER_TYPE_##name,
    MR_LAYER_TYPES(MR_LAYER_TYPE_ENUM)
#undef MR_LAYER_TYPE_ENUM
        MR_LAYER_TYPE_COUNT
} mr_layer_type;

typedef enum mr_norm { MR_NORM_LAYERNORM, MR_NORM_RMSNORM, MR_NORM_COUNT } mr_norm;
typedef enum mr_activation {
    MR_ACTIVATION_GELU_TANH,
    MR_ACTIVATION_SWIGLU,
    MR_ACTIVATION_COUNT
} mr_activation;
typedef enum mr_position { MR_POSITION_NONE, MR_POSITION_ROPE, MR_POSITION_COUNT } mr_position;

/* Which dimension of a linear layer's weight the model axis cuts. */
typedef enum mr_parallel {
    MR_PARALLEL_NONE,
    MR_PARALLEL_COLUMN, /* the outputs: rows of [out, in] */
    MR_PARALLEL_ROW,    /* the inputs: columns of [out, in] */
    MR_PARALLEL_COUNT
} mr_parallel;

typedef struct mr_layer_spec {
    mr_layer_type type;
    char name[MR_NAME_BYTES]; /* the user's; "" for none; not part of the model's identity */
    char tie[MR_NAME_BYTES];  /* key of the tied group; "" for none */
    size_t line;              /* in the job file, for errors; not part of the model's identity */
    size_t vocab;             /* V: embedding, lm_head */
    size_t dim;               /* C */
    size_t positions;         /* T of wpe; 0: none */
    size_t heads;
    size_t kv_heads;
    size_t ffn; /* F */
    size_t in;  /* linear */
    size_t out; /* linear */
    mr_norm norm;
    mr_activation activation;
    mr_position position;
    bool bias;
    bool causal;
    double dropout; /* probability of zero, [0, 1) */
    double eps;
    mr_parallel parallel; /* linear */
    /* Set where only one model rank's shard of the layer is meant (shard.h): its description and
     * its computation are then the shard's, while the sizes above stay the whole layer's. Not part
     * of the model's identity. */
    size_t model_rank;
    size_t model_width; /* 0 or 1: the whole layer */
    /* The job's precision, BF16, F16 or F32 (NONE counts as F32): the type of what the layer gives,
     * keeps and multiplies. Not part of the model's identity, and no matter of its parameters:
     * masters and checkpoints are f32 in every precision. */
    mr_dtype precision;
} mr_layer_spec;

/* The type of the layer's activations and of their gradients: BF16, F16 or F32. */
mr_dtype mr_layer_spec_activation(const mr_layer_spec *spec);

/* Is a shard meant, and not the whole layer? */
bool mr_layer_spec_is_shard(const mr_layer_spec *spec);

/* "transformer_block"; never NULL for a valid type. */
const char *mr_layer_type_name(mr_layer_type type);

#endif
