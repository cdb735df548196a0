/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/stage/layer_store.h"

#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/checkpoint/catalog.h"
#include "daemon/checkpoint/safetensors.h"

enum { STORE_NAME_BYTES = 64 };

/* One file's tensors, with the names they carry there. */
typedef struct store_list {
    size_t count;
    mr_safetensors_tensor tensors[MR_OPTIMIZER_STATES_MAX * MR_LAYER_PARAMETERS_MAX];
    char names[MR_OPTIMIZER_STATES_MAX * MR_LAYER_PARAMETERS_MAX][STORE_NAME_BYTES];
    void *memory[MR_OPTIMIZER_STATES_MAX * MR_LAYER_PARAMETERS_MAX]; /* device memory of each */
} store_list;

/* prefix: of a state tensor; NULL for a weight. */
static void list_add(store_list *list, const char *prefix, const char *name,
                     const mr_tensor *tensor) {
    size_t at = list->count++;
    mr_safetensors_tensor *entry = &list->tensors[at];
    (void)snprintf(list->names[at], STORE_NAME_BYTES, "%s%s%s", prefix == NULL ? "" : prefix,
                   prefix == NULL ? "" : ".", name);
    *entry = (mr_safetensors_tensor){
        .name = list->names[at],
        .dtype = MR_SAFETENSORS_F32,
        .dims = (uint32_t)tensor->shape.dim_count,
        .data = tensor->data, /* host memory is device memory on the CPU device */
    };
    for (size_t i = 0; i < tensor->shape.dim_count; i++)
        entry->shape[i] = tensor->shape.dims[i];
    list->memory[at] = tensor->data;
}

/* The tensors of one layer's file of a kind: weights, or the optimizer's states one after the
 * other, each of all parameters. */
static void list_fill(store_list *list, const mr_parameters *parameters, size_t layer,
                      mr_layer_file kind) {
    const mr_layer_description *description = mr_parameters_layer(parameters, layer)->description;
    mr_optimizer_states states = mr_parameters_states(parameters);
    size_t passes = kind == MR_LAYER_FILE_MODEL ? 1 : states.count;
    list->count = 0;
    for (size_t pass = 0; pass < passes; pass++)
        for (size_t i = 0; i < description->parameter_count; i++) {
            const char *name = description->parameters[i].name;
            const mr_stage_parameter *held = mr_parameters_of_layer(parameters, layer, i);
            if (kind == MR_LAYER_FILE_MODEL)
                list_add(list, NULL, name, &held->weight);
            else if (!held->description->frozen)
                list_add(list, states.names[pass], name, &held->states[pass]);
        }
}

static mr_status store_save_layer(const char *folder, const mr_parameters *parameters, size_t layer,
                                  store_list *list, mr_layer_store_files *files) {
    uint32_t index = (uint32_t)mr_parameters_layer(parameters, layer)->index;
    for (int kind = 0; kind < MR_LAYER_FILE_COUNT; kind++) {
        char name[MR_NAME_BYTES];
        mr_layout_layer_name(index, 0, 1, (mr_layer_file)kind, name);
        list_fill(list, parameters, layer, (mr_layer_file)kind);
        if (list->count == 0)
            continue; /* an optimizer without state */
        MR_TRY(mr_safetensors_write(folder, name, list->tensors, list->count,
                                    &files->files[files->count]));
        files->count++;
    }
    return MR_OK;
}

static mr_status store_save_layers(const char *folder, const mr_parameters *parameters,
                                   const _Atomic bool *stop, store_list *list,
                                   mr_layer_store_files *files) {
    for (size_t i = 0; i < mr_parameters_layer_count(parameters); i++) {
        if (mr_parameters_layer(parameters, i)->description->parameter_count == 0)
            continue;
        if (*stop)
            return MR_ERROR(CANCELLED, "the save was abandoned before layer %zu",
                            mr_parameters_layer(parameters, i)->index);
        MR_TRY(store_save_layer(folder, parameters, i, list, files));
    }
    return MR_OK;
}

mr_status mr_layer_store_save(const mr_assignment *assignment, const mr_parameters *parameters,
                              const char *tag, uint64_t step, const _Atomic bool *stop,
                              mr_layer_store_files *out_files) {
    char folder[MR_PATH_BYTES];
    MR_TRY(mr_layout_save_path(assignment->checkpoint_dir, tag, assignment->epoch, step, folder,
                               sizeof(folder)));
    mr_layer_store_files files = {0};
    store_list *list = mr_alloc(sizeof(*list));
    files.files = mr_alloc_array(MR_LAYER_FILE_COUNT * mr_parameters_layer_count(parameters),
                                 sizeof(*files.files));
    mr_status status = MR_OK;
    if (list == NULL || files.files == NULL)
        status = MR_ERROR(RESOURCE_EXHAUSTED, "no memory to save %zu layers",
                          mr_parameters_layer_count(parameters));
    else
        status = store_save_layers(folder, parameters, stop, list, &files);
    mr_free(list);
    if (!mr_status_is_ok(status)) {
        mr_free(files.files);
        return status;
    }
    *out_files = files;
    return MR_OK;
}

/* A checkpoint of sgd without momentum has no files of state; the type alone does not tell. */
static mr_status store_check_state(const mr_manifest *manifest, const char *name,
                                   const mr_parameters *parameters) {
    if (mr_manifest_find(manifest, name) != NULL)
        return MR_OK;
    return MR_ERROR(FAILED_PRECONDITION, "the checkpoint of %s has no %s: there is no %s",
                    manifest->optimizer.type, mr_parameters_states(parameters).names[0], name);
}

static mr_status store_load_file(const mr_assignment *assignment, const mr_manifest *manifest,
                                 mr_parameters *parameters, size_t layer, mr_layer_file kind,
                                 store_list *list) {
    char name[MR_NAME_BYTES];
    mr_safetensors_reader *reader = NULL;
    mr_layout_layer_name((uint32_t)mr_parameters_layer(parameters, layer)->index, 0, 1, kind, name);
    list_fill(list, parameters, layer, kind);
    if (list->count == 0)
        return MR_OK; /* an optimizer without state */
    if (kind == MR_LAYER_FILE_OPTIM)
        MR_TRY(store_check_state(manifest, name, parameters));
    MR_TRY(mr_catalog_open_file(assignment->checkpoint_path, manifest, name, &reader));
    mr_status status = MR_OK;
    for (size_t i = 0; i < list->count && mr_status_is_ok(status); i++)
        status = mr_safetensors_load(reader, &list->tensors[i], list->memory[i]);
    mr_safetensors_close(reader);
    return mr_status_is_ok(status) ? status : mr_status_prefix(status, "%s", name);
}

static mr_status store_load_layers(const mr_assignment *assignment, const mr_manifest *manifest,
                                   mr_parameters *parameters, store_list *list) {
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
    store_list *list = mr_alloc(sizeof(*list));
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
