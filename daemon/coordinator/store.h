/* SPDX-License-Identifier: Apache-2.0 */
/* store.h: what a coordinator remembers: every job's newest facts and the history of its states, in
 * one SQLite file in a folder that one coordinator at a time may use.
 *   DIR/lock          held while a coordinator lives
 *   DIR/state.sqlite  jobs, history, term; write-ahead log, every commit on the disk before it
 *   returns
 * Owner: coordinator. Thread: one at a time (DISK; main before and after).
 * Not here: deciding what an old state means (decide.h). */
#ifndef MR_COORDINATOR_STORE_H
#define MR_COORDINATOR_STORE_H

#include "daemon/coordinator/jobs.h"

typedef struct mr_store mr_store;

/* What is stored of one job. Strings are borrowed. */
typedef struct mr_store_job {
    mr_job_facts facts;
    const char *job_file;
    const char *base_directory;
    const char *profile; /* millrace.profile/v1; NULL or "": none */
} mr_store_job;

typedef struct mr_store_change {
    int64_t at_ms;
    mr_job_state state;
    uint64_t epoch;
    uint64_t step;
    const char *reason;
} mr_store_change;

/* Opens or makes the store in dir (made 0700 where it does not stand) and begins a new term.
 * FAILED_PRECONDITION: another coordinator uses it, or a newer version of Millrace wrote it;
 * DATA_LOSS: the file is damaged; PERMISSION_DENIED, RESOURCE_EXHAUSTED, UNAVAILABLE: as the text
 * says. */
MR_MUST_CHECK mr_status mr_store_open(const char *dir, mr_store **out_store);
/* NULL is fine. */
void mr_store_close(mr_store *store);
/* Counts the openings of this store, from 1. */
uint64_t mr_store_term(const mr_store *store);

/* Writes the job's facts, and a line of history where state or reason changed. It is on the disk
 * when this returns. RESOURCE_EXHAUSTED: the disk is full; UNAVAILABLE: an I/O error; then nothing
 * of it is stored. */
MR_MUST_CHECK mr_status mr_store_put(mr_store *store, const mr_store_job *job, int64_t at_ms);

/* Calls each for the jobs that have not ended and the newest others, limit in all, in order of
 * their numbers; stops at its first error and returns that. */
typedef mr_status (*mr_store_each)(void *context, const mr_store_job *job);
MR_MUST_CHECK mr_status mr_store_load(mr_store *store, size_t limit, mr_store_each each,
                                      void *context);
/* Calls each for every change of the job, oldest first. */
typedef void (*mr_store_each_change)(void *context, const mr_store_change *change);
MR_MUST_CHECK mr_status mr_store_history(mr_store *store, const char *job_id,
                                         mr_store_each_change each, void *context);

#endif
