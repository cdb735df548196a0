/* SPDX-License-Identifier: Apache-2.0 */
/* Everything that happens to a stage goes through node_happen: the event is decided (ward.h) and
 * the one action that follows is carried out at once. */
#include "daemon/node/node.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "daemon/base/alloc.h"
#include "daemon/base/clock.h"
#include "daemon/base/log.h"
#include "daemon/base/loop.h"
#include "daemon/base/notify.h"
#include "daemon/base/version.h"
#include "daemon/node/node_status.h"

enum {
    NODE_TICK_MS = 250,
    NODE_PUBLISH_MS = 1000,
    NODE_KILL_WAIT_MS = 2000, /* a process that does not even die of KILL hangs in the kernel */
    NODE_NOTICES_MAX = 256,   /* read at a time */
};

typedef struct node {
    const mr_node_options *options;
    char program[MR_CHILD_PATH_BYTES];
    char notify_setting[MR_NOTICE_NAME_BYTES];
    char watchdog_setting[48];
    int notices; /* a socket; -1: none */
    mr_node_stages stages;
    char cards[MR_STATUS_TEXT_BYTES];
    mr_loop *loop;
    mr_loop_timer *ticks;
    mr_status_page *page;
    mr_metrics *metrics;
    mr_status_server *status_server;
    mr_notify notify;
    bool settled; /* every stage's first start has come to an end, good or bad */
    bool draining;
    int64_t drain_end_ms; /* of all, with the kills */
    int64_t published_ms;
    mr_status ending;
} node;

/* ---- carrying out ---- */

static void node_happen(node *self, mr_node_stage *stage, mr_ward_event event);

static void node_start_stage(node *self, mr_node_stage *stage) {
    mr_stage_command command = mr_node_stage_command(self->options, stage);
    const char *const settings[] = {
        self->notify_setting,
        self->watchdog_setting,
        "WATCHDOG_PID", /* a manager's, meant for this process */
        "CUDA_DEVICE_ORDER=PCI_BUS_ID",
        NULL,
    };
    stage->said = (mr_notice){0};
    mr_series_add(mr_metrics_series(self->metrics, MR_METRIC_NODE_STAGE_STARTS,
                                    stage->device.name),
                  1);
    mr_status status =
        mr_child_start(self->program, command.arguments, settings, &stage->process);
    if (mr_status_is_ok(status)) {
        MR_LOG(INFO, "stage started", MR_S("device", stage->device.name),
               MR_I("process", stage->process), MR_I("starts", stage->ward.starts));
        return;
    }
    MR_LOG(ERROR, "stage not started", MR_S("device", stage->device.name),
           MR_S("why", status.text));
    node_happen(self, stage, (mr_ward_event){.kind = MR_WARD_UNBORN});
}

static void node_signal(mr_node_stage *stage, int signal_number) {
    int error = kill(stage->process, signal_number);
    MR_ASSERT(error == 0 || errno == ESRCH); /* our own child, not yet reaped */
}

static void node_kill_stage(node *self, mr_node_stage *stage) {
    bool silent = stage->ward.reason == MR_WARD_REASON_SILENT;
    MR_LOG(ERROR, "stage killed", MR_S("device", stage->device.name),
           MR_I("process", stage->process),
           MR_S("why", self->draining ? "it did not end within the drain's bound"
                       : silent       ? "no sign of life within its bound"
                                      : "not ready within its bound"),
           MR_S("said", stage->said.status));
    mr_series_add(mr_metrics_series(self->metrics, MR_METRIC_NODE_STAGE_KILLS, stage->device.name,
                                    silent ? "silent" : "late"),
                  1);
    node_signal(stage, SIGKILL);
}

static void node_publish(node *self, int64_t now_ms) {
    const mr_node_board board = {.page = self->page,
                                 .metrics = self->metrics,
                                 .coordinator = self->options->coordinator,
                                 .cards = self->cards};
    self->published_ms = now_ms;
    mr_node_board_publish(&board, &self->stages, self->draining, now_ms);
}

