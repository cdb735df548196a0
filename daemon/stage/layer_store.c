/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/stage/layer_store.h"

#include <inttypes.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/checkpoint/layer_reader.h"
#include "daemon/stage/layer_tensors.h"

/* One load: what it reads from and where it puts it. */
typedef struct store_work {
    const mr_assignment *assignment;
    const char *path; /* of the checkpoint */
    const mr_manifest *manifest;
    mr_layer_files files; /* of the manifest */
    mr_parameters *parameters;
    bool weights_only;
    bool lenient; /* what is not there, or has another shape, stays as it was drawn */
    mr_layer_tensors list;
} store_work;

/* This rank's shard of a tensor, brought whole into host memory; the given part of it is held. */
static mr_status store_load_part(const store_work *work, mr_layer_reader *reader, size_t index,
                                 mr_parameter_part part) {
    mr_device *device = mr_parameters_device(work->parameters);
    float *whole = mr_alloc(mr_layer_tensors_bytes(&work->list, index));
    if (whole == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the %zu bytes of %s",
                        mr_layer_tensors_bytes(&work->list, index), work->list.names[index]);
    mr_status status =
        mr_layer_reader_load(reader, work->list.names[index],
                             work->list.parameters[index]->description,
                             work->assignment->model_rank, work->assignment->job->model, whole);
    if (mr_status_is_ok(status) && part.count > 0)
        device->ops->copy_in(device, work->list.held[index]->data, whole + part.first,
                             part.count * sizeof(float));
    mr_free(whole);
    return status;
}

/* A weight whole; of a state what this replica holds. Every tensor is read, even one of which this
 * replica holds nothing: a damaged file is found by all. */
static mr_status store_load_tensor(const store_work *work, mr_layer_reader *reader, size_t index,
                                   mr_layer_file kind) {
    const size_t whole = mr_layer_tensors_bytes(&work->list, index);
    mr_parameter_part part = {.count = whole / sizeof(float)};
    if (kind == MR_LAYER_FILE_OPTIM)
        part = work->list.parameters[index]->part;
    if (part.count * sizeof(float) != whole ||
        !mr_parameters_device(work->parameters)->ops->host_memory)
        return store_load_part(work, reader, index, part);
    return mr_layer_reader_load(reader, work->list.names[index],
                                work->list.parameters[index]->description,
                                work->assignment->model_rank, work->assignment->job->model,
                                work->list.held[index]->data);
}

/* Is this tensor to be loaded? In a lenient load, if the layer's file has it in its shape, and if
 * it is this layer that a tied one comes from: the tie's first layer gives it to all, whichever
 * stages hold them. What the job's checkpoints may leave out, if it is there. All else, always. */
static mr_status store_wants(const store_work *work, mr_layer_reader *reader, size_t layer,
                             size_t index, bool *out_wants) {
    const mr_stage_parameter *held = work->list.parameters[index];
    bool optional = !mr_job_saves_parameter(work->assignment->job, held->description);
    mr_layer_reader_match match = {0};
    *out_wants = !work->lenient && !optional;
    if (*out_wants || (work->lenient && held->tie != NULL && held->init_layer != layer))
        return MR_OK;
    MR_TRY(mr_layer_reader_compare(reader, work->list.names[index], held->description,
                                   work->assignment->model_rank, work->assignment->job->model,
                                   &match));
    *out_wants = work->lenient ? match.fits : match.found;
    return MR_OK;
}

static mr_status store_load_tensors(const store_work *work, mr_layer_reader *reader, size_t layer,
                                    mr_layer_file kind) {
    for (size_t i = 0; i < work->list.count; i++) {
        bool wants = true;
        MR_TRY(store_wants(work, reader, layer, i, &wants));
        if (wants)
            MR_TRY(store_load_tensor(work, reader, i, kind));
    }
    return MR_OK;
}

/* A checkpoint of sgd without momentum has no files of state; the type alone does not tell. */
static mr_status store_check_state(const store_work *work, uint32_t layer) {
    char name[MR_NAME_BYTES];
    const mr_layer_files_entry *first = NULL;
    size_t width = 0;
    MR_TRY(mr_layer_files_of(&work->files, layer, MR_LAYER_FILE_OPTIM, &first, &width));
    if (width > 0)
        return MR_OK;
    mr_layout_layer_name(layer, 0, 1, MR_LAYER_FILE_OPTIM, name);
    return MR_ERROR(FAILED_PRECONDITION, "the checkpoint of %s has no %s: there is no %s",
                    work->manifest->optimizer.type,
                    mr_parameters_states(work->parameters).names[0], name);
}

/* May the checkpoint have no file of the layer's weights? */
static bool store_may_lack(const store_work *work, size_t layer) {
    return work->lenient ||
           !mr_job_saves_layer(work->assignment->job,
                               mr_parameters_layer(work->parameters, layer)->description);
}

