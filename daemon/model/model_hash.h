/* SPDX-License-Identifier: Apache-2.0 */
/* model_hash.h: the identity of a model: what a checkpoint must share with the job that loads it.
 * Canonical text, one line for each layer, hashed with SHA-256:
 *   0 embedding tie=0 vocab=256 dim=256 positions=256
 *   1 transformer_block dim=256 heads=8 kv_heads=8 ffn=1024 norm=0 activation=0 position=0 bias=1
 *     causal=1 eps=1.0000000000000001e-05                                  (all on one line)
 * A tie is named by its first layer, so that its key may be renamed. Only what shapes the
 * parameters or what the layer computes from them counts: not dropout, not how the model axis cuts,
 * not the loss (a job with loss none must load what a training job saved), not the line in the
 * file. Owner: model. Pure, any thread. */
#ifndef MR_MODEL_MODEL_HASH_H
#define MR_MODEL_MODEL_HASH_H

#include "daemon/model/job.h"

/* Lower-case hex of the hash. RESOURCE_EXHAUSTED: OpenSSL has no memory. */
MR_MUST_CHECK mr_status mr_model_hash(const mr_layer_spec *layers, size_t layer_count,
                                      char out_hex[65]);

#endif
