/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/model/job_reader.h"

#include <float.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/model/job_errors.h"
#include "daemon/model/layer_reader.h"
#include "daemon/model/scalar.h"

static_assert(offsetof(mr_job, beta2) == offsetof(mr_job, beta1) + sizeof(double),
              "betas are read as a pair");

/* Twelve digits: the width of a checkpoint's folder name. */
#define STEPS_MAX 999999999999ULL
#define LAYER_WEIGHT_MAX 1e12
#define PARTITION_TYPE_PREFIX "type:"
#define JOB(member) .offset = offsetof(mr_job_draft, job.member)
#define STAGES .kind = MR_FIELD_SIZE, .minimum = 1, .maximum = MR_STAGES_MAX
#define STEPS .kind = MR_FIELD_COUNTER, .maximum = STEPS_MAX

static const mr_field_choice schema_choices[] = {{"millrace.job/v1", 1, false}, {NULL, 0, false}};
static const mr_field_choice loss_choices[] = {
    {"cross_entropy", MR_LOSS_CROSS_ENTROPY, false},
    {"mse", MR_LOSS_MSE, false},
    {"none", MR_LOSS_NONE, false},
    {NULL, 0, false},
};
static const mr_field_choice partition_choices[] = {
    {"uniform", MR_PARTITION_UNIFORM, false},
    {"parameters", MR_PARTITION_PARAMETERS, false},
    {"weights", MR_PARTITION_WEIGHTS, false},
    {"type:REGEX", MR_PARTITION_TYPE, false}, /* "type:" is read before the words are */
    {"profile", MR_PARTITION_PROFILE, false},
    {NULL, 0, false},
};
static const mr_field_choice schedule_choices[] = {
    {"gpipe", MR_SCHEDULE_GPIPE, false},
    {"1f1b", MR_SCHEDULE_1F1B, false},
    {"interleaved", 0, true},
    {"zb-h1", 0, true},
    {"zb-v", 0, true},
    {"file:", 0, true},
    {NULL, 0, false},
};
static const mr_field_choice optimizer_choices[] = {
    {"adamw", MR_OPTIMIZER_ADAMW, false},
    {"adam", MR_OPTIMIZER_ADAM, false},
    {"sgd", MR_OPTIMIZER_SGD, false},
    {"lion", MR_OPTIMIZER_LION, false},
    {NULL, 0, false},
};
static const mr_field_choice lr_choices[] = {
    {"constant", MR_LR_CONSTANT, false},
    {"linear", MR_LR_LINEAR, false},
    {"cosine", MR_LR_COSINE, false},
    {NULL, 0, false},
};
static const mr_field_choice precision_choices[] = {
    {"fp32", MR_DTYPE_F32, false},
    {"bf16", MR_DTYPE_BF16, false},
    {"fp16", MR_DTYPE_F16, false},
    {NULL, 0, false},
};
static const mr_field_choice data_choices[] = {
    {"bytes", MR_DATA_BYTES, false},
    {"llmc", MR_DATA_LLMC, false},
    {"megatron", MR_DATA_MEGATRON, false},
    {"npy", MR_DATA_NPY, false},
    {NULL, 0, false},
};

static bool partition_read(void *target, const mr_yaml_node *node, const char *path,
                           mr_job_errors *errors);
static bool weights_read(void *target, const mr_yaml_node *node, const char *path,
                         mr_job_errors *errors);
static bool layers_read(void *target, const mr_yaml_node *node, const char *path,
                        mr_job_errors *errors);
static bool input_read(void *target, const mr_yaml_node *node, const char *path,
                       mr_job_errors *errors);
static bool seed_function_read(void *target, const mr_yaml_node *node, const char *path,
                               mr_job_errors *errors);
static bool checkpointable_read(void *target, const mr_yaml_node *node, const char *path,
                                mr_job_errors *errors);

