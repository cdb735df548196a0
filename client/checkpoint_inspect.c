/* SPDX-License-Identifier: Apache-2.0 */
/* checkpoint_inspect.c: what a checkpoint holds: its manifest, and layer by layer the files with
 * their tensors. One document is made of it; the table is made from the document. A file that is
 * damaged is named, and the rest is shown all the same. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "client/nouns.h"
#include "client/path_text.h"
#include "client/render.h"
#include "daemon/base/alloc.h"
#include "daemon/base/limits.h"
#include "daemon/checkpoint/catalog.h"
#include "daemon/checkpoint/layer_files.h"

enum { NORM_VALUES = 4096 }; /* of a tensor that are looked at together */

/* One inspection. */
typedef struct inspect_walk {
    const char *path;
    const mr_manifest *manifest;
    bool headers_only;
    json_t *layers;   /* of {layer, files, ...} */
    json_t *problems; /* of {file, error} */
    json_int_t layer_count;
    json_int_t tensor_count;
    json_int_t model_elements; /* of the tensors of model files; a tied one counts in each layer */
    mr_code first_code;        /* of the problems; OK: there is none */
} inspect_walk;

/* ---- the document ---- */

/* Root of the sum of squares of an f32 tensor; the caller has checked the file's digest. */
static mr_status tensor_norm(const mr_safetensors_reader *reader,
                             const mr_safetensors_tensor *tensor, double *out_norm) {
    float values[NORM_VALUES];
    uint64_t bytes = tensor->end - tensor->begin;
    double sum = 0;
    for (uint64_t at = 0; at < bytes; at += sizeof(values)) {
        size_t piece = bytes - at < sizeof(values) ? (size_t)(bytes - at) : sizeof(values);
        MR_TRY(mr_safetensors_read(reader, tensor, at, values, piece));
        for (size_t i = 0; i < piece / sizeof(float); i++)
            sum += (double)values[i] * (double)values[i];
    }
    *out_norm = sqrt(sum);
    return MR_OK;
}

/* How the tensor is cut over model ranks, as its file says; NULL where it does not say it. */
static const char *tensor_cut(const mr_safetensors_reader *reader, const char *name) {
    char key[sizeof(MR_SAFETENSORS_CUT_PREFIX) + MR_SAFETENSORS_NAME_BYTES_MAX];
    (void)snprintf(key, sizeof(key), MR_SAFETENSORS_CUT_PREFIX "%s", name);
    return mr_safetensors_metadata(reader, key);
}

static mr_status tensor_json(const inspect_walk *walk, const mr_safetensors_reader *reader,
                             const mr_safetensors_tensor *tensor, json_t **out_json) {
    double norm = 0;
    bool measured = !walk->headers_only && tensor->dtype == MR_SAFETENSORS_F32;
    if (measured)
        MR_TRY(tensor_norm(reader, tensor, &norm));
    json_t *shape = json_array();
    for (uint32_t i = 0; i < tensor->dims; i++)
        (void)json_array_append_new(shape, json_integer((json_int_t)tensor->shape[i]));
    *out_json = json_pack(
        "{s:o, s:s, s:o, s:I, s:I, s:o, s:o}", "name", mr_render_string(tensor->name), "dtype",
        mr_safetensors_dtype_name(tensor->dtype), "shape", shape, "elements",
        (json_int_t)((tensor->end - tensor->begin) / mr_safetensors_dtype_bytes(tensor->dtype)),
        "bytes", (json_int_t)(tensor->end - tensor->begin), "cut",
        mr_render_string(tensor_cut(reader, tensor->name)), "norm",
        measured ? mr_render_real(norm) : json_null());
    return MR_OK;
}

static mr_status file_open(const inspect_walk *walk, const char *name,
                           mr_safetensors_reader **out_reader) {
    return walk->headers_only ? mr_catalog_open_header(walk->path, walk->manifest, name, out_reader)
                              : mr_catalog_open_file(walk->path, walk->manifest, name, out_reader);
}

/* Names a damaged file on stderr and in the document. */
static void file_damaged(inspect_walk *walk, const char *name, const mr_status *why) {
    mr_client_warn("millrace: %s/%s: %s", mr_path_shorten(walk->path).text, name, why->text);
    (void)json_array_append_new(walk->problems, json_pack("{s:s, s:o}", "file", name, "error",
                                                          mr_render_string(why->text)));
    if (walk->first_code == MR_CODE_OK)
        walk->first_code = why->code;
}

