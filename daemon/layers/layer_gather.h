/* SPDX-License-Identifier: Apache-2.0 */
/* layer_gather.h: an input that comes in shares, one to each rank of the model axis, for a layer
 * that needs it whole (description->gathers_input). Rows are copied one by one, which no job that
 * is cut well ever does: a column-parallel linear belongs before a row-parallel one.
 * Owner: layers; only layer.c uses it. Thread: EXEC. */
#ifndef MR_LAYERS_LAYER_GATHER_H
#define MR_LAYERS_LAYER_GATHER_H

#include "daemon/layers/layer.h"

/* A tensor at offset bytes of a buffer, of the layer's input as it is together. */
mr_tensor mr_layer_gathered(const mr_layer *layer, void *buffer, size_t offset);
/* whole = the shares x of all ranks, side by side. */
void mr_layer_gather(const mr_layer *layer, const mr_layer_call *call, const mr_tensor *x,
                     mr_tensor *whole);
/* share = this rank's columns of whole. */
void mr_layer_take_share(const mr_layer *layer, const mr_layer_call *call, const mr_tensor *whole,
                         mr_tensor *share);

#endif
