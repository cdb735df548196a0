/* SPDX-License-Identifier: Apache-2.0 */
/* import.h: weights from elsewhere become a committed checkpoint of a job: a folder of files
 * layer_NN-model_states.safetensors, one for each layer with parameters, whole tensors in f32 by
 * the names of the job's layers. Every parameter must be there in its shape and nothing else may
 * be, so that no job ever starts half drawn without a word. A layer that takes its parameter from a
 * tie may lack it: the tie's first layer gives it.
 *
 * The checkpoint stands at step 0 and has no optimizer state: it is for checkpoint.load, eval and
 * generate.
 * Owner: checkpoint. Thread: any, blocking. Memory: one layer.
 * Not here: other formats (deploy/convert makes such a folder of them). */
#ifndef MR_CHECKPOINT_IMPORT_H
#define MR_CHECKPOINT_IMPORT_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/base/status.h"
#include "daemon/model/job.h"

/* All borrowed. */
typedef struct mr_import_options {
    const char *source; /* the folder */
    const char *dir;    /* the checkpoint is dir/tag */
    const char *tag;
    const mr_job *job;
} mr_import_options;

typedef struct mr_import_result {
    size_t file_count;
    uint64_t bytes;
} mr_import_result;

/* ALREADY_EXISTS: dir/tag stands; INVALID_ARGUMENT: the tag; FAILED_PRECONDITION names layer and
 * parameter: missing, of another shape or type, or a tensor or file that is not the job's;
 * NOT_FOUND: no such folder; DATA_LOSS: a damaged file; I/O errors as safetensors.h. Nothing is
 * left behind. */
MR_MUST_CHECK mr_status mr_import(const mr_import_options *options, mr_import_result *out_result);

#endif
