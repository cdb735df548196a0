/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/checkpoint/layer_reader.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/checkpoint/catalog.h"
#include "daemon/checkpoint/slice.h"

enum {
    READER_SCRATCH_BYTES = 1 << 20, /* rows that are read whole to pick columns from */
    READER_ROW_BYTES = 64 << 10,    /* a piece of a row from this size on is read by itself */
};

struct mr_layer_reader {
    mr_layer_reader_options options;
    const mr_layer_files_entry *first; /* width entries */
    size_t width;
    mr_safetensors_reader **files; /* NULL until needed */
    unsigned char *scratch;
};

mr_status mr_layer_reader_open(const mr_layer_reader_options *options,
                               mr_layer_reader **out_reader) {
    static const char *const kinds[MR_LAYER_FILE_COUNT] = {"weights", "optimizer state"};
    const mr_layer_files_entry *first = NULL;
    size_t width = 0;
    MR_TRY(mr_layer_files_of(options->files, options->layer, options->kind, &first, &width));
    if (width == 0)
        return MR_ERROR(FAILED_PRECONDITION,
                        "E_CKPT_MISSING layer=%" PRIu32 ": the checkpoint has no file of its %s",
                        options->layer, kinds[options->kind]);
    mr_layer_reader *reader = mr_alloc(sizeof(*reader));
    if (reader == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to read layer %" PRIu32, options->layer);
    reader->options = *options;
    reader->first = first;
    reader->width = width;
    reader->files = mr_alloc_array(width, sizeof(*reader->files));
    reader->scratch = mr_alloc(READER_SCRATCH_BYTES);
    if (reader->files == NULL || reader->scratch == NULL) {
        mr_layer_reader_close(reader);
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to read layer %" PRIu32, options->layer);
    }
    *out_reader = reader;
    return MR_OK;
}

void mr_layer_reader_close(mr_layer_reader *reader) {
    if (reader == NULL)
        return;
    for (size_t i = 0; reader->files != NULL && i < reader->width; i++)
        mr_safetensors_close(reader->files[i]);
    mr_free(reader->files);
    mr_free(reader->scratch);
    mr_free(reader);
}

size_t mr_layer_reader_width(const mr_layer_reader *reader) {
    return reader->width;
}

mr_status mr_layer_reader_file(mr_layer_reader *reader, size_t rank,
                               const mr_safetensors_reader **out_file) {
    MR_ASSERT(rank < reader->width);
    const mr_layer_reader_options *options = &reader->options;
    const char *name = reader->first[rank].listed->name;
    if (reader->files[rank] == NULL)
        MR_TRY(options->headers_only
                   ? mr_catalog_open_header(options->path, options->manifest, name,
                                            &reader->files[rank])
                   : mr_catalog_open_file(options->path, options->manifest, name,
                                          &reader->files[rank]));
    *out_file = reader->files[rank];
    return MR_OK;
}

/* ---- shapes ---------------------------------------------------------------------------------- */

static mr_status reader_find(mr_layer_reader *reader, size_t rank, const char *name,
                             const mr_safetensors_reader **out_file,
                             const mr_safetensors_tensor **out_tensor) {
    MR_TRY(mr_layer_reader_file(reader, rank, out_file));
    *out_tensor = mr_safetensors_find(*out_file, name);
    if (*out_tensor == NULL)
        return MR_ERROR(DATA_LOSS, "E_CKPT_MISSING tensor=%.60s: not in %s", name,
                        reader->first[rank].listed->name);
    return MR_OK;
}

static void shape_of(const mr_safetensors_tensor *tensor, mr_shape *out_shape) {
    *out_shape = (mr_shape){.dtype = MR_DTYPE_F32, .dim_count = tensor->dims};
    for (uint32_t i = 0; i < tensor->dims; i++)
        out_shape->dims[i] = (size_t)tensor->shape[i];
}

static mr_status shape_error(const char *name, const char *file, const mr_shape *want,
                             const mr_shape *have) {
    char want_text[MR_SHAPE_TEXT_BYTES];
    char have_text[MR_SHAPE_TEXT_BYTES];
    return MR_ERROR(DATA_LOSS, "E_CKPT_SHAPE tensor=%.60s want=%s have=%s: %s", name,
                    mr_shape_text(want, want_text), mr_shape_text(have, have_text), file);
}

/* Is the tensor in rank's file the shard that parameter says? */
static mr_status reader_check_shard(const mr_layer_reader *reader, size_t rank,
                                    const mr_safetensors_tensor *tensor,
                                    const mr_parameter *parameter) {
    mr_shard shard;
    mr_shape have;
    MR_TRY(mr_shard_make(parameter, rank, reader->width, &shard));
    shape_of(tensor, &have);
    /* One element may be written with or without its dimension. */
    if (tensor->dims == 0 && shard.shape.dim_count == 1 && shard.shape.dims[0] == 1)
        return MR_OK;
    if (mr_shape_equal(&have, &shard.shape))
        return MR_OK;
    return shape_error(tensor->name, reader->first[rank].listed->name, &shard.shape, &have);
}

mr_status mr_layer_reader_cut(mr_layer_reader *reader, size_t rank, const char *name,
                              mr_parameter *out_parameter, bool *out_known) {
    char key[sizeof(MR_SAFETENSORS_CUT_PREFIX) + MR_SAFETENSORS_NAME_BYTES_MAX];
    const mr_safetensors_reader *file = NULL;
    const mr_safetensors_tensor *tensor = NULL;
    mr_parameter parameter;
    MR_TRY(reader_find(reader, rank, name, &file, &tensor));
    (void)snprintf(key, sizeof(key), MR_SAFETENSORS_CUT_PREFIX "%s", tensor->name);
    const char *text = mr_safetensors_metadata(file, key);
    MR_TRY(mr_slice_parse(text == NULL ? "whole" : text, tensor->name, tensor->dims, tensor->shape,
                          &parameter));
    if (text != NULL)
        MR_TRY(reader_check_shard(reader, rank, tensor, &parameter));
    *out_parameter = parameter;
    *out_known = text != NULL;
    return MR_OK;
}

mr_status mr_layer_reader_compare(mr_layer_reader *reader, const char *name,
                                  const mr_parameter *wanted, size_t rank, size_t width,
                                  mr_layer_reader_match *out_match) {
    mr_layer_reader_match match = {0};
    const mr_safetensors_reader *file = NULL;
    mr_parameter from;
    mr_shard shard;
    bool known = false;
    size_t near = rank * reader->width / width;
    MR_TRY(mr_layer_reader_file(reader, near, &file));
    const mr_safetensors_tensor *tensor = mr_safetensors_find(file, name);
    if (tensor != NULL) {
        match.found = true;
        MR_TRY(mr_layer_reader_cut(reader, near, name, &from, &known));
        match.have = from.whole;
        /* A file that does not say its cut is read as the job cuts it. */
        const mr_shape *want = &wanted->whole;
        if (!known && mr_status_is_ok(mr_shard_make(wanted, near, reader->width, &shard)))
            want = &shard.shape;
        match.fits = tensor->dtype == MR_SAFETENSORS_F32 && mr_shape_equal(&match.have, want);
    }
    *out_match = match;
    return MR_OK;
}

/* ---- loading --------------------------------------------------------------------------------- */

typedef struct load_work {
    mr_layer_reader *reader;
    const char *name;
    const mr_parameter *from;
    size_t columns; /* of the target */
    float *out;
} load_work;

/* Whole rows come into the scratch, of which the move's columns are kept. */
static mr_status load_by_scratch(const load_work *work, const mr_safetensors_reader *file,
                                 const mr_safetensors_tensor *tensor, const mr_slice_move *move,
                                 size_t columns) {
    size_t row_bytes = columns * sizeof(float);
    size_t rows_max = READER_SCRATCH_BYTES / row_bytes;
    for (size_t row = 0; row < move->rows; row += rows_max) {
        size_t rows = move->rows - row < rows_max ? move->rows - row : rows_max;
        MR_TRY(mr_safetensors_read(file, tensor, (move->source_row + row) * row_bytes,
                                   work->reader->scratch, rows * row_bytes));
        for (size_t i = 0; i < rows; i++)
            memcpy(work->out + (move->target_row + row + i) * work->columns + move->target_column,
                   work->reader->scratch + i * row_bytes + move->source_column * sizeof(float),
                   move->columns * sizeof(float));
    }
    return MR_OK;
}

static mr_status load_by_rows(const load_work *work, const mr_safetensors_reader *file,
                              const mr_safetensors_tensor *tensor, const mr_slice_move *move,
                              size_t columns) {
    for (size_t row = 0; row < move->rows; row++) {
        uint64_t from = (uint64_t)(move->source_row + row) * columns + move->source_column;
        MR_TRY(mr_safetensors_read(
            file, tensor, from * sizeof(float),
            work->out + (move->target_row + row) * work->columns + move->target_column,
            move->columns * sizeof(float)));
    }
    return MR_OK;
}

static mr_status load_move(void *context, const mr_slice_move *move) {
    const load_work *work = context;
    const mr_safetensors_reader *file = NULL;
    const mr_safetensors_tensor *tensor = NULL;
    mr_shape shape;
    size_t rows = 0;
    size_t columns = 0;
    MR_TRY(reader_find(work->reader, move->source, work->name, &file, &tensor));
    if (tensor->dtype != MR_SAFETENSORS_F32)
        return MR_ERROR(DATA_LOSS, "E_CKPT_DTYPE tensor=%.60s want=F32 have=%s: %s", work->name,
                        mr_safetensors_dtype_name(tensor->dtype),
                        work->reader->first[move->source].listed->name);
    MR_TRY(reader_check_shard(work->reader, move->source, tensor, work->from));
    shape_of(tensor, &shape);
    mr_slice_matrix(&shape, &rows, &columns);
    MR_ASSERT(move->source_row + move->rows <= rows);
    MR_ASSERT(move->source_column + move->columns <= columns);
    if (move->columns == columns && columns == work->columns)
        return mr_safetensors_read(file, tensor, move->source_row * columns * sizeof(float),
                                   work->out + move->target_row * columns,
                                   move->rows * columns * sizeof(float));
    if (move->columns * sizeof(float) >= READER_ROW_BYTES ||
        columns * sizeof(float) > READER_SCRATCH_BYTES)
        return load_by_rows(work, file, tensor, move, columns);
    return load_by_scratch(work, file, tensor, move, columns);
}

mr_status mr_layer_reader_load(mr_layer_reader *reader, const char *name,
                               const mr_parameter *wanted, size_t rank, size_t width, float *out) {
    mr_parameter from;
    mr_shard shard;
    bool known = false;
    size_t rows = 0;
    size_t near = rank * reader->width / width; /* a file that this shard needs anyway */
    MR_TRY(mr_shard_make(wanted, rank, width, &shard));
    MR_TRY(mr_layer_reader_cut(reader, near, name, &from, &known));
    if (!known)
        from = *wanted;
    if (!mr_shape_equal(&from.whole, &wanted->whole))
        return shape_error(name, reader->first[near].listed->name, &wanted->whole, &from.whole);
    load_work work = {.reader = reader, .name = name, .from = &from, .out = out};
    mr_slice_matrix(&shard.shape, &rows, &work.columns);
    return mr_slice_moves(&from, reader->width, wanted, rank, width, load_move, &work);
}
