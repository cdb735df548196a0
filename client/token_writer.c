/* SPDX-License-Identifier: Apache-2.0 */
#include "client/token_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/path_text.h"
#include "client/token_layout.h"
#include "daemon/base/alloc.h"
#include "daemon/base/limits.h"

enum {
    WRITER_U16_END = 65536,
    WRITER_MEGATRON_U16_END = 65500, /* Megatron's own bound for 16-bit tokens */
    WRITER_NPY_HEADER_BYTES = 128,
    WRITER_PIECE_TOKENS = 4096,
    WRITER_FILE_MODE = 0644,
};

/* One file on its way: written under part, renamed to path. */
typedef struct writer_file {
    char path[MR_CHECKPOINT_PATH_BYTES];
    char part[MR_CHECKPOINT_PATH_BYTES];
    FILE *out; /* NULL: not open */
    bool made; /* part is there */
} writer_file;

struct mr_token_writer {
    mr_token_writer_options options;
    uint32_t width;
    uint64_t put;
    writer_file data;
    writer_file index; /* megatron */
    /* megatron: sequences so far, and the first one of each document */
    uint32_t *lengths;
    uint32_t *documents;
    size_t sequence_count;
    size_t document_count;
    size_t capacity;
    uint32_t open_length; /* of the sequence that is not ended */
    bool document_open;
};

static mr_status writer_error(const char *path, const char *what) {
    int error = errno;
    if (error == EACCES || error == EPERM || error == EROFS)
        return MR_ERROR(PERMISSION_DENIED, "%s: cannot %s: %s", mr_path_shorten(path).text, what,
                        strerror(error));
    return MR_ERROR(UNKNOWN, "%s: cannot %s: %s", mr_path_shorten(path).text, what,
                    strerror(error));
}

static mr_status writer_file_open(writer_file *file, const char *stem, size_t stem_length,
                                  const char *ending, bool replace) {
    struct stat info;
    int length =
        snprintf(file->path, sizeof(file->path), "%.*s%s", (int)stem_length, stem, ending);
    int longer = snprintf(file->part, sizeof(file->part), "%s.XXXXXX", file->path);
    if (length < 0 || longer < 0 || (size_t)longer >= sizeof(file->part))
        return MR_ERROR(INVALID_ARGUMENT, "%s: the path has %d bytes; at most %zu are allowed",
                        mr_path_shorten(stem).text, length, sizeof(file->part) - 8);
    if (!replace && lstat(file->path, &info) == 0)
        return MR_ERROR(ALREADY_EXISTS, "%s is there already; --force replaces it",
                        mr_path_shorten(file->path).text);
    int fd = mkostemp(file->part, O_CLOEXEC);
    if (fd < 0)
        return writer_error(file->path, "write");
    file->made = true;
    file->out = fdopen(fd, "wb");
    if (file->out == NULL) {
        mr_status status = writer_error(file->path, "write");
        (void)close(fd); /* nothing is in it */
        return status;
    }
    if (fchmod(fd, WRITER_FILE_MODE) != 0)
        return writer_error(file->path, "write");
    return MR_OK;
}

/* What is written is on the disk when this returns. */
static mr_status writer_file_end(writer_file *file) {
    bool good = fflush(file->out) == 0 && !ferror(file->out) && fsync(fileno(file->out)) == 0;
    mr_status status = good ? MR_OK : writer_error(file->path, "write");
    if (fclose(file->out) != 0 && mr_status_is_ok(status))
        status = writer_error(file->path, "write");
    file->out = NULL;
    return status;
}

static mr_status writer_file_place(writer_file *file) {
    if (rename(file->part, file->path) != 0)
        return writer_error(file->path, "rename");
    file->made = false;
    return MR_OK;
}

static void writer_number(FILE *out, uint64_t value, uint32_t width) {
    for (uint32_t i = 0; i < width; i++)
        (void)fputc((int)(value >> 8 * i & 0xffu), out); /* ferror tells at the end */
}

/* ---- headers --------------------------------------------------------------------------------- */

