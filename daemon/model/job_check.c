/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/model/job_check.h"

#include "daemon/base/alloc.h"
#include "daemon/model/aside.h"
#include "daemon/model/job_errors.h"
#include "daemon/model/layer_check.h"
#include "daemon/model/layer_type.h"

enum { BYTE_VALUES = 256 };

static bool given(const mr_job_draft *draft, const char *path) {
    return mr_job_draft_line(draft, path) != 0;
}

static size_t line_of(const mr_job_draft *draft, const char *path) {
    return mr_job_draft_line(draft, path);
}

static bool good(const mr_job_draft *draft, const char *path) {
    return mr_job_draft_good(draft, path);
}

/* The key that says how many stages there are. */
static const char *pipe_path(const mr_job_draft *draft) {
    return given(draft, "pipeline.stages") ? "pipeline.stages" : "pipeline.topology.pipe";
}

static bool pipe_is_good(const mr_job_draft *draft) {
    return good(draft, "pipeline.stages") && good(draft, "pipeline.topology.pipe");
}

static void check_topology(const mr_job_draft *draft, mr_job_errors *errors) {
    if (given(draft, "pipeline.topology.pipe") && given(draft, "pipeline.stages"))
        mr_job_errors_add(errors, line_of(draft, "pipeline.stages"),
                          "pipeline.stages and pipeline.topology.pipe are both given; stages: N is "
                          "short for topology: {pipe: N}, so keep one");
    if (pipe_is_good(draft) && good(draft, "model.layers") &&
        draft->job.pipe > draft->job.layer_count)
        mr_job_errors_add(errors, line_of(draft, pipe_path(draft)),
                          "%s is %zu; it must be at most %zu, the number of layers",
                          pipe_path(draft), draft->job.pipe, draft->job.layer_count);
}

static void check_pipeline_settings(const mr_job_draft *draft, mr_job_errors *errors) {
    const mr_job *job = &draft->job;
    if (good(draft, "pipeline.chunks") && job->chunks != 1)
        mr_job_errors_add(errors, line_of(draft, "pipeline.chunks"),
                          "pipeline.chunks greater than 1 is not supported by this version: it is "
                          "%zu; it must be 1",
                          job->chunks);
}

/* The explicit bounds; one error names the first bad entry. */
static void check_bounds(const mr_job_draft *draft, mr_job_errors *errors) {
    const mr_job *job = &draft->job;
    const size_t *bounds = job->bounds;
    size_t line = line_of(draft, "pipeline.partition");
    size_t last = job->bound_count - 1;
    if (job->bound_count != job->pipe + 1) {
        mr_job_errors_add(errors, line,
                          "pipeline.partition has %zu bounds; for %zu stages it must have %zu",
                          job->bound_count, job->pipe, job->pipe + 1);
        return;
    }
    if (bounds[0] != 0) {
        mr_job_errors_add(errors, line, "pipeline.partition[0] is %zu; it must be 0", bounds[0]);
        return;
    }
    for (size_t i = 1; i <= last; i++) {
        if (bounds[i] <= bounds[i - 1]) {
            mr_job_errors_add(errors, line,
                              "pipeline.partition[%zu] is %zu; it must be greater than the bound "
                              "before it, %zu",
                              i, bounds[i], bounds[i - 1]);
            return;
        }
        bool wrong = i == last ? bounds[i] != job->layer_count : bounds[i] > job->layer_count;
        if (wrong) {
            mr_job_errors_add(errors, line,
                              "pipeline.partition[%zu] is %zu; it must be %s%zu, the number of "
                              "layers",
                              i, bounds[i], i == last ? "" : "less than ", job->layer_count);
            return;
        }
    }
}

static void check_weights(const mr_job_draft *draft, mr_job_errors *errors) {
    const mr_job *job = &draft->job;
    if (!given(draft, "pipeline.layer_weights"))
        mr_job_errors_add(errors, line_of(draft, "pipeline.partition"),
                          "pipeline.layer_weights is missing; partition: weights needs one number "
                          "for each of the %zu layers",
                          job->layer_count);
    else if (job->weight_count != job->layer_count)
        mr_job_errors_add(errors, line_of(draft, "pipeline.layer_weights"),
                          "pipeline.layer_weights has %zu numbers; it must have %zu, the number "
                          "of layers",
                          job->weight_count, job->layer_count);
}

