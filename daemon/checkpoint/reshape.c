/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/checkpoint/reshape.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "daemon/base/alloc.h"
#include "daemon/checkpoint/catalog.h"
#include "daemon/checkpoint/layer_reader.h"
#include "daemon/checkpoint/slice.h"

/* One tensor of a layer as the new files hold it. */
typedef struct reshape_tensor {
    const char *name; /* of the source's reader */
    mr_parameter parameter;
    char cut[MR_SLICE_TEXT_BYTES];
} reshape_tensor;

typedef struct reshape_work {
    const mr_reshape_options *options;
    mr_manifest manifest; /* of the source */
    mr_layer_files files; /* of the source */
    size_t from_width;
    char folder[MR_CHECKPOINT_PATH_BYTES]; /* the save's */
    mr_checkpoint_file *made;
    size_t made_count;
    /* of the layer at hand */
    mr_layer_reader *reader;
    reshape_tensor *tensors;
    mr_safetensors_tensor *list;
    size_t tensor_count;
    float *shard;
    float *other;
    size_t shard_elements; /* that shard and other have room for */
} reshape_work;

/* ---- how a tensor is cut ---- */

/* The parameter behind a tensor: of a state what follows its name. */
static const mr_parameter *described(const reshape_work *work, const mr_layer_files_entry *entry,
                                     const char *name) {
    const mr_reshape_options *options = work->options;
    if (options->descriptions == NULL || entry->layer >= options->layer_count)
        return NULL;
    const char *point = entry->kind == MR_LAYER_FILE_OPTIM ? strchr(name, '.') : NULL;
    const mr_layer_description *layer = &options->descriptions[entry->layer];
    for (size_t i = 0; i < layer->parameter_count; i++)
        if (strcmp(layer->parameters[i].name, point == NULL ? name : point + 1) == 0)
            return &layer->parameters[i];
    return NULL;
}

static mr_status tensor_prepare(reshape_work *work, const mr_layer_files_entry *entry,
                                const char *name, reshape_tensor *out) {
    bool known = false;
    out->name = name;
    MR_TRY(mr_layer_reader_cut(work->reader, 0, name, &out->parameter, &known));
    if (!known) {
        const mr_parameter *parameter = described(work, entry, name);
        if (parameter == NULL)
            return MR_ERROR(FAILED_PRECONDITION,
                            "the file does not say how %.60s is cut over model ranks, and no job "
                            "file says it",
                            name);
        out->parameter = *parameter;
    }
    mr_slice_text(&out->parameter, out->cut);
    return MR_OK;
}