/* The job file: every key outside model.layers, with its default, in one place. */
static const mr_field job_fields[] = {
    {.path = "schema",
     .kind = MR_FIELD_CHOICE,
     .required = true,
     .offset = offsetof(mr_job_draft, schema),
     .choices = schema_choices,
     .help = "version of this format"},
    {.path = "name",
     .kind = MR_FIELD_NAME,
     .required = true,
     JOB(name),
     .capacity = MR_NAME_BYTES,
     .help = "a name of 1 to 63 letters, digits, '_', '.' or '-'"},
    {.path = "seed",
     .kind = MR_FIELD_COUNTER,
     .maximum = UINT64_MAX,
     .fallback = "1234",
     JOB(seed),
     .help = "base of every random number"},
    {.path = "model.layers",
     .kind = MR_FIELD_CUSTOM,
     .required = true,
     .read = layers_read,
     .help = "a list of layers"},
    {.path = "model.input",
     .kind = MR_FIELD_CUSTOM,
     .read = input_read,
     .help = "sizes of one f32 sample, such as [3, 32, 32]; default: from the first layer"},
    {.path = "model.loss",
     .kind = MR_FIELD_CHOICE,
     .fallback = "cross_entropy",
     JOB(loss),
     .choices = loss_choices,
     .help = "mean over all tokens of a step; none for inference"},
    {.path = "model.seed_layers",
     .kind = MR_FIELD_BOOL,
     .fallback = "true",
     JOB(seed_layers),
     .help = "each layer has random numbers of its own; false: the model's one after the other"},
    {.path = "model.seed_fn",
     .kind = MR_FIELD_CUSTOM,
     .read = seed_function_read,
     .help = "name of a registered function of a layer's seed; default: none"},
    {.path = "pipeline.stages",
     STAGES,
     .offset = offsetof(mr_job_draft, stages),
     .help = "short form of topology: {pipe: N}; default: 1"},
    {.path = "pipeline.topology.pipe",
     STAGES,
     .fallback = "1",
     JOB(pipe),
     .help = "pipeline stages"},
    {.path = "pipeline.topology.data",
     STAGES,
     .fallback = "1",
     JOB(data),
     .help = "replicas"},
    {.path = "pipeline.topology.model",
     STAGES,
     .fallback = "1",
     JOB(model),
     .help = "ranks that share every layer"},
    {.path = "pipeline.partition",
     .kind = MR_FIELD_CUSTOM,
     .fallback = "parameters",
     .read = partition_read,
     .help = "uniform, parameters, weights, type:REGEX, profile or a list of bounds"},
    {.path = "pipeline.profile",
     .kind = MR_FIELD_TEXT,
     JOB(profile_path),
     .capacity = MR_PATH_BYTES,
     .help = "with partition: profile, a printed profile to use instead of measuring one"},
    {.path = "pipeline.layer_weights",
     .kind = MR_FIELD_CUSTOM,
     .read = weights_read,
     .help = "with partition: weights, one number for each layer"},
    {.path = "pipeline.schedule",
     .kind = MR_FIELD_CHOICE,
     .fallback = "1f1b",
     JOB(schedule),
     .choices = schedule_choices,
     .help = "order of forward and backward on each stage"},
    {.path = "pipeline.chunks",
     .kind = MR_FIELD_SIZE,
     .minimum = 1,
     .maximum = MR_LAYERS_MAX,
     .fallback = "1",
     JOB(chunks),
     .help = "parts of the model on each stage"},
    {.path = "pipeline.activation_checkpoint_interval",
     .kind = MR_FIELD_SIZE,
     .maximum = MR_LAYERS_MAX,
     .fallback = "0",
     JOB(checkpoint_interval),
     .help = "layers between kept activations; 0 keeps all"},
    {.path = "pipeline.zero_stage",
     .kind = MR_FIELD_SIZE,
     .maximum = 1,
     .fallback = "0",
     JOB(zero_stage),
     .help = "1: each replica holds a share of the optimizer's state; 0: all of it"},
    {.path = "pipeline.checkpointable_layers",
     .kind = MR_FIELD_CUSTOM,
     .read = checkpointable_read,
     .help = "types of layer whose runs may be computed again; default: all"},
    {.path = "batch.micro_batch_size",
     .kind = MR_FIELD_SIZE,
     .required = true,
     .minimum = 1,
     .maximum = MR_DIMENSION_MAX,
     JOB(micro_batch_size),
     .help = "samples of a microbatch, B"},
    {.path = "batch.micro_batches",
     .kind = MR_FIELD_SIZE,
     .minimum = 1,
     .maximum = MR_MICRO_BATCHES_MAX,
     .fallback = "1",
     JOB(micro_batches),
     .help = "microbatches of a step, per replica, M"},
    {.path = "batch.sequence_length",
     .kind = MR_FIELD_SIZE,
     .required = true,
     .minimum = 1,
     .maximum = MR_DIMENSION_MAX,
     JOB(sequence_length),
     .help = "tokens of a sample, T"},
    {.path = "optimizer.type",
     .kind = MR_FIELD_CHOICE,
     .fallback = "adamw",
     JOB(optimizer),
     .choices = optimizer_choices,
     .help = "decay is decoupled in adamw and lion, part of the gradient in adam and sgd"},
    {.path = "optimizer.lr",
     .kind = MR_FIELD_NUMBER,
     .fallback = "1e-3",
     JOB(lr),
     .low_open = true,
     .high = 1000,
     .help = "learning rate after the warm-up; default of lion: 1e-4"},
    {.path = "optimizer.betas",
     .kind = MR_FIELD_PAIR,
     .fallback = "0.9 0.999",
     JOB(beta1),
     .high = 1,
     .high_open = true,
     .help = "decay rates of the two moments; default of lion: [0.9, 0.99]"},
    {.path = "optimizer.eps",
     .kind = MR_FIELD_NUMBER,
     .fallback = "1e-8",
     JOB(eps),
     .low_open = true,
     .high = 1,
     .help = "added to the root of the second moment"},
    {.path = "optimizer.momentum",
     .kind = MR_FIELD_NUMBER,
     .fallback = "0",
     JOB(momentum),
     .high = 1,
     .high_open = true,
     .help = "decay rate of sgd's sum of gradients; 0: none is kept"},
    {.path = "optimizer.nesterov",
     .kind = MR_FIELD_BOOL,
     .fallback = "false",
     JOB(nesterov),
     .help = "sgd steps by the gradient that momentum will see next"},
    {.path = "optimizer.weight_decay",
     .kind = MR_FIELD_NUMBER,
     .fallback = "0.01",
     JOB(weight_decay),
     .high = 1000,
     .help = "decay of parameters with two or more dimensions; default of other types: 0"},
    {.path = "optimizer.grad_clip",
     .kind = MR_FIELD_NUMBER,
     .fallback = "0",
     JOB(grad_clip),
     .high = DBL_MAX,
     .help = "largest norm of all gradients together; 0: no clipping"},
    {.path = "lr_schedule.type",
     .kind = MR_FIELD_CHOICE,
     .fallback = "constant",
     JOB(lr_kind),
     .choices = lr_choices,
     .help = "learning rate after the warm-up"},
    {.path = "lr_schedule.warmup_steps",
     STEPS,
     .fallback = "0",
     JOB(warmup_steps),
     .help = "steps of linear rise from 0"},
    {.path = "lr_schedule.total_steps",
     STEPS,
     .minimum = 1,
     JOB(total_steps),
     .help = "steps of the job; training needs it"},
    {.path = "lr_schedule.min_lr",
     .kind = MR_FIELD_NUMBER,
     .fallback = "0",
     JOB(min_lr),
     .high = 1000,
     .help = "learning rate at the end of linear and cosine"},
    {.path = "precision",
     .kind = MR_FIELD_CHOICE,
     .fallback = "fp32",
     JOB(precision),
     .choices = precision_choices,
     .help = "element type of activations and products"},
    {.path = "loss_scale.fixed",
     .kind = MR_FIELD_NUMBER,
     .fallback = "0",
     JOB(loss_scale.fixed),
     .high = 0x1p40,
     .help = "factor of fp16 gradients that never changes; 0: it follows them"},
    {.path = "loss_scale.initial",
     .kind = MR_FIELD_NUMBER,
     .fallback = "65536",
     JOB(loss_scale.initial),
     .low = 1,
     .high = 0x1p40,
     .help = "factor of fp16 gradients in the first step"},
    {.path = "loss_scale.window",
     .kind = MR_FIELD_COUNTER,
     .fallback = "1000",
     JOB(loss_scale.window),
     .minimum = 1,
     .maximum = UINT32_MAX,
     .help = "good steps in a row after which the factor doubles"},
    {.path = "loss_scale.hysteresis",
     .kind = MR_FIELD_COUNTER,
     .fallback = "2",
     JOB(loss_scale.hysteresis),
     .minimum = 1,
     .maximum = UINT32_MAX,
     .help = "skipped steps after which the factor is halved"},
    {.path = "loss_scale.min",
     .kind = MR_FIELD_NUMBER,
     .fallback = "1",
     JOB(loss_scale.least),
     .low_open = true,
     .high = 0x1p40,
     .help = "least factor; overflows at it end the job"},
    {.path = "data.format",
     .kind = MR_FIELD_CHOICE,
     .fallback = "bytes",
     JOB(data_format),
     .choices = data_choices,
     .help = "what the data files hold"},
    {.path = "data.train",
     .kind = MR_FIELD_TEXT,
     JOB(data_train),
     .capacity = MR_PATH_BYTES,
     .help = "files to train on; globs allowed; without it the submitter feeds by itself"},
    {.path = "data.eval",
     .kind = MR_FIELD_TEXT,
     JOB(data_eval),
     .capacity = MR_PATH_BYTES,
     .help = "files that eval measures the loss on; globs allowed; default: data.train"},
    {.path = "data.shuffle",
     .kind = MR_FIELD_BOOL,
     .fallback = "true",
     JOB(data_shuffle),
     .help = "samples in an order that depends on the seed"},
    {.path = "checkpoint.dir",
     .kind = MR_FIELD_TEXT,
     JOB(checkpoint_dir),
     .capacity = MR_PATH_BYTES,
     .help = "folder of the checkpoints; default: none are written"},
    {.path = "checkpoint.every_steps",
     STEPS,
     .fallback = "0",
     JOB(checkpoint_every_steps),
     .help = "steps between checkpoints; 0: at the end and on request only"},
    {.path = "checkpoint.keep",
     STEPS,
     .fallback = "0",
     JOB(checkpoint_keep),
     .help = "newest checkpoints that stay; 0: all"},
    {.path = "checkpoint.initial",
     .kind = MR_FIELD_BOOL,
     .fallback = "false",
     JOB(checkpoint_initial),
     .help = "save step 0 too"},
    {.path = "checkpoint.exclude_frozen",
     .kind = MR_FIELD_BOOL,
     .fallback = "false",
     JOB(exclude_frozen),
     .help = "leave parameters that are never trained out of checkpoints"},
    {.path = "checkpoint.load.path",
     .kind = MR_FIELD_TEXT,
     JOB(load_path),
     .capacity = MR_PATH_BYTES,
     .help = "committed checkpoint, of any job, whose weights the job starts with"},
    {.path = "checkpoint.load.strict",
     .kind = MR_FIELD_BOOL,
     .fallback = "true",
     JOB(load_strict),
     .help = "refuse a checkpoint that lacks a parameter, or has another one"},
    {.path = "checkpoint.load.optimizer",
     .kind = MR_FIELD_BOOL,
     .fallback = "false",
     JOB(load_optimizer),
     .help = "go on at the checkpoint's step with its optimizer state"},
};

