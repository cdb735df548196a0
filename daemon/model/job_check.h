/* SPDX-License-Identifier: Apache-2.0 */
/* job_check.h: what must hold between the fields of a job, each of which is sound by itself.
 * Owner: model. Pure, any thread. */
#ifndef MR_MODEL_JOB_CHECK_H
#define MR_MODEL_JOB_CHECK_H

#include "daemon/model/job_reader.h"

/* Adds every violation to errors. A check whose fields already have an error is left out. */
void mr_job_check(const mr_job_draft *draft, mr_job_errors *errors);

#endif
