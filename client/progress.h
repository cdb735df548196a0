/* SPDX-License-Identifier: Apache-2.0 */
/* progress.h: the steps of a training job as they happen: one JSON line each for -o jsonl, a live
 * line on a terminal, and where stderr is a file one line now and then, so that its reader sees
 * life. Owner: client. Thread: main. */
#ifndef MR_CLIENT_PROGRESS_H
#define MR_CLIENT_PROGRESS_H

#include "client/client.h"
#include "millrace/v1/jobs.pb-c.h"

enum {
    MR_PROGRESS_PERIOD_MS = 10000, /* between lines where stderr is no terminal */
    MR_PROGRESS_TEXT_BYTES = 256,
    MR_PROGRESS_JSON_BYTES = 2048,
};

typedef struct mr_progress {
    const mr_client *client;
    int64_t printed_ms;
    double step_seconds; /* smoothed, for the ETA */
    uint64_t steps;      /* seen */
    double loss;         /* of the last one */
} mr_progress;

/* Tells one finished step of total_steps. */
void mr_progress_step(mr_progress *progress, const Millrace__V1__StepResult *step,
                      uint64_t total_steps);
/* The line for people: "step 12/300  loss 3.1416  |g| 0.71  lr 6.0e-04  ...". seconds: expected for
 * one step. */
void mr_progress_line(const Millrace__V1__StepResult *step, uint64_t total_steps, double seconds,
                      char *out, size_t bytes);
/* The object of -o jsonl (DESIGN section 5), without the line's end. */
void mr_progress_json(const Millrace__V1__StepResult *step, char *out, size_t bytes);

#endif
