/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/checkpoint/slice.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const cut_names[] = {
    [MR_MODEL_CUT_NONE] = "whole",
    [MR_MODEL_CUT_ROWS] = "rows",
    [MR_MODEL_CUT_COLUMNS] = "columns",
};
enum { CUTS = sizeof(cut_names) / sizeof(cut_names[0]) };

/* ---- text ------------------------------------------------------------------------------------ */

static size_t cut_dimension(mr_model_cut cut) {
    return cut == MR_MODEL_CUT_COLUMNS ? 1 : 0;
}

void mr_slice_text(const mr_parameter *parameter, char *out) {
    const mr_parameter_parts *parts = &parameter->parts;
    size_t used =
        (size_t)snprintf(out, MR_SLICE_TEXT_BYTES, "%s", cut_names[parameter->cut]);
    if (parameter->cut == MR_MODEL_CUT_NONE)
        return;
    MR_ASSERT(cut_dimension(parameter->cut) < parameter->whole.dim_count);
    if (parts->count == 0)
        used += (size_t)snprintf(out + used, MR_SLICE_TEXT_BYTES - used, " %zu",
                                 parameter->whole.dims[cut_dimension(parameter->cut)]);
    for (size_t i = 0; i < parts->count; i++)
        used += (size_t)snprintf(out + used, MR_SLICE_TEXT_BYTES - used, " %zu", parts->sizes[i]);
    if (parts->block > 1)
        used += (size_t)snprintf(out + used, MR_SLICE_TEXT_BYTES - used, " block %zu",
                                 parts->block);
    MR_ASSERT(used < MR_SLICE_TEXT_BYTES);
}

/* A positive number after a space; its end, NULL for anything else. */
static const char *parse_number(const char *text, size_t *out_number) {
    char *end = NULL;
    if (text[0] != ' ' || text[1] < '1' || text[1] > '9')
        return NULL;
    errno = 0;
    unsigned long long number = strtoull(text + 1, &end, 10);
    if (errno == ERANGE || number > INT64_MAX)
        return NULL;
    *out_number = (size_t)number;
    return end;
}

/* " 64 64 64 block 16"; false for anything else. */
static bool parse_parts(const char *text, mr_parameter_parts *out_parts) {
    static const char block_word[] = " block";
    mr_parameter_parts parts = {0};
    const char *next;
    while (parts.count < MR_PARAMETER_PARTS_MAX &&
           (next = parse_number(text, &parts.sizes[parts.count])) != NULL) {
        parts.count++;
        text = next;
    }
    if (parts.count > 0 && strncmp(text, block_word, strlen(block_word)) == 0) {
        text = parse_number(text + strlen(block_word), &parts.block);
        for (size_t i = 0; text != NULL && i < parts.count; i++)
            if (parts.sizes[i] % parts.block != 0)
                return false;
    }
    if (parts.count == 0 || text == NULL || *text != '\0')
        return false;
    *out_parts = parts;
    return true;
}

/* The whole's shape: the shard's, with the parts' sum in the cut dimension. */
static bool parse_whole(mr_parameter *parameter, uint32_t dims, const uint64_t *shard_shape) {
    size_t dimension = cut_dimension(parameter->cut);
    size_t length = 0;
    size_t elements = 0;
    parameter->whole.dtype = MR_DTYPE_F32; /* of no consequence: moves count elements */
    parameter->whole.dim_count = dims == 0 ? 1 : dims;
    parameter->whole.dims[0] = 1;
    for (uint32_t i = 0; i < dims; i++)
        parameter->whole.dims[i] = (size_t)shard_shape[i];
    if (parameter->cut != MR_MODEL_CUT_NONE) {
        if (dimension >= dims)
            return false;
        for (size_t i = 0; i < parameter->parts.count; i++)
            if (__builtin_add_overflow(length, parameter->parts.sizes[i], &length))
                return false;
        parameter->whole.dims[dimension] = length;
    }
    return mr_shape_elements(&parameter->whole, &elements) && elements <= INT64_MAX / 8;
}

mr_status mr_slice_parse(const char *text, const char *name, uint32_t dims,
                         const uint64_t *shard_shape, mr_parameter *out_parameter) {
    mr_parameter parameter = {0};
    size_t cut = 0;
    MR_ASSERT(dims <= MR_TENSOR_DIMS_MAX);
    while (cut < CUTS && strncmp(text, cut_names[cut], strlen(cut_names[cut])) != 0)
        cut++;
    const char *rest = cut == CUTS ? "" : text + strlen(cut_names[cut]);
    parameter.cut = cut == CUTS ? MR_MODEL_CUT_NONE : (mr_model_cut)cut;
    bool good = cut < CUTS && (parameter.cut == MR_MODEL_CUT_NONE
                                   ? *rest == '\0'
                                   : parse_parts(rest, &parameter.parts));
    if (!good || !parse_whole(&parameter, dims, shard_shape))
        return MR_ERROR(DATA_LOSS,
                        "E_CKPT_CUT tensor=%.60s: its cut is '%.60s'; it must be whole, or rows or "
                        "columns, up to %d lengths and a block that divides them",
                        name, text, MR_PARAMETER_PARTS_MAX);
    (void)snprintf(parameter.name, sizeof(parameter.name), "%s", name);
    *out_parameter = parameter;
    return MR_OK;
}

