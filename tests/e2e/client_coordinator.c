/* SPDX-License-Identifier: Apache-2.0 */
/* A coordinator whose answers never change, for transcripts of the client. It prints its address on
 * stdout and ends when its stdin does. It knows five jobs, one in each state that matters, three
 * members, of which one is lost, and two checkpoints. A request for one of these names is an error
 * instead of an answer: none NOT_FOUND, state FAILED_PRECONDITION, denied PERMISSION_DENIED, login
 * UNAUTHENTICATED, gone UNAVAILABLE, broken INTERNAL; slow gets no answer at all. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/rpc/runtime.h"
#include "daemon/rpc/server.h"
#include "millrace/v1/jobs.pb-c.h"

enum { HELD_MAX = 16, START_MS = 1000000000 };

typedef struct fake_job {
    const char *id;
    const char *name;
    Millrace__V1__JobState state;
    const char *reason;
    uint64_t step;
    uint32_t queue_position;
    bool started;
    bool ended;
    const char *checkpoint;
} fake_job;

static const fake_job jobs[] = {
    {"j1", "tiny", MILLRACE__V1__JOB_STATE__JOB_STATE_SUCCEEDED, "", 300, 0, true, true,
     "step-000000000300"},
    {"j2", "small", MILLRACE__V1__JOB_STATE__JOB_STATE_FAILED, "stage 1 (member m3) is lost", 17,
     0, true, true, "step-000000000010"},
    {"j3", "wide", MILLRACE__V1__JOB_STATE__JOB_STATE_CANCELLED, "a client asked", 5, 0, true,
     true, ""},
    {"j4", "gpt", MILLRACE__V1__JOB_STATE__JOB_STATE_RUNNING, "", 120, 0, true, false,
     "step-000000000100"},
    {"j5", "next", MILLRACE__V1__JOB_STATE__JOB_STATE_QUEUED,
     "needs 2 stages, 0 of 3 are idle", 0, 1, false, false, ""},
};

static struct {
    pthread_mutex_t lock;
    size_t held_count; /* requests without an answer */
    mr_rpc_stream *held[HELD_MAX];
} fake = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void must(mr_status status) {
    if (mr_status_is_ok(status))
        return;
    printf("%s\n", status.text);
    exit(1);
}

/* Texts of messages are only packed. */
static char *text_of(const char *text) {
    return (char *)(uintptr_t)text;
}

/* ---- messages -------------------------------------------------------------------------------- */

/* Room for one job message and what hangs on it. */
typedef struct job_message {
    Millrace__V1__Job job;
    Millrace__V1__JobStage stages[2];
    Millrace__V1__JobStage *stage_list[2];
    Millrace__V1__MemoryBytes predicted[2];
    Millrace__V1__MemoryBytes held[2];
    Millrace__V1__JobGroup group;
    Millrace__V1__JobGroup *group_list[1];
    uint32_t ranks[2];
} job_message;

static void fill_memory(uint64_t weights, Millrace__V1__MemoryBytes *memory) {
    *memory = (Millrace__V1__MemoryBytes)MILLRACE__V1__MEMORY_BYTES__INIT;
    memory->weights = weights;
    memory->gradients = weights;
    memory->optimizer = 2 * weights;
    memory->activations = weights / 2;
}

static void fill_stages(job_message *message) {
    static const char *const members[] = {"m1", "m2"};
    static const char *const addresses[] = {"127.0.0.1:9701", "127.0.0.1:9702"};
    for (uint32_t i = 0; i < 2; i++) {
        message->stages[i] = (Millrace__V1__JobStage)MILLRACE__V1__JOB_STAGE__INIT;
        message->stages[i].rank = i;
        message->stages[i].stage = i;
        message->stages[i].layer_first = i * 4;
        message->stages[i].layer_end = i * 4 + 4 + i;
        message->stages[i].member_id = text_of(members[i]);
        message->stages[i].address = text_of(addresses[i]);
        fill_memory(1 << 20, &message->predicted[i]);
        fill_memory((1 << 20) + 4096, &message->held[i]);
        message->stages[i].memory_predicted = &message->predicted[i];
        message->stages[i].memory_held = i == 0 ? &message->held[i] : NULL; /* still builds */
        message->stage_list[i] = &message->stages[i];
        message->ranks[i] = i;
    }
    message->group = (Millrace__V1__JobGroup)MILLRACE__V1__JOB_GROUP__INIT;
    message->group.kind = text_of("tied");
    message->group.key = text_of("embed");
    message->group.id = text_of("tied/0");
    message->group.n_ranks = 2;
    message->group.ranks = message->ranks;
    message->group_list[0] = &message->group;
}

