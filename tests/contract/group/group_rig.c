/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/contract/group/group_rig.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/rpc/runtime.h"

const uint32_t group_ranks[GROUP_MEMBERS_MAX] = {2, 5, 6, 9};

void group_ok(mr_status status) {
    if (!mr_status_is_ok(status))
        fail_msg("%s: %s", mr_code_name(status.code), status.text);
}

void group_fails(mr_status status, mr_code code, const char *text) {
    if (status.code != code || strstr(status.text, text) == NULL)
        fail_msg("got %s: %s; wanted %s with \"%s\"", mr_code_name(status.code), status.text,
                 mr_code_name(code), text);
}

/* ---- implementations ---- */

static struct {
    mr_group_hub *hub;
    mr_rpc_server *server;
} over_grpc;

static void grpc_start(void) {
    group_ok(mr_rpc_start());
    group_ok(mr_group_hub_create(&over_grpc.hub));
    const mr_rpc_service services[] = {mr_group_hub_service(over_grpc.hub)};
    const mr_rpc_server_options options = {
        .listen = "127.0.0.1:0", .services = services, .service_count = 1};
    group_ok(mr_rpc_server_start(&options, &over_grpc.server));
}

static void grpc_stop(void) {
    mr_rpc_server_stop(over_grpc.server, GROUP_SOON_MS);
    mr_rpc_stop();
    mr_group_hub_destroy(over_grpc.hub);
}

static void grpc_open(const mr_group_options *options, mr_group **out_groups) {
    const mr_rpc_credentials credentials = {0};
    for (size_t i = 0; i < options->rank_count; i++) {
        mr_group_options own = *options;
        own.rank = options->ranks[i];
        group_ok(i == 0 ? mr_group_grpc_first(over_grpc.hub, &own, &out_groups[i])
                        : mr_group_grpc_member(group_rig_address(), &credentials, &own,
                                               GROUP_LONG_MS, &out_groups[i]));
    }
}

mr_group_hub *group_rig_hub(void) {
    return over_grpc.hub;
}

const char *group_rig_address(void) {
    return mr_rpc_server_address(over_grpc.server);
}

static void in_process_nothing(void) {
}

static void in_process_open(const mr_group_options *options, mr_group **out_groups) {
    group_ok(mr_group_in_process(options, out_groups));
}

const group_maker group_makers[2] = {
    {"in process", in_process_nothing, in_process_nothing, in_process_open},
    {"grpc", grpc_start, grpc_stop, grpc_open},
};

mr_group_options group_options(size_t member_count) {
    return (mr_group_options){
        .job_id = "job-a",
        .epoch = 7,
        .group_id = "pipe/0",
        .ranks = group_ranks,
        .rank_count = member_count,
        .rank = group_ranks[0],
        .bytes_max = GROUP_BYTES,
        .parts_max = 16,
    };
}

/* ---- members' threads ---- */

typedef struct member_thread {
    pthread_t thread;
    mr_group **group;
    group_member fn;
    void *context;
    mr_status status;
} member_thread;

static void *member_run(void *context) {
    member_thread *self = context;
    self->status = self->fn(*self->group, self->context);
    if (!mr_status_is_ok(self->status)) {
        mr_group_close(*self->group);
        *self->group = NULL;
    }
    return NULL;
}

void group_run(mr_group **groups, size_t count, group_member fn, void *context,
               mr_status *out_statuses) {
    member_thread members[GROUP_MEMBERS_MAX];
    assert_true(count <= GROUP_MEMBERS_MAX);
    for (size_t i = 0; i < count; i++) {
        members[i] = (member_thread){.group = &groups[i], .fn = fn, .context = context};
        assert_int_equal(pthread_create(&members[i].thread, NULL, member_run, &members[i]), 0);
    }
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(pthread_join(members[i].thread, NULL), 0);
        out_statuses[i] = members[i].status;
    }
}

void group_run_ok(mr_group **groups, size_t count, group_member fn, void *context) {
    mr_status statuses[GROUP_MEMBERS_MAX];
    group_run(groups, count, fn, context, statuses);
    for (size_t i = 0; i < count; i++)
        group_ok(statuses[i]);
}

void group_close_all(mr_group **groups, size_t count) {
    for (size_t i = 0; i < count; i++) {
        mr_group_close(groups[i]);
        groups[i] = NULL;
    }
}
