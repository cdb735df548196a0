/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/model/job.h"

#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/model/job_check.h"
#include "daemon/model/job_errors.h"
#include "daemon/model/job_reader.h"
#include "daemon/model/layer_type.h"
#include "daemon/model/model_hash.h"
#include "daemon/model/yaml_tree.h"

/* Reads and checks the document into the draft; errors counts what is wrong. */
static mr_status job_read_text(const char *text, size_t bytes, mr_job_draft *draft,
                               mr_job_errors *errors) {
    mr_yaml_tree *tree = NULL;
    size_t line = 0;
    mr_status status = mr_yaml_tree_parse(text, bytes, &tree, &line);
    if (status.code == MR_CODE_INVALID_ARGUMENT)
        mr_job_errors_add(errors, line, "%s", status.text);
    else if (!mr_status_is_ok(status))
        return status;
    if (tree != NULL) {
        const mr_yaml_node *root = mr_yaml_tree_root(tree);
        (void)mr_job_read(root, draft, errors); /* its errors are in the list */
        if (root->kind == MR_YAML_MAP)
            mr_job_check(draft, errors);
        mr_yaml_tree_destroy(tree);
    }
    mr_job_errors_sort(errors);
    return errors->count > 0 ? mr_job_errors_status(errors) : MR_OK;
}

mr_status mr_job_parse(const char *text, size_t bytes, mr_job **out_job, mr_job_errors *errors) {
    mr_job_errors own_errors;
    mr_status status = MR_OK;
    mr_job_draft *draft = mr_alloc(sizeof(*draft));
    mr_job *job = mr_alloc(sizeof(*job));
    if (errors == NULL)
        errors = &own_errors;
    errors->count = 0;
    MR_TRY_GOTO(status, mr_layer_types_status(), out);
    MR_TRY_GOTO(status, mr_seed_functions_status(), out);
    if (draft == NULL || job == NULL) {
        status = MR_ERROR(RESOURCE_EXHAUSTED, "no memory to read a job file of %zu bytes", bytes);
        goto out;
    }
    MR_TRY_GOTO(status, job_read_text(text, bytes, draft, errors), out);
    MR_TRY_GOTO(status,
                mr_model_hash(draft->job.layers, draft->job.layer_count, draft->job.model_hash),
                out);
    *job = draft->job;
    draft->job.layers = NULL; /* now the job's */
    draft->job.bounds = NULL;
    draft->job.weights = NULL;
    *out_job = job;
    job = NULL;
out:
    if (draft != NULL)
        mr_job_draft_deinit(draft);
    mr_free(draft);
    mr_free(job);
    return status;
}

void mr_job_destroy(mr_job *job) {
    if (job == NULL)
        return;
    mr_free(job->layers);
    mr_free(job->bounds);
    mr_free(job->weights);
    mr_free(job);
}

/* Width of the input, from the first layer that has one; 0: none has. */
static size_t job_input_width(const mr_job *job) {
    for (size_t i = 0; i < job->layer_count; i++) {
        const mr_layer_spec *spec = &job->layers[i];
        const mr_layer_type_row *row = mr_layer_type_row_of(spec->type);
        size_t width = row->input_width == NULL ? 0 : row->input_width(spec);
        if (width > 0)
            return width;
    }
    return 0;
}

bool mr_job_saves_parameter(const mr_job *job, const mr_parameter *parameter) {
    return !job->exclude_frozen || !parameter->frozen;
}

bool mr_job_saves_layer(const mr_job *job, const mr_layer_description *description) {
    for (size_t i = 0; i < description->parameter_count; i++)
        if (mr_job_saves_parameter(job, &description->parameters[i]))
            return true;
    return false;
}

bool mr_job_layer_is_checkpointable(const mr_job *job, size_t index) {
    MR_ASSERT(index < job->layer_count);
    return job->checkpointable == 0 || (job->checkpointable >> job->layers[index].type & 1) != 0;
}

uint64_t mr_job_build_seed(const mr_job *job, size_t layer) {
    return job->seed_function == NULL ? job->seed
                                      : job->seed_function(mr_seed_build(job->seed, layer));
}

uint64_t mr_job_forward_seed(const mr_job *job, size_t layer, uint64_t call) {
    return job->seed_function == NULL
               ? job->seed
               : job->seed_function(mr_seed_forward(job->seed, call, layer));
}

