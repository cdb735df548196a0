/* SPDX-License-Identifier: Apache-2.0 */
/* manifest.c: the manifest's text, written by hand so that equal contents give equal bytes, and
 * read back strictly. A manifest without its own hash is accepted (people may write one), a wrong
 * hash never. */
#include "daemon/checkpoint/manifest.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "daemon/base/alloc.h"
#include "daemon/checkpoint/digest.h"
#include "daemon/checkpoint/file.h"

/* Stands once in the text: inside a file's entry no line begins with the key. */
#define MANIFEST_SEAL ",\n  \"sha256\": \""
#define MANIFEST_END "\"\n}\n"

enum {
    MANIFEST_ENTRY_BYTES = 256, /* bound of one file's line */
    MANIFEST_SCALE_BYTES = 128  /* of what fp16 adds */
};

#define MANIFEST_ERROR(field, format, ...)                                                         \
    MR_ERROR(DATA_LOSS, "E_CKPT_MANIFEST field=%s: " format, (field), __VA_ARGS__)

/* ---- writing ---- */

static int manifest_compare_files(const void *a, const void *b) {
    return strcmp((*(const mr_checkpoint_file *const *)a)->name,
                  (*(const mr_checkpoint_file *const *)b)->name);
}

static bool manifest_hash_valid(const char *hash) {
    size_t bytes = strlen(hash);
    return bytes > 0 && bytes < MR_SHA256_HEX_BYTES && strspn(hash, "0123456789abcdef") == bytes;
}

static mr_status manifest_check_file(const mr_checkpoint_file *file, mr_code code) {
    if (!mr_layout_file_name_valid(file->name))
        return mr_status_make(code, __FILE__, __LINE__,
                              "E_CKPT_MANIFEST field=files: '%.63s' cannot name a file of a "
                              "checkpoint",
                              file->name);
    if (!mr_digest_hex_valid(file->sha256))
        return mr_status_make(code, __FILE__, __LINE__,
                              "E_CKPT_MANIFEST field=files: %s: sha256 is not 64 hex digits",
                              file->name);
    if (file->bytes > INT64_MAX)
        return mr_status_make(code, __FILE__, __LINE__,
                              "E_CKPT_MANIFEST field=files: %s: %" PRIu64 " bytes", file->name,
                              file->bytes);
    return MR_OK;
}

