/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/checkpoint/import.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "daemon/base/alloc.h"
#include "daemon/checkpoint/catalog.h"
#include "daemon/checkpoint/file.h"
#include "daemon/checkpoint/slice.h"

typedef struct import_work {
    const mr_import_options *options;
    mr_layer_description *layers;
    char folder[MR_CHECKPOINT_PATH_BYTES]; /* the save's */
    mr_checkpoint_file *made;
    size_t made_count;
    /* the layer at hand */
    float *values[MR_LAYER_PARAMETERS_MAX];
    char cuts[MR_LAYER_PARAMETERS_MAX][MR_SLICE_TEXT_BYTES];
    mr_safetensors_tensor tensors[MR_LAYER_PARAMETERS_MAX];
} import_work;

static mr_status import_open(const import_work *work, size_t layer,
                             mr_safetensors_reader **out_reader) {
    char name[MR_NAME_BYTES];
    char path[MR_CHECKPOINT_PATH_BYTES];
    mr_layout_layer_name((uint32_t)layer, 0, 1, MR_LAYER_FILE_MODEL, name);
    MR_TRY(mr_layout_join(work->options->source, name, path, sizeof(path)));
    mr_status status = mr_safetensors_open(path, out_reader);
    return status.code == MR_CODE_NOT_FOUND
               ? MR_ERROR(NOT_FOUND, "layer %zu: %s is missing", layer, name)
               : status;
}

/* ---- one layer ---- */

/* The layer that a tied parameter comes from. */
static size_t import_tie_first(const mr_job *job, size_t layer) {
    size_t first = 0;
    while (strcmp(job->layers[first].tie, job->layers[layer].tie) != 0)
        first++;
    return first;
}

static void import_tensor(const mr_parameter *parameter, const char *name,
                          mr_safetensors_tensor *out) {
    *out = (mr_safetensors_tensor){.name = name,
                                   .dtype = MR_SAFETENSORS_F32,
                                   .dims = (uint32_t)parameter->whole.dim_count};
    for (size_t i = 0; i < parameter->whole.dim_count; i++)
        out->shape[i] = parameter->whole.dims[i];
}

/* Reads the tensor of that name, in parameter's shape. */
static mr_status import_read(const mr_safetensors_reader *reader, const char *name,
                             const mr_parameter *parameter, size_t layer, float *out) {
    mr_safetensors_tensor wanted;
    import_tensor(parameter, name, &wanted);
    mr_status status = mr_safetensors_load(reader, &wanted, out);
    if (status.code == MR_CODE_DATA_LOSS) /* what is asked for is the job's affair, no damage */
        status.code = MR_CODE_FAILED_PRECONDITION;
    return mr_status_is_ok(status) ? status : mr_status_prefix(status, "layer %zu", layer);
}

/* The tied parameter of a layer whose file lacks it, from the tie's first layer. */
static mr_status import_read_tied(const import_work *work, const mr_parameter *parameter,
                                  size_t layer, float *out) {
    mr_safetensors_reader *reader = NULL;
    size_t first = import_tie_first(work->options->job, layer);
    const mr_parameter *source = mr_layer_description_tied(&work->layers[first],
                                                           parameter->tie_slot);
    MR_TRY(import_open(work, first, &reader));
    mr_status status = import_read(reader, source->name, parameter, first, out);
    mr_safetensors_close(reader);
    return status;
}

static bool import_follows(const import_work *work, const mr_parameter *parameter, size_t layer) {
    return parameter->tied && import_tie_first(work->options->job, layer) != layer;
}

/* reader: of the layer's own file; NULL where it has none. */
static mr_status import_parameter(import_work *work, const mr_safetensors_reader *reader,
                                  size_t layer, size_t index) {
    const mr_parameter *parameter = &work->layers[layer].parameters[index];
    size_t elements = 0;
    MR_ASSERT(mr_shape_elements(&parameter->whole, &elements)); /* described, so it fits */
    float *values = mr_alloc_array(elements, sizeof(float));
    if (values == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the %zu elements of %s", elements,
                        parameter->name);
    mr_free(work->values[index]);
    work->values[index] = values;
    bool absent = reader == NULL || mr_safetensors_find(reader, parameter->name) == NULL;
    if (absent && import_follows(work, parameter, layer))
        MR_TRY(import_read_tied(work, parameter, layer, values));
    else
        MR_TRY(import_read(reader, parameter->name, parameter, layer, values));
    mr_slice_text(parameter, work->cuts[index]);
    import_tensor(parameter, parameter->name, &work->tensors[index]);
    work->tensors[index].data = values;
    work->tensors[index].cut = work->cuts[index];
    return MR_OK;
}

static mr_status import_check_rest(const mr_safetensors_reader *reader,
                                   const mr_layer_description *description, size_t layer) {
    for (size_t i = 0; i < mr_safetensors_count(reader); i++) {
        const char *name = mr_safetensors_at(reader, i)->name;
        size_t at = 0;
        while (at < description->parameter_count &&
               strcmp(description->parameters[at].name, name) != 0)
            at++;
        if (at == description->parameter_count)
            return MR_ERROR(FAILED_PRECONDITION, "layer %zu: %.60s is not the job's", layer, name);
    }
    return MR_OK;
}

