/* SPDX-License-Identifier: Apache-2.0 */
/* Joins: a member opens one stream to the first and sends JOIN; the hub finds the group, binds the
 * stream to the member's wire and answers JOIN. From then on both ends only see frames. */
#include "daemon/group/grpc.h"

#include <inttypes.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/limits.h"
#include "daemon/group/star.h"

struct mr_group_hub {
    mr_monitor monitor; /* of the list */
    mr_group_star *first;
};

/* A stream as its events see it. On the first member wire is NULL until the join. */
typedef struct hub_stream {
    mr_group_hub *hub; /* NULL on a member */
    mr_group_wire *wire;
} hub_stream;

/* ---- the hub's list ---- */

mr_status mr_group_hub_create(mr_group_hub **out_hub) {
    mr_group_hub *hub = mr_alloc(sizeof(*hub));
    if (hub == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the groups' hub");
    mr_monitor_init(&hub->monitor);
    *out_hub = hub;
    return MR_OK;
}

void mr_group_hub_destroy(mr_group_hub *hub) {
    if (hub == NULL)
        return;
    MR_ASSERT(hub->first == NULL);
    mr_monitor_deinit(&hub->monitor);
    mr_free(hub);
}

static bool star_matches(const mr_group_star *star, const Millrace__V1__GroupFrame *join) {
    return strcmp(star->job_id, join->job_id) == 0 && star->epoch == join->epoch &&
           strcmp(star->group_id, join->group_id) == 0;
}

/* The wire that a join asks for, with a reference. */
static mr_status hub_find(mr_group_hub *hub, const Millrace__V1__GroupFrame *join,
                          mr_group_wire **out_wire) {
    mr_group_wire *wire = NULL;
    mr_monitor_lock(&hub->monitor);
    for (mr_group_star *star = hub->first; star != NULL && wire == NULL; star = star->next)
        for (size_t i = 0; i < star->wire_count && star_matches(star, join); i++)
            if (mr_group_wire_peer(star->wires[i]) == join->rank)
                wire = mr_group_wire_ref(star->wires[i]);
    mr_monitor_unlock(&hub->monitor);
    if (wire == NULL)
        return MR_ERROR(FAILED_PRECONDITION,
                        "no group %.64s of job %.40s, epoch %" PRIu64 ", waits here for rank %u",
                        join->group_id, join->job_id, join->epoch, join->rank);
    *out_wire = wire;
    return MR_OK;
}

static void hub_remove(mr_group_star *star) {
    mr_group_hub *hub = star->owner;
    mr_monitor_lock(&hub->monitor);
    mr_group_star **at = &hub->first;
    while (*at != star)
        at = &(*at)->next;
    *at = star->next;
    mr_monitor_unlock(&hub->monitor);
}

/* ---- streams of the first member ---- */

static mr_status hub_join(hub_stream *context, mr_rpc_stream *stream,
                          const Millrace__V1__GroupFrame *join) {
    mr_group_wire *wire = NULL;
    if (join->operation != MILLRACE__V1__GROUP_OPERATION__GROUP_OPERATION_JOIN)
        return MR_ERROR(FAILED_PRECONDITION, "group.operation is %d before a join",
                        (int)join->operation);
    MR_TRY(hub_find(context->hub, join, &wire));
    Millrace__V1__GroupFrame answer = MILLRACE__V1__GROUP_FRAME__INIT;
    answer.epoch = join->epoch;
    answer.group_id = join->group_id;
    /* Claimed, answered, bound: once bound, EXEC may send the first operation's frames. */
    mr_status status = mr_group_wire_claim(wire);
    if (mr_status_is_ok(status))
        status = mr_rpc_stream_send(stream, &answer.base, NULL);
    if (mr_status_is_ok(status))
        status = mr_group_wire_bind(wire, stream);
    if (mr_status_is_ok(status))
        context->wire = wire;
    else
        mr_group_wire_unref(wire);
    return status;
}

static void *hub_opened(mr_rpc_stream *stream, void *service_context) {
    hub_stream *context = mr_alloc(sizeof(*context));
    if (context == NULL) {
        mr_rpc_stream_finish(stream, MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a join"));
        mr_rpc_stream_unref(stream);
        return NULL;
    }
    context->hub = service_context;
    mr_rpc_stream_receive(stream);
    return context;
}

static void hub_received(mr_rpc_stream *stream, ProtobufCMessage *owned_message,
                         mr_rpc_tail *owned_tail, void *event_context) {
    hub_stream *context = event_context;
    if (context->wire != NULL) {
        mr_group_wire_arrived(context->wire, owned_message, owned_tail);
        return;
    }
    mr_status status =
        hub_join(context, stream, (const Millrace__V1__GroupFrame *)owned_message);
    mr_rpc_tail_destroy(owned_tail);
    protobuf_c_message_free_unpacked(owned_message, NULL);
    if (mr_status_is_ok(status))
        mr_rpc_stream_receive(stream);
    else
        mr_rpc_stream_finish(stream, status);
}

/* A member that half-closes has left, too. */
static void hub_ended(mr_rpc_stream *stream, mr_status status, void *event_context) {
    hub_stream *context = event_context;
    if (context == NULL)
        return;
    if (context->wire != NULL) {
        mr_group_wire_lose(context->wire, mr_status_is_ok(status)
                                              ? MR_ERROR(UNAVAILABLE, "it has left the group")
                                              : status);
        mr_group_wire_unref(context->wire);
    }
    if (mr_status_is_ok(status))
        mr_rpc_stream_finish(stream, MR_OK);
    mr_rpc_stream_unref(stream); /* the reference that on_open holds */
    mr_free(context);
}

static const mr_rpc_stream_events hub_events = {
    .on_message = hub_received,
    .on_end = hub_ended,
};
static const mr_rpc_method hub_methods[] = {
    {.name = "Group", .on_open = hub_opened, .events = &hub_events},
};

mr_rpc_service mr_group_hub_service(mr_group_hub *hub) {
    return (mr_rpc_service){
        .descriptor = &millrace__v1__group__descriptor,
        .methods = hub_methods,
        .method_count = sizeof(hub_methods) / sizeof(hub_methods[0]),
        .context = hub,
        .receive_bytes_max = MR_RPC_MESSAGE_BYTES_MAX,
    };
}

mr_status mr_group_grpc_first(mr_group_hub *hub, const mr_group_options *options,
                              mr_group **out_group) {
    mr_group_star *star = NULL;
    MR_TRY(mr_group_star_create(options, &star));
    MR_ASSERT(star->group.member_index == 0);
    star->owner = hub;
    star->closing = hub_remove;
    mr_monitor_lock(&hub->monitor);
    star->next = hub->first;
    hub->first = star;
    mr_monitor_unlock(&hub->monitor);
    *out_group = &star->group;
    return MR_OK;
}

/* ---- the stream of another member ---- */

static void member_received(mr_rpc_stream *stream, ProtobufCMessage *owned_message,
                            mr_rpc_tail *owned_tail, void *context) {
    (void)stream;
    mr_group_wire_arrived(context, owned_message, owned_tail);
}

static void member_ended(mr_rpc_stream *stream, mr_status status, void *context) {
    (void)stream;
    mr_group_wire_lose(context, mr_status_is_ok(status)
                                    ? MR_ERROR(UNAVAILABLE, "it has closed the group")
                                    : status);
    mr_group_wire_unref(context);
}

static const mr_rpc_stream_events member_events = {
    .on_message = member_received,
    .on_end = member_ended,
};

static void member_closed(mr_group_star *star) {
    mr_rpc_channel_destroy(star->owner);
}

/* Opens the stream, joins, and waits for the answer. */
static mr_status member_join(mr_group_star *star, const char *address,
                             const mr_rpc_credentials *credentials, int64_t timeout_ms) {
    mr_rpc_channel *channel = NULL;
    mr_rpc_stream *stream = NULL;
    mr_group_wire *wire = star->wires[0];
    MR_TRY(mr_group_wire_claim(wire));
    int64_t deadline = mr_monitor_deadline(timeout_ms);
    MR_TRY(mr_rpc_channel_create(address, credentials, &channel));
    star->owner = channel;
    star->closed = member_closed;
    mr_status status =
        mr_rpc_channel_open(channel, &millrace__v1__group__descriptor, "Group", NULL,
                            &member_events, mr_group_wire_ref(wire), 0, &stream);
    if (!mr_status_is_ok(status)) {
        mr_group_wire_unref(wire);
        return status;
    }
    status = mr_group_wire_bind(wire, stream);
    mr_rpc_stream_receive(stream);
    mr_rpc_stream_unref(stream); /* the wire holds it */
    MR_TRY(status);
    Millrace__V1__GroupFrame join;
    const Millrace__V1__GroupFrame *answer = NULL;
    const mr_rpc_tail *tail = NULL;
    mr_group_star_frame(star, &join);
    MR_TRY(mr_group_wire_send(wire, &join, NULL, 0, deadline));
    MR_TRY(mr_group_wire_take(wire, deadline, &answer, &tail));
    if (answer->operation != MILLRACE__V1__GROUP_OPERATION__GROUP_OPERATION_JOIN)
        return MR_ERROR(ABORTED, "rank %u answers a join with operation %d",
                        mr_group_wire_peer(wire), (int)answer->operation);
    return MR_OK;
}

mr_status mr_group_grpc_member(const char *address, const mr_rpc_credentials *credentials,
                               const mr_group_options *options, int64_t timeout_ms,
                               mr_group **out_group) {
    mr_group_star *star = NULL;
    MR_TRY(mr_group_star_create(options, &star));
    MR_ASSERT(star->group.member_index > 0);
    mr_status status = member_join(star, address, credentials, timeout_ms);
    if (!mr_status_is_ok(status)) {
        mr_group_close(&star->group);
        return mr_status_prefix(status, "group %s at %s", options->group_id, address);
    }
    *out_group = &star->group;
    return MR_OK;
}
