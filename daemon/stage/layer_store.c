/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/stage/layer_store.h"

#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/checkpoint/catalog.h"
#include "daemon/stage/layer_tensors.h"

/* A checkpoint of sgd without momentum has no files of state; the type alone does not tell. */
static mr_status store_check_state(const mr_manifest *manifest, const char *name,
                                   const mr_parameters *parameters) {
    if (mr_manifest_find(manifest, name) != NULL)
        return MR_OK;
    return MR_ERROR(FAILED_PRECONDITION, "the checkpoint of %s has no %s: there is no %s",
                    manifest->optimizer.type, mr_parameters_states(parameters).names[0], name);
}

/* A weight whole; of a state the part that this replica holds. Every tensor is looked at, even one
 * of which this replica holds nothing: a damaged file is found by all. */
static mr_status store_load_tensor(const mr_safetensors_reader *reader,
                                   const mr_layer_tensors *list, size_t index,
                                   mr_layer_file kind) {
    const mr_safetensors_tensor *wanted = &list->tensors[index];
    const mr_parameter_part *part = &list->parameters[index]->part;
    size_t bytes = part->count * sizeof(float);
    if (kind == MR_LAYER_FILE_MODEL || bytes == mr_layer_tensors_bytes(list, index))
        return mr_safetensors_load(reader, wanted, list->held[index]->data);
    const mr_safetensors_tensor *found = NULL;
    MR_TRY(mr_safetensors_expect(reader, wanted, &found));
    if (bytes == 0)
        return MR_OK;
    return mr_safetensors_read(reader, found, part->first * sizeof(float),
                               list->held[index]->data, bytes);
}

static mr_status store_load_file(const mr_assignment *assignment, const mr_manifest *manifest,
                                 mr_parameters *parameters, size_t layer, mr_layer_file kind,
                                 mr_layer_tensors *list) {
    char name[MR_NAME_BYTES];
    mr_safetensors_reader *reader = NULL;
    mr_layout_layer_name((uint32_t)mr_parameters_layer(parameters, layer)->index,
                         assignment->model_rank, (uint32_t)assignment->job->model, kind, name);
    mr_layer_tensors_fill(list, parameters, layer, kind);
    if (list->count == 0)
        return MR_OK; /* an optimizer without state */
    if (kind == MR_LAYER_FILE_OPTIM)
        MR_TRY(store_check_state(manifest, name, parameters));
    MR_TRY(mr_catalog_open_file(assignment->checkpoint_path, manifest, name, &reader));
    mr_status status = MR_OK;
    for (size_t i = 0; i < list->count && mr_status_is_ok(status); i++)
        status = store_load_tensor(reader, list, i, kind);
    mr_safetensors_close(reader);
    return mr_status_is_ok(status) ? status : mr_status_prefix(status, "%s", name);
}

static mr_status store_load_layers(const mr_assignment *assignment, const mr_manifest *manifest,
                                   mr_parameters *parameters, mr_layer_tensors *list) {
    for (size_t i = 0; i < mr_parameters_layer_count(parameters); i++) {
        if (mr_parameters_layer(parameters, i)->description->parameter_count == 0)
            continue;
        MR_TRY(store_load_file(assignment, manifest, parameters, i, MR_LAYER_FILE_MODEL, list));
        if (mr_parameters_training(parameters))
            MR_TRY(store_load_file(assignment, manifest, parameters, i, MR_LAYER_FILE_OPTIM, list));
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

mr_status mr_layer_store_load(const mr_assignment *assignment, mr_parameters *parameters,
                              uint64_t *out_step) {
    mr_manifest manifest = {0};
    MR_TRY(mr_manifest_read(assignment->checkpoint_path, &manifest));
    mr_status status = MR_OK;
    mr_layer_tensors *list = mr_alloc(sizeof(*list));
    if (list == NULL)
        status = MR_ERROR(RESOURCE_EXHAUSTED, "no memory to load a checkpoint");
    else
        status = store_check_manifest(assignment->job, mr_parameters_training(parameters),
                                      &manifest);
    if (mr_status_is_ok(status))
        status = store_load_layers(assignment, &manifest, parameters, list);
    if (mr_status_is_ok(status))
        *out_step = manifest.optimizer.steps;
    mr_free(list);
    mr_manifest_deinit(&manifest);
    return status;
}