static void node_happen(node *self, mr_node_stage *stage, mr_ward_event event) {
    mr_ward_state before = stage->ward.state;
    event.now_ms = mr_clock_now_ms();
    ssize_t drawn = getrandom(&event.draw, sizeof(event.draw), GRND_NONBLOCK);
    (void)drawn; /* without one the pause is the longest */
    mr_ward_decision decision = mr_ward_decide(stage->ward, &event);
    stage->ward = decision.ward;
    switch (decision.action) {
    case MR_WARD_NOTHING:
        break;
    case MR_WARD_START:
        node_start_stage(self, stage);
        break;
    case MR_WARD_TERMINATE:
        node_signal(stage, SIGTERM);
        break;
    case MR_WARD_KILL:
        node_kill_stage(self, stage);
        break;
    }
    if (stage->ward.state != before)
        node_publish(self, event.now_ms);
}

static void node_happen_all(node *self, mr_ward_event event) {
    for (size_t i = 0; i < self->stages.count; i++)
        node_happen(self, &self->stages.items[i], event);
}

/* ---- what happens ---- */

static void node_stage_exited(node *self, mr_node_stage *stage, mr_child_end end) {
    pid_t process = stage->process;
    stage->process = 0;
    node_happen(self, stage,
                (mr_ward_event){.kind = MR_WARD_EXITED,
                                .exit_code = end.exit_code,
                                .signal_number = end.signal_number});
    const mr_ward *ward = &stage->ward;
    bool waits = ward->state == MR_WARD_WAITING;
    if (ward->state == MR_WARD_STOPPED || ward->state == MR_WARD_ENDED)
        MR_LOG(INFO, "stage ended", MR_S("device", stage->device.name), MR_I("process", process),
               MR_I("exit_code", end.exit_code), MR_I("signal", end.signal_number),
               MR_S("state", mr_ward_state_name(ward->state)));
    else
        MR_LOG(WARN, "stage failed", MR_S("device", stage->device.name), MR_I("process", process),
               MR_I("exit_code", end.exit_code), MR_I("signal", end.signal_number),
               MR_S("state", mr_ward_state_name(ward->state)), MR_I("failures", ward->failures),
               MR_I("next_start_ms", waits ? ward->deadline_ms - ward->since_ms : -1));
}

static void node_child_ended(void *context, int signal_number) {
    node *self = context;
    (void)signal_number; /* one for any number of children */
    for (size_t i = 0; i < self->stages.count; i++) {
        mr_node_stage *stage = &self->stages.items[i];
        mr_child_end end;
        if (stage->process > 0 && mr_child_reap(stage->process, &end))
            node_stage_exited(self, stage, end);
    }
}

static void node_notice_take(node *self, mr_node_stage *stage, const mr_notice *notice) {
    mr_notice *said = &stage->said;
    if (notice->status[0] != '\0')
        memcpy(said->status, notice->status, sizeof(said->status));
    if (notice->address[0] != '\0')
        memcpy(said->address, notice->address, sizeof(said->address));
    if (notice->status_address[0] != '\0')
        memcpy(said->status_address, notice->status_address, sizeof(said->status_address));
    if (notice->extend_ms > 0)
        node_happen(self, stage,
                    (mr_ward_event){.kind = MR_WARD_EXTEND, .extend_ms = notice->extend_ms});
    if (notice->ready) {
        node_happen(self, stage, (mr_ward_event){.kind = MR_WARD_SERVES});
        MR_LOG(INFO, "stage serves", MR_S("device", stage->device.name),
               MR_S("address", said->address), MR_S("status_address", said->status_address));
    }
    if (notice->alive)
        node_happen(self, stage, (mr_ward_event){.kind = MR_WARD_ALIVE});
}

static void node_notices_arrived(void *context, int fd) {
    node *self = context;
    mr_notice notice;
    pid_t process = 0;
    for (int n = 0; n < NODE_NOTICES_MAX && mr_notice_read(fd, &notice, &process); n++)
        for (size_t i = 0; i < self->stages.count && process > 0; i++)
            if (self->stages.items[i].process == process)
                node_notice_take(self, &self->stages.items[i], &notice);
}

/* ---- signals ---- */

