/* SPDX-License-Identifier: Apache-2.0 */
/* rig.h: a real coordinator on loopback for tests, with clients and stages that are small enough to
 * do exactly what a test says.
 * Owner: tests. Thread: the test's; the coordinator has its own. */
#ifndef MR_TESTS_UNIT_COORDINATOR_RIG_H
#define MR_TESTS_UNIT_COORDINATOR_RIG_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "daemon/base/queue.h"
#include "daemon/coordinator/coordinator.h"
#include "daemon/rpc/channel.h"
#include "millrace/v1/control.pb-c.h"
#include "millrace/v1/jobs.pb-c.h"

enum { RIG_TIMEOUT_MS = 20000, RIG_PATH_BYTES = 512 };

typedef struct rig {
    char folder[RIG_PATH_BYTES]; /* state, job files and checkpoints; removed at the end */
    mr_coordinator *coordinator;
    pthread_t thread;
    mr_rpc_channel *channel;
} rig;

/* One attached stage. Orders come in their order; Committed ones too. */
typedef struct rig_stage {
    mr_rpc_stream *stream;
    mr_queue *orders; /* of Millrace__V1__StageOrder *; NULL: the stream has ended */
    char job_id[80];
    uint64_t epoch;
    char schedule_hash[80];
} rig_stage;

/* Starts rpc's runtime and a coordinator in a fresh folder. */
void rig_start(rig *r);
/* Ends the coordinator and starts another one on the same state. */
void rig_restart(rig *r);
void rig_stop(rig *r);

/* Calls a method of Jobs; the status is the call's. *out_response is freed by the caller. */
mr_status rig_call(rig *r, const char *method, const ProtobufCMessage *request,
                   ProtobufCMessage **out_response);
/* A job file for stages ranks with 4 layers; steps and checkpoint folder (NULL: none) as given. */
void rig_job_text(const rig *r, const char *name, int stages, int steps, const char *checkpoint_dir,
                  char *out_text, size_t bytes);
/* Submits it; the job must be accepted. Returns its answer, freed by the caller. */
Millrace__V1__Job *rig_submit(rig *r, const char *text, bool resume_newest);
/* Asks for the job again and again until it has this state (the test fails after a while). */
Millrace__V1__Job *rig_await_state(rig *r, const char *job, Millrace__V1__JobState state);
void rig_free(void *message);

/* Attaches a stage with this name as instance and address, and waits for Registered. */
void rig_stage_attach(rig *r, rig_stage *stage, const char *name);
/* Ends the stream from the stage's side. */
void rig_stage_leave(rig_stage *stage);
/* The next order must be of this case; freed with rig_free. */
Millrace__V1__StageOrder *rig_stage_expect(rig_stage *stage,
                                           Millrace__V1__StageOrder__OrderCase order);
/* The stream must end. */
void rig_stage_expect_end(rig_stage *stage);
void rig_stage_send(rig_stage *stage, Millrace__V1__StageReport *report);
/* Takes Prepare, Connect and Run, answering each, with all stages in step. */
void rig_stages_run(rig_stage *stages, size_t count);
/* Reports of the stage's present job. */
void rig_stage_step_done(rig_stage *stage, uint64_t step, double loss);
/* False: the stream is full now. */
bool rig_stage_try_step_done(rig_stage *stage, uint64_t step, double loss);
void rig_stage_heartbeat(rig_stage *stage);
/* A moment, where nothing tells when to try again. */
void rig_pause(void);
void rig_stage_finished(rig_stage *stage, uint64_t step);
void rig_stage_paused(rig_stage *stage, uint64_t step);
void rig_stage_failed(rig_stage *stage, const char *text, bool secondary);
void rig_stage_released(rig_stage *stage, uint64_t epoch);
void rig_stage_feed(rig_stage *stage, bool open);
/* Writes small files for two layers of the job's four, from layer on, into the save's folder under
 * DIR and reports them; error: reports that. */
void rig_stage_saved(rig_stage *stage, const char *dir, const char *tag, uint64_t step,
                     uint32_t layer, const char *error);

#endif