/* Elements that the file's tensors add to the model: what every rank holds whole counts once. */
static json_int_t file_elements(const mr_layer_files_entry *file,
                                const mr_safetensors_reader *reader) {
    json_int_t elements = 0;
    for (size_t i = 0; i < mr_safetensors_count(reader); i++) {
        const mr_safetensors_tensor *tensor = mr_safetensors_at(reader, i);
        const char *cut = tensor_cut(reader, tensor->name);
        if (file->model_rank == 0 || cut == NULL || strcmp(cut, "whole") != 0)
            elements += (json_int_t)((tensor->end - tensor->begin) /
                                     mr_safetensors_dtype_bytes(tensor->dtype));
    }
    return elements;
}

/* A file with its tensors; adds its elements to *model_elements where they are the model's. */
static json_t *file_json(inspect_walk *walk, const mr_layer_files_entry *file,
                         json_int_t *model_elements) {
    static const char *const kinds[MR_LAYER_FILE_COUNT] = {"model", "optim"};
    const char *name = file->listed->name;
    mr_safetensors_reader *reader = NULL;
    mr_status status = file_open(walk, name, &reader);
    json_t *tensors = json_array();
    size_t count = mr_status_is_ok(status) ? mr_safetensors_count(reader) : 0;
    if (mr_status_is_ok(status) && file->is_layer && file->kind == MR_LAYER_FILE_MODEL)
        *model_elements += file_elements(file, reader);
    for (size_t i = 0; i < count && mr_status_is_ok(status); i++) {
        json_t *tensor = NULL;
        status = tensor_json(walk, reader, mr_safetensors_at(reader, i), &tensor);
        if (mr_status_is_ok(status))
            (void)json_array_append_new(tensors, tensor);
    }
    walk->tensor_count += (json_int_t)json_array_size(tensors);
    mr_safetensors_close(reader);
    if (!mr_status_is_ok(status))
        file_damaged(walk, name, &status);
    return json_pack("{s:s, s:o, s:o, s:I, s:s, s:b, s:o}", "file", name, "kind",
                     mr_render_string(file->is_layer ? kinds[file->kind] : NULL), "model_rank",
                     file->has_model ? json_integer((json_int_t)file->model_rank) : json_null(),
                     "bytes", (json_int_t)file->listed->bytes, "sha256", file->listed->sha256,
                     "sound", (int)mr_status_is_ok(status), "tensors", tensors);
}

/* The files from first on that belong to one layer (or to none); returns how many. */
static size_t layer_add(inspect_walk *walk, const mr_layer_files_entry *files, size_t left) {
    json_t *list = json_array();
    json_int_t bytes = 0;
    json_int_t model_elements = 0;
    size_t count = 0;
    while (count < left && files[count].is_layer == files[0].is_layer &&
           files[count].layer == files[0].layer) {
        bytes += (json_int_t)files[count].listed->bytes;
        (void)json_array_append_new(list, file_json(walk, &files[count], &model_elements));
        count++;
    }
    json_t *index = files[0].is_layer ? json_integer((json_int_t)files[0].layer) : json_null();
    (void)json_array_append_new(walk->layers,
                                json_pack("{s:o, s:o, s:I, s:I}", "layer", index, "files", list,
                                          "model_elements", model_elements, "bytes", bytes));
    walk->layer_count += files[0].is_layer;
    walk->model_elements += model_elements;
    return count;
}

static json_t *manifest_json(const char *path, const mr_manifest *manifest) {
    char file[MR_CHECKPOINT_PATH_BYTES];
    struct stat facts;
    int64_t committed_ms = 0;
    if (mr_status_is_ok(mr_layout_join(path, MR_LAYOUT_MANIFEST, file, sizeof(file))) &&
        lstat(file, &facts) == 0)
        committed_ms = (int64_t)facts.st_mtim.tv_sec * 1000 + facts.st_mtim.tv_nsec / 1000000;
    return json_pack(
        "{s:o, s:s, s:o, s:I, s:I, s:I, s:o, s:{s:I, s:I}, s:{s:o, s:I, s:o}}", "path",
        mr_render_string(path), "schema", MR_MANIFEST_SCHEMA, "job",
        mr_render_string(manifest->job), "step", (json_int_t)manifest->step, "epoch",
        (json_int_t)manifest->epoch, "created_ms", (json_int_t)committed_ms, "model_hash",
        mr_render_string(manifest->model_hash), "data_cursor", "step",
        (json_int_t)manifest->data_cursor.step, "sample", (json_int_t)manifest->data_cursor.sample,
        "optimizer", "type", mr_render_string(manifest->optimizer.type), "steps",
        (json_int_t)manifest->optimizer.steps, "lr", mr_render_real(manifest->optimizer.lr));
}