mr_shape mr_job_input_shape(const mr_job *job) {
    size_t B = job->micro_batch_size;
    size_t T = job->sequence_length;
    if (job->layer_count > 0 && job->layers[0].type == MR_LAYER_TYPE_EMBEDDING)
        return (mr_shape){.dtype = MR_DTYPE_I32, .dim_count = 2, .dims = {B, T}};
    if (job->input_dims > 0) {
        mr_shape shape = {.dtype = MR_DTYPE_F32, .dim_count = 1 + job->input_dims, .dims = {B}};
        memcpy(&shape.dims[1], job->input, job->input_dims * sizeof(shape.dims[0]));
        return shape;
    }
    size_t width = job_input_width(job);
    if (job->block_count > 0)
        return (mr_shape){.dtype = MR_DTYPE_F32, .dim_count = 3, .dims = {B, T, width}};
    return (mr_shape){.dtype = MR_DTYPE_F32, .dim_count = 2, .dims = {B, width}};
}

/* The layer as one model rank holds it, where the model axis has more than one. */
static mr_layer_spec job_shard(const mr_job *job, size_t layer, size_t model_rank) {
    mr_layer_spec spec = job->layers[layer];
    spec.model_rank = model_rank;
    spec.model_width = job->model;
    return spec;
}

/* Describes the layers in order, or with shards given those of its model rank; what leaves the last
 * one goes to *out_output, each description to out unless it is NULL. */
static mr_status job_describe(const mr_job *job, const size_t *shards, mr_layer_description *out,
                              mr_shape *out_output) {
    mr_shape shape = mr_job_input_shape(job);
    for (size_t i = 0; i < job->layer_count; i++) {
        mr_layer_description description;
        mr_layer_spec spec = shards == NULL ? job->layers[i] : job_shard(job, i, *shards);
        mr_status status = mr_layer_describe(&spec, &shape, job->block_count, &description);
        if (!mr_status_is_ok(status))
            return mr_status_prefix(status, "layer %zu (%s)", i,
                                    mr_layer_type_name(job->layers[i].type));
        shape = description.output;
        if (out != NULL)
            out[i] = description;
    }
    *out_output = shape;
    return MR_OK;
}

mr_status mr_job_describe(const mr_job *job, mr_layer_description *out) {
    mr_shape output;
    return job_describe(job, NULL, out, &output);
}

mr_status mr_job_describe_shards(const mr_job *job, size_t model_rank, mr_layer_description *out) {
    mr_shape output;
    return job_describe(job, &model_rank, out, &output);
}

void mr_job_become_shard(mr_job *job, size_t model_rank) {
    MR_ASSERT(model_rank < job->model);
    for (size_t i = 0; i < job->layer_count; i++)
        job->layers[i] = job_shard(job, i, model_rank);
}

mr_status mr_job_label_shape(const mr_job *job, mr_shape *out_shape) {
    mr_shape output;
    if (job->loss == MR_LOSS_NONE)
        return MR_ERROR(FAILED_PRECONDITION, "model.loss is none, so the job has no labels");
    MR_TRY(job_describe(job, NULL, NULL, &output));
    output.needs_gradient = false;
    output.dtype = MR_DTYPE_F32;
    if (job->loss == MR_LOSS_CROSS_ENTROPY) {
        output.dtype = MR_DTYPE_I32; /* one class for each row of logits */
        output.dims[--output.dim_count] = 0;
    }
    *out_shape = output;
    return MR_OK;
}

mr_status mr_job_resolve_path(const char *base_directory, const char *path,
                              char out_path[MR_PATH_BYTES]) {
    bool absolute = path[0] == '/' || base_directory[0] == '\0';
    const char *gap = base_directory[strlen(base_directory) - !absolute] == '/' ? "" : "/";
    size_t bytes = strlen(path);
    if (!absolute)
        bytes += strlen(base_directory) + strlen(gap);
    if (bytes >= MR_PATH_BYTES)
        return MR_ERROR(INVALID_ARGUMENT, "a path has %zu bytes; it may have at most %d", bytes,
                        MR_PATH_BYTES - 1);
    if (absolute)
        (void)snprintf(out_path, MR_PATH_BYTES, "%s", path);
    else
        (void)snprintf(out_path, MR_PATH_BYTES, "%s%s%s", base_directory, gap, path);
    return MR_OK;
}
