/* SPDX-License-Identifier: Apache-2.0 */
/* rank_map.h: which ranks' files of a checkpoint with one file of state for each rank, as the field
 * writes it, a rank of a smaller topology takes over (reference: deepspeed.md 120 and 121).
 * Millrace writes state by layer and needs no such map; who reads the field's folders does.
 *
 * A source file has the number data * (pipes * models) + pipe * models + model. Model ranks are
 * brought together within their stage, then stages, then replicas: neighbours in order, as many for
 * each target.
 * Owner: checkpoint. Pure, any thread. Limits: MR_RANKS_MAX.
 * Not here: reading those files (deploy/convert). */
#ifndef MR_CHECKPOINT_RANK_MAP_H
#define MR_CHECKPOINT_RANK_MAP_H

#include <stddef.h>

#include "daemon/base/status.h"

typedef struct mr_rank_map_widths {
    size_t pipe;
    size_t model;
    size_t data;
} mr_rank_map_widths;

typedef struct mr_rank_map {
    mr_rank_map_widths to;
    size_t each;   /* sources of each target */
    size_t *files; /* owned: targets in order of their own numbers, each with its sources */
} mr_rank_map;

/* INVALID_ARGUMENT names the axis and both widths: a target wider than its source, a width that
 * does not divide it, 0, or over MR_RANKS_MAX ranks; RESOURCE_EXHAUSTED: no memory. */
MR_MUST_CHECK mr_status mr_rank_map_make(const mr_rank_map_widths *from,
                                         const mr_rank_map_widths *to, mr_rank_map *out_map);
/* A zeroed one is fine. */
void mr_rank_map_deinit(mr_rank_map *map);

/* The sources of a target, map->each of them, borrowed. */
const size_t *mr_rank_map_sources(const mr_rank_map *map, size_t data, size_t pipe, size_t model);

#endif
