/* SPDX-License-Identifier: Apache-2.0 */
/* Control, as the coordinator serves it: each attached stage is one stream. Messages are asked for
 * one at a time, the next when LOOP has decided on the last, so that no stage can flood the
 * coordinator.
 *
 * A connection is made on an RPC thread (opened), lives on LOOP, and is freed there when the news
 * of its end has come, which is the last that is heard of it. */
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/clock.h"
#include "daemon/coordinator/runtime.h"
#include "millrace/v1/control.pb-c.h"

struct mr_connection {
    mr_coordinator *coordinator;
    mr_rpc_stream *stream;          /* a reference */
    atomic_bool ended;              /* written on an RPC thread */
    char why[MR_STATUS_TEXT_BYTES]; /* before ended */
    /* LOOP. */
    uint64_t member; /* 0: not registered yet */
    int64_t opened_ms;
    bool listed;
    bool finished; /* we have ended the stream */
    mr_connection *next;
};

/* One report on its way to LOOP. */
typedef struct connection_message {
    mr_connection *connection;
    Millrace__V1__StageReport *report;
} connection_message;

/* Texts of peers are shown to people and sent to other languages, which insist on valid text. */
static const char *text_clean(char *text) {
    for (unsigned char *at = (unsigned char *)text; *at != '\0'; at++)
        if (*at < 0x20 || *at > 0x7e)
            *at = '?';
    return text;
}

/* ---- reports --------------------------------------------------------------------------------- */

static void connection_refuse(mr_connection *connection, mr_status status) {
    if (connection->finished)
        return;
    connection->finished = true;
    mr_rpc_stream_finish(connection->stream, status);
}

static void connection_register(mr_connection *connection, const Millrace__V1__Register *report) {
    mr_coordinator *coordinator = connection->coordinator;
    if (connection->member != 0 || report->address[0] == '\0' || report->instance_id[0] == '\0') {
        connection_refuse(connection, MR_ERROR(INVALID_ARGUMENT,
                                               "Register comes once, first, with instance_id and "
                                               "address"));
        return;
    }
    mr_event event = {.kind = MR_EVENT_ATTACHED, .member = ++coordinator->member_last};
    event.u.attached = (mr_member_info){
        .instance_id = text_clean(report->instance_id),
        .device = text_clean(report->device),
        .address = text_clean(report->address),
        .status_address = text_clean(report->status_address),
        .version = text_clean(report->version),
        .threads = report->threads,
        .memory_bytes = report->memory_bytes,
        .process_id = report->process_id,
    };
    connection->member = event.member; /* the answer looks for it */
    mr_runtime_take(coordinator, &event);
    if (mr_registry_find(&coordinator->state.registry, event.member) == NULL)
        connection_refuse(connection, MR_ERROR(RESOURCE_EXHAUSTED, "no room for one more stage"));
}

/* The files of a Saved report; what cannot be listed makes the save fail with *out_error. */
static mr_checkpoint_file *saved_files(const Millrace__V1__Saved *report, mr_status *out_error) {
    mr_checkpoint_file *files = mr_alloc_array(report->n_files, sizeof(*files));
    *out_error = MR_OK;
    if (files == NULL) {
        *out_error =
            MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a list of %zu files", report->n_files);
        return NULL;
    }
    for (size_t i = 0; i < report->n_files; i++) {
        const Millrace__V1__SavedFile *file = report->files[i];
        if (!mr_layout_file_name_valid(file->name) ||
            strlen(file->sha256) != MR_SHA256_HEX_BYTES - 1)
            *out_error =
                MR_ERROR(INVALID_ARGUMENT, "file %zu of the save has no valid name or hash", i);
        (void)snprintf(files[i].name, sizeof(files[i].name), "%s", file->name); /* checked */
        (void)snprintf(files[i].sha256, sizeof(files[i].sha256), "%s", file->sha256);
        files[i].bytes = file->bytes;
    }
    return files;
}