static void fill_job(const fake_job *known, bool text, job_message *message) {
    Millrace__V1__Job *job = &message->job;
    *job = (Millrace__V1__Job)MILLRACE__V1__JOB__INIT;
    job->id = text_of(known->id);
    job->name = text_of(known->name);
    job->state = known->state;
    job->reason = text_of(known->reason);
    job->step = known->step;
    job->total_steps = 300;
    job->epoch = known->started ? 1 : 0;
    job->loss = known->step > 0 ? 2.5 : 0;
    job->gradient_norm = known->step > 0 ? 0.75 : 0;
    job->learning_rate = known->step > 0 ? 0.001 : 0;
    job->tokens_per_second = known->step > 0 ? 12345 : 0;
    job->bubble = known->step > 0 ? 0.125 : 0;
    job->created_ms = START_MS;
    job->started_ms = known->started ? START_MS + 5000 : 0;
    job->ended_ms = known->ended ? START_MS + 65000 : 0;
    job->checkpoint_tag = text_of(known->checkpoint);
    job->queue_position = known->queue_position;
    job->base_directory = text_of("/data/jobs");
    job->job_file = text_of(text ? "schema: millrace.job/v1\nname: gpt\n" : "");
    if (!known->started)
        return;
    fill_stages(message);
    job->n_stages = 2;
    job->stages = message->stage_list;
    job->n_groups = 1;
    job->groups = message->group_list;
}

static void fill_member(size_t index, Millrace__V1__Member *member) {
    static const char *const ids[] = {"m1", "m2", "m3"};
    static const char *const states[] = {"running", "running", "lost"};
    static const char *const addresses[] = {"127.0.0.1:9701", "127.0.0.1:9702", "127.0.0.1:9703"};
    static const char *const pages[] = {"127.0.0.1:9781", "127.0.0.1:9782", "127.0.0.1:9783"};
    *member = (Millrace__V1__Member)MILLRACE__V1__MEMBER__INIT;
    member->id = text_of(ids[index]);
    member->device = text_of(index == 2 ? "cuda:0" : "cpu");
    member->threads = 4;
    member->address = text_of(addresses[index]);
    member->status_address = text_of(pages[index]);
    member->state = text_of(states[index]);
    member->job_id = text_of(index == 2 ? "" : "j4");
    member->rank = (uint32_t)index;
    member->version = text_of("0.1.0");
    member->heartbeat_age_ms = index == 2 ? 7300 : 200;
    member->memory_bytes = UINT64_C(8) << 30;
    member->process_id = 1000 + index;
}

static void fill_checkpoint(size_t index, Millrace__V1__Checkpoint *checkpoint) {
    *checkpoint = (Millrace__V1__Checkpoint)MILLRACE__V1__CHECKPOINT__INIT;
    checkpoint->tag = text_of(index == 0 ? "step-000000000050" : "step-000000000100");
    checkpoint->path = text_of(index == 0 ? "/data/jobs/checkpoints/step-000000000050"
                                          : "/data/jobs/checkpoints/step-000000000100");
    checkpoint->step = index == 0 ? 50 : 100;
    checkpoint->created_ms = START_MS + 20000 * (int64_t)(index + 1);
    checkpoint->bytes = 1 << 20;
    checkpoint->newest = index == 1;
}

/* ---- answers --------------------------------------------------------------------------------- */

static void answer(mr_rpc_stream *stream, const ProtobufCMessage *message) {
    must(mr_rpc_stream_send(stream, message, NULL));
    mr_rpc_stream_finish(stream, MR_OK);
}

/* True: the name stands for an error, and that was the answer. */
static bool answer_error(mr_rpc_stream *stream, const char *name) {
    static const struct {
        const char *name;
        mr_code code;
    } errors[] = {
        {"none", MR_CODE_NOT_FOUND},           {"state", MR_CODE_FAILED_PRECONDITION},
        {"denied", MR_CODE_PERMISSION_DENIED}, {"login", MR_CODE_UNAUTHENTICATED},
        {"gone", MR_CODE_UNAVAILABLE},         {"broken", MR_CODE_INTERNAL},
    };
    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
        if (strcmp(errors[i].name, name) != 0)
            continue;
        mr_rpc_stream_finish(stream, mr_status_make(errors[i].code, __FILE__, __LINE__,
                                                    "the fake coordinator says %s of %s",
                                                    mr_code_name(errors[i].code), name));
        return true;
    }
    if (strcmp(name, "slow") != 0)
        return false;
    pthread_mutex_lock(&fake.lock);
    if (fake.held_count == HELD_MAX)
        exit(1);
    fake.held[fake.held_count++] = mr_rpc_stream_ref(stream);
    pthread_mutex_unlock(&fake.lock);
    return true;
}

