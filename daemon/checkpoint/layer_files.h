/* SPDX-License-Identifier: Apache-2.0 */
/* layer_files.h: which files a checkpoint has of each layer, told from its manifest alone: one of a
 * kind where a stage was one rank, else one for each model rank. Numbers are compared as numbers:
 * layer 100 follows layer 99 and model rank 100 follows 99, however many digits they have.
 * Owner: checkpoint. Thread: any. Borrows the manifest.
 * Not here: what is in the files (layer_reader.h). */
#ifndef MR_CHECKPOINT_LAYER_FILES_H
#define MR_CHECKPOINT_LAYER_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/base/status.h"
#include "daemon/checkpoint/layout.h"
#include "daemon/checkpoint/manifest.h"

/* One listed file with what its name says. */
typedef struct mr_layer_files_entry {
    const mr_checkpoint_file *listed; /* borrowed from the manifest */
    bool is_layer;                    /* else only listed counts */
    uint32_t layer;
    mr_layer_file kind;
    bool has_model; /* does its name carry a model rank? */
    uint32_t model_rank;
} mr_layer_files_entry;

/* All files of a manifest: by layer, kind (the model's first) and model rank, then by name; last
 * what is no layer's. */
typedef struct mr_layer_files {
    size_t count;
    mr_layer_files_entry *entries;
} mr_layer_files;

/* RESOURCE_EXHAUSTED: no memory. Owner frees with mr_layer_files_deinit. */
MR_MUST_CHECK mr_status mr_layer_files_list(const mr_manifest *manifest, mr_layer_files *out_files);
/* A zeroed one is fine. */
void mr_layer_files_deinit(mr_layer_files *files);

/* The files of a kind of one layer, in order of their model ranks; *out_width of them, 0 where the
 * layer has none. DATA_LOSS "E_CKPT_RANKS layer=N": a rank is missing below another, or there is a
 * file of all ranks besides those of single ones. */
MR_MUST_CHECK mr_status mr_layer_files_of(const mr_layer_files *files, uint32_t layer,
                                          mr_layer_file kind,
                                          const mr_layer_files_entry **out_first,
                                          size_t *out_width);

/* The number of model ranks that wrote the checkpoint: that of every layer and kind.
 * DATA_LOSS "E_CKPT_RANKS": they differ, or as mr_layer_files_of; FAILED_PRECONDITION: no file of a
 * layer. */
MR_MUST_CHECK mr_status mr_layer_files_width(const mr_layer_files *files, size_t *out_width);

#endif