static void node_signalled(void *context, int signal_number) {
    node *self = context;
    int64_t drain_ms = (int64_t)self->options->drain_seconds * 1000;
    if (self->draining) {
        MR_LOG(WARN, "node stopping at once", MR_I("signal", signal_number));
        self->drain_end_ms = mr_clock_now_ms() + NODE_KILL_WAIT_MS;
        node_happen_all(self, (mr_ward_event){.kind = MR_WARD_DROP});
        return;
    }
    MR_LOG(INFO, "node draining", MR_I("signal", signal_number), MR_I("bound_ms", drain_ms));
    self->draining = true;
    self->drain_end_ms = mr_clock_now_ms() + drain_ms + NODE_KILL_WAIT_MS;
    mr_notify_stopping(drain_ms + 2 * NODE_KILL_WAIT_MS);
    node_happen_all(self, (mr_ward_event){.kind = MR_WARD_DRAIN, .drain_ms = drain_ms});
}

static void node_reload(void *context, int signal_number) {
    node *self = context;
    char text[MR_STATUS_TEXT_BYTES];
    if (self->draining)
        return;
    MR_LOG(INFO, "node reloads: stages that do not run are started", MR_I("signal", signal_number));
    mr_notify_reloading();
    node_happen_all(self, (mr_ward_event){.kind = MR_WARD_RELOAD});
    mr_node_stages_describe(&self->stages, mr_clock_now_ms(), text, sizeof(text));
    if (self->settled)
        mr_notify_ready(&self->notify, text);
}

/* ---- ticks ---- */

/* The error that an exit code of a stage stands for; main turns it back. */
static mr_status node_refusal(const mr_node_stage *stage) {
    int code = stage->ward.last_exit;
    const char *name = stage->device.name;
    const char *text = "the stage of %s ended with exit code %d; its log says why";
    if (code == 64)
        return mr_status_make(MR_CODE_INVALID_ARGUMENT, __FILE__, __LINE__, text, name, code);
    if (code == 65)
        return mr_status_make(MR_CODE_DATA_LOSS, __FILE__, __LINE__, text, name, code);
    if (code == 77)
        return mr_status_make(MR_CODE_PERMISSION_DENIED, __FILE__, __LINE__, text, name, code);
    return mr_status_make(MR_CODE_FAILED_PRECONDITION, __FILE__, __LINE__, text, name, code);
}

/* Once, when no first start is under way any more: the node is up, or there is no use in it. */
static void node_settle(node *self, const char *text) {
    for (size_t i = 0; i < self->stages.count; i++) {
        const mr_ward *ward = &self->stages.items[i].ward;
        if (ward->starts == 0 || ward->state == MR_WARD_STARTING || ward->state == MR_WARD_KILLING)
            return;
    }
    self->settled = true;
    if (mr_node_stages_count(&self->stages, MR_WARD_REFUSED) == self->stages.count) {
        self->ending = node_refusal(&self->stages.items[0]);
        mr_loop_stop(self->loop);
        return;
    }
    MR_LOG(INFO, "node ready",
           MR_S("status_address", mr_status_server_address(self->status_server)),
           MR_I("stages", self->stages.count), MR_S("state", text));
    mr_status_page_started_set(self->page, true);
    mr_notify_ready(&self->notify, text);
}

static void node_drained(node *self, int64_t now_ms) {
    size_t stopped = mr_node_stages_count(&self->stages, MR_WARD_STOPPED);
    if (stopped < self->stages.count && now_ms < self->drain_end_ms)
        return;
    if (stopped < self->stages.count)
        MR_LOG(ERROR, "stages hang in the kernel; ending without them",
               MR_I("stages", self->stages.count - stopped));
    mr_loop_stop(self->loop);
}

static void node_tick(void *context) {
    node *self = context;
    char text[MR_STATUS_TEXT_BYTES];
    node_happen_all(self, (mr_ward_event){.kind = MR_WARD_TICK});
    int64_t now_ms = mr_clock_now_ms();
    mr_node_stages_describe(&self->stages, now_ms, text, sizeof(text));
    mr_status_page_beat(self->page);
    mr_status_server_tick(self->status_server, mr_clock_now_ms());
    if (now_ms - self->published_ms >= NODE_PUBLISH_MS)
        node_publish(self, now_ms);
    if (!self->settled && !self->draining)
        node_settle(self, text);
    mr_notify_tick(&self->notify, now_ms, true, text);
    if (self->draining)
        node_drained(self, now_ms);
}