static const fake_job *find_job(mr_rpc_stream *stream, const char *name) {
    if (answer_error(stream, name))
        return NULL;
    for (size_t i = 0; i < sizeof(jobs) / sizeof(jobs[0]); i++) {
        if (strcmp(jobs[i].id, name) == 0 || strcmp(jobs[i].name, name) == 0)
            return &jobs[i];
    }
    mr_rpc_stream_finish(stream, MR_ERROR(NOT_FOUND, "no job %s", name));
    return NULL;
}

static void on_job(mr_rpc_stream *stream, ProtobufCMessage *owned_request, void *context) {
    (void)context;
    const fake_job *job = find_job(stream, ((Millrace__V1__JobRequest *)owned_request)->job);
    job_message message;
    if (job != NULL) {
        fill_job(job, true, &message);
        answer(stream, &message.job.base);
    }
    protobuf_c_message_free_unpacked(owned_request, NULL);
}

static void on_set(mr_rpc_stream *stream, ProtobufCMessage *owned_request, void *context) {
    (void)context;
    const fake_job *job = find_job(stream, ((Millrace__V1__SetRequest *)owned_request)->job);
    job_message message;
    if (job != NULL) {
        fill_job(job, false, &message);
        answer(stream, &message.job.base);
    }
    protobuf_c_message_free_unpacked(owned_request, NULL);
}

static void on_submit(mr_rpc_stream *stream, ProtobufCMessage *owned_request, void *context) {
    (void)context;
    job_message message;
    fill_job(&jobs[4], false, &message);
    answer(stream, &message.job.base);
    protobuf_c_message_free_unpacked(owned_request, NULL);
}

static void on_list(mr_rpc_stream *stream, ProtobufCMessage *owned_request, void *context) {
    (void)context;
    enum { COUNT = sizeof(jobs) / sizeof(jobs[0]) };
    static job_message messages[COUNT]; /* one at a time: under the lock */
    Millrace__V1__Job *list[COUNT];
    Millrace__V1__ListResponse response = MILLRACE__V1__LIST_RESPONSE__INIT;
    pthread_mutex_lock(&fake.lock);
    for (size_t i = 0; i < COUNT; i++) {
        fill_job(&jobs[i], false, &messages[i]);
        list[i] = &messages[i].job;
    }
    response.n_jobs = COUNT;
    response.jobs = list;
    answer(stream, &response.base);
    pthread_mutex_unlock(&fake.lock);
    protobuf_c_message_free_unpacked(owned_request, NULL);
}

/* The job's state, then its end; a job that has not ended is followed for ever. */
static void on_watch(mr_rpc_stream *stream, ProtobufCMessage *owned_request, void *context) {
    (void)context;
    const fake_job *job = find_job(stream, ((Millrace__V1__JobRequest *)owned_request)->job);
    job_message message;
    Millrace__V1__JobEvent event = MILLRACE__V1__JOB_EVENT__INIT;
    if (job != NULL) {
        fill_job(job, false, &message);
        event.job = &message.job;
        must(mr_rpc_stream_send(stream, &event.base, NULL));
        if (job->ended)
            mr_rpc_stream_finish(stream, MR_OK);
        else
            (void)answer_error(stream, "slow"); /* kept open */
    }
    protobuf_c_message_free_unpacked(owned_request, NULL);
}

static void on_save(mr_rpc_stream *stream, ProtobufCMessage *owned_request, void *context) {
    (void)context;
    Millrace__V1__Checkpoint checkpoint;
    const char *name = ((Millrace__V1__SaveCheckpointRequest *)owned_request)->job;
    if (find_job(stream, name) != NULL) {
        fill_checkpoint(1, &checkpoint);
        answer(stream, &checkpoint.base);
    }
    protobuf_c_message_free_unpacked(owned_request, NULL);
}