static void check_pattern(const mr_job_draft *draft, mr_job_errors *errors) {
    const mr_job *job = &draft->job;
    mr_status status =
        mr_layer_pattern_weigh(job->partition_pattern, job->layers, job->layer_count, NULL);
    if (!mr_status_is_ok(status))
        mr_job_errors_add(errors, line_of(draft, "pipeline.partition"), "pipeline.partition: %s",
                          status.text);
}

static void check_profile(const mr_job_draft *draft, mr_job_errors *errors) {
    bool profile = draft->job.partition == MR_PARTITION_PROFILE;
    if (given(draft, "pipeline.profile") && !profile)
        mr_job_errors_add(errors, line_of(draft, "pipeline.profile"),
                          "pipeline.profile is given but pipeline.partition is not profile");
    if (profile && good(draft, "pipeline.topology.model") && draft->job.model > 1)
        mr_job_errors_add(errors, line_of(draft, "pipeline.partition"),
                          "pipeline.partition is profile and pipeline.topology.model is %zu; "
                          "whole layers are timed, so it must be 1",
                          draft->job.model);
}

static void check_partition(const mr_job_draft *draft, mr_job_errors *errors) {
    bool bounds = draft->job.partition == MR_PARTITION_BOUNDS;
    bool weights = draft->job.partition == MR_PARTITION_WEIGHTS;
    if (!good(draft, "pipeline.partition"))
        return;
    if (given(draft, "pipeline.layer_weights") && !weights)
        mr_job_errors_add(errors, line_of(draft, "pipeline.layer_weights"),
                          "pipeline.layer_weights is given but pipeline.partition is not weights");
    check_profile(draft, errors);
    if (!good(draft, "model.layers"))
        return;
    if (bounds && pipe_is_good(draft))
        check_bounds(draft, errors);
    if (weights && good(draft, "pipeline.layer_weights"))
        check_weights(draft, errors);
    if (draft->job.partition == MR_PARTITION_TYPE)
        check_pattern(draft, errors);
}

/* Adds what one layer costs; false when the model is beyond what can be counted. */
static bool check_total(const mr_layer_description *d, size_t *parameters, size_t *bytes) {
    size_t output = 0;
    if (!mr_shape_bytes(&d->output, &output) ||
        !mr_size_add(*parameters, d->parameter_elements, parameters) ||
        !mr_size_add(*bytes, d->saved_bytes, bytes) ||
        !mr_size_add(*bytes, d->retained_bytes, bytes) || !mr_size_add(*bytes, output, bytes))
        return false;
    return *parameters <= MR_PARAMETER_ELEMENTS_MAX && *bytes <= MR_ACTIVATION_BYTES_MAX;
}

/* Layers fit each other, and the sums of their sizes stay far from overflow. model_width: of the
 * shards to look at; 1: the whole layers. *out_output: what leaves the last layer. One error at
 * most: what follows a misfit cannot be judged. */
static bool check_chain(const mr_job_draft *draft, size_t model_width, mr_shape *out_output,
                        mr_job_errors *errors) {
    const mr_job *job = &draft->job;
    mr_shape shape = mr_job_input_shape(job);
    size_t parameters = 0;
    size_t bytes = 0;
    for (size_t i = 0; i < job->layer_count; i++) {
        mr_layer_description description;
        const mr_layer_spec *spec = &job->layers[i];
        mr_layer_spec shard = *spec;
        shard.model_width = model_width;
        mr_status status = mr_layer_describe(&shard, &shape, job->block_count, &description);
        if (!mr_status_is_ok(status)) {
            mr_job_errors_add(errors, spec->line, "layer %zu (%s): %s", i,
                              mr_layer_type_name(spec->type), status.text);
            return false;
        }
        if (!check_total(&description, &parameters, &bytes)) {
            mr_job_errors_add(errors, spec->line,
                              "layer %zu (%s): the model is too large: a job may have at most %llu "
                              "parameters and %llu bytes of activations for one microbatch",
                              i, mr_layer_type_name(spec->type), MR_PARAMETER_ELEMENTS_MAX,
                              MR_ACTIVATION_BYTES_MAX);
            return false;
        }
        shape = description.output;
    }
    *out_output = shape;
    return true;
}

/* What layers put aside and take. */
static bool check_asides(const mr_job *job, const mr_layer_description *descriptions,
                         mr_job_errors *errors) {
    size_t layer = 0;
    mr_status status = mr_asides_check(job->layers, descriptions, job->layer_count, &layer);
    if (!mr_status_is_ok(status))
        mr_job_errors_add(errors, job->layers[layer].line, "layer %zu (%s): %s", layer,
                          mr_layer_type_name(job->layers[layer].type), status.text);
    return mr_status_is_ok(status);
}

