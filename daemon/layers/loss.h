/* SPDX-License-Identifier: Apache-2.0 */
/* loss.h: the loss at the end of the last stage, and its gradient in the same pass.
 * The scale is the one scaling point of law 7: 1 / (tokens of the whole step).
 * Owner: stage. Thread: EXEC. */
#ifndef MR_LAYERS_LOSS_H
#define MR_LAYERS_LOSS_H

#include "daemon/device/device.h"
#include "daemon/model/job.h"

/* Adds the unscaled loss sum of one microbatch to *loss (device memory) and, unless doutput is
 * NULL, writes scale x its gradient to doutput, which may be output. loss kind NONE does
 * nothing. */
void mr_loss_run(mr_device *device, mr_loss kind, const mr_tensor *output, const mr_tensor *labels,
                 float scale, mr_tensor *doutput, double *loss);
/* Number of terms that the mean is taken over for one microbatch: tokens, or elements for mse. */
double mr_loss_terms(mr_loss kind, const mr_shape *output, const mr_shape *labels);

#endif