static void on_checkpoints(mr_rpc_stream *stream, ProtobufCMessage *owned_request, void *context) {
    (void)context;
    Millrace__V1__Checkpoint checkpoints[2];
    Millrace__V1__Checkpoint *list[2] = {&checkpoints[0], &checkpoints[1]};
    Millrace__V1__ListCheckpointsResponse response =
        MILLRACE__V1__LIST_CHECKPOINTS_RESPONSE__INIT;
    const char *name = ((Millrace__V1__ListCheckpointsRequest *)owned_request)->job;
    if (find_job(stream, name) != NULL) {
        fill_checkpoint(0, &checkpoints[0]);
        fill_checkpoint(1, &checkpoints[1]);
        response.n_checkpoints = 2;
        response.checkpoints = list;
        answer(stream, &response.base);
    }
    protobuf_c_message_free_unpacked(owned_request, NULL);
}

static void on_stages(mr_rpc_stream *stream, ProtobufCMessage *owned_request, void *context) {
    (void)context;
    Millrace__V1__Member members[3];
    Millrace__V1__Member *list[3];
    Millrace__V1__ListStagesResponse response = MILLRACE__V1__LIST_STAGES_RESPONSE__INIT;
    for (size_t i = 0; i < 3; i++) {
        fill_member(i, &members[i]);
        list[i] = &members[i];
    }
    response.n_members = 3;
    response.members = list;
    answer(stream, &response.base);
    protobuf_c_message_free_unpacked(owned_request, NULL);
}

static void on_drain(mr_rpc_stream *stream, ProtobufCMessage *owned_request, void *context) {
    (void)context;
    const char *id = ((Millrace__V1__DrainStageRequest *)owned_request)->member_id;
    Millrace__V1__Member member;
    if (!answer_error(stream, id)) {
        fill_member(0, &member);
        member.state = text_of("draining");
        answer(stream, &member.base);
    }
    protobuf_c_message_free_unpacked(owned_request, NULL);
}

static void on_cluster(mr_rpc_stream *stream, ProtobufCMessage *owned_request, void *context) {
    (void)context;
    Millrace__V1__ClusterInfoResponse response = MILLRACE__V1__CLUSTER_INFO_RESPONSE__INIT;
    response.version = text_of("0.1.0");
    response.address = text_of("127.0.0.1:9700");
    response.status_address = text_of("127.0.0.1:9780");
    response.members = 3;
    response.jobs_running = 1;
    response.jobs_queued = 1;
    response.started_ms = START_MS;
    answer(stream, &response.base);
    protobuf_c_message_free_unpacked(owned_request, NULL);
}

static const mr_rpc_method methods[] = {
    {.name = "Submit", .on_request = on_submit},
    {.name = "Get", .on_request = on_job},
    {.name = "List", .on_request = on_list},
    {.name = "Watch", .on_request = on_watch},
    {.name = "Pause", .on_request = on_job},
    {.name = "Resume", .on_request = on_job},
    {.name = "Cancel", .on_request = on_job},
    {.name = "Set", .on_request = on_set},
    {.name = "SaveCheckpoint", .on_request = on_save},
    {.name = "ListCheckpoints", .on_request = on_checkpoints},
    {.name = "ListStages", .on_request = on_stages},
    {.name = "DrainStage", .on_request = on_drain},
    {.name = "ClusterInfo", .on_request = on_cluster},
};

int main(void) {
    const mr_rpc_service service = {
        .descriptor = &millrace__v1__jobs__descriptor,
        .methods = methods,
        .method_count = sizeof(methods) / sizeof(methods[0]),
    };
    const mr_rpc_server_options options = {
        .listen = "127.0.0.1:0", .services = &service, .service_count = 1};
    mr_rpc_server *server = NULL;
    must(mr_rpc_start());
    must(mr_rpc_server_start(&options, &server));
    printf("%s\n", mr_rpc_server_address(server));
    fflush(stdout);
    char byte;
    while (read(STDIN_FILENO, &byte, 1) > 0)
        continue;
    pthread_mutex_lock(&fake.lock);
    for (size_t i = 0; i < fake.held_count; i++) {
        mr_rpc_stream_finish(fake.held[i], MR_ERROR(CANCELLED, "the test is over"));
        mr_rpc_stream_unref(fake.held[i]);
    }
    pthread_mutex_unlock(&fake.lock);
    mr_rpc_server_stop(server, 1000);
    mr_rpc_stop();
    return 0;
}
