/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/coordinator/request.h"

#include "daemon/base/alloc.h"

static void request_free(mr_request *request) {
    mr_job_spec_destroy(request->admission.spec);
    protobuf_c_message_free_unpacked(request->message, NULL);
    mr_rpc_stream_unref(request->stream);
    mr_free(request->errors);
    mr_free(request->json);
    mr_free(request->job_file);
    mr_free(request->base_directory);
    mr_free(request->profile);
    mr_free(request->bounds);
    mr_free(request->entries);
    mr_free(request);
}

void mr_request_forget(mr_request *request) {
    mr_coordinator *coordinator = request->coordinator;
    for (mr_request **at = &coordinator->requests; *at != NULL; at = &(*at)->next) {
        if (*at != request)
            continue;
        *at = request->next;
        coordinator->request_count--;
        break;
    }
    request->answered = true;
    if (!request->on_disk)
        request_free(request);
}

/* The answer's turn in the outbox. A client that has gone does not need it. */
static void answer_run(const mr_outbox_item *item) {
    mr_status status = item->status;
    if (item->message != NULL)
        status = mr_rpc_stream_send(item->stream, item->message, NULL);
    mr_rpc_stream_finish(item->stream, status);
}

/* Answers and forgets the request. message borrowed; NULL: status is the answer. */
void mr_request_answer(mr_request *request, const ProtobufCMessage *message, mr_status status) {
    mr_outbox_add(request->coordinator->outbox,
                  &(mr_outbox_item){.run = answer_run,
                                    .stream = request->stream,
                                    .message = (ProtobufCMessage *)(uintptr_t)message,
                                    .status = status});
    mr_request_forget(request);
}

void mr_request_fail(mr_request *request, mr_status status) {
    mr_request_answer(request, NULL, status);
}

/* LOOP. */
static void request_arrived(void *context) {
    mr_request *request = context;
    mr_coordinator *coordinator = request->coordinator;
    request->number = ++coordinator->request_last;
    request->next = coordinator->requests;
    coordinator->requests = request;
    coordinator->request_count++;
    if (coordinator->stopping)
        mr_request_fail(request, MR_ERROR(UNAVAILABLE, "the coordinator is stopping"));
    else if (coordinator->request_count > MR_REQUESTS_MAX)
        mr_request_fail(request, MR_ERROR(RESOURCE_EXHAUSTED, "%d requests wait for an answer",
                                          MR_REQUESTS_MAX));
    else
        request->handle(request);
}

/* RPC thread. */
void mr_request_receive(mr_coordinator *coordinator, mr_rpc_stream *stream,
                        ProtobufCMessage *owned_message, void (*handle)(mr_request *)) {
    mr_request *request = mr_alloc(sizeof(*request));
    mr_status status = MR_ERROR(RESOURCE_EXHAUSTED, "no memory for one more request");
    if (request != NULL) {
        request->coordinator = coordinator;
        request->stream = mr_rpc_stream_ref(stream);
        request->message = owned_message;
        request->handle = handle;
        status = mr_loop_post(coordinator->loop, request_arrived, request);
        if (mr_status_is_ok(status))
            return;
        mr_rpc_stream_unref(stream);
        mr_free(request);
    }
    protobuf_c_message_free_unpacked(owned_message, NULL);
    mr_rpc_stream_finish(stream, status);
}

/* Sends the request to DISK; done gets it back unless it was answered meanwhile. */
void mr_request_to_disk(mr_request *request, mr_loop_fn work, mr_loop_fn done) {
    mr_status status = mr_disk_post(request->coordinator->file_disk, work, done, request);
    if (mr_status_is_ok(status))
        request->on_disk = true;
    else
        mr_request_fail(request, status);
}

/* The request is back from DISK. False: it was answered meanwhile, and is gone now. */
bool mr_request_is_back(mr_request *request) {
    request->on_disk = false;
    if (request->answered) {
        request_free(request);
        return false;
    }
    if (mr_status_is_ok(request->status))
        return true;
    mr_request_fail(request, request->status);
    return false;
}

static mr_request *request_find(const mr_coordinator *coordinator, uint64_t number) {
    for (mr_request *at = coordinator->requests; at != NULL; at = at->next)
        if (at->number == number)
            return at;
    return NULL;
}

void mr_services_answer(mr_coordinator *coordinator, uint64_t number,
                        const ProtobufCMessage *message, mr_status status) {
    mr_request *request = request_find(coordinator, number);
    if (request != NULL)
        mr_request_answer(request, message, status);
}

void mr_services_jobs_stop(mr_coordinator *coordinator, mr_status status) {
    while (coordinator->requests != NULL)
        mr_request_fail(coordinator->requests, status);
}

/* The job that a request names; NULL where there is none, and then the request is answered. */
mr_job_record *mr_request_job(mr_request *request, const char *job) {
    mr_job_record *record = mr_jobs_resolve(&request->coordinator->state.jobs, job);
    if (record == NULL)
        mr_request_fail(request, MR_ERROR(NOT_FOUND, "no job has the id or name \"%.100s\"", job));
    return record;
}
