/* SPDX-License-Identifier: Apache-2.0 */
/* job.h: a job file, read and checked (DESIGN section 4). YAML or JSON; strict: an unknown key, a
 * wrong type or an impossible size is refused with line, key, value and what would be right.
 * Owner: model. Pure: text in, struct out; no files. Any thread. */
#ifndef MR_MODEL_JOB_H
#define MR_MODEL_JOB_H

#include <stdint.h>

#include "daemon/base/status.h"
#include "daemon/model/description.h"
#include "daemon/model/layer_pattern.h"
#include "daemon/model/layer_spec.h"
#include "daemon/model/loss_scale.h"
#include "daemon/model/optimizer_form.h"
#include "daemon/model/seed.h"

typedef enum mr_loss { MR_LOSS_CROSS_ENTROPY, MR_LOSS_MSE, MR_LOSS_NONE, MR_LOSS_COUNT } mr_loss;
typedef enum mr_schedule_kind {
    MR_SCHEDULE_GPIPE,
    MR_SCHEDULE_1F1B,
    MR_SCHEDULE_INFERENCE, /* not written in a job file: what an inference job runs */
    MR_SCHEDULE_KIND_COUNT
} mr_schedule_kind;
typedef enum mr_partition_kind {
    MR_PARTITION_UNIFORM,
    MR_PARTITION_PARAMETERS,
    MR_PARTITION_TYPE,    /* type:REGEX: layers that match weigh 1, others 0 */
    MR_PARTITION_WEIGHTS, /* pipeline.layer_weights */
    MR_PARTITION_BOUNDS,  /* an explicit list */
    MR_PARTITION_PROFILE, /* by times that the stages measure */
    MR_PARTITION_KIND_COUNT
} mr_partition_kind;
typedef enum mr_lr_kind { MR_LR_CONSTANT, MR_LR_LINEAR, MR_LR_COSINE, MR_LR_KIND_COUNT } mr_lr_kind;
typedef enum mr_data_format {
    MR_DATA_BYTES,
    MR_DATA_LLMC,
    MR_DATA_MEGATRON,
    MR_DATA_NPY,
    MR_DATA_FORMAT_COUNT
} mr_data_format;

enum { MR_PATH_BYTES = 1024 };

typedef struct mr_job {
    char name[MR_NAME_BYTES];
    uint64_t seed;
    /* model: layers after repeat, with the global layer index as position */
    size_t layer_count;
    mr_layer_spec *layers;
    size_t block_count;
    size_t input_dims;                     /* model.input: sizes of one sample; 0: not given */
    size_t input[MR_TENSOR_DIMS_MAX - 1];
    mr_loss loss;
    bool seed_layers;
    mr_seed_function seed_function; /* model.seed_fn; NULL: none */
    /* pipeline */
    size_t pipe;
    size_t data;
    size_t model;
    bool stages_given; /* pipe is the file's pipeline.stages */
    bool pipe_given;   /* by that or by pipeline.topology; else it is 1 for want of a word */
    bool data_given;   /* as pipe_given */
    mr_partition_kind partition;
    char partition_pattern[MR_PATTERN_BYTES]; /* MR_PARTITION_TYPE: what follows "type:" */
    size_t bound_count; /* MR_PARTITION_BOUNDS: pipe + 1 */
    size_t *bounds;
    char profile_path[MR_PATH_BYTES]; /* pipeline.profile, which the client reads; "" for none */
    size_t weight_count; /* MR_PARTITION_WEIGHTS: layer_count */
    double *weights;
    mr_schedule_kind schedule;
    size_t chunks;
    size_t checkpoint_interval; /* activation_checkpoint_interval */
    size_t zero_stage; /* 1: the optimizer's state is split over the replicas */
    uint64_t checkpointable; /* checkpointable_layers: one bit for each mr_layer_type; 0: all */
    /* batch */
    size_t micro_batch_size; /* B */
    size_t micro_batches;    /* M, per replica and step */
    size_t sequence_length;  /* T */
    /* optimizer; what its type has no use for keeps its default */
    mr_optimizer_kind optimizer;
    double lr;
    double beta1; /* not of sgd */
    double beta2;
    double eps;          /* of adamw and adam */
    double momentum;     /* of sgd; 0: none */
    bool nesterov;       /* of sgd with momentum */
    double weight_decay; /* of parameters with two or more dimensions */
    double grad_clip; /* 0: none */
    /* lr_schedule */
    mr_lr_kind lr_kind;
    uint64_t warmup_steps;
    uint64_t total_steps;
    double min_lr;
    mr_loss_scale_rule loss_scale; /* of F16 */
    mr_dtype precision; /* F32, BF16 or F16; every layer's spec has it, too */
    /* data */
    mr_data_format data_format;
    char data_train[MR_PATH_BYTES]; /* "": the submitter feeds by itself */
    char data_eval[MR_PATH_BYTES];  /* what eval reads; "": data.train */
    bool data_shuffle;
    /* checkpoint */
    char checkpoint_dir[MR_PATH_BYTES]; /* "" for none */
    uint64_t checkpoint_every_steps;    /* 0: only at the end and on request */
    uint64_t checkpoint_keep;           /* 0: all */
    bool checkpoint_initial;
    char load_path[MR_PATH_BYTES]; /* checkpoint.load: what the job starts from; "" for nothing */
    bool load_strict;              /* every parameter must be there, and nothing else */
    bool load_optimizer;           /* go on at its step, with its optimizer state */
    bool exclude_frozen; /* checkpoints leave out what is never trained; whoever goes on from one
                            has it from where the job started: drawn, or of load_path */
    /* SHA-256 in hex of the canonical text of model.layers (model_hash.h): what a checkpoint must
     * share with the job that loads it. Neither dropout nor the loss is part of it. */
    char model_hash[65];
} mr_job;

