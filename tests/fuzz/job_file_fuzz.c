/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: no bytes at all make the job file reader crash, hang, leak or break its promises.
 * Method: libFuzzer's entry point, driven by corpus_test.c in the ordinary test run. A text that is
 * refused must come with one to MR_JOB_ERRORS_MAX whole errors in file order, and a job that is
 * accepted must be one that the rest of the system can use: descriptions, ties, shapes and the
 * learning rate can be computed from it. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/model/job.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void check_refusal(mr_status status, const mr_job_errors *errors) {
    MR_ASSERT(status.code == MR_CODE_INVALID_ARGUMENT);
    MR_ASSERT(errors->count >= 1 && errors->count <= MR_JOB_ERRORS_MAX);
    for (size_t i = 0; i < errors->count; i++) {
        MR_ASSERT(memchr(errors->items[i].text, '\0', sizeof(errors->items[i].text)) != NULL);
        MR_ASSERT(errors->items[i].text[0] != '\0');
        MR_ASSERT(i == 0 || errors->items[i - 1].line <= errors->items[i].line);
    }
}

static void check_job(const mr_job *job) {
    mr_layer_description *layers = mr_alloc_array(job->layer_count, sizeof(*layers));
    mr_tie *ties = NULL;
    size_t tie_count = 0;
    mr_shape labels;
    MR_ASSERT(layers != NULL);
    MR_ASSERT(job->layer_count >= 1 && job->layer_count <= MR_LAYERS_MAX);
    MR_ASSERT(job->pipe >= 1 && job->pipe <= job->layer_count);
    MR_ASSERT(strlen(job->model_hash) == 64);
    MR_ASSERT(mr_status_is_ok(mr_job_describe(job, layers)));
    MR_ASSERT(mr_status_is_ok(mr_job_ties(job, &ties, &tie_count)));
    MR_ASSERT(job->loss == MR_LOSS_NONE || mr_status_is_ok(mr_job_label_shape(job, &labels)));
    for (uint64_t step = 1; job->total_steps > 0 && step <= 3; step++) {
        double rate = mr_job_learning_rate(job, step);
        MR_ASSERT(rate >= 0 && rate <= job->lr);
    }
    mr_job_ties_free(ties, tie_count);
    mr_free(layers);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    mr_job *job = NULL;
    mr_job_errors errors;
    mr_status status = mr_job_parse((const char *)data, bytes, &job, &errors);
    if (mr_status_is_ok(status))
        check_job(job);
    else
        check_refusal(status, &errors);
    mr_job_destroy(job);
    return 0;
}