/* Is anything put or taken? */
static bool has_asides(const mr_job *job) {
    for (size_t i = 0; i < job->layer_count; i++)
        if (job->layers[i].put[0] != '\0' || job->layers[i].take[0] != '\0' ||
            mr_layer_type_row_of(job->layers[i].type)->takes)
            return true;
    return false;
}

/* Every tie's layers against its first; one error names both. */
static bool check_ties_of(const mr_job *job, const mr_layer_description *descriptions,
                          const mr_tie *ties, size_t tie_count, mr_job_errors *errors) {
    for (size_t i = 0; i < tie_count; i++)
        for (size_t j = 1; j < ties[i].layer_count; j++) {
            size_t layer = ties[i].layers[j];
            const mr_layer_spec *spec = &job->layers[layer];
            mr_status status =
                mr_layer_check_tie(job->layers, descriptions, ties[i].layers[0], layer);
            if (mr_status_is_ok(status))
                continue;
            mr_job_errors_add(errors, spec->line, "layer %zu (%s): %s", layer,
                              mr_layer_type_name(spec->type), status.text);
            return false;
        }
    return true;
}

/* What concerns several layers at once. */
static bool check_between(const mr_job_draft *draft, mr_job_errors *errors) {
    const mr_job *job = &draft->job;
    mr_tie *ties = NULL;
    size_t tie_count = 0;
    mr_layer_description *descriptions = NULL;
    bool right = false;
    mr_status status = mr_job_ties(job, &ties, &tie_count);
    bool asides = has_asides(job);
    if (mr_status_is_ok(status) && (tie_count > 0 || asides)) {
        descriptions = mr_alloc_array(job->layer_count, sizeof(*descriptions));
        status = descriptions == NULL ? MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu layers",
                                                 job->layer_count)
                                      : mr_job_describe(job, descriptions);
    }
    if (mr_status_is_ok(status))
        right = check_ties_of(job, descriptions, ties, tie_count, errors) &&
                (!asides || check_asides(job, descriptions, errors));
    else
        mr_job_errors_add(errors, line_of(draft, "model.layers"), "model.layers: %s", status.text);
    mr_free(descriptions);
    mr_job_ties_free(ties, tie_count);
    return right;
}

/* The first layer that has a size says what enters the model. */
static bool check_first_layer(const mr_job_draft *draft, mr_job_errors *errors) {
    const mr_layer_spec *first = &draft->job.layers[0];
    if (draft->job.input_dims > 0 && first->type == MR_LAYER_TYPE_EMBEDDING) {
        mr_job_errors_add(errors, line_of(draft, "model.input"),
                          "model.input is given but the first layer is an embedding, which takes "
                          "tokens");
        return false;
    }
    if (mr_job_input_shape(&draft->job).dims[1] > 0)
        return true;
    mr_job_errors_add(errors, line_of(draft, "model.layers"),
                      "model.layers does not say what size the input has; give model.input, such "
                      "as [3, 32, 32]");
    return false;
}

static void check_loss(const mr_job_draft *draft, mr_job_errors *errors) {
    const mr_layer_spec *last = &draft->job.layers[draft->job.layer_count - 1];
    if (!good(draft, "model.loss") || draft->job.loss != MR_LOSS_CROSS_ENTROPY)
        return;
    if (!mr_layer_type_row_of(last->type)->scores)
        mr_job_errors_add(errors, last->line,
                          "model.loss is cross_entropy but the last layer is %s; it must be an "
                          "lm_head, or a linear with one output for each class",
                          mr_layer_type_name(last->type));
}

static void check_seeds(const mr_job_draft *draft, mr_job_errors *errors) {
    if (draft->job.seed_function != NULL && !draft->job.seed_layers)
        mr_job_errors_add(errors, line_of(draft, "model.seed_fn"),
                          "model.seed_fn is given but model.seed_layers is false; it is a function "
                          "of a layer's seed");
}