/* ---- building and ending ---- */

static mr_status node_build_stages(node *self) {
    mr_node_devices devices;
    unsigned cards = 0;
    if (strcmp(self->options->devices, "auto") == 0)
        cards = mr_node_devices_count_cards(self->cards);
    MR_TRY(mr_node_devices_choose(self->options->devices, cards, (unsigned)get_nprocs(),
                                  self->options->threads, &devices));
    return mr_node_stages_make(self->options, &devices, mr_clock_now_ms(), &self->stages);
}

static mr_status node_build_status(node *self) {
    MR_TRY(mr_status_page_create(&self->page));
    MR_TRY(mr_metrics_create(&self->metrics));
    mr_series_set(mr_metrics_series(self->metrics, MR_METRIC_BUILD_INFO, MR_VERSION, MR_COMMIT,
                                    "node"),
                  1);
    const mr_status_server_options options = {
        .address = self->options->status_listen,
        .any_address = self->options->credentials.insecure,
        .version = MR_VERSION,
        .commit = MR_COMMIT,
        .page = self->page,
        .metrics = self->metrics,
        .settings = self->options->settings,
        .setting_count = self->options->setting_count,
    };
    return mr_status_server_start(&options, &self->status_server);
}

static mr_status node_build(node *self) {
    MR_TRY(node_build_stages(self)); /* forks: before there are threads */
    MR_TRY(mr_child_own_path(self->program));
    MR_TRY(mr_notice_open(&self->notices, self->notify_setting));
    (void)snprintf(self->watchdog_setting, sizeof(self->watchdog_setting),
                   "WATCHDOG_USEC=%" PRId64, (int64_t)MR_NODE_SILENCE_MS * 1000);
    MR_TRY(mr_loop_create(&self->loop));
    MR_TRY(mr_loop_signal_watch(self->loop, SIGTERM, node_signalled, self));
    MR_TRY(mr_loop_signal_watch(self->loop, SIGINT, node_signalled, self));
    MR_TRY(mr_loop_signal_watch(self->loop, SIGHUP, node_reload, self));
    MR_TRY(mr_loop_signal_watch(self->loop, SIGCHLD, node_child_ended, self));
    MR_TRY(mr_loop_readable_watch(self->loop, self->notices, node_notices_arrived, self));
    MR_TRY(node_build_status(self));
    return mr_loop_timer_start(self->loop, 0, NODE_TICK_MS, node_tick, self, &self->ticks);
}

static void node_end(node *self) {
    if (self->ticks != NULL)
        mr_loop_timer_stop(self->ticks);
    mr_status_server_stop(self->status_server);
    mr_loop_destroy(self->loop);
    if (self->notices >= 0)
        (void)close(self->notices); /* nobody sends to it any more */
    mr_metrics_destroy(self->metrics);
    mr_status_page_destroy(self->page);
}

mr_status mr_node_run(const mr_node_options *options) {
    node *self = mr_alloc(sizeof(*self));
    if (self == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a node");
    self->options = options;
    self->notices = -1;
    mr_notify_extend(MR_NODE_PROBE_TIMEOUT_MS + 2 * MR_NODE_START_TIMEOUT_MS);
    mr_status status = node_build(self);
    if (mr_status_is_ok(status)) {
        MR_LOG(INFO, "node started",
               MR_S("status_address", mr_status_server_address(self->status_server)),
               MR_I("stages", self->stages.count), MR_S("devices", options->devices),
               MR_S("cards", self->cards), MR_S("coordinator", options->coordinator));
        mr_loop_run(self->loop);
        status = self->ending;
    }
    node_end(self);
    mr_free(self);
    MR_LOG(INFO, "node stopped", MR_S("code", mr_code_name(status.code)));
    return status;
}
