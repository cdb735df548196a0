/* SPDX-License-Identifier: Apache-2.0 */
/* loss.h: the loss at the end of the last stage, and its gradient in the same pass.
 * The scale is the one scaling point of law 7: 1 / (tokens of the whole step).
 * Owner: stage. Thread: EXEC. */
#ifndef MR_LAYERS_LOSS_H
#define MR_LAYERS_LOSS_H

#include "daemon/device/device.h"
#include "daemon/layers/reducer.h"
#include "daemon/model/job.h"

/* Adds the unscaled loss sum of one microbatch to *loss (device memory) and, unless doutput is
 * NULL, writes scale x its gradient to doutput, which may be output. loss kind NONE does
 * nothing. */
void mr_loss_run(mr_device *device, mr_loss kind, const mr_tensor *output, const mr_tensor *labels,
                 float scale, mr_tensor *doutput, double *loss);
/* Cross-entropy of logits that the ranks of the model axis share (output's shape says from how
 * many), with the whole's loss and this rank's part of the gradient. The logits stay where they
 * are: the ranks tell each other three numbers for each row, and every rank adds the same bits to
 * its *loss (Megatron's parallel cross entropy in one exchange; arXiv:1909.08053).
 * scratch: mr_loss_share_bytes of device memory. */
void mr_loss_run_share(mr_device *device, mr_reducer *model, const mr_tensor *output,
                       const mr_tensor *labels, float scale, mr_tensor *doutput, void *scratch,
                       double *loss);
/* 0 where output is whole. Cannot overflow: a few numbers for each row of logits. */
size_t mr_loss_share_bytes(const mr_shape *output, size_t model_width);
/* Number of terms that the mean is taken over for one microbatch: tokens, or elements for mse. */
double mr_loss_terms(mr_loss kind, const mr_shape *output, const mr_shape *labels);

#endif