/* Pointers to the files in the order of their names, each once; freed with mr_free. */
static mr_status manifest_sort(const mr_checkpoint_file *files, size_t count, mr_code code,
                               const mr_checkpoint_file ***out_sorted) {
    const mr_checkpoint_file **sorted = mr_alloc_array(count, sizeof(sorted[0]));
    if (sorted == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu files", count);
    uint64_t total = 0;
    mr_status status = MR_OK;
    for (size_t i = 0; i < count; i++) {
        MR_TRY_GOTO(status, manifest_check_file(&files[i], code), out);
        sorted[i] = &files[i];
        total += files[i].bytes;
        if (total > INT64_MAX) {
            status = mr_status_make(code, __FILE__, __LINE__,
                                    "E_CKPT_MANIFEST field=files: the sum of sizes overflows");
            goto out;
        }
    }
    if (count > 1)
        qsort(sorted, count, sizeof(sorted[0]), manifest_compare_files);
    for (size_t i = 1; i < count; i++) {
        if (strcmp(sorted[i - 1]->name, sorted[i]->name) == 0) {
            status =
                mr_status_make(code, __FILE__, __LINE__,
                               "E_CKPT_MANIFEST field=files: %s is listed twice", sorted[i]->name);
            goto out;
        }
    }
    *out_sorted = sorted;
    sorted = NULL;
out:
    mr_free(sorted);
    return status;
}

static mr_status manifest_check(const mr_manifest *manifest) {
    if (manifest->file_count == 0 || manifest->file_count > MR_CHECKPOINT_FILES_MAX)
        return MR_ERROR(INVALID_ARGUMENT, "a manifest lists %zu files; it must list 1 to %d",
                        manifest->file_count, MR_CHECKPOINT_FILES_MAX);
    if (manifest->job[0] == '\0')
        return MR_ERROR(INVALID_ARGUMENT, "a manifest's job is empty");
    if (!manifest_hash_valid(manifest->model_hash))
        return MR_ERROR(INVALID_ARGUMENT,
                        "a manifest's model_hash is '%.70s'; it must be 1 to 64 "
                        "hex digits",
                        manifest->model_hash);
    if (!isfinite(manifest->optimizer.lr))
        return MR_ERROR(INVALID_ARGUMENT, "a manifest's optimizer.lr is not finite");
    if (!isfinite(manifest->optimizer.loss_scale.scale))
        return MR_ERROR(INVALID_ARGUMENT, "a manifest's optimizer.loss_scale is not finite");
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {{"step", manifest->step},
                   {"epoch", manifest->epoch},
                   {"data_cursor.step", manifest->data_cursor.step},
                   {"data_cursor.sample", manifest->data_cursor.sample},
                   {"optimizer.steps", manifest->optimizer.steps},
                   {"optimizer.good_steps", manifest->optimizer.loss_scale.good_steps},
                   {"optimizer.overflows_left", manifest->optimizer.loss_scale.overflows_left}};
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        if (numbers[i].value > INT64_MAX)
            return MR_ERROR(INVALID_ARGUMENT,
                            "a manifest's %s is %" PRIu64 "; the most is %" PRId64, numbers[i].name,
                            numbers[i].value, INT64_MAX);
    return MR_OK;
}

/* value as a JSON string, quotes included; freed with free. NULL: not UTF-8, or no memory. */
static char *manifest_quote(const char *value) {
    json_t *string = json_string(value);
    char *quoted = string == NULL ? NULL : json_dumps(string, JSON_ENCODE_ANY);
    json_decref(string);
    return quoted;
}

/* Everything up to the seal; returns its length. */
/* What an fp16 job adds to the optimizer's scalars; "" for others. */
static void manifest_write_scale(const mr_loss_scale *scale, char *text, size_t room) {
    text[0] = '\0';
    if (scale->scale > 0)
        (void)snprintf(text, room,
                       ", \"loss_scale\": %.17g, \"good_steps\": %" PRIu64
                       ", \"overflows_left\": %" PRIu64,
                       scale->scale, scale->good_steps, scale->overflows_left); /* fits */
}

static size_t manifest_write(const mr_manifest *manifest, const char *job, const char *type,
                             const mr_checkpoint_file *const *files, char *text, size_t room) {
    char scale[MANIFEST_SCALE_BYTES];
    manifest_write_scale(&manifest->optimizer.loss_scale, scale, sizeof(scale));
    size_t used = (size_t)snprintf(
        text, room,
        "{\n  \"schema\": \"" MR_MANIFEST_SCHEMA "\",\n  \"job\": %s,\n  \"step\": %" PRIu64
        ",\n  \"epoch\": %" PRIu64 ",\n  \"model_hash\": \"%s\",\n  \"data_cursor\": {\"step\": "
        "%" PRIu64 ", \"sample\": %" PRIu64 "},\n  \"optimizer\": {\"type\": %s, \"steps\": "
        "%" PRIu64 ", \"lr\": %.17g%s},\n  \"files\": [",
        job, manifest->step, manifest->epoch, manifest->model_hash, manifest->data_cursor.step,
        manifest->data_cursor.sample, type, manifest->optimizer.steps, manifest->optimizer.lr,
        scale);
    for (size_t i = 0; i < manifest->file_count; i++)
        used += (size_t)snprintf(
            text + used, room - used,
            "%s\n    {\"file\": \"%s\", \"bytes\": %" PRIu64 ", \"sha256\": \"%s\"}",
            i == 0 ? "" : ",", files[i]->name, files[i]->bytes, files[i]->sha256);
    used += (size_t)snprintf(text + used, room - used, "\n  ]");
    MR_ASSERT(used < room);
    return used;
}

mr_status mr_manifest_format(const mr_manifest *manifest, char **out_text, size_t *out_bytes) {
    mr_status status = MR_OK;
    const mr_checkpoint_file **files = NULL;
    char *job = NULL;
    char *type = NULL;
    char *text = NULL;
    MR_TRY(manifest_check(manifest));
    MR_TRY(manifest_sort(manifest->files, manifest->file_count, MR_CODE_INVALID_ARGUMENT, &files));
    /* Escapes make a byte six at most. */
    size_t room = 2048 + 12 * MR_NAME_BYTES + manifest->file_count * MANIFEST_ENTRY_BYTES;
    job = manifest_quote(manifest->job);
    type = manifest_quote(manifest->optimizer.type);
    if (job == NULL || type == NULL) {
        status = MR_ERROR(INVALID_ARGUMENT, "a manifest's job or optimizer.type is not UTF-8");
        goto out;
    }
    text = mr_alloc(room);
    if (text == NULL) {
        status = MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a manifest of %zu bytes", room);
        goto out;
    }
    size_t used = manifest_write(manifest, job, type, files, text, room);
    char seal[MR_SHA256_HEX_BYTES];
    MR_TRY_GOTO(status, mr_digest_of(text, used, seal), out);
    used += (size_t)snprintf(text + used, room - used, MANIFEST_SEAL "%s" MANIFEST_END, seal);
    MR_ASSERT(used < room);
    *out_bytes = used;
    *out_text = text;
    text = NULL;
out:
    mr_free(text);
    free(job); /* jansson's memory */
    free(type);
    mr_free(files);
    return status;
}

/* ---- reading ---- */

static mr_status manifest_get_number(const json_t *object, const char *key, const char *field,
                                     uint64_t *out_value) {
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return MANIFEST_ERROR(field, "%s", "must be a whole number of at least 0");
    *out_value = (uint64_t)json_integer_value(value);
    return MR_OK;
}

static mr_status manifest_get_text(const json_t *object, const char *key, const char *field,
                                   char *out, size_t capacity) {
    const json_t *value = json_object_get(object, key);
    if (!json_is_string(value) || json_string_length(value) >= capacity)
        return MANIFEST_ERROR(field, "must be a string of at most %zu bytes", capacity - 1);
    memcpy(out, json_string_value(value), json_string_length(value) + 1);
    return MR_OK;
}

/* Has object only these keys? */
static mr_status manifest_check_keys(json_t *object, const char *field, const char *const *keys,
                                     size_t key_count) {
    if (!json_is_object(object))
        return MANIFEST_ERROR(field, "%s", "must be an object");
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value) {
        size_t i = 0;
        while (i < key_count && strcmp(key, keys[i]) != 0)
            i++;
        if (i == key_count)
            return MANIFEST_ERROR(field, "unknown key '%.40s'", key);
    }
    return MR_OK;
}