enum { JOB_FIELD_COUNT = sizeof(job_fields) / sizeof(job_fields[0]) };
static_assert(sizeof(job_fields) / sizeof(job_fields[0]) <= (size_t)MR_JOB_FIELDS_MAX,
              "a draft has a mark for every field");

const mr_field_table mr_job_fields = {job_fields, JOB_FIELD_COUNT, 0, "a job file", ""};

/* What follows "type:" in pipeline.partition, to its end. */
static bool partition_read_pattern(mr_job *job, const mr_yaml_node *node, const char *path,
                                   mr_job_errors *errors) {
    const char *pattern = node->text + strlen(PARTITION_TYPE_PREFIX);
    mr_status status = mr_layer_pattern_check(pattern);
    if (!mr_status_is_ok(status)) {
        mr_job_errors_add(errors, node->line, "%s: %s", path, status.text);
        return false;
    }
    job->partition = MR_PARTITION_TYPE;
    memcpy(job->partition_pattern, pattern, strlen(pattern) + 1); /* its length is checked */
    return true;
}

/* pipeline.partition: a word, a pattern, or the bounds themselves. */
static bool partition_read(void *target, const mr_yaml_node *node, const char *path,
                           mr_job_errors *errors) {
    mr_job *job = &((mr_job_draft *)target)->job;
    char text[MR_SCALAR_TEXT_BYTES];
    if (node->kind == MR_YAML_SCALAR &&
        strncmp(node->text, PARTITION_TYPE_PREFIX, strlen(PARTITION_TYPE_PREFIX)) == 0)
        return partition_read_pattern(job, node, path, errors);
    if (node->kind != MR_YAML_LIST) {
        int kind = 0;
        if (!mr_field_choose(partition_choices, "or a list of bounds such as [0, 4, 9]", node, path,
                             &kind, errors))
            return false;
        job->partition = (mr_partition_kind)kind;
        return true;
    }
    job->partition = MR_PARTITION_BOUNDS;
    job->bounds = mr_alloc_array(node->child_count, sizeof(*job->bounds));
    if (job->bounds == NULL) {
        mr_job_errors_add(errors, node->line, "%s: no memory for %zu bounds", path,
                          node->child_count);
        return false;
    }
    job->bound_count = node->child_count;
    size_t index = 0;
    for (const mr_yaml_node *item = node->child; item != NULL; item = item->next, index++) {
        uint64_t bound = 0;
        if (!mr_scalar_counter(item, &bound) || bound > MR_LAYERS_MAX) {
            mr_job_errors_add(errors, item->line,
                              "%s[%zu] is %s; it must be a whole number, 0 to %d", path, index,
                              mr_scalar_describe(item, text), MR_LAYERS_MAX);
            return false;
        }
        job->bounds[index] = (size_t)bound;
    }
    return true;
}

