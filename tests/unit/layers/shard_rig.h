/* SPDX-License-Identifier: Apache-2.0 */
/* shard_rig.h: a layer cut over the model axis: one thread, one device and one fixture for each
 * rank, joined by an in-process group; and the same layer whole, from whose numbers theirs are cut.
 * Owner: tests/unit/layers. */
#ifndef MR_TESTS_UNIT_LAYERS_SHARD_RIG_H
#define MR_TESTS_UNIT_LAYERS_SHARD_RIG_H

#include "daemon/stage/model_axis.h"
#include "tests/unit/layers/layer_fixture.h"

enum { SHARD_WIDTH_MAX = 4 };

/* Every layer that the model axis cuts, or that takes a share of an input, with a width. */
typedef struct shard_case {
    layer_case layer;
    size_t width;
    bool input_cut; /* the layer before gave shares */
} shard_case;

extern const shard_case shard_cases[];
extern const size_t shard_case_count;

typedef struct shard_rank {
    size_t rank;
    const shard_case *of;
    layer_case layer; /* this rank's: with its place, and its share of the input */
    mr_group *group;
    mr_model_axis *axis;
    mr_device *device;
    layer_fixture fixture;
    void *context;
    void (*body)(struct shard_rank *rank);
} shard_rank;

typedef struct shard_rig {
    layer_fixture whole;
    mr_device *device;
    shard_rank ranks[SHARD_WIDTH_MAX];
} shard_rig;

/* Builds the whole and all ranks; precision NONE: as the case says. */
void shard_rig_init(shard_rig *rig, const shard_case *c, uint64_t seed, mr_dtype precision);
/* Runs body(rank) on every rank at once and waits for all. A body fails by cmocka only in calls
 * that cannot fail in a good build; what it compares, it leaves in context. */
void shard_rig_run(shard_rig *rig, void (*body)(shard_rank *rank), void *contexts,
                   size_t context_bytes);
/* No axis has an error; frees everything. */
void shard_rig_deinit(shard_rig *rig);

/* Host copies of what a rank has of a whole's tensor: of its parameter i (or that one's gradient),
 * or of an activation of this shape. The caller frees them with mr_free. */
float *shard_of_parameter(const shard_rank *rank, size_t i, const float *whole);
float *shard_of_activation(const shard_rank *rank, const mr_shape *shape, const float *whole);

#endif