static mr_status manifest_get_file(json_t *entry, mr_checkpoint_file *file) {
    static const char *const keys[] = {"file", "bytes", "sha256"};
    MR_TRY(manifest_check_keys(entry, "files", keys, 3));
    MR_TRY(manifest_get_text(entry, "file", "files.file", file->name, sizeof(file->name)));
    MR_TRY(manifest_get_number(entry, "bytes", "files.bytes", &file->bytes));
    return manifest_get_text(entry, "sha256", "files.sha256", file->sha256, sizeof(file->sha256));
}

static mr_status manifest_get_files(const json_t *root, mr_manifest *manifest) {
    const json_t *files = json_object_get(root, "files");
    size_t count = json_array_size(files);
    if (count == 0 || count > MR_CHECKPOINT_FILES_MAX)
        return MANIFEST_ERROR("files", "must be an array of 1 to %d files",
                              MR_CHECKPOINT_FILES_MAX);
    manifest->files = mr_alloc_array(count, sizeof(manifest->files[0]));
    if (manifest->files == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu files", count);
    manifest->file_count = count;
    for (size_t i = 0; i < count; i++)
        MR_TRY(manifest_get_file(json_array_get(files, i), &manifest->files[i]));
    const mr_checkpoint_file **sorted = NULL;
    MR_TRY(manifest_sort(manifest->files, count, MR_CODE_DATA_LOSS, &sorted));
    mr_free(sorted);
    return MR_OK;
}

static mr_status manifest_get_scale(const json_t *optimizer, mr_loss_scale *out) {
    const json_t *scale = json_object_get(optimizer, "loss_scale");
    if (scale == NULL)
        return MR_OK;
    if (!json_is_number(scale) || json_number_value(scale) <= 0)
        return MANIFEST_ERROR("optimizer.loss_scale", "%s", "must be a number above 0");
    out->scale = json_number_value(scale);
    MR_TRY(manifest_get_number(optimizer, "good_steps", "optimizer.good_steps", &out->good_steps));
    return manifest_get_number(optimizer, "overflows_left", "optimizer.overflows_left",
                               &out->overflows_left);
}

static mr_status manifest_get_optimizer(json_t *optimizer, mr_manifest *manifest) {
    static const char *const keys[] = {"type",       "steps",      "lr",
                                       "loss_scale", "good_steps", "overflows_left"};
    MR_TRY(manifest_check_keys(optimizer, "optimizer", keys, sizeof(keys) / sizeof(keys[0])));
    MR_TRY(manifest_get_text(optimizer, "type", "optimizer.type", manifest->optimizer.type,
                             sizeof(manifest->optimizer.type)));
    MR_TRY(manifest_get_number(optimizer, "steps", "optimizer.steps", &manifest->optimizer.steps));
    const json_t *lr = json_object_get(optimizer, "lr");
    if (!json_is_number(lr))
        return MANIFEST_ERROR("optimizer.lr", "%s", "must be a number");
    manifest->optimizer.lr = json_number_value(lr);
    return manifest_get_scale(optimizer, &manifest->optimizer.loss_scale);
}

static mr_status manifest_get(json_t *root, mr_manifest *manifest) {
    static const char *const keys[] = {"schema",      "job",       "step",  "epoch", "model_hash",
                                       "data_cursor", "optimizer", "files", "sha256"};
    static const char *const cursor_keys[] = {"step", "sample"};
    char schema[MR_NAME_BYTES];
    MR_TRY(manifest_check_keys(root, "manifest", keys, sizeof(keys) / sizeof(keys[0])));
    MR_TRY(manifest_get_text(root, "schema", "schema", schema, sizeof(schema)));
    if (strcmp(schema, MR_MANIFEST_SCHEMA) != 0)
        return MANIFEST_ERROR("schema", "is '%s'; this build reads " MR_MANIFEST_SCHEMA, schema);
    MR_TRY(manifest_get_text(root, "job", "job", manifest->job, sizeof(manifest->job)));
    MR_TRY(manifest_get_number(root, "step", "step", &manifest->step));
    MR_TRY(manifest_get_number(root, "epoch", "epoch", &manifest->epoch));
    MR_TRY(manifest_get_text(root, "model_hash", "model_hash", manifest->model_hash,
                             sizeof(manifest->model_hash)));
    if (!manifest_hash_valid(manifest->model_hash))
        return MANIFEST_ERROR("model_hash", "%s", "must be 1 to 64 hex digits");
    json_t *cursor = json_object_get(root, "data_cursor");
    MR_TRY(manifest_check_keys(cursor, "data_cursor", cursor_keys, 2));
    MR_TRY(manifest_get_number(cursor, "step", "data_cursor.step", &manifest->data_cursor.step));
    MR_TRY(
        manifest_get_number(cursor, "sample", "data_cursor.sample", &manifest->data_cursor.sample));
    MR_TRY(manifest_get_optimizer(json_object_get(root, "optimizer"), manifest));
    return manifest_get_files(root, manifest);
}

/* Where the last seal stands; NULL where there is none. */
static const char *manifest_find_seal(const char *text, size_t bytes) {
    size_t seal_bytes = strlen(MANIFEST_SEAL);
    for (size_t i = bytes; i >= seal_bytes; i--)
        if (memcmp(text + i - seal_bytes, MANIFEST_SEAL, seal_bytes) == 0)
            return text + i - seal_bytes;
    return NULL;
}

static mr_status manifest_check_seal(const char *text, size_t bytes) {
    const char *seal = manifest_find_seal(text, bytes);
    size_t rest = strlen(MANIFEST_SEAL) + MR_SHA256_HEX_BYTES - 1 + strlen(MANIFEST_END);
    if (seal == NULL || bytes - (size_t)(seal - text) != rest ||
        memcmp(text + bytes - strlen(MANIFEST_END), MANIFEST_END, strlen(MANIFEST_END)) != 0)
        return MANIFEST_ERROR("sha256", "%s", "is not where this build writes it");
    char hex[MR_SHA256_HEX_BYTES];
    MR_TRY(mr_digest_of(text, (size_t)(seal - text), hex));
    if (memcmp(seal + strlen(MANIFEST_SEAL), hex, MR_SHA256_HEX_BYTES - 1) != 0)
        return MANIFEST_ERROR("sha256", "is not that of the text, which is %.12s...", hex);
    return MR_OK;
}

mr_status mr_manifest_parse(const char *text, size_t bytes, mr_manifest *out_manifest) {
    if (bytes > MR_MANIFEST_BYTES_MAX)
        return MANIFEST_ERROR("manifest", "%zu bytes; the most is %d", bytes,
                              MR_MANIFEST_BYTES_MAX);
    json_error_t error;
    json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL)
        return MANIFEST_ERROR("manifest", "line %d: %.100s", error.line, error.text);
    mr_manifest manifest = {0};
    mr_status status = MR_OK;
    if (json_object_get(root, "sha256") != NULL)
        status = manifest_check_seal(text, bytes);
    if (mr_status_is_ok(status))
        status = manifest_get(root, &manifest);
    json_decref(root);
    if (mr_status_is_ok(status))
        *out_manifest = manifest;
    else
        mr_manifest_deinit(&manifest);
    return status;
}

