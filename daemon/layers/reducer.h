/* SPDX-License-Identifier: Apache-2.0 */
/* reducer.h: what a layer asks of the other ranks of its model axis. Layers are beside groups, not
 * above them, so they say here what they need; the stage answers with a group (stage/model_axis.h).
 * Every rank asks for the same in the same order, as all run the same layers. A call returns
 * nothing: the first error latches, as in a device, later calls do nothing, and the stage looks
 * after each instruction. What was asked for is then undefined, and so is all that follows.
 * Owner: stage. Thread: EXEC. */
#ifndef MR_LAYERS_REDUCER_H
#define MR_LAYERS_REDUCER_H

#include <stddef.h>

typedef struct mr_reducer mr_reducer;

struct mr_reducer {
    size_t rank;
    size_t width; /* at least 2 */
    /* values [n] f32, in device memory: on every rank the sum of all ranks' values, in rank order.
     * Waits for the others. */
    void (*sum)(mr_reducer *reducer, float *values, size_t n);
    /* Each rank gives its share (model/shard.h) of count things of unit bytes; all [count] gets the
     * shares one after the other, on every rank. Device memory; mine lies outside of all. Waits
     * for the others. */
    void (*gather)(mr_reducer *reducer, const void *mine, size_t count, size_t unit, void *all);
};

#endif