/* pipeline.layer_weights: numbers of at least 0. */
static bool weights_read(void *target, const mr_yaml_node *node, const char *path,
                         mr_job_errors *errors) {
    mr_job *job = &((mr_job_draft *)target)->job;
    char text[MR_SCALAR_TEXT_BYTES];
    if (node->kind != MR_YAML_LIST) {
        mr_job_errors_add(errors, node->line,
                          "%s is %s; it must be a list with one number for each layer", path,
                          mr_scalar_describe(node, text));
        return false;
    }
    job->weights = mr_alloc_array(node->child_count, sizeof(*job->weights));
    if (job->weights == NULL) {
        mr_job_errors_add(errors, node->line, "%s: no memory for %zu weights", path,
                          node->child_count);
        return false;
    }
    job->weight_count = node->child_count;
    size_t index = 0;
    for (const mr_yaml_node *item = node->child; item != NULL; item = item->next, index++) {
        if (!mr_scalar_number(item, &job->weights[index]) || job->weights[index] < 0 ||
            job->weights[index] > LAYER_WEIGHT_MAX) {
            mr_job_errors_add(errors, item->line,
                              "%s[%zu] is %s; it must be a number of at least 0 and at most %g",
                              path, index, mr_scalar_describe(item, text), LAYER_WEIGHT_MAX);
            return false;
        }
    }
    return true;
}