static mr_status writer_begin_llmc(const mr_token_writer *writer) {
    const bool narrow = writer->width == 2;
    if (writer->options.tokens > INT32_MAX)
        return MR_ERROR(INVALID_ARGUMENT,
                        "%llu tokens are too many for one llm.c file; at most %d fit",
                        (unsigned long long)writer->options.tokens, INT32_MAX);
    FILE *out = writer->data.out;
    writer_number(out, narrow ? MR_TOKEN_LLMC_MAGIC_U16 : MR_TOKEN_LLMC_MAGIC_U32, 4);
    writer_number(out, narrow ? MR_TOKEN_LLMC_VERSION_U16 : MR_TOKEN_LLMC_VERSION_U32, 4);
    writer_number(out, writer->options.tokens, 4);
    for (size_t i = 12; i < MR_TOKEN_LLMC_HEADER_BYTES; i++)
        (void)fputc(0, out); /* ferror tells */
    return MR_OK;
}

static void writer_begin_npy(const mr_token_writer *writer) {
    char text[WRITER_NPY_HEADER_BYTES - 10 + 1];
    FILE *out = writer->data.out;
    int length = snprintf(text, sizeof(text),
                          "{'descr': '%s', 'fortran_order': False, 'shape': (%llu,), }",
                          writer->width == 2 ? "<u2" : "<i4",
                          (unsigned long long)writer->options.tokens);
    MR_ASSERT(length > 0 && (size_t)length < sizeof(text) - 1);
    fputs("\x93NUMPY\x01", out);
    writer_number(out, 0, 1);
    writer_number(out, WRITER_NPY_HEADER_BYTES - 10, 2);
    fprintf(out, "%-*s\n", (int)WRITER_NPY_HEADER_BYTES - 11, text);
}

static mr_status writer_choose_width(mr_token_writer *writer) {
    const mr_token_writer_options *options = &writer->options;
    switch (options->format) {
    case MR_DATA_BYTES:
        if (options->largest > UINT8_MAX)
            return MR_ERROR(INVALID_ARGUMENT,
                            "the largest token is %d; format bytes has 0 to %d", options->largest,
                            UINT8_MAX);
        writer->width = 1;
        return MR_OK;
    case MR_DATA_MEGATRON:
        writer->width = options->largest < WRITER_MEGATRON_U16_END ? 2 : 4;
        return MR_OK;
    default:
        writer->width = options->largest < WRITER_U16_END ? 2 : 4;
        return MR_OK;
    }
}

static mr_status writer_begin(mr_token_writer *writer) {
    const mr_token_writer_options *options = &writer->options;
    const char *path = options->path;
    size_t length = strlen(path);
    MR_TRY(writer_choose_width(writer));
    if (options->format != MR_DATA_MEGATRON) {
        MR_TRY(writer_file_open(&writer->data, path, length, "", options->replace));
        if (options->format == MR_DATA_LLMC)
            return writer_begin_llmc(writer);
        if (options->format == MR_DATA_NPY)
            writer_begin_npy(writer);
        return MR_OK;
    }
    if (length > 4 &&
        (strcmp(path + length - 4, ".bin") == 0 || strcmp(path + length - 4, ".idx") == 0))
        length -= 4;
    MR_TRY(writer_file_open(&writer->data, path, length, ".bin", options->replace));
    return writer_file_open(&writer->index, path, length, ".idx", options->replace);
}

