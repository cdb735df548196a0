/* SPDX-License-Identifier: Apache-2.0 */
/* safetensors_reader.c: checks a file's header against the file before anything is believed.
 * The JSON object stays in memory as long as the reader: names and metadata are borrowed. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "daemon/base/alloc.h"
#include "daemon/checkpoint/file.h"
#include "daemon/checkpoint/safetensors_internal.h"

struct mr_safetensors_reader {
    int fd; /* -1: the bytes are in memory */
    const unsigned char *memory;
    uint64_t size;
    uint64_t data_offset; /* of the first data byte in the file */
    char label[MR_STATUS_TEXT_BYTES / 2];
    json_t *root;
    mr_safetensors_tensor *tensors;        /* by offset */
    const mr_safetensors_tensor **by_name; /* sorted for lookup */
    size_t count;
};

#define READER_ERROR(reader, format, ...)                                                          \
    MR_ERROR(DATA_LOSS, format " in %s", __VA_ARGS__, (reader)->label)

/* Bytes at an offset of the file that the caller has compared with its size. */
static mr_status reader_bytes(const mr_safetensors_reader *reader, uint64_t offset, void *out,
                              size_t bytes) {
    MR_ASSERT(offset <= reader->size);
    MR_ASSERT(bytes <= reader->size - offset);
    if (reader->fd >= 0)
        return mr_file_read(reader->fd, offset, out, bytes, reader->label);
    if (bytes > 0)
        memcpy(out, reader->memory + offset, bytes);
    return MR_OK;
}

/* Parses the JSON text; jansson checks UTF-8, repeated keys and depth. */
static mr_status reader_parse(mr_safetensors_reader *reader, const char *text, size_t bytes) {
    json_error_t error;
    reader->root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
    if (reader->root == NULL) {
        enum json_error_code code = json_error_code(&error);
        const char *word = code == json_error_duplicate_key      ? "E_CKPT_DUP"
                           : code == json_error_numeric_overflow ? "E_CKPT_OVERFLOW"
                                                                 : "E_CKPT_HDR";
        return READER_ERROR(reader, "%s: header, byte %d: %.80s", word, error.position, error.text);
    }
    if (!json_is_object(reader->root))
        return READER_ERROR(reader, "%s", "E_CKPT_HDR: the header is not a JSON object");
    return MR_OK;
}

/* Reads and parses the header; its length is checked before memory is taken for it. */
static mr_status reader_header(mr_safetensors_reader *reader) {
    unsigned char prefix[MR_SAFETENSORS_PREFIX_BYTES];
    if (reader->size < sizeof(prefix))
        return READER_ERROR(
            reader, "E_CKPT_TRUNC want=%zu have=%" PRIu64 ": no room for the header's length",
            sizeof(prefix), reader->size);
    MR_TRY(reader_bytes(reader, 0, prefix, sizeof(prefix)));
    uint64_t length = 0;
    for (size_t i = 0; i < sizeof(prefix); i++)
        length |= (uint64_t)prefix[i] << (8 * i);
    if (length < 2 || length > MR_SAFETENSORS_HEADER_BYTES_MAX)
        return READER_ERROR(reader,
                            "E_CKPT_HDR: a header of %" PRIu64 " bytes; it must have 2 to %d",
                            length, MR_SAFETENSORS_HEADER_BYTES_MAX);
    if (length > reader->size - sizeof(prefix))
        return READER_ERROR(
            reader, "E_CKPT_TRUNC want=%" PRIu64 " have=%" PRIu64 ": the header ends past the file",
            sizeof(prefix) + length, reader->size);
    char *text = mr_alloc((size_t)length);
    if (text == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a header of %" PRIu64 " bytes", length);
    mr_status status = reader_bytes(reader, sizeof(prefix), text, (size_t)length);
    if (mr_status_is_ok(status))
        status = reader_parse(reader, text, (size_t)length);
    mr_free(text);
    reader->data_offset = sizeof(prefix) + length;
    return status;
}

static mr_status reader_dtype(const mr_safetensors_reader *reader, const json_t *entry,
                              mr_safetensors_tensor *tensor) {
    const char *word = json_string_value(json_object_get(entry, "dtype"));
    if (word == NULL)
        return READER_ERROR(reader, "E_CKPT_HDR tensor=%.60s: dtype is not a string", tensor->name);
    for (unsigned i = 0; i < MR_SAFETENSORS_DTYPE_COUNT; i++) {
        if (strcmp(word, mr_safetensors_dtype_name((mr_safetensors_dtype)i)) == 0) {
            tensor->dtype = (mr_safetensors_dtype)i;
            return MR_OK;
        }
    }
    return READER_ERROR(reader, "E_CKPT_DTYPE tensor=%.60s: unknown dtype '%.20s'", tensor->name,
                        word);
}

static mr_status reader_shape(const mr_safetensors_reader *reader, const json_t *entry,
                              mr_safetensors_tensor *tensor) {
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape))
        return READER_ERROR(reader, "E_CKPT_HDR tensor=%.60s: shape is not an array", tensor->name);
    if (json_array_size(shape) > MR_TENSOR_DIMS_MAX)
        return READER_ERROR(reader, "E_CKPT_HDR tensor=%.60s: %zu dimensions; the most is %d",
                            tensor->name, json_array_size(shape), MR_TENSOR_DIMS_MAX);
    tensor->dims = (uint32_t)json_array_size(shape);
    for (uint32_t i = 0; i < tensor->dims; i++) {
        const json_t *size = json_array_get(shape, i);
        if (!json_is_integer(size) || json_integer_value(size) < 0)
            return READER_ERROR(reader,
                                "E_CKPT_HDR tensor=%.60s: shape[%" PRIu32
                                "] is not a whole number of at least 0",
                                tensor->name, i);
        tensor->shape[i] = (uint64_t)json_integer_value(size);
    }
    return MR_OK;
}

