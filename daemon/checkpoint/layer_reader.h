/* SPDX-License-Identifier: Apache-2.0 */
/* layer_reader.h: the tensors of one layer from a committed checkpoint, as any shard of any width,
 * whatever the number of model ranks that wrote it. A file is opened, and its digest checked, when
 * the first byte of it is needed: a rank that loads at the width of the save reads its own file
 * alone, and a merge or a split only the files that it draws from.
 *
 * How the tensors are cut at their source is told by the files themselves (slice.h) and, where a
 * file does not say it, by the parameter that the loader wants. So a layer whose cut has changed
 * since the save (linear, `parallel`) loads too.
 * Owner: checkpoint. Thread: one at a time per object (EXEC loads, DISK compares).
 * Not here: which layers and parameters there are (stage/layer_store.h, load_report.h). */
#ifndef MR_CHECKPOINT_LAYER_READER_H
#define MR_CHECKPOINT_LAYER_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/base/status.h"
#include "daemon/checkpoint/layer_files.h"
#include "daemon/checkpoint/safetensors.h"
#include "daemon/model/description.h"

typedef struct mr_layer_reader mr_layer_reader;

/* All borrowed until close. */
typedef struct mr_layer_reader_options {
    const char *path; /* DIR/TAG */
    const mr_manifest *manifest;
    const mr_layer_files *files; /* of the manifest */
    uint32_t layer;
    mr_layer_file kind;
    bool headers_only; /* checks sizes and headers, no digests: for looking, not for loading */
} mr_layer_reader_options;

/* FAILED_PRECONDITION "E_CKPT_MISSING layer=N": the checkpoint has no such file of it; DATA_LOSS as
 * mr_layer_files_of; RESOURCE_EXHAUSTED: no memory. */
MR_MUST_CHECK mr_status mr_layer_reader_open(const mr_layer_reader_options *options,
                                             mr_layer_reader **out_reader);
/* NULL is fine. */
void mr_layer_reader_close(mr_layer_reader *reader);

/* Model ranks that wrote the layer. */
size_t mr_layer_reader_width(const mr_layer_reader *reader);
/* The file of rank < width, checked; borrowed until close. Errors as mr_catalog_open_file. */
MR_MUST_CHECK mr_status mr_layer_reader_file(mr_layer_reader *reader, size_t rank,
                                             const mr_safetensors_reader **out_file);

/* How the tensor is cut, by the word of rank's file: *out_known false where it says nothing, and
 * then *out_parameter is a whole tensor of the shape that stands in the file. DATA_LOSS:
 * E_CKPT_MISSING, E_CKPT_CUT, and E_CKPT_SHAPE where its shape is not that of rank's shard. */
MR_MUST_CHECK mr_status mr_layer_reader_cut(mr_layer_reader *reader, size_t rank, const char *name,
                                            mr_parameter *out_parameter, bool *out_known);

/* How a tensor of the checkpoint goes with a wanted parameter. */
typedef struct mr_layer_reader_match {
    bool found;
    bool fits;     /* found, f32, and of wanted's whole shape */
    mr_shape have; /* what was found: the whole's shape, or where that is not known a shard's */
} mr_layer_reader_match;

/* May tensor name be loaded as shard rank of width of wanted? Looks at the one file that the shard
 * needs in any case. DATA_LOSS: that file is damaged. */
MR_MUST_CHECK mr_status mr_layer_reader_compare(mr_layer_reader *reader, const char *name,
                                                const mr_parameter *wanted, size_t rank,
                                                size_t width, mr_layer_reader_match *out_match);

/* Reads shard rank of width of tensor name, which must have wanted's whole shape and be f32, into
 * out (the shard's elements). DATA_LOSS: "E_CKPT_SHAPE tensor=T want=S have=S" (of the whole, or of
 * a shard), E_CKPT_DTYPE, E_CKPT_MISSING, E_CKPT_CUT, and what a damaged file gives;
 * INVALID_ARGUMENT: a width at which the tensor cannot be cut. */
MR_MUST_CHECK mr_status mr_layer_reader_load(mr_layer_reader *reader, const char *name,
                                             const mr_parameter *wanted, size_t rank, size_t width,
                                             float *out);

#endif
