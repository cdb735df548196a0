/* SPDX-License-Identifier: Apache-2.0 */
/* slice.h: what has to move where when the number of model ranks changes, and how a file says in
 * which way its tensors are cut. Pure arithmetic, no I/O.
 *
 * Which elements a rank holds is model/shard.h's business. A change of width from V to W ranks is a
 * list of rectangles of elements, each from one of V shards to one of W: a merge, a split, or both
 * at once where neither number divides the other. A tensor is a matrix here: its first dimension
 * makes the rows, all others together the columns.
 *
 * In a file a tensor's cut stands in the safetensors metadata under "cut.NAME": "whole" (every rank
 * holds all of it), "rows 64 64 64 block 16" or "columns 256": the cut dimension, the lengths that
 * its parts have in the whole tensor, and the block in which they are dealt (1 where it is left
 * out). The text does not depend on the width, so that files of one rank and of many say the same,
 * and a part's shape can be checked against it.
 * Owner: checkpoint. Thread: any. Limits: MR_PARAMETER_PARTS_MAX.
 * Not here: reading parts from files (layer_reader.h), which layer has which cut (model/). */
#ifndef MR_CHECKPOINT_SLICE_H
#define MR_CHECKPOINT_SLICE_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/base/status.h"
#include "daemon/model/shard.h"

enum { MR_SLICE_TEXT_BYTES = 32 + 21 * (MR_PARAMETER_PARTS_MAX + 1) };

/* A rectangle of elements that goes from a shard of one width to a shard of another; rows and
 * columns count within the shards. */
typedef struct mr_slice_move {
    size_t source; /* the rank that holds it */
    size_t source_row;
    size_t source_column;
    size_t target_row;
    size_t target_column;
    size_t rows;
    size_t columns;
} mr_slice_move;

typedef mr_status (*mr_slice_visit)(void *context, const mr_slice_move *move);

/* "rows 64 64 64 block 16"; of the parameter only cut, parts and whole count. out has
 * MR_SLICE_TEXT_BYTES. */
void mr_slice_text(const mr_parameter *parameter, char *out);
/* The reverse: a parameter with the name (cut where it is too long), the cut and the whole shape
 * that follow from the text and the shape of one shard. DATA_LOSS "E_CKPT_CUT tensor=NAME": not of
 * that form, more than 64 bits, a block that does not divide a part, a dimension that the shard
 * lacks. */
MR_MUST_CHECK mr_status mr_slice_parse(const char *text, const char *name, uint32_t dims,
                                       const uint64_t *shard_shape, mr_parameter *out_parameter);

/* Rows and columns of a shape. */
void mr_slice_matrix(const mr_shape *shape, size_t *out_rows, size_t *out_columns);

/* Visits the rectangles that fill shard rank of width of a tensor, which is cut as `to` says, from
 * the from_width shards of the same tensor cut as `from` says, in ascending order of their source.
 * A tensor that is whole at its source comes from the one rank whose other tensors this shard needs
 * too, so that no file is opened for it alone. The first error of visit ends it.
 * INVALID_ARGUMENT: the wholes differ, or as mr_shard_make. */
MR_MUST_CHECK mr_status mr_slice_moves(const mr_parameter *from, size_t from_width,
                                       const mr_parameter *to, size_t rank, size_t width,
                                       mr_slice_visit visit, void *context);

#endif