static mr_status reader_offsets(const mr_safetensors_reader *reader, const json_t *entry,
                                mr_safetensors_tensor *tensor) {
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *begin = json_array_get(offsets, 0);
    const json_t *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end) ||
        json_integer_value(begin) < 0 || json_integer_value(end) < 0)
        return READER_ERROR(reader,
                            "E_CKPT_HDR tensor=%.60s: data_offsets is not two whole "
                            "numbers of at least 0",
                            tensor->name);
    tensor->begin = (uint64_t)json_integer_value(begin);
    tensor->end = (uint64_t)json_integer_value(end);
    if (tensor->end < tensor->begin)
        return READER_ERROR(
            reader, "E_CKPT_LAYOUT tensor=%.60s: ends at %" PRIu64 " before it begins at %" PRIu64,
            tensor->name, tensor->end, tensor->begin);
    uint64_t bytes = 0;
    if (!mr_safetensors_size(tensor, &bytes))
        return READER_ERROR(reader, "E_CKPT_OVERFLOW tensor=%.60s: its size passes 64 bits",
                            tensor->name);
    if (tensor->end - tensor->begin != bytes)
        return READER_ERROR(reader,
                            "E_CKPT_LAYOUT tensor=%.60s: %" PRIu64
                            " bytes, where dtype and shape need %" PRIu64,
                            tensor->name, tensor->end - tensor->begin, bytes);
    return MR_OK;
}

static mr_status reader_entry(const mr_safetensors_reader *reader, const char *name,
                              const json_t *entry, mr_safetensors_tensor *tensor) {
    tensor->name = name;
    size_t bytes = strlen(name);
    if (bytes == 0 || bytes > MR_SAFETENSORS_NAME_BYTES_MAX)
        return READER_ERROR(reader,
                            "E_CKPT_HDR: a tensor's name has %zu bytes; it must have 1 "
                            "to %d",
                            bytes, MR_SAFETENSORS_NAME_BYTES_MAX);
    if (!json_is_object(entry))
        return READER_ERROR(reader, "E_CKPT_HDR tensor=%.60s: the entry is not an object", name);
    if (json_object_size(entry) > 3)
        return READER_ERROR(reader,
                            "E_CKPT_HDR tensor=%.60s: the entry has %zu fields; it must "
                            "have dtype, shape and data_offsets",
                            name, json_object_size(entry));
    MR_TRY(reader_dtype(reader, entry, tensor));
    MR_TRY(reader_shape(reader, entry, tensor));
    return reader_offsets(reader, entry, tensor);
}

static mr_status reader_check_metadata(const mr_safetensors_reader *reader, json_t *metadata) {
    if (!json_is_object(metadata))
        return READER_ERROR(reader, "%s",
                            "E_CKPT_HDR: " MR_SAFETENSORS_METADATA " is not an object");
    const char *key;
    json_t *value;
    json_object_foreach(metadata, key, value) {
        if (!json_is_string(value))
            return READER_ERROR(
                reader, "E_CKPT_HDR: " MR_SAFETENSORS_METADATA ".%.60s is not a string", key);
    }
    return MR_OK;
}

