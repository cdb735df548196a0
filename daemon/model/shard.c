/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/model/shard.h"

mr_shard_range mr_shard_range_of(size_t n, size_t rank, size_t width) {
    MR_ASSERT(rank < width);
    size_t each = n / width;
    size_t rest = n % width;
    return (mr_shard_range){
        .first = rank * each + (rank < rest ? rank : rest),
        .count = each + (rank < rest),
    };
}

/* The rank's piece of the part of size elements that begins at first in the whole. */
static mr_status shard_add_piece(const mr_parameter *parameter, size_t first, size_t size,
                                 size_t rank, size_t width, mr_shard *shard) {
    size_t block = parameter->parts.block == 0 ? 1 : parameter->parts.block;
    size_t blocks = size / block;
    MR_ASSERT(size % block == 0);
    if (blocks < width)
        return MR_ERROR(INVALID_ARGUMENT,
                        "%s has %zu blocks of %zu %s; each of the %zu model ranks needs one",
                        parameter->name, blocks, block,
                        parameter->cut == MR_MODEL_CUT_ROWS ? "rows" : "columns", width);
    mr_shard_range range = mr_shard_range_of(blocks, rank, width);
    shard->piece_first[shard->piece_count] = first + range.first * block;
    shard->piece_size[shard->piece_count] = range.count * block;
    shard->piece_count++;
    return MR_OK;
}

/* Elements of all dimensions from first on, or before end; no more than the parameter has. */
static size_t shard_product(const mr_shape *shape, size_t first, size_t end) {
    size_t product = 1;
    for (size_t i = first; i < end; i++)
        product *= shape->dims[i];
    return product;
}

mr_status mr_shard_make(const mr_parameter *parameter, size_t rank, size_t width,
                        mr_shard *out_shard) {
    const mr_parameter_parts *parts = &parameter->parts;
    bool cut = parameter->cut != MR_MODEL_CUT_NONE;
    mr_shard shard = {
        .shape = parameter->whole,
        .whole = parameter->whole,
        .cut_dim = parameter->cut == MR_MODEL_CUT_COLUMNS ? 1 : 0,
    };
    if (width == 0 || rank >= width)
        return MR_ERROR(INVALID_ARGUMENT, "model rank %zu of %zu", rank, width);
    MR_ASSERT(shard.cut_dim < shard.whole.dim_count);
    size_t size = shard.whole.dims[shard.cut_dim];
    size_t first = 0;
    for (size_t i = 0; cut && i < parts->count; i++) {
        MR_TRY(shard_add_piece(parameter, first, parts->sizes[i], rank, width, &shard));
        first += parts->sizes[i];
    }
    MR_ASSERT(first == 0 || first == size);
    if (first == 0)
        MR_TRY(shard_add_piece(parameter, 0, size, cut ? rank : 0, cut ? width : 1, &shard));
    shard.shape.dims[shard.cut_dim] = 0;
    for (size_t i = 0; i < shard.piece_count; i++)
        shard.shape.dims[shard.cut_dim] += shard.piece_size[i];
    shard.run_count = shard.piece_count * shard_product(&shard.whole, 0, shard.cut_dim);
    *out_shard = shard;
    return MR_OK;
}

mr_shard_run mr_shard_run_at(const mr_shard *shard, size_t index) {
    MR_ASSERT(index < shard->run_count);
    size_t outer = index / shard->piece_count;
    size_t piece = index % shard->piece_count;
    size_t inner = shard_product(&shard->whole, shard->cut_dim + 1, shard->whole.dim_count);
    size_t before = 0;
    for (size_t i = 0; i < piece; i++)
        before += shard->piece_size[i];
    return (mr_shard_run){
        .whole_first = (outer * shard->whole.dims[shard->cut_dim] + shard->piece_first[piece]) *
                       inner,
        .shard_first = (outer * shard->shape.dims[shard->cut_dim] + before) * inner,
        .count = shard->piece_size[piece] * inner,
    };
}