static mr_status shard_room(reshape_work *work, const mr_shape *shape) {
    size_t elements = 0;
    MR_ASSERT(mr_shape_elements(shape, &elements)); /* of a shape whose whole has been checked */
    if (elements <= work->shard_elements)
        return MR_OK;
    mr_free(work->shard);
    mr_free(work->other);
    work->shard_elements = 0;
    work->shard = mr_alloc_array(elements, sizeof(float));
    work->other = mr_alloc_array(elements, sizeof(float));
    if (work->shard == NULL || work->other == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a shard of %zu elements", elements);
    work->shard_elements = elements;
    return MR_OK;
}

/* What every rank of the source holds whole must be the same with all of them.
 */
static mr_status tensor_compare(reshape_work *work, const reshape_tensor *tensor) {
    size_t elements = 0;
    if (tensor->parameter.cut != MR_MODEL_CUT_NONE)
        return MR_OK;
    MR_TRY(shard_room(work, &tensor->parameter.whole));
    MR_ASSERT(mr_shape_elements(&tensor->parameter.whole, &elements));
    for (size_t rank = 0; rank < work->from_width; rank++) {
        float *out = rank == 0 ? work->shard : work->other;
        MR_TRY(mr_layer_reader_load(work->reader, tensor->name, &tensor->parameter, rank,
                                    work->from_width, out));
        if (rank > 0 && memcmp(work->shard, out, elements * sizeof(float)) != 0)
            return MR_ERROR(DATA_LOSS,
                            "E_CKPT_REPLICA tensor=%.60s: model ranks 0 and %zu hold different "
                            "values of it",
                            tensor->name, rank);
    }
    return MR_OK;
}

/* ---- one layer ---- */

/* The tensors of the layer, from its first file; every other file must have the same ones. */
static mr_status layer_tensors(reshape_work *work, const mr_layer_files_entry *entry) {
    const mr_safetensors_reader *file = NULL;
    MR_TRY(mr_layer_reader_file(work->reader, 0, &file));
    size_t count = mr_safetensors_count(file);
    mr_free(work->tensors);
    mr_free(work->list);
    work->tensors = mr_alloc_array(count, sizeof(*work->tensors));
    work->list = mr_alloc_array(count, sizeof(*work->list));
    if (work->tensors == NULL || work->list == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu tensors", count);
    work->tensor_count = count;
    for (size_t i = 0; i < count; i++)
        MR_TRY(tensor_prepare(work, entry, mr_safetensors_at(file, i)->name, &work->tensors[i]));
    for (size_t rank = 1; rank < work->from_width; rank++) {
        MR_TRY(mr_layer_reader_file(work->reader, rank, &file));
        if (mr_safetensors_count(file) != count)
            return MR_ERROR(DATA_LOSS,
                            "E_CKPT_REPLICA: model rank %zu has %zu tensors, rank 0 has %zu", rank,
                            mr_safetensors_count(file), count);
    }
    for (size_t i = 0; work->from_width > 1 && i < count; i++)
        MR_TRY(tensor_compare(work, &work->tensors[i]));
    return MR_OK;
}

static mr_status rank_append(reshape_work *work, size_t rank, mr_safetensors_writer *writer) {
    for (size_t i = 0; i < work->tensor_count; i++) {
        mr_shard shard;
        size_t elements = 0;
        const reshape_tensor *tensor = &work->tensors[i];
        MR_TRY(mr_shard_make(&tensor->parameter, rank, work->options->width, &shard));
        MR_TRY(shard_room(work, &shard.shape));
        MR_TRY(mr_layer_reader_load(work->reader, tensor->name, &tensor->parameter, rank,
                                    work->options->width, work->shard));
        MR_ASSERT(mr_shape_elements(&shard.shape, &elements));
        MR_TRY(mr_safetensors_writer_append(writer, work->shard, elements * sizeof(float)));
    }
    return MR_OK;
}

/* The new file of one rank. */
static mr_status rank_write(reshape_work *work, const mr_layer_files_entry *entry, size_t rank) {
    char name[MR_NAME_BYTES];
    mr_safetensors_writer *writer = NULL;
    for (size_t i = 0; i < work->tensor_count; i++) {
        mr_shard shard;
        MR_TRY(mr_shard_make(&work->tensors[i].parameter, rank, work->options->width, &shard));
        work->list[i] = (mr_safetensors_tensor){
            .name = work->tensors[i].name,
            .dtype = MR_SAFETENSORS_F32,
            .dims = (uint32_t)shard.shape.dim_count,
            .cut = work->tensors[i].cut,
        };
        for (size_t d = 0; d < shard.shape.dim_count; d++)
            work->list[i].shape[d] = shard.shape.dims[d];
    }
    mr_layout_layer_name(entry->layer, (uint32_t)rank, (uint32_t)work->options->width, entry->kind,
                         name);
    MR_TRY(mr_safetensors_writer_open(work->folder, name, work->list, work->tensor_count, &writer));
    mr_status status = rank_append(work, rank, writer);
    if (mr_status_is_ok(status))
        status = mr_safetensors_writer_finish(writer, &work->made[work->made_count]);
    mr_safetensors_writer_close(writer);
    if (mr_status_is_ok(status))
        work->made_count++;
    return status;
}

static mr_status layer_reshape(reshape_work *work, const mr_layer_files_entry *entry) {
    const mr_layer_reader_options options = {
        .path = work->options->source,
        .manifest = &work->manifest,
        .files = &work->files,
        .layer = entry->layer,
        .kind = entry->kind,
    };
    MR_TRY(mr_layer_reader_open(&options, &work->reader));
    mr_status status = layer_tensors(work, entry);
    for (size_t rank = 0; rank < work->options->width && mr_status_is_ok(status); rank++)
        status = rank_write(work, entry, rank);
    mr_layer_reader_close(work->reader);
    work->reader = NULL;
    return mr_status_is_ok(status) ? status : mr_status_prefix(status, "%s", entry->listed->name);
}

/* ---- the whole ---- */

static mr_status reshape_check_free(const mr_reshape_options *options) {
    char path[MR_CHECKPOINT_PATH_BYTES];
    struct stat facts;
    MR_TRY(mr_layout_join(options->dir, options->tag, path, sizeof(path)));
    if (lstat(path, &facts) != 0)
        return MR_OK;
    return MR_ERROR(ALREADY_EXISTS, "%s stands already in %.120s; it is not replaced", options->tag,
                    options->dir);
}

static mr_status reshape_open(reshape_work *work) {
    const mr_reshape_options *options = work->options;
    if (options->width == 0 || options->width > MR_RANKS_MAX)
        return MR_ERROR(INVALID_ARGUMENT, "%zu model ranks; it must be 1 to %d", options->width,
                        MR_RANKS_MAX);
    MR_TRY(mr_layout_tag_check(options->tag));
    MR_TRY(reshape_check_free(options));
    mr_status read = mr_manifest_read(options->source, &work->manifest);
    if (read.code == MR_CODE_NOT_FOUND)
        return MR_ERROR(NOT_FOUND,
                        "%.150s is no committed checkpoint: it has no " MR_LAYOUT_MANIFEST,
                        options->source);
    MR_TRY(read);
    MR_TRY(mr_layer_files_list(&work->manifest, &work->files));
    MR_TRY(mr_layer_files_width(&work->files, &work->from_width));
    const mr_layer_files_entry *last = &work->files.entries[work->files.count - 1];
    if (!last->is_layer)
        return MR_ERROR(FAILED_PRECONDITION,
                        "the manifest lists %s, which is no layer's file; it "
                        "cannot be reshaped",
                        last->listed->name);
    size_t count = work->files.count / work->from_width * options->width;
    if (count > MR_CHECKPOINT_FILES_MAX)
        return MR_ERROR(INVALID_ARGUMENT, "%zu model ranks give %zu files; the most is %d",
                        options->width, count, MR_CHECKPOINT_FILES_MAX);
    work->made = mr_alloc_array(count, sizeof(*work->made));
    if (work->made == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu files", count);
    return mr_layout_save_path(options->dir, options->tag, work->manifest.epoch,
                               work->manifest.step, work->folder, sizeof(work->folder));
}

static mr_status reshape_commit(reshape_work *work) {
    mr_manifest manifest = work->manifest;
    manifest.files = work->made;
    manifest.file_count = work->made_count;
    MR_TRY(reshape_check_free(work->options));
    mr_status advisory = MR_OK; /* `latest` is only a hint */
    return mr_manifest_commit(work->options->dir, work->options->tag, &manifest, &advisory);
}

/* The folder of this save, or of one like it that died. */
static mr_status reshape_discard(const reshape_work *work) {
    return mr_catalog_discard(work->options->dir, work->options->tag, work->manifest.epoch,
                              work->manifest.step);
}

static mr_status reshape_run(reshape_work *work) {
    MR_TRY(reshape_discard(work));
    for (size_t i = 0; i < work->files.count; i += work->from_width)
        MR_TRY(layer_reshape(work, &work->files.entries[i]));
    return reshape_commit(work);
}

static void reshape_free(reshape_work *work) {
    mr_free(work->other);
    mr_free(work->shard);
    mr_free(work->list);
    mr_free(work->tensors);
    mr_free(work->made);
    mr_layer_files_deinit(&work->files);
    mr_manifest_deinit(&work->manifest);
}

mr_status mr_reshape(const mr_reshape_options *options, mr_reshape_result *out_result) {
    reshape_work work = {.options = options};
    mr_status status = reshape_open(&work);
    if (mr_status_is_ok(status)) {
        status = reshape_run(&work);
        if (!mr_status_is_ok(status) && !mr_status_is_ok(reshape_discard(&work)))
            status = mr_status_prefix(status, "files are left in %s", work.folder);
    }
    if (mr_status_is_ok(status)) {
        *out_result =
            (mr_reshape_result){.from_width = work.from_width, .file_count = work.made_count};
        for (size_t i = 0; i < work.made_count; i++)
            out_result->bytes += work.made[i].bytes;
    }
    reshape_free(&work);
    return status;
}