/* ---- moves ----------------------------------------------------------------------------------- */

/* A stretch of one dimension: where it lies in the whole and where in the shard. */
typedef struct slice_run {
    size_t whole;
    size_t shard;
    size_t length;
} slice_run;

typedef struct slice_runs {
    size_t count;
    slice_run runs[MR_PARAMETER_PARTS_MAX];
} slice_runs;

/* What a shard holds, row by row and column by column. */
typedef struct slice_holding {
    slice_runs rows;
    slice_runs columns;
} slice_holding;

void mr_slice_matrix(const mr_shape *shape, size_t *out_rows, size_t *out_columns) {
    *out_rows = shape->dim_count == 0 ? 1 : shape->dims[0];
    *out_columns = 1;
    for (size_t i = 1; i < shape->dim_count; i++)
        *out_columns *= shape->dims[i];
}

static slice_holding holding_of(const mr_shard *shard) {
    slice_holding holding;
    size_t rows = 0;
    size_t columns = 0;
    mr_slice_matrix(&shard->whole, &rows, &columns);
    holding.rows = (slice_runs){.count = 1, .runs = {{0, 0, rows}}};
    holding.columns = (slice_runs){.count = 1, .runs = {{0, 0, columns}}};
    slice_runs *cut = shard->cut_dim == 0 ? &holding.rows : &holding.columns;
    /* A piece counts elements of its dimension; those of later dimensions come along with each. */
    size_t unit = 1;
    for (size_t i = shard->cut_dim + 1; shard->cut_dim > 0 && i < shard->whole.dim_count; i++)
        unit *= shard->whole.dims[i];
    size_t before = 0;
    cut->count = shard->piece_count;
    for (size_t i = 0; i < shard->piece_count; i++) {
        cut->runs[i] = (slice_run){shard->piece_first[i] * unit, before * unit,
                                   shard->piece_size[i] * unit};
        before += shard->piece_size[i];
    }
    return holding;
}

/* What two runs have in common, as each of them sees it; false where that is nothing. */
static bool run_meet(const slice_run *from, const slice_run *to, slice_run out[2]) {
    size_t begin = from->whole > to->whole ? from->whole : to->whole;
    size_t from_end = from->whole + from->length;
    size_t to_end = to->whole + to->length;
    size_t end = from_end < to_end ? from_end : to_end;
    if (begin >= end)
        return false;
    out[0] = (slice_run){begin, from->shard + (begin - from->whole), end - begin};
    out[1] = (slice_run){begin, to->shard + (begin - to->whole), end - begin};
    return true;
}

/* The rectangles of one stretch of rows. */
static mr_status rows_meet(const slice_runs *from, const slice_runs *to, const slice_run rows[2],
                           size_t source, mr_slice_visit visit, void *context) {
    slice_run columns[2];
    for (size_t i = 0; i < from->count; i++)
        for (size_t j = 0; j < to->count; j++) {
            if (!run_meet(&from->runs[i], &to->runs[j], columns))
                continue;
            const mr_slice_move move = {
                .source = source,
                .source_row = rows[0].shard,
                .source_column = columns[0].shard,
                .target_row = rows[1].shard,
                .target_column = columns[1].shard,
                .rows = rows[0].length,
                .columns = columns[0].length,
            };
            MR_TRY(visit(context, &move));
        }
    return MR_OK;
}

static mr_status holdings_meet(const slice_holding *from, const slice_holding *to, size_t source,
                               mr_slice_visit visit, void *context) {
    slice_run rows[2];
    for (size_t i = 0; i < from->rows.count; i++)
        for (size_t j = 0; j < to->rows.count; j++)
            if (run_meet(&from->rows.runs[i], &to->rows.runs[j], rows))
                MR_TRY(rows_meet(&from->columns, &to->columns, rows, source, visit, context));
    return MR_OK;
}

mr_status mr_slice_moves(const mr_parameter *from, size_t from_width, const mr_parameter *to,
                         size_t rank, size_t width, mr_slice_visit visit, void *context) {
    mr_shard held;
    mr_shard wanted;
    char from_text[MR_SHAPE_TEXT_BYTES];
    char to_text[MR_SHAPE_TEXT_BYTES];
    if (!mr_shape_equal(&from->whole, &to->whole))
        return MR_ERROR(INVALID_ARGUMENT, "%s is %s at its source; it must be %s", to->name,
                        mr_shape_text(&from->whole, from_text),
                        mr_shape_text(&to->whole, to_text));
    MR_TRY(mr_shard_make(to, rank, width, &wanted));
    const slice_holding target = holding_of(&wanted);
    bool whole = from->cut == MR_MODEL_CUT_NONE;
    size_t first = whole ? rank * from_width / width : 0;
    size_t end = whole ? first + 1 : from_width;
    for (size_t source = first; source < end; source++) {
        MR_TRY(mr_shard_make(from, source, from_width, &held));
        const slice_holding holding = holding_of(&held);
        MR_TRY(holdings_meet(&holding, &target, source, visit, context));
    }
    return MR_OK;
}