/* Walks all files; the document, or NULL without memory. */
static json_t *inspect_json(inspect_walk *walk, const mr_layer_files *files) {
    const mr_manifest *manifest = walk->manifest;
    json_t *document = manifest_json(walk->path, manifest);
    size_t width = 0;
    mr_status widths = mr_layer_files_width(files, &width);
    if (widths.code == MR_CODE_DATA_LOSS)
        file_damaged(walk, MR_LAYOUT_MANIFEST, &widths);
    for (size_t i = 0; i < files->count;)
        i += layer_add(walk, &files->entries[i], files->count - i);
    json_t *totals =
        json_pack("{s:I, s:I, s:I, s:I, s:I}", "layers", walk->layer_count, "files",
                  (json_int_t)manifest->file_count, "tensors", walk->tensor_count, "model_elements",
                  walk->model_elements, "bytes", (json_int_t)mr_manifest_bytes(manifest));
    json_t *rest =
        json_pack("{s:b, s:b, s:o, s:o, s:o, s:o}", "sound", (int)(walk->first_code == MR_CODE_OK),
                  "headers_only", (int)walk->headers_only, "model_ranks",
                  width == 0 ? json_null() : json_integer((json_int_t)width), "totals", totals,
                  "layers", walk->layers, "problems", walk->problems);
    bool good = document != NULL && json_object_update(document, rest) == 0;
    json_decref(rest);
    if (good)
        return document;
    json_decref(document);
    return NULL;
}

/* ---- the table ------------------------------------------------------------------------------- */

static json_int_t integer_of(const json_t *item, const char *key) {
    return json_integer_value(json_object_get(item, key));
}

static void cell_time(const json_t *item, char *out, size_t bytes) {
    mr_render_time(integer_of(item, "created_ms"), out, bytes);
}

static void cell_data(const json_t *item, char *out, size_t bytes) {
    const json_t *cursor = json_object_get(item, "data_cursor");
    snprintf(out, bytes, "next step %lld, %lld samples used", integer_of(cursor, "step"),
             integer_of(cursor, "sample"));
}

static void cell_optimizer(const json_t *item, char *out, size_t bytes) {
    const json_t *optimizer = json_object_get(item, "optimizer");
    snprintf(out, bytes, "%s, %lld steps, lr %g",
             json_string_value(json_object_get(optimizer, "type")), integer_of(optimizer, "steps"),
             json_number_value(json_object_get(optimizer, "lr")));
}

static void cell_totals(const json_t *item, char *out, size_t bytes) {
    const json_t *totals = json_object_get(item, "totals");
    char size[32];
    mr_render_bytes((double)integer_of(totals, "bytes"), size, sizeof(size));
    snprintf(out, bytes, "%lld layers, %lld files, %lld tensors, %lld elements of the model, %s",
             integer_of(totals, "layers"), integer_of(totals, "files"),
             integer_of(totals, "tensors"), integer_of(totals, "model_elements"), size);
}

static void cell_checked(const json_t *item, char *out, size_t bytes) {
    bool headers = json_is_true(json_object_get(item, "headers_only"));
    snprintf(out, bytes, headers ? "sizes and headers" : "every byte");
}

static void cell_problems(const json_t *item, char *out, size_t bytes) {
    snprintf(out, bytes, "%zu", json_array_size(json_object_get(item, "problems")));
}

static const mr_column head_columns[] = {
    {"PATH", "path", NULL},
    {"JOB", "job", NULL},
    {"STEP", "step", NULL},
    {"EPOCH", "epoch", NULL},
    {"CREATED", NULL, cell_time},
    {"MODEL HASH", "model_hash", NULL},
    {"DATA", NULL, cell_data},
    {"OPTIMIZER", NULL, cell_optimizer},
    {"MODEL RANKS", "model_ranks", NULL},
    {"HOLDS", NULL, cell_totals},
    {"CHECKED", NULL, cell_checked},
    {"SOUND", "sound", NULL},
    {"PROBLEMS", NULL, cell_problems},
};
static const mr_view head_view = {
    .singular = "checkpoint",
    .plural = "checkpoints",
    .name_key = "path",
    .columns = head_columns,
    .column_count = sizeof(head_columns) / sizeof(head_columns[0]),
};

static void cell_shape(const json_t *item, char *out, size_t bytes) {
    const json_t *shape = json_object_get(item, "shape");
    size_t used = 0;
    if (shape == NULL) {
        snprintf(out, bytes, "-");
        return;
    }
    for (size_t i = 0; i <= json_array_size(shape) && used < bytes; i++) {
        if (i == json_array_size(shape))
            used += (size_t)snprintf(out + used, bytes - used, "%s", i == 0 ? "[]" : "]");
        else
            used += (size_t)snprintf(out + used, bytes - used, "%s%lld", i == 0 ? "[" : ", ",
                                     json_integer_value(json_array_get(shape, i)));
    }
}

