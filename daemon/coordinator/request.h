/* SPDX-License-Identifier: Apache-2.0 */
/* request.h: one call of a client, from its arrival on an RPC thread to its answer: listed on LOOP
 * until it is answered, so that a decision can answer it later by its number; on the way it may
 * visit DISK. Owner: coordinator; only its own files include it. Thread: LOOP unless a function
 * says otherwise. Limits: MR_REQUESTS_MAX. */
#ifndef MR_COORDINATOR_REQUEST_H
#define MR_COORDINATOR_REQUEST_H

#include "daemon/checkpoint/catalog.h"
#include "daemon/coordinator/admission.h"
#include "daemon/coordinator/runtime.h"
#include "daemon/model/job.h"

struct mr_request {
    mr_coordinator *coordinator;
    mr_rpc_stream *stream;     /* a reference */
    ProtobufCMessage *message; /* owned; of the method's type */
    void (*handle)(mr_request *request);
    uint64_t number;
    bool answered; /* not in the list any more; freed when it comes back from DISK */
    bool on_disk;
    mr_request *next;
    /* What DISK made of it. */
    mr_status status;
    mr_admission admission;
    mr_job_errors *errors;
    char *json;
    char dir[MR_PATH_BYTES];
    char job_name[MR_NAME_BYTES];
    mr_job_mode mode;
    char *job_file; /* of a job whose folder is not known, or that is changed */
    char *base_directory;
    char *profile;    /* of a job that is changed */
    uint32_t *bounds; /* likewise; NULL: it was not cut by a profile */
    size_t bound_count;
    mr_catalog_entry *entries;
    size_t entry_count;
    bool taken;
};

/* RPC thread. Takes a call in: handle runs on LOOP. */
void mr_request_receive(mr_coordinator *coordinator, mr_rpc_stream *stream,
                        ProtobufCMessage *owned_message, void (*handle)(mr_request *request));
/* Answers and forgets the request. message borrowed; NULL: status is the answer. */
void mr_request_answer(mr_request *request, const ProtobufCMessage *message, mr_status status);
void mr_request_fail(mr_request *request, mr_status status);
/* Forgets it without an answer: its stream has another owner now. */
void mr_request_forget(mr_request *request);
/* Sends the request to DISK; done gets it back. Where DISK is behind, it is answered so. */
void mr_request_to_disk(mr_request *request, mr_loop_fn work, mr_loop_fn done);
/* First thing that done asks. False: there is nothing to do any more; the request was answered
 * while it was away, or now, because DISK's status is an error. */
bool mr_request_is_back(mr_request *request);
/* The job that a request names; NULL where there is none, and then the request is answered. */
mr_job_record *mr_request_job(mr_request *request, const char *job);

#endif
