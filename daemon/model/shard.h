/* SPDX-License-Identifier: Apache-2.0 */
/* shard.h: which elements of a parameter each rank of the model axis holds. This is the one place
 * that says it: layers, initial weights, and checkpoints of any model width follow it.
 *
 * A parameter without a cut is held whole by every rank. One that is cut along its rows or columns
 * falls into its parts (description.h: Q, K and V of qkv; gate and up), each part into blocks (a
 * head of attention; else single rows or columns), and of the blocks of each part every rank holds
 * neighbours: ranks in order, as many for each, and one more for the first ranks where they do not
 * divide (deepspeed.md 44). A shard is its pieces of all parts, one after the other. So the shards
 * of a vocabulary are its rows in order, without padding, and any number of rows can be cut.
 * Owner: model. Pure, any thread. */
#ifndef MR_MODEL_SHARD_H
#define MR_MODEL_SHARD_H

#include <stddef.h>

#include "daemon/base/status.h"
#include "daemon/model/description.h"

/* Of n things in a row, those that one rank holds. */
typedef struct mr_shard_range {
    size_t first;
    size_t count;
} mr_shard_range;

/* rank < width. Cannot fail; count is 0 where n is less than width. */
mr_shard_range mr_shard_range_of(size_t n, size_t rank, size_t width);

/* Neighbouring elements of the whole that are neighbours in the shard too; row-major indices. */
typedef struct mr_shard_run {
    size_t whole_first;
    size_t shard_first;
    size_t count;
} mr_shard_run;

typedef struct mr_shard {
    mr_shape shape; /* of the shard; the whole's where nothing is cut */
    mr_shape whole;
    size_t run_count;
    /* The piece of each part, in elements of the cut dimension. */
    size_t piece_count;
    size_t piece_first[MR_PARAMETER_PARTS_MAX]; /* in the whole */
    size_t piece_size[MR_PARAMETER_PARTS_MAX];
    size_t cut_dim; /* 0 where nothing is cut */
} mr_shard;

/* parameter: of any description of its layer; only its whole counts. INVALID_ARGUMENT: no such
 * rank, or a part with fewer blocks than ranks (parameter, blocks and width named). */
MR_MUST_CHECK mr_status mr_shard_make(const mr_parameter *parameter, size_t rank, size_t width,
                                      mr_shard *out_shard);
/* Run index < run_count; ascending in the whole and in the shard, of which the runs are all. */
mr_shard_run mr_shard_run_at(const mr_shard *shard, size_t index);

#endif