static mr_status reader_entries(mr_safetensors_reader *reader) {
    json_t *metadata = json_object_get(reader->root, MR_SAFETENSORS_METADATA);
    if (metadata != NULL)
        MR_TRY(reader_check_metadata(reader, metadata));
    size_t count = json_object_size(reader->root) - (metadata != NULL ? 1 : 0);
    if (count > MR_SAFETENSORS_TENSORS_MAX)
        return READER_ERROR(reader, "E_CKPT_HDR: %zu tensors; the most is %d", count,
                            MR_SAFETENSORS_TENSORS_MAX);
    reader->tensors = mr_alloc_array(count, sizeof(reader->tensors[0]));
    reader->by_name = mr_alloc_array(count, sizeof(reader->by_name[0]));
    if (reader->tensors == NULL || reader->by_name == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu tensors", count);
    const char *name;
    json_t *entry;
    json_object_foreach(reader->root, name, entry) {
        if (entry == metadata)
            continue;
        MR_ASSERT(reader->count < count);
        MR_TRY(reader_entry(reader, name, entry, &reader->tensors[reader->count]));
        reader->count++;
    }
    return MR_OK;
}

static int reader_compare_offsets(const void *a, const void *b) {
    const mr_safetensors_tensor *x = a;
    const mr_safetensors_tensor *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end)
        return x->end < y->end ? -1 : 1;
    return strcmp(x->name, y->name); /* tensors without elements may share a place */
}

static int reader_compare_names(const void *a, const void *b) {
    return strcmp((*(const mr_safetensors_tensor *const *)a)->name,
                  (*(const mr_safetensors_tensor *const *)b)->name);
}

/* The data must be covered from its first byte to the file's last, without hole or overlap. */
static mr_status reader_check_layout(mr_safetensors_reader *reader) {
    if (reader->count > 1)
        qsort(reader->tensors, reader->count, sizeof(reader->tensors[0]), reader_compare_offsets);
    uint64_t end = 0;
    for (size_t i = 0; i < reader->count; i++) {
        const mr_safetensors_tensor *tensor = &reader->tensors[i];
        if (tensor->begin != end)
            return READER_ERROR(
                reader,
                "E_CKPT_LAYOUT tensor=%.60s: %s: begins at %" PRIu64 ", where %" PRIu64 " is next",
                tensor->name, tensor->begin > end ? "hole" : "overlap", tensor->begin, end);
        end = tensor->end;
        reader->by_name[i] = tensor;
    }
    uint64_t have = reader->size - reader->data_offset;
    if (end > have)
        return READER_ERROR(
            reader, "E_CKPT_TRUNC want=%" PRIu64 " have=%" PRIu64 ": the data ends past the file",
            reader->data_offset + end, reader->size);
    if (end < have)
        return READER_ERROR(reader,
                            "E_CKPT_LAYOUT: %" PRIu64 " bytes are left over after the "
                            "last tensor",
                            have - end);
    if (reader->count > 1)
        qsort(reader->by_name, reader->count, sizeof(reader->by_name[0]), reader_compare_names);
    return MR_OK;
}

/* Everything after the source is set. Consumes the reader on error. */
static mr_status reader_open(mr_safetensors_reader *reader, mr_safetensors_reader **out_reader) {
    mr_status status;
    MR_TRY_GOTO(status, reader_header(reader), fail);
    MR_TRY_GOTO(status, reader_entries(reader), fail);
    MR_TRY_GOTO(status, reader_check_layout(reader), fail);
    *out_reader = reader;
    return MR_OK;
fail:
    mr_safetensors_close(reader);
    return status;
}

static mr_safetensors_reader *reader_new(int fd, const void *memory, uint64_t size,
                                         const char *label) {
    mr_safetensors_reader *reader = mr_alloc(sizeof(*reader));
    if (reader == NULL)
        return NULL;
    reader->fd = fd;
    reader->memory = memory;
    reader->size = size;
    (void)snprintf(reader->label, sizeof(reader->label), "%s", label); /* cut is intended */
    return reader;
}

mr_status mr_safetensors_open(const char *path, mr_safetensors_reader **out_reader) {
    int fd = -1;
    uint64_t bytes = 0;
    const char *slash = strrchr(path, '/');
    char folder[MR_CHECKPOINT_PATH_BYTES] = ".";
    if (slash != NULL) {
        size_t folder_bytes = slash == path ? 1 : (size_t)(slash - path);
        if (folder_bytes >= sizeof(folder))
            return MR_ERROR(INVALID_ARGUMENT, "a path of %zu bytes is too long; the most is %d",
                            strlen(path), MR_CHECKPOINT_PATH_BYTES - 1);
        memcpy(folder, path, folder_bytes);
        folder[folder_bytes] = '\0';
    }
    int folder_fd = -1;
    MR_TRY(mr_file_open_folder(folder, true, &folder_fd));
    mr_status status =
        mr_file_open_plain(folder_fd, folder, slash == NULL ? path : slash + 1, &fd, &bytes);
    mr_file_close(&folder_fd);
    MR_TRY(status);
    return mr_safetensors_open_fd(fd, path, out_reader);
}

