/* SPDX-License-Identifier: Apache-2.0 */
/* safetensors_writer.c: one file of tensors, streamed. The header is a pure function of the list,
 * so equal tensors give equal files wherever they were written (law 1). */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/checkpoint/digest.h"
#include "daemon/checkpoint/file.h"
#include "daemon/checkpoint/safetensors_internal.h"

enum { WRITER_CUT_BYTES = 256 };

struct mr_safetensors_writer {
    char folder[MR_CHECKPOINT_PATH_BYTES];
    int folder_fd;
    mr_file_draft draft;
    mr_digest *digest;
    uint64_t data_bytes;   /* of all tensors */
    uint64_t header_bytes; /* length prefix included */
    uint64_t appended;
    bool broken; /* an append failed; only close is left */
};

/* A name that needs no JSON escape, so that the header can be written by hand. */
static mr_status writer_check_name(const char *name) {
    size_t bytes = name == NULL ? 0 : strlen(name);
    if (bytes == 0 || bytes > MR_SAFETENSORS_NAME_BYTES_MAX)
        return MR_ERROR(INVALID_ARGUMENT, "a tensor's name has %zu bytes; it must have 1 to %d",
                        bytes, MR_SAFETENSORS_NAME_BYTES_MAX);
    for (size_t i = 0; i < bytes; i++)
        if (name[i] <= ' ' || name[i] >= 127 || name[i] == '"' || name[i] == '\\')
            return MR_ERROR(INVALID_ARGUMENT,
                            "a tensor's name has byte %d at %zu; it must be "
                            "printable ASCII without quotes and backslashes",
                            (unsigned char)name[i], i);
    if (strcmp(name, MR_SAFETENSORS_METADATA) == 0)
        return MR_ERROR(INVALID_ARGUMENT, "a tensor must not be named " MR_SAFETENSORS_METADATA);
    return MR_OK;
}

/* What is said of its cut: short, of letters, digits and spaces. */
static mr_status writer_check_cut(const mr_safetensors_tensor *tensor) {
    size_t bytes = strlen(tensor->cut);
    if (bytes < WRITER_CUT_BYTES &&
        strspn(tensor->cut, "abcdefghijklmnopqrstuvwxyz0123456789 ") == bytes)
        return MR_OK;
    return MR_ERROR(INVALID_ARGUMENT,
                    "the cut of tensor %.60s is '%.60s'; it must be at most %d small letters, "
                    "digits and spaces",
                    tensor->name, tensor->cut, WRITER_CUT_BYTES - 1);
}