static void check_model(const mr_job_draft *draft, mr_job_errors *errors) {
    mr_shape output;
    if (!good(draft, "model.layers") || !good(draft, "model.input") ||
        !good(draft, "batch.micro_batch_size") ||
        !good(draft, "batch.sequence_length"))
        return;
    if (!check_first_layer(draft, errors) || !check_chain(draft, 1, &output, errors) ||
        !check_between(draft, errors))
        return;
    check_loss(draft, errors);
    if (!good(draft, "pipeline.topology.model") || draft->job.model < 2 ||
        !check_chain(draft, draft->job.model, &output, errors))
        return;
    if (draft->job.loss == MR_LOSS_MSE && output.cut_from > 0)
        mr_job_errors_add(errors, draft->job.layers[draft->job.layer_count - 1].line,
                          "model.loss is mse but the model axis of %zu cuts what the last layer "
                          "gives; it must end with a linear with parallel: row or none",
                          draft->job.model);
}

/* A field of another optimizer than the job's is a mistake, not a wish to ignore. */
static void check_optimizer(const mr_job_draft *draft, mr_job_errors *errors) {
    static const struct {
        const char *path;
        unsigned kinds;
        const char *owners;
    } fields[] = {
        {"optimizer.betas", ~(1u << MR_OPTIMIZER_SGD), "adamw, adam and lion"},
        {"optimizer.eps", 1u << MR_OPTIMIZER_ADAMW | 1u << MR_OPTIMIZER_ADAM, "adamw and adam"},
        {"optimizer.momentum", 1u << MR_OPTIMIZER_SGD, "sgd"},
        {"optimizer.nesterov", 1u << MR_OPTIMIZER_SGD, "sgd"},
    };
    const mr_job *job = &draft->job;
    if (!good(draft, "optimizer.type"))
        return;
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        if (given(draft, fields[i].path) && (fields[i].kinds >> job->optimizer & 1u) == 0)
            mr_job_errors_add(errors, line_of(draft, fields[i].path),
                              "%s is given but optimizer.type is %s; it belongs to %s",
                              fields[i].path, mr_optimizer_name(job->optimizer), fields[i].owners);
    if (job->optimizer == MR_OPTIMIZER_SGD && good(draft, "optimizer.momentum") && job->nesterov &&
        job->momentum <= 0)
        mr_job_errors_add(errors, line_of(draft, "optimizer.nesterov"),
                          "optimizer.nesterov is true but optimizer.momentum is 0; it must be "
                          "above 0 and below 1");
}

/* As for the optimizer: a factor of gradients that no other precision has. */
static void check_loss_scale(const mr_job_draft *draft, mr_job_errors *errors) {
    static const char *const fields[] = {"loss_scale.fixed", "loss_scale.initial",
                                         "loss_scale.window", "loss_scale.hysteresis",
                                         "loss_scale.min"};
    if (!good(draft, "precision"))
        return;
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        if (given(draft, fields[i]) && draft->job.precision != MR_DTYPE_F16)
            mr_job_errors_add(errors, line_of(draft, fields[i]),
                              "%s is given but precision is not fp16; it belongs to fp16",
                              fields[i]);
    const mr_loss_scale_rule *rule = &draft->job.loss_scale;
    if (good(draft, "loss_scale.initial") && good(draft, "loss_scale.min") &&
        rule->initial < rule->least)
        mr_job_errors_add(errors, line_of(draft, "loss_scale.initial"),
                          "loss_scale.initial is %g; it must be at least loss_scale.min, %g",
                          rule->initial, rule->least);
}

static void check_learning_rate(const mr_job_draft *draft, mr_job_errors *errors) {
    const mr_job *job = &draft->job;
    bool total = given(draft, "lr_schedule.total_steps");
    if (!good(draft, "lr_schedule.total_steps") || !good(draft, "model.loss"))
        return;
    if (total && good(draft, "lr_schedule.warmup_steps") && job->warmup_steps > job->total_steps)
        mr_job_errors_add(errors, line_of(draft, "lr_schedule.warmup_steps"),
                          "lr_schedule.warmup_steps is %llu; it must be at most %llu, the total "
                          "steps",
                          (unsigned long long)job->warmup_steps,
                          (unsigned long long)job->total_steps);
    if (good(draft, "lr_schedule.min_lr") && good(draft, "optimizer.lr") && job->min_lr > job->lr)
        mr_job_errors_add(errors, line_of(draft, "lr_schedule.min_lr"),
                          "lr_schedule.min_lr is %g; it must be at most optimizer.lr, %g",
                          job->min_lr, job->lr);
}