static mr_status import_layer_from(import_work *work, const mr_safetensors_reader *reader,
                                   size_t layer) {
    const mr_layer_description *description = &work->layers[layer];
    char name[MR_NAME_BYTES];
    for (size_t i = 0; i < description->parameter_count; i++)
        MR_TRY(import_parameter(work, reader, layer, i));
    if (reader != NULL)
        MR_TRY(import_check_rest(reader, description, layer));
    mr_layout_layer_name((uint32_t)layer, 0, 1, MR_LAYER_FILE_MODEL, name);
    MR_TRY(mr_safetensors_write(work->folder, name, work->tensors, description->parameter_count,
                                &work->made[work->made_count]));
    work->made_count++;
    return MR_OK;
}

static mr_status import_layer(import_work *work, size_t layer) {
    const mr_layer_description *description = &work->layers[layer];
    mr_safetensors_reader *reader = NULL;
    bool follows = true; /* may the layer have no file at all? */
    if (description->parameter_count == 0)
        return MR_OK;
    for (size_t i = 0; i < description->parameter_count; i++)
        follows = follows && import_follows(work, &description->parameters[i], layer);
    mr_status status = import_open(work, layer, &reader);
    if (!follows || status.code != MR_CODE_NOT_FOUND)
        MR_TRY(status);
    status = import_layer_from(work, reader, layer);
    mr_safetensors_close(reader);
    return status;
}

/* ---- the whole ---- */

/* Files of layers that the job does not have. */
static mr_status import_check_folder(const import_work *work) {
    DIR *folder = opendir(work->options->source);
    if (folder == NULL)
        return mr_file_error(errno, "open", work->options->source);
    mr_status status = MR_OK;
    struct dirent *entry;
    while (mr_status_is_ok(status) && (entry = readdir(folder)) != NULL) {
        uint32_t layer = 0;
        bool has_model = false;
        mr_layer_file kind = MR_LAYER_FILE_MODEL;
        if (!mr_layout_layer_parse(entry->d_name, &layer, &has_model, NULL, &kind))
            continue;
        if (has_model || kind != MR_LAYER_FILE_MODEL || layer >= work->options->job->layer_count ||
            work->layers[layer].parameter_count == 0)
            status = MR_ERROR(FAILED_PRECONDITION,
                              "%.60s is no file of a whole layer of the job, which has %zu layers",
                              entry->d_name, work->options->job->layer_count);
    }
    (void)closedir(folder); /* read only */
    return status;
}

static mr_status import_prepare(import_work *work) {
    const mr_import_options *options = work->options;
    char path[MR_CHECKPOINT_PATH_BYTES];
    struct stat facts;
    MR_TRY(mr_layout_user_tag_check(options->tag));
    MR_TRY(mr_layout_join(options->dir, options->tag, path, sizeof(path)));
    if (lstat(path, &facts) == 0)
        return MR_ERROR(ALREADY_EXISTS, "%s stands already in %.120s; it is not replaced",
                        options->tag, options->dir);
    work->layers = mr_alloc_array(options->job->layer_count, sizeof(*work->layers));
    work->made = mr_alloc_array(options->job->layer_count, sizeof(*work->made));
    if (work->layers == NULL || work->made == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu layers", options->job->layer_count);
    MR_TRY(mr_job_describe(options->job, work->layers));
    MR_TRY(mr_layout_save_path(options->dir, options->tag, 0, 0, work->folder,
                               sizeof(work->folder)));
    return import_check_folder(work);
}

static mr_status import_commit(const import_work *work) {
    const mr_job *job = work->options->job;
    mr_manifest manifest = {.optimizer = {.lr = 0}};
    (void)snprintf(manifest.job, sizeof(manifest.job), "%s", job->name);
    memcpy(manifest.model_hash, job->model_hash, sizeof(manifest.model_hash));
    (void)snprintf(manifest.optimizer.type, sizeof(manifest.optimizer.type), "%s",
                   mr_optimizer_name(job->optimizer));
    manifest.files = work->made;
    manifest.file_count = work->made_count;
    mr_status advisory = MR_OK; /* `latest` is only a hint */
    return mr_manifest_commit(work->options->dir, work->options->tag, &manifest, &advisory);
}

static mr_status import_discard(const import_work *work) {
    return mr_catalog_discard(work->options->dir, work->options->tag, 0, 0);
}

static mr_status import_run(import_work *work) {
    MR_TRY(import_discard(work)); /* of one that died */
    for (size_t i = 0; i < work->options->job->layer_count; i++)
        MR_TRY(import_layer(work, i));
    return import_commit(work);
}

mr_status mr_import(const mr_import_options *options, mr_import_result *out_result) {
    import_work *work = mr_alloc(sizeof(*work));
    if (work == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to import %.120s", options->source);
    work->options = options;
    mr_status status = import_prepare(work);
    if (mr_status_is_ok(status)) {
        status = import_run(work);
        if (!mr_status_is_ok(status) && !mr_status_is_ok(import_discard(work)))
            status = mr_status_prefix(status, "files are left in %s", work->folder);
    }
    if (mr_status_is_ok(status)) {
        *out_result = (mr_import_result){.file_count = work->made_count};
        for (size_t i = 0; i < work->made_count; i++)
            out_result->bytes += work->made[i].bytes;
    }
    for (size_t i = 0; i < MR_LAYER_PARAMETERS_MAX; i++)
        mr_free(work->values[i]);
    mr_free(work->made);
    mr_free(work->layers);
    mr_free(work);
    return status;
}
