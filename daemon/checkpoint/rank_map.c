/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/checkpoint/rank_map.h"

#include "daemon/base/alloc.h"
#include "daemon/base/limits.h"

static mr_status map_check_axis(const char *axis, size_t from, size_t to) {
    if (from == 0 || to == 0 || from > MR_RANKS_MAX)
        return MR_ERROR(INVALID_ARGUMENT, "%s: from width %zu to %zu; both must be 1 to %d", axis,
                        from, to, MR_RANKS_MAX);
    if (to > from)
        return MR_ERROR(INVALID_ARGUMENT,
                        "%s: from width %zu to %zu; files of single ranks can only be brought "
                        "together",
                        axis, from, to);
    if (from % to != 0)
        return MR_ERROR(INVALID_ARGUMENT, "%s: from width %zu to %zu; it must divide it evenly",
                        axis, from, to);
    return MR_OK;
}

static size_t widths_ranks(const mr_rank_map_widths *widths) {
    return widths->pipe * widths->model * widths->data;
}

/* The sources of one target. Those of all its replicas stand in the order (pipe, model, data); a
 * replica has its even share of that row. */
static void map_fill(const mr_rank_map_widths *from, const mr_rank_map *map, size_t data,
                     size_t pipe, size_t model, size_t *out) {
    size_t pipes = from->pipe / map->to.pipe;
    size_t models = from->model / map->to.model;
    size_t single = from->pipe * from->model; /* files of one replica */
    for (size_t i = 0; i < map->each; i++) {
        size_t place = data * map->each + i;
        size_t replica = place % from->data;
        size_t own_model = place / from->data % models;
        size_t own_pipe = place / from->data / models;
        MR_ASSERT(own_pipe < pipes);
        out[i] = replica * single + (pipe * pipes + own_pipe) * from->model +
                 (model * models + own_model);
    }
}

mr_status mr_rank_map_make(const mr_rank_map_widths *from, const mr_rank_map_widths *to,
                           mr_rank_map *out_map) {
    MR_TRY(map_check_axis("pipe", from->pipe, to->pipe));
    MR_TRY(map_check_axis("model", from->model, to->model));
    MR_TRY(map_check_axis("data", from->data, to->data));
    if (from->pipe * from->model > MR_RANKS_MAX || widths_ranks(from) > MR_RANKS_MAX)
        return MR_ERROR(INVALID_ARGUMENT, "%zu x %zu x %zu ranks; the most is %d", from->pipe,
                        from->model, from->data, MR_RANKS_MAX);
    mr_rank_map map = {.to = *to, .each = widths_ranks(from) / widths_ranks(to)};
    map.files = mr_alloc_array(widths_ranks(from), sizeof(*map.files));
    if (map.files == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu ranks", widths_ranks(from));
    size_t *next = map.files;
    for (size_t data = 0; data < to->data; data++)
        for (size_t pipe = 0; pipe < to->pipe; pipe++)
            for (size_t model = 0; model < to->model; model++, next += map.each)
                map_fill(from, &map, data, pipe, model, next);
    *out_map = map;
    return MR_OK;
}

void mr_rank_map_deinit(mr_rank_map *map) {
    mr_free(map->files);
    *map = (mr_rank_map){0};
}

const size_t *mr_rank_map_sources(const mr_rank_map *map, size_t data, size_t pipe, size_t model) {
    MR_ASSERT(data < map->to.data);
    MR_ASSERT(pipe < map->to.pipe);
    MR_ASSERT(model < map->to.model);
    return map->files + ((data * map->to.pipe + pipe) * map->to.model + model) * map->each;
}
