/* SPDX-License-Identifier: Apache-2.0 */
/* reshape.h: a committed checkpoint written anew for another number of model ranks. It is a save
 * like any other: files beside the tag, the manifest last, one rename; so the new checkpoint
 * exists whole or not at all, and the old one is only read. A file is the same bytes as if a job
 * of that width had saved it, and going back gives the old bytes.
 *
 * Loading needs none of this (layer_reader.h reads any width at any other); it is for those who
 * hand a checkpoint on, merge it to look at it, or load it more often than once.
 * Owner: checkpoint. Thread: any, blocking. Memory: the largest shard of the new checkpoint.
 * Not here: pipeline and data widths, which a checkpoint does not know. */
#ifndef MR_CHECKPOINT_RESHAPE_H
#define MR_CHECKPOINT_RESHAPE_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/base/status.h"
#include "daemon/checkpoint/manifest.h"
#include "daemon/model/description.h"

/* All borrowed. */
typedef struct mr_reshape_options {
    const char *source; /* DIR/TAG of a committed checkpoint */
    const char *dir;    /* the new one is dir/tag */
    const char *tag;
    size_t width; /* model ranks */
    /* Of the job's layers, whole: how to cut tensors whose files do not say it; NULL: only those
     * that say it. The caller has compared the model hash. */
    const mr_layer_description *descriptions;
    size_t layer_count;
} mr_reshape_options;

typedef struct mr_reshape_result {
    size_t from_width;
    size_t file_count;
    uint64_t bytes;
} mr_reshape_result;

/* Every file of the source is read with its digest, and what all its ranks hold whole is compared
 * between them.
 *   ALREADY_EXISTS: dir/tag stands, whatever it is
 *   INVALID_ARGUMENT: the tag, or a tensor that width ranks cannot share (named)
 *   FAILED_PRECONDITION: a file that does not say how its tensors are cut, and no description;
 *     a file that is no layer's; no file at all
 *   DATA_LOSS "E_CKPT_REPLICA": ranks that should hold the same do not; and damage as in
 *     layer_reader.h
 *   NOT_FOUND: no such checkpoint; I/O errors as safetensors.h: nothing is left behind */
MR_MUST_CHECK mr_status mr_reshape(const mr_reshape_options *options,
                                   mr_reshape_result *out_result);

#endif