/* Token files need a model that takes tokens, and labels are tokens too. */
static void check_data(const mr_job_draft *draft, mr_job_errors *errors) {
    const mr_job *job = &draft->job;
    bool section = given(draft, "data.format") || given(draft, "data.shuffle");
    if (section && !given(draft, "data.train"))
        mr_job_errors_add(errors,
                          given(draft, "data.format") ? line_of(draft, "data.format")
                                                      : line_of(draft, "data.shuffle"),
                          "data.train is missing; it must name the files to train on");
    if (!given(draft, "data.train") || !good(draft, "data.format") ||
        !good(draft, "model.layers") || !good(draft, "model.loss"))
        return;
    const mr_layer_spec *first = &job->layers[0];
    if (first->type != MR_LAYER_TYPE_EMBEDDING)
        mr_job_errors_add(errors, first->line,
                          "data.train gives tokens but the first layer is %s; it must be an "
                          "embedding",
                          mr_layer_type_name(first->type));
    else if (job->data_format == MR_DATA_BYTES && first->vocab < BYTE_VALUES)
        mr_job_errors_add(errors, first->line,
                          "the embedding's vocab is %zu; data.format bytes needs at least %d",
                          first->vocab, BYTE_VALUES);
    if (job->loss == MR_LOSS_MSE)
        mr_job_errors_add(errors, line_of(draft, "model.loss"),
                          "model.loss is mse but data.train gives tokens as labels; it must be "
                          "cross_entropy");
}

/* Tokens go in at the embedding and come back as labels at the head. */
static void check_vocab(const mr_job_draft *draft, mr_job_errors *errors) {
    const mr_job *job = &draft->job;
    if (!good(draft, "model.layers") || !good(draft, "model.loss") ||
        job->loss != MR_LOSS_CROSS_ENTROPY)
        return;
    const mr_layer_spec *first = &job->layers[0];
    const mr_layer_spec *last = &job->layers[job->layer_count - 1];
    size_t classes = last->type == MR_LAYER_TYPE_LM_HEAD ? last->vocab : last->out;
    if (first->type == MR_LAYER_TYPE_EMBEDDING && given(draft, "data.train") && classes > 0 &&
        classes < first->vocab)
        mr_job_errors_add(errors, last->line,
                          "the last layer has %zu outputs; it must have at least %zu, the "
                          "embedding's vocab, because labels are tokens",
                          classes, first->vocab);
}

static void check_load(const mr_job_draft *draft, mr_job_errors *errors) {
    static const char *const needs_path[] = {"checkpoint.load.strict",
                                             "checkpoint.load.optimizer"};
    if (given(draft, "checkpoint.load.path")) {
        if (draft->job.load_optimizer && !draft->job.load_strict)
            mr_job_errors_add(errors, line_of(draft, "checkpoint.load.optimizer"),
                              "checkpoint.load.optimizer is true; it must be false where "
                              "checkpoint.load.strict is false, because a new parameter has no "
                              "state of that step");
        return;
    }
    for (size_t i = 0; i < sizeof(needs_path) / sizeof(needs_path[0]); i++)
        if (given(draft, needs_path[i]))
            mr_job_errors_add(errors, line_of(draft, needs_path[i]),
                              "checkpoint.load.path is missing; %s needs a checkpoint to load",
                              needs_path[i]);
}

static void check_checkpoint(const mr_job_draft *draft, mr_job_errors *errors) {
    static const char *const needs_dir[] = {"checkpoint.every_steps", "checkpoint.keep",
                                            "checkpoint.initial", "checkpoint.exclude_frozen"};
    check_load(draft, errors);
    if (given(draft, "checkpoint.dir"))
        return;
    for (size_t i = 0; i < sizeof(needs_dir) / sizeof(needs_dir[0]); i++) {
        if (!given(draft, needs_dir[i]))
            continue;
        mr_job_errors_add(errors, line_of(draft, needs_dir[i]),
                          "checkpoint.dir is missing; %s needs a folder to save in", needs_dir[i]);
        return;
    }
}

void mr_job_check(const mr_job_draft *draft, mr_job_errors *errors) {
    check_topology(draft, errors);
    check_pipeline_settings(draft, errors);
    check_partition(draft, errors);
    check_seeds(draft, errors);
    check_model(draft, errors);
    check_vocab(draft, errors);
    check_optimizer(draft, errors);
    check_loss_scale(draft, errors);
    check_learning_rate(draft, errors);
    check_data(draft, errors);
    check_checkpoint(draft, errors);
}