static void report_saved(mr_coordinator *coordinator, mr_event *event,
                         const Millrace__V1__Saved *report) {
    mr_status error;
    mr_checkpoint_file *files = saved_files(report, &error);
    bool bad = !mr_status_is_ok(error) && report->error[0] == '\0';
    mr_code code = MR_CODE_UNKNOWN;
    if (report->error_code > 0 && report->error_code < MR_CODE_COUNT)
        code = (mr_code)report->error_code;
    event->kind = MR_EVENT_SAVED;
    event->job = report->job_id;
    event->epoch = report->epoch;
    event->u.saved.tag = report->tag;
    event->u.saved.step = report->step;
    event->u.saved.files = files;
    event->u.saved.file_count = files == NULL ? 0 : report->n_files;
    event->u.saved.error = bad ? error.text : text_clean(report->error);
    event->u.saved.error_code = bad ? error.code : code;
    event->u.saved.optimizer_steps = report->optimizer_steps;
    event->u.saved.loss_scale =
        (mr_loss_scale){.scale = report->loss_scale,
                        .good_steps = report->loss_scale_good_steps,
                        .overflows_left = report->loss_scale_overflows_left};
    mr_runtime_take(coordinator, event);
    mr_free(files);
}

static void member_describe(const mr_member *member, mr_profile_device *profile) {
    static_assert(sizeof(profile->device) >= sizeof(member->device) &&
                      sizeof(profile->address) >= sizeof(member->address),
                  "a member's texts fit its profile");
    memcpy(profile->device, member->device, sizeof(member->device));
    memcpy(profile->address, member->address, sizeof(member->address));
    profile->threads = member->threads;
    profile->memory_bytes = member->memory_bytes;
}

/* More than a stage of this version sends are left out. */
static void step_done_sides(mr_job_step *step, const Millrace__V1__StepResult *result) {
    for (size_t i = 0; i < result->n_side_losses && i < MR_SIDE_LOSSES_MAX; i++) {
        mr_job_side_loss *side = &step->sides[step->side_count++];
        (void)snprintf(side->name, sizeof(side->name), "%s",
                       text_clean(result->side_losses[i]->name));
        side->value = result->side_losses[i]->value;
    }
}

static void report_step_done(mr_coordinator *coordinator, mr_event *event,
                             const Millrace__V1__StepDone *report) {
    const Millrace__V1__StepResult *result = report->result;
    if (result == NULL)
        return;
    event->kind = MR_EVENT_STEP_DONE;
    event->job = report->job_id;
    event->epoch = report->epoch;
    event->u.step_done = (mr_job_step){
        .step = result->step,
        .loss = result->loss,
        .gradient_norm = result->gradient_norm,
        .learning_rate = result->learning_rate,
        .tokens = result->tokens,
        .tokens_per_second = result->tokens_per_second,
        .bubble = result->bubble,
        .step_seconds = result->step_seconds,
        .loss_scale = result->loss_scale,
        .skipped = result->skipped != 0,
        .total_loss = result->total_loss,
    };
    step_done_sides(&event->u.step_done, result);
    mr_runtime_take(coordinator, event);
}

static void report_failed(mr_event *event, const Millrace__V1__StageFailed *report) {
    bool known = report->code > 0 && report->code < MR_CODE_COUNT;
    event->kind = MR_EVENT_FAILED;
    event->u.failed.code = known ? (mr_code)report->code : MR_CODE_UNKNOWN;
    event->u.failed.text = text_clean(report->text);
    event->u.failed.secondary = report->secondary;
}

/* The text is borrowed. */
static void report_refused(mr_event *event, const mr_status *status) {
    event->kind = MR_EVENT_FAILED;
    event->u.failed.code = status->code;
    event->u.failed.text = status->text;
    event->u.failed.secondary = false;
}

/* NULL, of an older stage, is nothing. */
static mr_status memory_read(const Millrace__V1__MemoryBytes *message,
                             mr_memory_bytes *out_memory) {
    mr_memory_bytes memory = {0};
    if (message != NULL)
        memory = (mr_memory_bytes){.weights = message->weights,
                                   .gradients = message->gradients,
                                   .optimizer = message->optimizer,
                                   .activations = message->activations};
    const struct {
        const char *kind;
        uint64_t bytes;
    } kinds[] = {{"weights", memory.weights},
                 {"gradients", memory.gradients},
                 {"optimizer", memory.optimizer},
                 {"activations", memory.activations}};
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (kinds[i].bytes > MR_DEVICE_BYTES_MAX)
            return MR_ERROR(INVALID_ARGUMENT, "memory_held.%s is %" PRIu64 "; the limit is %llu",
                            kinds[i].kind, kinds[i].bytes, MR_DEVICE_BYTES_MAX);
    *out_memory = memory;
    return MR_OK;
}

