/* SPDX-License-Identifier: Apache-2.0 */
/* layer_spec.h: one entry of model.layers as the job file says it, with defaults filled in.
 * Owner: model. Plain data. See DESIGN section 4, table of layer types. */
#ifndef MR_MODEL_LAYER_SPEC_H
#define MR_MODEL_LAYER_SPEC_H

#include <stdbool.h>
#include <stddef.h>

#include "daemon/base/dtype.h"
#include "daemon/base/limits.h"
#include "daemon/model/parameter_names.h"

/* The built-in types; a user's get the numbers from MR_LAYER_TYPE_COUNT on (layer_type.h). */
typedef enum mr_layer_type {
    MR_LAYER_TYPE_EMBEDDING,
    MR_LAYER_TYPE_TRANSFORMER_BLOCK,
    MR_LAYER_TYPE_LAYERNORM,
    MR_LAYER_TYPE_RMSNORM,
    MR_LAYER_TYPE_LM_HEAD,
    MR_LAYER_TYPE_LINEAR,
    MR_LAYER_TYPE_CONV2D,
    MR_LAYER_TYPE_MAXPOOL2D,
    MR_LAYER_TYPE_FLATTEN,
    MR_LAYER_TYPE_RELU,
    MR_LAYER_TYPE_GELU,
    MR_LAYER_TYPE_SILU,
    MR_LAYER_TYPE_DROPOUT,
    MR_LAYER_TYPE_IDENTITY,
    MR_LAYER_TYPE_ADD,
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

/* A tensor's name in a message is a prefix of 6 bytes and this. */
enum { MR_ASIDE_NAME_BYTES = 25 };

/* Bytes of a type's own keys. */
enum { MR_LAYER_OWN_BYTES = 128 };

typedef struct mr_layer_spec {
    mr_layer_type type;
    char name[MR_NAME_BYTES]; /* the user's; "" for none; not part of the model's identity */
    char tie[MR_NAME_BYTES];  /* key of the tied group; "" for none */
    char tie_names[MR_PARAMETER_NAMES_BYTES]; /* its parameters that are shared, in the tie's order;
                                                 "": those that the type shares by itself */
    char put[MR_ASIDE_NAME_BYTES];  /* name that its output is put aside by; "" for none */
    char take[MR_ASIDE_NAME_BYTES]; /* name of what it reads besides its input; "" for none */
    bool frozen; /* no parameter is trained; not part of the model's identity */
    char frozen_names[MR_PARAMETER_NAMES_BYTES]; /* these are not trained; nor is this */
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
    /* What the type's own keys say, as its row lays it out (layer_type.h). */
    union {
        max_align_t align;
        unsigned char bytes[MR_LAYER_OWN_BYTES];
    } own;
} mr_layer_spec;

/* The own keys of a layer: a struct of its type. */
const void *mr_layer_spec_own(const mr_layer_spec *spec);

/* The type of the layer's activations and of their gradients: BF16, F16 or F32. */
mr_dtype mr_layer_spec_activation(const mr_layer_spec *spec);

/* Is a shard meant, and not the whole layer? */
bool mr_layer_spec_is_shard(const mr_layer_spec *spec);

/* "transformer_block"; never NULL for a valid type, registered ones included (layer_type.c). */
const char *mr_layer_type_name(mr_layer_type type);

#endif