static void cell_bytes(const json_t *item, char *out, size_t bytes) {
    mr_render_bytes((double)integer_of(item, "bytes"), out, bytes);
}

static void cell_norm(const json_t *item, char *out, size_t bytes) {
    const json_t *norm = json_object_get(item, "norm");
    if (json_is_number(norm))
        snprintf(out, bytes, "%.6g", json_number_value(norm));
    else
        snprintf(out, bytes, "-");
}

static const mr_column tensor_columns[] = {
    {"LAYER", "layer", NULL},    {"FILE", "file", NULL},         {"TENSOR", "name", NULL},
    {"DTYPE", "dtype", NULL},    {"SHAPE", "shape", cell_shape}, {"CUT", "cut", NULL},
    {"BYTES", NULL, cell_bytes}, {"NORM", "norm", cell_norm},
};
static const mr_view tensor_view = {
    .singular = "tensor",
    .plural = "tensors",
    .name_key = "name",
    .columns = tensor_columns,
    .column_count = sizeof(tensor_columns) / sizeof(tensor_columns[0]),
};

/* A row for each tensor; a damaged file has one row that says so. */
static void rows_add(json_t *rows, const json_t *layer, const json_t *file) {
    const json_t *tensors = json_object_get(file, "tensors");
    bool damaged = json_is_false(json_object_get(file, "sound"));
    for (size_t i = 0; i < json_array_size(tensors) + damaged; i++) {
        json_t *row = damaged ? json_pack("{s:s, s:I}", "name", "(damaged)", "bytes",
                                          integer_of(file, "bytes"))
                              : json_copy(json_array_get(tensors, i));
        (void)json_object_set(row, "layer", json_object_get(layer, "layer"));
        (void)json_object_set(row, "file", json_object_get(file, "file"));
        (void)json_array_append_new(rows, row);
    }
}

static mr_status inspect_print(const mr_client *client, json_t *owned_document) {
    json_t *rows = json_array();
    const json_t *layers = json_object_get(owned_document, "layers");
    for (size_t i = 0; i < json_array_size(layers); i++) {
        const json_t *layer = json_array_get(layers, i);
        const json_t *files = json_object_get(layer, "files");
        for (size_t f = 0; f < json_array_size(files); f++)
            rows_add(rows, layer, json_array_get(files, f));
    }
    mr_status status = mr_render_item(client, &head_view, owned_document);
    if (mr_status_is_ok(status) && client->output == MR_OUTPUT_TABLE) {
        putchar('\n');
        mr_render_table(&tensor_view, rows);
    }
    json_decref(rows);
    return status;
}

static mr_status inspect_read(const char *path, mr_manifest *manifest) {
    mr_status status = mr_manifest_read(path, manifest);
    if (status.code == MR_CODE_NOT_FOUND)
        return MR_ERROR(NOT_FOUND, "%s is no committed checkpoint: it has no " MR_LAYOUT_MANIFEST,
                        mr_path_shorten(path).text);
    return mr_status_is_ok(status)
               ? status
               : mr_status_prefix(status, "%s/" MR_LAYOUT_MANIFEST, mr_path_shorten(path).text);
}

mr_status mr_command_checkpoint_inspect(mr_client *client) {
    const char *path = client->invocation->arguments[0];
    mr_manifest manifest = {0};
    mr_layer_files files = {0};
    MR_TRY(inspect_read(path, &manifest));
    inspect_walk walk = {
        .path = path,
        .manifest = &manifest,
        .headers_only = mr_invocation_given(client->invocation, "headers"),
        .first_code = MR_CODE_OK,
    };
    size_t problems = 0;
    mr_status status = mr_layer_files_list(&manifest, &files);
    if (mr_status_is_ok(status)) {
        walk.layers = json_array();
        walk.problems = json_array();
        json_t *document = inspect_json(&walk, &files);
        problems = json_array_size(json_object_get(document, "problems"));
        status = document == NULL ? MR_ERROR(RESOURCE_EXHAUSTED, "no memory to show %s",
                                             mr_path_shorten(path).text)
                                  : inspect_print(client, document);
    }
    if (mr_status_is_ok(status) && problems > 0)
        status = mr_status_make(walk.first_code, __FILE__, __LINE__,
                                "%s: %zu of %zu files cannot be used", mr_path_shorten(path).text,
                                problems, manifest.file_count);
    mr_layer_files_deinit(&files);
    mr_manifest_deinit(&manifest);
    return status;
}