static void report_resized(mr_coordinator *coordinator, mr_event *event,
                           const Millrace__V1__Resized *report) {
    event->kind = MR_EVENT_RESIZED;
    event->job = report->job_id;
    event->epoch = report->epoch;
    mr_status status = memory_read(report->memory_held, &event->u.resized.held);
    if (!mr_status_is_ok(status))
        report_refused(event, &status);
    mr_runtime_take(coordinator, event);
}

/* The ids and bytes of a Prepared report; what cannot be makes it a failure of the stage. */
static void report_prepared(mr_coordinator *coordinator, mr_event *event,
                            const Millrace__V1__Prepared *report) {
    mr_group_ids ids = {0};
    mr_status status = MR_OK;
    for (size_t i = 0; i < report->n_group_ids && mr_status_is_ok(status); i++) {
        const Millrace__V1__GroupId *id = report->group_ids[i];
        status = mr_group_ids_add(&ids, text_clean(id->group_key), id->id.data, id->id.len);
    }
    event->kind = MR_EVENT_PREPARED;
    event->job = report->job_id;
    event->epoch = report->epoch;
    event->u.prepared.schedule_hash = text_clean(report->schedule_hash);
    event->u.prepared.next_step = report->next_step;
    event->u.prepared.group_ids = ids.items;
    event->u.prepared.group_id_count = ids.count;
    if (mr_status_is_ok(status))
        status = memory_read(report->memory_held, &event->u.prepared.held);
    if (!mr_status_is_ok(status))
        report_refused(event, &status);
    mr_runtime_take(coordinator, event);
    mr_group_ids_deinit(&ids);
}

/* The times that a member measured, with who it is; what cannot be times is a failure of it. */
static void report_profiled(mr_coordinator *coordinator, mr_event *event,
                            const Millrace__V1__Profiled *report) {
    const mr_member *member = mr_registry_find(&coordinator->state.registry, event->member);
    mr_profile_device *profile = NULL;
    mr_status status = mr_profile_device_create(report->n_costs, &profile);
    event->kind = MR_EVENT_PROFILED;
    event->job = report->job_id;
    event->epoch = report->epoch;
    if (mr_status_is_ok(status)) {
        profile->loss = report->loss;
        profile->zero = report->zero;
        profile->norm = report->norm;
        profile->optimizer = report->optimizer;
        profile->link = report->link;
        profile->link_byte = report->link_byte;
        for (size_t i = 0; i < report->n_costs; i++)
            profile->costs[i] = (mr_profile_cost){
                .forward = report->costs[i]->forward,
                .backward_input = report->costs[i]->backward_input,
                .backward_weight = report->costs[i]->backward_weight,
                .saved_bytes = report->costs[i]->saved_bytes,
            };
        if (member != NULL)
            member_describe(member, profile);
        status = mr_profile_device_check(profile);
    }
    event->u.profiled.owned_profile = profile;
    if (!mr_status_is_ok(status)) {
        mr_profile_device_destroy(profile);
        report_refused(event, &status);
    }
    mr_runtime_take(coordinator, event);
}

/* The reports that are only copied over. False: not one of them. */
static bool report_plain(mr_event *event, const Millrace__V1__StageReport *report) {
#define REPORT_SUBJECT(field)                                                                      \
    (event->job = report->field->job_id, event->epoch = report->field->epoch)
    switch (report->report_case) {
    case MILLRACE__V1__STAGE_REPORT__REPORT_HEARTBEAT:
        REPORT_SUBJECT(heartbeat);
        event->kind = MR_EVENT_HEARTBEAT;
        event->u.heartbeat.step = report->heartbeat->step;
        event->u.heartbeat.instruction = text_clean(report->heartbeat->instruction);
        event->u.heartbeat.instruction_age_ms = report->heartbeat->instruction_age_ms;
        return true;
    case MILLRACE__V1__STAGE_REPORT__REPORT_CONNECTED:
        REPORT_SUBJECT(connected);
        event->kind = MR_EVENT_CONNECTED;
        return true;
    case MILLRACE__V1__STAGE_REPORT__REPORT_PAUSED:
        REPORT_SUBJECT(paused);
        event->kind = MR_EVENT_PAUSED;
        event->u.paused.step = report->paused->step;
        return true;
    case MILLRACE__V1__STAGE_REPORT__REPORT_FINISHED:
        REPORT_SUBJECT(finished);
        event->kind = MR_EVENT_FINISHED;
        event->u.finished.step = report->finished->step;
        return true;
    case MILLRACE__V1__STAGE_REPORT__REPORT_FAILED:
        REPORT_SUBJECT(failed);
        report_failed(event, report->failed);
        return true;
    case MILLRACE__V1__STAGE_REPORT__REPORT_RELEASED:
        REPORT_SUBJECT(released);
        event->kind = MR_EVENT_RELEASED;
        return true;
    case MILLRACE__V1__STAGE_REPORT__REPORT_FEED_STATE:
        REPORT_SUBJECT(feed_state);
        event->kind = MR_EVENT_FEED_STATE;
        event->u.feed_state.open = report->feed_state->open;
        return true;
    case MILLRACE__V1__STAGE_REPORT__REPORT_LEAVING:
        event->kind = MR_EVENT_LEAVING;
        return true;
    default:
        return false;
    }
#undef REPORT_SUBJECT
}