static int writer_compare_names(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static mr_status writer_check_unique(const mr_safetensors_tensor *tensors, size_t count) {
    const char **names = mr_alloc_array(count, sizeof(names[0]));
    if (names == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu names", count);
    for (size_t i = 0; i < count; i++)
        names[i] = tensors[i].name;
    if (count > 1)
        qsort(names, count, sizeof(names[0]), writer_compare_names);
    mr_status status = MR_OK;
    for (size_t i = 1; i < count && mr_status_is_ok(status); i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            status = MR_ERROR(INVALID_ARGUMENT, "E_CKPT_DUP tensor=%s: named twice", names[i]);
    mr_free(names);
    return status;
}

/* Checks the whole list; sums its bytes and an upper bound of its header's. */
static mr_status writer_check(const mr_safetensors_tensor *tensors, size_t count,
                              uint64_t *out_data_bytes, size_t *out_header_bound) {
    if (count > MR_SAFETENSORS_TENSORS_MAX)
        return MR_ERROR(INVALID_ARGUMENT, "%zu tensors in one file; the most is %d", count,
                        MR_SAFETENSORS_TENSORS_MAX);
    uint64_t data_bytes = 0;
    /* What stands around the names: at most 8 numbers of 20 digits and the words. */
    size_t bound = 256;
    for (size_t i = 0; i < count; i++) {
        MR_TRY(writer_check_name(tensors[i].name));
        uint64_t bytes;
        MR_TRY(mr_safetensors_tensor_bytes(&tensors[i], &bytes));
        if (__builtin_add_overflow(data_bytes, bytes, &data_bytes) || data_bytes > INT64_MAX / 2)
            return MR_ERROR(INVALID_ARGUMENT, "E_CKPT_OVERFLOW tensor=%s: the file is too large",
                            tensors[i].name);
        bound += strlen(tensors[i].name) + 256;
        if (tensors[i].cut != NULL) {
            MR_TRY(writer_check_cut(&tensors[i]));
            bound += strlen(tensors[i].name) + strlen(tensors[i].cut) + 16;
        }
    }
    if (bound > MR_SAFETENSORS_HEADER_BYTES_MAX)
        return MR_ERROR(INVALID_ARGUMENT, "a header of up to %zu bytes; the most is %d", bound,
                        MR_SAFETENSORS_HEADER_BYTES_MAX);
    MR_TRY(writer_check_unique(tensors, count));
    *out_data_bytes = data_bytes;
    *out_header_bound = bound;
    return MR_OK;
}

/* Writes one tensor's entry at text (which has room); returns its length. */
static size_t writer_format_entry(const mr_safetensors_tensor *tensor, uint64_t begin, uint64_t end,
                                  char *text, size_t room) {
    size_t used = (size_t)snprintf(text, room, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[",
                                   tensor->name, mr_safetensors_dtype_name(tensor->dtype));
    for (uint32_t i = 0; i < tensor->dims; i++)
        used += (size_t)snprintf(text + used, room - used, "%s%" PRIu64, i == 0 ? "" : ",",
                                 tensor->shape[i]);
    used += (size_t)snprintf(text + used, room - used,
                             "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", begin, end);
    MR_ASSERT(used < room);
    return used;
}

/* Everything before the first tensor's entry. Loaders of the Hugging Face family refuse a file that
 * does not say its format. */
static size_t writer_format_metadata(const mr_safetensors_tensor *tensors, size_t count, char *text,
                                     size_t room) {
    size_t used =
        (size_t)snprintf(text, room, "{\"" MR_SAFETENSORS_METADATA "\":{\"format\":\"pt\"");
    for (size_t i = 0; i < count; i++)
        if (tensors[i].cut != NULL)
            used += (size_t)snprintf(text + used, room - used,
                                     ",\"" MR_SAFETENSORS_CUT_PREFIX "%s\":\"%s\"",
                                     tensors[i].name, tensors[i].cut);
    used += (size_t)snprintf(text + used, room - used, "}");
    MR_ASSERT(used < room);
    return used;
}

/* The length prefix and the padded JSON, in one piece; freed with mr_free. */
static mr_status writer_format_header(const mr_safetensors_tensor *tensors, size_t count,
                                      size_t bound, unsigned char **out_header, size_t *out_bytes) {
    unsigned char *header = mr_alloc(MR_SAFETENSORS_PREFIX_BYTES + bound);
    if (header == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a header of %zu bytes", bound);
    char *text = (char *)header + MR_SAFETENSORS_PREFIX_BYTES;
    size_t used = writer_format_metadata(tensors, count, text, bound);
    uint64_t begin = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t bytes = 0;
        MR_ASSERT(mr_safetensors_size(&tensors[i], &bytes)); /* checked before */
        used += writer_format_entry(&tensors[i], begin, begin + bytes, text + used, bound - used);
        begin += bytes;
    }
    text[used++] = '}';
    while (used % MR_SAFETENSORS_ALIGN != 0)
        text[used++] = ' ';
    MR_ASSERT(used <= bound);
    for (size_t i = 0; i < MR_SAFETENSORS_PREFIX_BYTES; i++)
        header[i] = (unsigned char)((uint64_t)used >> (8 * i));
    *out_header = header;
    *out_bytes = MR_SAFETENSORS_PREFIX_BYTES + used;
    return MR_OK;
}

static mr_status writer_put(mr_safetensors_writer *writer, const void *data, size_t bytes) {
    mr_status status = mr_digest_add(writer->digest, data, bytes);
    if (mr_status_is_ok(status))
        status = mr_file_draft_append(&writer->draft, data, bytes);
    writer->broken = !mr_status_is_ok(status);
    return status;
}

static mr_status writer_start(mr_safetensors_writer *writer, const char *folder, const char *name,
                              const unsigned char *header, size_t header_bytes) {
    size_t folder_bytes = strlen(folder);
    if (folder_bytes == 0 || folder_bytes >= sizeof(writer->folder))
        return MR_ERROR(INVALID_ARGUMENT, "a folder's path has %zu bytes; it must have 1 to %zu",
                        folder_bytes, sizeof(writer->folder) - 1);
    memcpy(writer->folder, folder, folder_bytes + 1);
    MR_TRY(mr_file_make_folder(writer->folder));
    MR_TRY(mr_file_open_folder(writer->folder, false, &writer->folder_fd));
    MR_TRY(mr_digest_create(&writer->digest));
    MR_TRY(mr_file_draft_open(&writer->draft, writer->folder_fd, writer->folder, name,
                              header_bytes + writer->data_bytes));
    writer->header_bytes = header_bytes;
    return writer_put(writer, header, header_bytes);
}

mr_status mr_safetensors_writer_open(const char *folder, const char *name,
                                     const mr_safetensors_tensor *tensors, size_t count,
                                     mr_safetensors_writer **out_writer) {
    uint64_t data_bytes = 0;
    size_t bound = 0;
    unsigned char *header = NULL;
    size_t header_bytes = 0;
    if (!mr_layout_file_name_valid(name))
        return MR_ERROR(INVALID_ARGUMENT, "'%s' cannot name a file of a checkpoint", name);
    MR_TRY(writer_check(tensors, count, &data_bytes, &bound));
    MR_TRY(writer_format_header(tensors, count, bound, &header, &header_bytes));
    mr_status status = MR_OK;
    mr_safetensors_writer *writer = mr_alloc(sizeof(*writer));
    if (writer == NULL) {
        status = MR_ERROR(RESOURCE_EXHAUSTED, "no memory to write %s", name);
        goto out;
    }
    writer->folder_fd = -1;
    writer->draft.fd = -1;
    writer->data_bytes = data_bytes;
    MR_TRY_GOTO(status, writer_start(writer, folder, name, header, header_bytes), out);
    *out_writer = writer;
    writer = NULL;
out:
    mr_safetensors_writer_close(writer);
    mr_free(header);
    return status;
}

mr_status mr_safetensors_writer_append(mr_safetensors_writer *writer, const void *data,
                                       size_t bytes) {
    MR_ASSERT(!writer->broken);
    if (bytes > writer->data_bytes - writer->appended)
        return MR_ERROR(OUT_OF_RANGE, "%s: %zu bytes more, where only %" PRIu64 " are left",
                        writer->draft.name, bytes, writer->data_bytes - writer->appended);
    MR_TRY(writer_put(writer, data, bytes));
    writer->appended += bytes;
    return MR_OK;
}

mr_status mr_safetensors_writer_finish(mr_safetensors_writer *writer,
                                       mr_checkpoint_file *out_file) {
    MR_ASSERT(!writer->broken);
    if (writer->appended != writer->data_bytes)
        return MR_ERROR(FAILED_PRECONDITION, "%s: %" PRIu64 " of %" PRIu64 " bytes were appended",
                        writer->draft.name, writer->appended, writer->data_bytes);
    mr_checkpoint_file file = {.bytes = writer->header_bytes + writer->data_bytes};
    memcpy(file.name, writer->draft.name, sizeof(file.name));
    writer->broken = true; /* nothing may follow */
    MR_TRY(mr_digest_finish(writer->digest, file.sha256));
    MR_TRY(mr_file_draft_finish(&writer->draft));
    *out_file = file;
    return MR_OK;
}

void mr_safetensors_writer_close(mr_safetensors_writer *writer) {
    if (writer == NULL)
        return;
    mr_file_draft_abandon(&writer->draft);
    mr_digest_destroy(writer->digest);
    mr_file_close(&writer->folder_fd);
    mr_free(writer);
}

mr_status mr_safetensors_write(const char *folder, const char *name,
                               const mr_safetensors_tensor *tensors, size_t count,
                               mr_checkpoint_file *out_file) {
    mr_safetensors_writer *writer = NULL;
    MR_TRY(mr_safetensors_writer_open(folder, name, tensors, count, &writer));
    mr_status status = MR_OK;
    for (size_t i = 0; i < count; i++) {
        uint64_t bytes = 0;
        MR_ASSERT(mr_safetensors_size(&tensors[i], &bytes));
        MR_ASSERT(bytes == 0 || tensors[i].data != NULL);
        MR_TRY_GOTO(status, mr_safetensors_writer_append(writer, tensors[i].data, (size_t)bytes),
                    out);
    }
    status = mr_safetensors_writer_finish(writer, out_file);
out:
    mr_safetensors_writer_close(writer);
    return status;
}