static mr_status store_load_file(store_work *work, size_t layer, mr_layer_file kind) {
    mr_layer_reader *reader = NULL;
    const mr_layer_reader_options options = {
        .path = work->path,
        .manifest = work->manifest,
        .files = &work->files,
        .layer = (uint32_t)mr_parameters_layer(work->parameters, layer)->index,
        .kind = kind,
    };
    mr_layer_tensors_fill(&work->list, work->parameters, layer, kind);
    if (work->list.count == 0)
        return MR_OK; /* an optimizer without state */
    if (kind == MR_LAYER_FILE_OPTIM)
        MR_TRY(store_check_state(work, options.layer));
    mr_status status = mr_layer_reader_open(&options, &reader);
    if (status.code == MR_CODE_FAILED_PRECONDITION && store_may_lack(work, layer))
        return MR_OK;
    MR_TRY(status);
    status = store_load_tensors(work, reader, options.layer, kind);
    mr_layer_reader_close(reader);
    return mr_status_is_ok(status) ? status
                                   : mr_status_prefix(status, "layer %" PRIu32, options.layer);
}

static bool store_takes_state(const store_work *work) {
    return mr_parameters_training(work->parameters) && !work->weights_only;
}

static mr_status store_load_layers(store_work *work) {
    for (size_t i = 0; i < mr_parameters_layer_count(work->parameters); i++) {
        if (mr_parameters_layer(work->parameters, i)->description->parameter_count == 0)
            continue;
        MR_TRY(store_load_file(work, i, MR_LAYER_FILE_MODEL));
        if (store_takes_state(work))
            MR_TRY(store_load_file(work, i, MR_LAYER_FILE_OPTIM));
    }
    return MR_OK;
}

/* The manifest's model and, where training goes on, its optimizer are the job's. */
static mr_status store_check_manifest(const mr_job *job, bool training,
                                      const mr_manifest *manifest) {
    const char *optimizer = mr_optimizer_name(job->optimizer);
    if (strcmp(manifest->model_hash, job->model_hash) != 0)
        return MR_ERROR(FAILED_PRECONDITION,
                        "the checkpoint is of another model: its hash is %.16s, the job's %.16s",
                        manifest->model_hash, job->model_hash);
    if (training && strcmp(manifest->optimizer.type, optimizer) != 0)
        return MR_ERROR(FAILED_PRECONDITION,
                        "optimizer.type is %s but the checkpoint has the state of %s", optimizer,
                        manifest->optimizer.type);
    return MR_OK;
}

static mr_status store_load(store_work *work) {
    if (!work->lenient)
        MR_TRY(store_check_manifest(work->assignment->job, store_takes_state(work),
                                    work->manifest));
    MR_TRY(mr_layer_files_list(work->manifest, &work->files));
    mr_status status = store_load_layers(work);
    mr_layer_files_deinit(&work->files);
    return status;
}

/* Loads what the checkpoint at path has; *out_manifest (of the caller) is its manifest. */
static mr_status store_load_path(const mr_assignment *assignment, mr_parameters *parameters,
                                 const char *path, bool weights_only, mr_manifest *out_manifest) {
    mr_status status = MR_OK;
    store_work *work = mr_alloc(sizeof(*work));
    if (work == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to load a checkpoint");
    MR_TRY_GOTO(status, mr_manifest_read(path, out_manifest), out);
    work->assignment = assignment;
    work->path = path;
    work->manifest = out_manifest;
    work->parameters = parameters;
    work->weights_only = weights_only;
    work->lenient = weights_only && !assignment->job->load_strict;
    status = store_load(work);
out:
    mr_free(work);
    return status;
}

/* Where the job started, for what its own checkpoints may leave out: the weights as drawn, and over
 * them those of checkpoint.load. */
static mr_status store_load_base(const mr_assignment *assignment, mr_parameters *parameters) {
    mr_manifest manifest = {0};
    bool lenient = assignment->weights_only && !assignment->job->load_strict;
    if (!lenient && !assignment->job->exclude_frozen)
        return MR_OK;
    MR_TRY(mr_parameters_draw(parameters));
    if (assignment->weights_only || assignment->load_path[0] == '\0')
        return MR_OK;
    mr_status status =
        store_load_path(assignment, parameters, assignment->load_path, true, &manifest);
    mr_manifest_deinit(&manifest);
    return mr_status_is_ok(status) ? status : mr_status_prefix(status, "checkpoint.load.path");
}

mr_status mr_layer_store_load(const mr_assignment *assignment, mr_parameters *parameters,
                              uint64_t *out_step, mr_applied *out_applied) {
    mr_manifest manifest = {0};
    MR_TRY(store_load_base(assignment, parameters));
    mr_status status = store_load_path(assignment, parameters, assignment->checkpoint_path,
                                       assignment->weights_only, &manifest);
    if (mr_status_is_ok(status) && !assignment->weights_only) {
        *out_step = manifest.step;
        out_applied->steps = manifest.optimizer.steps;
        if (assignment->job->precision == MR_DTYPE_F16 && manifest.optimizer.loss_scale.scale > 0)
            out_applied->loss_scale = manifest.optimizer.loss_scale;
    }
    mr_manifest_deinit(&manifest);
    return status;
}