/* model.seed_fn: a name that some library of this build has registered. */
static bool seed_function_read(void *target, const mr_yaml_node *node, const char *path,
                               mr_job_errors *errors) {
    mr_job *job = &((mr_job_draft *)target)->job;
    char text[MR_SCALAR_TEXT_BYTES];
    char known[MR_STATUS_TEXT_BYTES];
    if (node->kind == MR_YAML_SCALAR)
        job->seed_function = mr_seed_function_find(node->text);
    if (job->seed_function != NULL)
        return true;
    mr_job_errors_add(errors, node->line,
                      "%s is %s; it must be a seed function of this build: %s", path,
                      mr_scalar_describe(node, text), mr_seed_functions_text(known));
    return false;
}

/* model.input: the sizes of a sample, without the batch. */
static bool input_read(void *target, const mr_yaml_node *node, const char *path,
                       mr_job_errors *errors) {
    mr_job *job = &((mr_job_draft *)target)->job;
    char text[MR_SCALAR_TEXT_BYTES];
    if (node->kind != MR_YAML_LIST || node->child_count == 0 ||
        node->child_count > MR_TENSOR_DIMS_MAX - 1) {
        mr_job_errors_add(errors, node->line, "%s is %s; it must be a list of 1 to %d sizes", path,
                          node->kind != MR_YAML_LIST ? mr_scalar_describe(node, text)
                          : node->child_count == 0   ? "an empty list"
                                                     : "too long",
                          MR_TENSOR_DIMS_MAX - 1);
        return false;
    }
    size_t index = 0;
    for (const mr_yaml_node *item = node->child; item != NULL; item = item->next, index++) {
        uint64_t size = 0;
        if (!mr_scalar_counter(item, &size) || size < 1 || size > MR_DIMENSION_MAX) {
            mr_job_errors_add(errors, item->line,
                              "%s[%zu] is %s; it must be a whole number, 1 to %d", path, index,
                              mr_scalar_describe(item, text), MR_DIMENSION_MAX);
            return false;
        }
        job->input[index] = (size_t)size;
    }
    job->input_dims = node->child_count;
    return true;
}