static void connection_take(mr_connection *connection, Millrace__V1__StageReport *report) {
    mr_coordinator *coordinator = connection->coordinator;
    if (report->report_case == MILLRACE__V1__STAGE_REPORT__REPORT_REGISTER) {
        connection_register(connection, report->register_);
        return;
    }
    if (connection->member == 0) {
        connection_refuse(connection,
                          MR_ERROR(FAILED_PRECONDITION, "the first report must be Register"));
        return;
    }
    mr_event event = {.member = connection->member};
    if (report->report_case == MILLRACE__V1__STAGE_REPORT__REPORT_SAVED)
        report_saved(coordinator, &event, report->saved);
    else if (report->report_case == MILLRACE__V1__STAGE_REPORT__REPORT_PREPARED)
        report_prepared(coordinator, &event, report->prepared);
    else if (report->report_case == MILLRACE__V1__STAGE_REPORT__REPORT_RESIZED)
        report_resized(coordinator, &event, report->resized);
    else if (report->report_case == MILLRACE__V1__STAGE_REPORT__REPORT_PROFILED)
        report_profiled(coordinator, &event, report->profiled);
    else if (report->report_case == MILLRACE__V1__STAGE_REPORT__REPORT_STEP_DONE)
        report_step_done(coordinator, &event, report->step_done);
    else if (report->report_case == MILLRACE__V1__STAGE_REPORT__REPORT_STEP_SPANS)
        mr_step_spans_take(coordinator, connection->member, report->step_spans);
    else if (report_plain(&event, report))
        mr_runtime_take(coordinator, &event);
    /* A report of a later version is passed over. */
}

/* LOOP. */
static void connection_message_arrived(void *context) {
    connection_message *message = context;
    mr_connection *connection = message->connection;
    if (!connection->coordinator->stopping && !connection->finished) {
        connection_take(connection, message->report);
        mr_rpc_stream_receive(connection->stream);
    }
    millrace__v1__stage_report__free_unpacked(message->report, NULL);
    mr_free(message);
}

/* ---- a connection's life --------------------------------------------------------------------- */

/* LOOP. */
static void connection_opened(void *context) {
    mr_connection *connection = context;
    mr_coordinator *coordinator = connection->coordinator;
    connection->opened_ms = mr_clock_now_ms();
    connection->listed = true;
    connection->next = coordinator->connections;
    coordinator->connections = connection;
    coordinator->connection_count++;
    if (coordinator->stopping)
        connection_refuse(connection, MR_ERROR(UNAVAILABLE, "the coordinator is stopping"));
    else if (coordinator->connection_count > MR_CONNECTIONS_MAX)
        connection_refuse(connection, MR_ERROR(RESOURCE_EXHAUSTED, "%zu stages are connected",
                                               coordinator->connection_count - 1));
}

static void connection_free(mr_connection *connection) {
    mr_rpc_stream_unref(connection->stream);
    mr_free(connection);
}

/* LOOP. The stream is over: the member is lost, and nothing more will come. */
static void connection_ended(void *context) {
    mr_connection *connection = context;
    mr_coordinator *coordinator = connection->coordinator;
    connection_refuse(connection, MR_OK); /* where only the stage's half was closed */
    mr_connection **at = &coordinator->connections;
    while (*at != NULL && *at != connection)
        at = &(*at)->next;
    if (*at != NULL) {
        *at = connection->next;
        coordinator->connection_count--;
    }
    if (connection->member != 0 && !coordinator->stopping) {
        mr_event event = {.kind = MR_EVENT_LOST, .member = connection->member};
        event.u.lost.text = connection->why;
        mr_runtime_take(coordinator, &event);
    }
    connection_free(connection);
}