mr_status mr_safetensors_open_fd(int owned_fd, const char *label,
                                 mr_safetensors_reader **out_reader) {
    off_t end = lseek(owned_fd, 0, SEEK_END);
    mr_safetensors_reader *reader =
        end < 0 ? NULL : reader_new(owned_fd, NULL, (uint64_t)end, label);
    if (reader == NULL) {
        mr_file_close(&owned_fd);
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to open %s, or it has no size", label);
    }
    return reader_open(reader, out_reader);
}

mr_status mr_safetensors_open_memory(const void *bytes, size_t size, const char *label,
                                     mr_safetensors_reader **out_reader) {
    mr_safetensors_reader *reader = reader_new(-1, bytes, size, label);
    if (reader == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to open %s", label);
    return reader_open(reader, out_reader);
}

void mr_safetensors_close(mr_safetensors_reader *reader) {
    if (reader == NULL)
        return;
    json_decref(reader->root); /* NULL is fine */
    mr_free(reader->tensors);
    mr_free(reader->by_name);
    mr_file_close(&reader->fd);
    mr_free(reader);
}

size_t mr_safetensors_count(const mr_safetensors_reader *reader) {
    return reader->count;
}

const mr_safetensors_tensor *mr_safetensors_at(const mr_safetensors_reader *reader, size_t index) {
    MR_ASSERT(index < reader->count);
    return &reader->tensors[index];
}

const mr_safetensors_tensor *mr_safetensors_find(const mr_safetensors_reader *reader,
                                                 const char *name) {
    const mr_safetensors_tensor key = {.name = name};
    const mr_safetensors_tensor *key_pointer = &key;
    if (reader->count == 0)
        return NULL;
    const mr_safetensors_tensor **found = bsearch(&key_pointer, reader->by_name, reader->count,
                                                  sizeof(reader->by_name[0]), reader_compare_names);
    return found == NULL ? NULL : *found;
}

const char *mr_safetensors_metadata(const mr_safetensors_reader *reader, const char *key) {
    return json_string_value(
        json_object_get(json_object_get(reader->root, MR_SAFETENSORS_METADATA), key));
}

mr_status mr_safetensors_read(const mr_safetensors_reader *reader,
                              const mr_safetensors_tensor *tensor, uint64_t offset, void *out,
                              size_t bytes) {
    uint64_t size = tensor->end - tensor->begin;
    if (offset > size || bytes > size - offset)
        return MR_ERROR(OUT_OF_RANGE,
                        "%zu bytes at %" PRIu64 " of tensor %.60s, which has %" PRIu64, bytes,
                        offset, tensor->name, size);
    return reader_bytes(reader, reader->data_offset + tensor->begin + offset, out, bytes);
}

/* "[3,4]", for an error's text. */
static void reader_shape_text(const mr_safetensors_tensor *tensor, char *out, size_t capacity) {
    size_t used = (size_t)snprintf(out, capacity, "[");
    for (uint32_t i = 0; i < tensor->dims && used < capacity; i++)
        used += (size_t)snprintf(out + used, capacity - used, "%s%" PRIu64, i == 0 ? "" : ",",
                                 tensor->shape[i]);
    if (used < capacity)
        (void)snprintf(out + used, capacity - used, "]");
}

mr_status mr_safetensors_expect(const mr_safetensors_reader *reader,
                                const mr_safetensors_tensor *wanted,
                                const mr_safetensors_tensor **out_tensor) {
    const mr_safetensors_tensor *tensor = mr_safetensors_find(reader, wanted->name);
    if (tensor == NULL)
        return READER_ERROR(reader, "E_CKPT_MISSING tensor=%.60s: not", wanted->name);
    if (tensor->dtype != wanted->dtype)
        return READER_ERROR(reader, "E_CKPT_DTYPE tensor=%.60s want=%s have=%s", wanted->name,
                            mr_safetensors_dtype_name(wanted->dtype),
                            mr_safetensors_dtype_name(tensor->dtype));
    if (tensor->dims != wanted->dims ||
        memcmp(tensor->shape, wanted->shape, tensor->dims * sizeof(tensor->shape[0])) != 0) {
        char want[64];
        char have[64];
        reader_shape_text(wanted, want, sizeof(want));
        reader_shape_text(tensor, have, sizeof(have));
        return READER_ERROR(reader, "E_CKPT_SHAPE tensor=%.60s want=%s have=%s", wanted->name, want,
                            have);
    }
    *out_tensor = tensor;
    return MR_OK;
}

mr_status mr_safetensors_load(const mr_safetensors_reader *reader,
                              const mr_safetensors_tensor *wanted, void *out) {
    const mr_safetensors_tensor *tensor = NULL;
    MR_TRY(mr_safetensors_expect(reader, wanted, &tensor));
    return mr_safetensors_read(reader, tensor, 0, out, (size_t)(tensor->end - tensor->begin));
}