static bool checkpointable_read(void *target, const mr_yaml_node *node, const char *path,
                                mr_job_errors *errors) {
    return mr_layer_types_read(node, path, &((mr_job_draft *)target)->job.checkpointable, errors);
}

static bool layers_read(void *target, const mr_yaml_node *node, const char *path,
                        mr_job_errors *errors) {
    mr_job *job = &((mr_job_draft *)target)->job;
    if (!mr_layers_read(node, path, &job->layers, &job->layer_count, errors))
        return false;
    for (size_t i = 0; i < job->layer_count; i++)
        job->block_count += job->layers[i].type == MR_LAYER_TYPE_TRANSFORMER_BLOCK;
    return true;
}

/* The table's defaults are AdamW's; the field has others for the other types. */
static void optimizer_defaults(mr_job_draft *draft) {
    mr_job *job = &draft->job;
    bool lion = job->optimizer == MR_OPTIMIZER_LION;
    if (job->optimizer != MR_OPTIMIZER_ADAMW &&
        mr_job_draft_line(draft, "optimizer.weight_decay") == 0)
        job->weight_decay = 0;
    if (lion && mr_job_draft_line(draft, "optimizer.betas") == 0)
        job->beta2 = 0.99;
    if (lion && mr_job_draft_line(draft, "optimizer.lr") == 0)
        job->lr = 1e-4;
}

bool mr_job_read(const mr_yaml_node *root, mr_job_draft *draft, mr_job_errors *errors) {
    char text[MR_SCALAR_TEXT_BYTES];
    size_t errors_before = errors->count;
    if (root->kind != MR_YAML_MAP) {
        mr_job_errors_add(errors, root->line,
                          "the file is %s; it must be a mapping that starts with "
                          "schema: millrace.job/v1",
                          mr_scalar_describe(root, text));
        return false;
    }
    mr_field_table_read(&mr_job_fields, root, draft, draft->marks, errors);
    if (mr_job_draft_line(draft, "pipeline.stages") != 0 &&
        mr_job_draft_line(draft, "pipeline.topology.pipe") == 0)
        draft->job.pipe = draft->stages;
    draft->job.stages_given = mr_job_draft_line(draft, "pipeline.stages") != 0;
    draft->job.pipe_given = draft->job.stages_given ||
                            mr_job_draft_line(draft, "pipeline.topology.pipe") != 0;
    draft->job.data_given = mr_job_draft_line(draft, "pipeline.topology.data") != 0;
    optimizer_defaults(draft);
    for (size_t i = 0; i < draft->job.layer_count; i++)
        draft->job.layers[i].precision = draft->job.precision;
    return errors->count == errors_before;
}

void mr_job_draft_deinit(mr_job_draft *draft) {
    mr_free(draft->job.layers);
    mr_free(draft->job.bounds);
    mr_free(draft->job.weights);
    memset(draft, 0, sizeof(*draft));
}

size_t mr_job_draft_line(const mr_job_draft *draft, const char *path) {
    return mr_field_table_mark(&mr_job_fields, draft->marks, path)->line;
}

bool mr_job_draft_good(const mr_job_draft *draft, const char *path) {
    return !mr_field_table_mark(&mr_job_fields, draft->marks, path)->bad;
}