mr_status mr_manifest_read_at(int folder_fd, const char *label, mr_manifest *out_manifest) {
    int fd = -1;
    uint64_t bytes = 0;
    char *text = NULL;
    mr_status status = MR_OK;
    MR_TRY_GOTO(status, mr_file_open_plain(folder_fd, label, MR_LAYOUT_MANIFEST, &fd, &bytes), out);
    if (bytes > MR_MANIFEST_BYTES_MAX) {
        status = MANIFEST_ERROR("manifest", "%" PRIu64 " bytes; the most is %d", bytes,
                                MR_MANIFEST_BYTES_MAX);
        goto out;
    }
    text = mr_alloc((size_t)bytes);
    if (text == NULL) {
        status =
            MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a manifest of %" PRIu64 " bytes", bytes);
        goto out;
    }
    MR_TRY_GOTO(status, mr_file_read(fd, 0, text, (size_t)bytes, MR_LAYOUT_MANIFEST), out);
    status = mr_manifest_parse(text, (size_t)bytes, out_manifest);
    if (!mr_status_is_ok(status)) {
        /* The code word stays in front; the folder follows. */
        mr_status named = status;
        (void)snprintf(named.text, sizeof(named.text), "%.150s in %.80s", status.text, label);
        status = named;
    }
out:
    mr_free(text);
    mr_file_close(&fd);
    return status;
}

mr_status mr_manifest_read(const char *folder, mr_manifest *out_manifest) {
    int fd = -1;
    MR_TRY(mr_file_open_folder(folder, true, &fd));
    mr_status status = mr_manifest_read_at(fd, folder, out_manifest);
    mr_file_close(&fd);
    return status;
}

void mr_manifest_deinit(mr_manifest *manifest) {
    mr_free(manifest->files);
    manifest->files = NULL;
    manifest->file_count = 0;
}

uint64_t mr_manifest_bytes(const mr_manifest *manifest) {
    uint64_t total = 0;
    for (size_t i = 0; i < manifest->file_count; i++)
        total += manifest->files[i].bytes;
    return total;
}

const mr_checkpoint_file *mr_manifest_find(const mr_manifest *manifest, const char *name) {
    for (size_t i = 0; i < manifest->file_count; i++)
        if (strcmp(manifest->files[i].name, name) == 0)
            return &manifest->files[i];
    return NULL;
}