/* Every error found in a file, in file order; lines count from 1 (0: the file as a whole). */
enum { MR_JOB_ERRORS_MAX = 32 };
typedef struct mr_job_errors {
    size_t count;
    struct {
        size_t line;
        char text[MR_STATUS_TEXT_BYTES];
    } items[MR_JOB_ERRORS_MAX];
} mr_job_errors;

/* Reads a job file's text. Owner frees *out_job with mr_job_destroy. errors may be NULL; the status
 * is INVALID_ARGUMENT with the first error ("line 7: pipeline.stages is 0; it must be 1 to
 * 1024"); RESOURCE_EXHAUSTED: no memory; FAILED_PRECONDITION: a registered layer type or
 * seed function is wrong. */
MR_MUST_CHECK mr_status mr_job_parse(const char *text, size_t bytes, mr_job **out_job,
                                     mr_job_errors *errors);
/* NULL is fine. */
void mr_job_destroy(mr_job *job);
/* What a job is run for. The numbers are those of the wire (JobMode). */
typedef enum mr_job_mode {
    MR_JOB_MODE_TRAIN = 0,
    MR_JOB_MODE_INFERENCE = 1,  /* forward, logits out */
    MR_JOB_MODE_EVALUATION = 2, /* forward, loss out, and logits on request */
    MR_JOB_MODE_PROFILE = 3,    /* only the layers of a training job are timed */
    MR_JOB_MODE_COUNT
} mr_job_mode;
/* "train", "inference", "evaluation", "profile". */
const char *mr_job_mode_name(mr_job_mode mode);
/* Are there gradients and an optimizer? The other modes leave no weights behind. */
static inline bool mr_job_mode_trains(mr_job_mode mode) {
    return mode == MR_JOB_MODE_TRAIN;
}
/* Does it read a checkpoint and run forward alone? */
static inline bool mr_job_mode_is_forward(mr_job_mode mode) {
    return mode == MR_JOB_MODE_INFERENCE || mode == MR_JOB_MODE_EVALUATION;
}
/* Makes a job one for this mode: forward alone there is one replica, and in inference one
 * microbatch at a time. */
void mr_job_become(mr_job *job, mr_job_mode mode);
/* Makes the bounds of a job explicit, whatever its file says (copied). RESOURCE_EXHAUSTED: no
 * memory. Whether they cut its layers is for the plan to say. */
MR_MUST_CHECK mr_status mr_job_set_bounds(mr_job *job, const size_t *bounds, size_t bound_count);
/* May a good job be run by this version? What a plan can be made of is more than what the stages
 * can do. Training needs a number of steps, training and evaluation a loss.
 * INVALID_ARGUMENT: lr_schedule.total_steps or model.loss. */
MR_MUST_CHECK mr_status mr_job_check_runnable(const mr_job *job, mr_job_mode mode);

/* May layer index be computed again in backward, by pipeline.checkpointable_layers? */
bool mr_job_layer_is_checkpointable(const mr_job *job, size_t index);

/* What keys a layer's random numbers when it is built, and in a call of its forward and backward
 * (seed.h): the job's seed, or with model.seed_fn what that makes of the layer's own seed. call:
 * from 1, see mr_seed_call. */
uint64_t mr_job_build_seed(const mr_job *job, size_t layer);
uint64_t mr_job_forward_seed(const mr_job *job, size_t layer, uint64_t call);

/* Does the job's checkpoint hold this parameter; any parameter of this layer? */
bool mr_job_saves_parameter(const mr_job *job, const mr_parameter *parameter);
bool mr_job_saves_layer(const mr_job *job, const mr_layer_description *description);

/* The shape that enters layer 0 for one microbatch: tokens i32 [B, T], or f32 for a model that
 * starts with another layer than an embedding: [B, model.input...], or else [B, in]. */
mr_shape mr_job_input_shape(const mr_job *job);
/* The labels' shape: i32 [B, T] for cross_entropy (one class for each row of logits), f32 of the
 * last layer's sizes for mse, in every precision. FAILED_PRECONDITION: the loss is none. */
MR_MUST_CHECK mr_status mr_job_label_shape(const mr_job *job, mr_shape *out_shape);
/* Descriptions of all layers, in order: layer_count of them, written to out (caller's array). */
MR_MUST_CHECK mr_status mr_job_describe(const mr_job *job, mr_layer_description *out);
/* The same of the shards that one model rank holds (shard.h); those of the layers themselves where
 * pipeline.topology.model is 1. INVALID_ARGUMENT: a layer that the model axis cannot cut. */
MR_MUST_CHECK mr_status mr_job_describe_shards(const mr_job *job, size_t model_rank,
                                               mr_layer_description *out);
/* From now on the job's layers are the shards of one model rank: mr_job_describe gives theirs. */
void mr_job_become_shard(mr_job *job, size_t model_rank);
/* Learning rate of optimizer step (from 1): warm-up, then constant, linear or cosine. */
double mr_job_learning_rate(const mr_job *job, uint64_t step);
/* path if absolute, else base_directory/path. INVALID_ARGUMENT: too long. */
MR_MUST_CHECK mr_status mr_job_resolve_path(const char *base_directory, const char *path,
                                            char out_path[MR_PATH_BYTES]);

/* The layers that share a parameter, by key. */
typedef struct mr_tie {
    char key[MR_NAME_BYTES];
    size_t layer_count;
    size_t *layers; /* ascending */
} mr_tie;
/* Ties in order of their keys (bytewise). Owner frees with mr_job_ties_free. */
MR_MUST_CHECK mr_status mr_job_ties(const mr_job *job, mr_tie **out_ties, size_t *out_count);
void mr_job_ties_free(mr_tie *ties, size_t count);

#endif