/* RPC thread. NULL: refused; its end will find nothing. */
static void *control_on_open(mr_rpc_stream *stream, void *context) {
    mr_coordinator *coordinator = context;
    mr_connection *connection = mr_alloc(sizeof(*connection));
    mr_status status = MR_ERROR(RESOURCE_EXHAUSTED, "no memory for one more stage");
    if (connection != NULL) {
        connection->coordinator = coordinator;
        connection->stream = stream; /* the reference is ours */
        status = mr_loop_post(coordinator->loop, connection_opened, connection);
    }
    if (!mr_status_is_ok(status)) {
        mr_rpc_stream_finish(stream, status);
        mr_rpc_stream_unref(stream);
        mr_free(connection);
        return NULL;
    }
    mr_rpc_stream_receive(stream);
    return connection;
}

/* RPC thread. A report that cannot be handed over must not be missed silently: the stream ends. */
static void control_on_message(mr_rpc_stream *stream, ProtobufCMessage *owned_message,
                               mr_rpc_tail *owned_tail, void *context) {
    mr_connection *connection = context;
    mr_rpc_tail_destroy(owned_tail);
    connection_message *message = connection == NULL ? NULL : mr_alloc(sizeof(*message));
    if (message != NULL) {
        message->connection = connection;
        message->report = (Millrace__V1__StageReport *)owned_message;
        if (mr_status_is_ok(
                mr_loop_post(connection->coordinator->loop, connection_message_arrived, message)))
            return;
    }
    mr_free(message);
    protobuf_c_message_free_unpacked(owned_message, NULL);
    mr_rpc_stream_cancel(stream);
}

/* RPC thread. */
static void control_on_end(mr_rpc_stream *stream, mr_status status, void *context) {
    (void)stream;
    mr_connection *connection = context;
    if (connection == NULL)
        return;
    (void)snprintf(connection->why, sizeof(connection->why), "%s",
                   mr_status_is_ok(status) ? "it closed its stream" : status.text); /* same size */
    mr_status posted = mr_loop_post(connection->coordinator->loop, connection_ended, connection);
    if (!mr_status_is_ok(posted)) /* LOOP is behind: the tick will find it */
        atomic_store(&connection->ended, true);
}

static const mr_rpc_stream_events control_events = {
    .on_message = control_on_message,
    .on_end = control_on_end,
};

static const mr_rpc_method control_methods[] = {
    {.name = "Attach", .on_open = control_on_open, .events = &control_events},
};

mr_rpc_service mr_services_control(mr_coordinator *coordinator) {
    return (mr_rpc_service){
        .descriptor = &millrace__v1__control__descriptor,
        .methods = control_methods,
        .method_count = sizeof(control_methods) / sizeof(control_methods[0]),
        .context = coordinator,
    };
}

/* ---- for the other parts --------------------------------------------------------------------- */

mr_rpc_stream *mr_services_member_stream(mr_coordinator *coordinator, uint64_t member) {
    for (mr_connection *at = coordinator->connections; at != NULL; at = at->next)
        if (at->member == member && !at->finished)
            return at->stream;
    return NULL;
}

void mr_services_control_tick(mr_coordinator *coordinator, int64_t now_ms) {
    for (mr_connection *at = coordinator->connections; at != NULL; at = at->next) {
        if (atomic_load(&at->ended)) /* behind the reports of it that still wait */
            atomic_store(&at->ended,
                         !mr_status_is_ok(mr_loop_post(coordinator->loop, connection_ended, at)));
        else if (at->member == 0 && now_ms - at->opened_ms > MR_CONNECT_TIMEOUT_MS)
            connection_refuse(at, MR_ERROR(DEADLINE_EXCEEDED, "no Register in %d s",
                                           MR_CONNECT_TIMEOUT_MS / 1000));
    }
}

void mr_services_control_stop(mr_coordinator *coordinator, mr_status status) {
    for (mr_connection *at = coordinator->connections; at != NULL; at = at->next)
        connection_refuse(at, status);
}