mr_status mr_token_writer_open(const mr_token_writer_options *options,
                               mr_token_writer **out_writer) {
    MR_ASSERT(options->tokens >= 1);
    mr_token_writer *writer = mr_alloc(sizeof(*writer));
    if (writer == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to write tokens");
    writer->options = *options;
    mr_status status = writer_begin(writer);
    if (mr_status_is_ok(status))
        *out_writer = writer;
    else
        mr_token_writer_close(writer);
    return status;
}

/* ---- megatron's sequences -------------------------------------------------------------------- */

static mr_status writer_grow(mr_token_writer *writer) {
    size_t capacity = writer->capacity == 0 ? 1024 : writer->capacity * 2;
    if (writer->sequence_count < writer->capacity)
        return MR_OK;
    if (capacity > MR_TOKEN_WRITER_SEQUENCES_MAX)
        return MR_ERROR(INVALID_ARGUMENT, "there are more than %d documents",
                        (int)MR_TOKEN_WRITER_SEQUENCES_MAX);
    uint32_t *lengths = mr_alloc_array(capacity, sizeof(*lengths));
    uint32_t *documents = mr_alloc_array(capacity, sizeof(*documents));
    if (lengths == NULL || documents == NULL) {
        mr_free(lengths);
        mr_free(documents);
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu documents", capacity);
    }
    if (writer->capacity > 0) {
        memcpy(lengths, writer->lengths, writer->sequence_count * sizeof(*lengths));
        memcpy(documents, writer->documents, writer->document_count * sizeof(*documents));
    }
    mr_free(writer->lengths);
    mr_free(writer->documents);
    writer->lengths = lengths;
    writer->documents = documents;
    writer->capacity = capacity;
    return MR_OK;
}

static mr_status writer_end_sequence(mr_token_writer *writer, bool document_too) {
    MR_TRY(writer_grow(writer));
    if (!writer->document_open)
        writer->documents[writer->document_count++] = (uint32_t)writer->sequence_count;
    writer->document_open = !document_too;
    writer->lengths[writer->sequence_count++] = writer->open_length;
    writer->open_length = 0;
    return MR_OK;
}

static mr_status writer_count(mr_token_writer *writer, const int32_t *tokens, size_t count) {
    for (size_t i = 0; i < count; i++) {
        writer->open_length++;
        bool ends = (int64_t)tokens[i] == writer->options.document_end;
        if (ends || writer->open_length == INT32_MAX)
            MR_TRY(writer_end_sequence(writer, ends));
    }
    return MR_OK;
}

static void writer_put_index(const mr_token_writer *writer) {
    FILE *out = writer->index.out;
    uint64_t start = 0;
    (void)fwrite("MMIDIDX\0\0", 1, 9, out); /* ferror tells */
    writer_number(out, 1, 8);
    writer_number(out, writer->width == 2 ? 8 : 4, 1);
    writer_number(out, writer->sequence_count, 8);
    writer_number(out, writer->document_count + 1, 8);
    for (size_t i = 0; i < writer->sequence_count; i++)
        writer_number(out, writer->lengths[i], 4);
    for (size_t i = 0; i < writer->sequence_count; i++) {
        writer_number(out, start, 8);
        start += (uint64_t)writer->lengths[i] * writer->width;
    }
    for (size_t i = 0; i < writer->document_count; i++)
        writer_number(out, writer->documents[i], 8);
    writer_number(out, writer->sequence_count, 8);
}

/* ---- tokens ---------------------------------------------------------------------------------- */

mr_status mr_token_writer_put(mr_token_writer *writer, const int32_t *tokens, size_t count) {
    unsigned char piece[WRITER_PIECE_TOKENS * 4];
    MR_ASSERT(count <= writer->options.tokens - writer->put);
    if (writer->options.format == MR_DATA_MEGATRON)
        MR_TRY(writer_count(writer, tokens, count));
    for (size_t done = 0; done < count;) {
        size_t left = count - done;
        size_t take = left < WRITER_PIECE_TOKENS ? left : WRITER_PIECE_TOKENS;
        size_t bytes = 0;
        for (size_t i = 0; i < take; i++) {
            MR_ASSERT(tokens[done + i] >= 0 && tokens[done + i] <= writer->options.largest);
            for (uint32_t b = 0; b < writer->width; b++)
                piece[bytes++] = (unsigned char)((uint32_t)tokens[done + i] >> 8 * b & 0xffu);
        }
        if (fwrite(piece, 1, bytes, writer->data.out) != bytes)
            return writer_error(writer->data.path, "write");
        done += take;
    }
    writer->put += count;
    return MR_OK;
}

mr_status mr_token_writer_commit(mr_token_writer *writer) {
    const bool megatron = writer->options.format == MR_DATA_MEGATRON;
    MR_ASSERT(writer->put == writer->options.tokens);
    if (megatron && writer->open_length > 0)
        MR_TRY(writer_end_sequence(writer, true));
    MR_TRY(writer_file_end(&writer->data));
    if (megatron) {
        writer_put_index(writer);
        MR_TRY(writer_file_end(&writer->index));
    }
    MR_TRY(writer_file_place(&writer->data));
    return megatron ? writer_file_place(&writer->index) : MR_OK;
}

static void writer_file_close(writer_file *file) {
    if (file->out != NULL)
        (void)fclose(file->out); /* it is thrown away */
    if (file->made)
        (void)unlink(file->part); /* best effort: it has no name that anybody reads */
}

void mr_token_writer_close(mr_token_writer *writer) {
    if (writer == NULL)
        return;
    writer_file_close(&writer->data);
    writer_file_close(&writer->index);
    mr_free(writer->lengths);
    mr_free(writer->documents);
    mr_free(writer);
}
