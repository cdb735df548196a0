/* SPDX-License-Identifier: Apache-2.0 */
/* data.h: the microbatches of a job's training data. Sample k is tokens [kT, kT+T] of the data: the
 * first T are inputs, the last T labels (each input's next token). The last tokens that fill no
 * whole sample are left out. Order: order.h.
 * Owner: client. Thread: one at a time.
 * Not here: sending (feeder.h). */
#ifndef MR_CLIENT_DATA_H
#define MR_CLIENT_DATA_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/base/status.h"
#include "daemon/model/job.h"

typedef struct mr_data mr_data;

/* Opens data.train of a job, relative to base_directory. NOT_FOUND, PERMISSION_DENIED, DATA_LOSS:
 * the files. INVALID_ARGUMENT: a damaged file, less data than one sample, or a model that does not
 * take token ids and give scores for them. The job may be destroyed afterwards. */
MR_MUST_CHECK mr_status mr_data_open(const mr_job *job, const char *base_directory,
                                     mr_data **out_data);
/* NULL is fine. */
void mr_data_close(mr_data *data);

/* Whole samples. */
uint64_t mr_data_samples(const mr_data *data);
/* Tokens of one microbatch: B x T, the size of inputs and of labels. */
size_t mr_data_micro_batch_tokens(const mr_data *data);
/* Fills inputs and labels, i32 [B, T] row-major, of microbatch index (below M) of replica (below D)
 * at step (from 0). INVALID_ARGUMENT: a token outside the vocabulary. DATA_LOSS: the file went bad.
 * No allocation. */
MR_MUST_CHECK mr_status mr_data_read(mr_data *data, uint64_t step, size_t replica, size_t index,
                                     int32_t *inputs, int32_t *labels);

/* Tokens that the model takes and scores: the least of layer 0's vocabulary and the last layer's
 * width. INVALID_ARGUMENT: layer 0 is no embedding, or the last layer scores nothing. */
MR_MUST_CHECK mr_status mr_data_vocabulary(const mr_job *job, uint32_t *out_vocab);

#endif
