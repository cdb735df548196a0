/* SPDX-License-Identifier: Apache-2.0 */
/* Start from the disk outwards: store, jobs, threads, ports. End from the ports inwards: what is
 * decided gets to the disk, everybody who waits is told, ports close, threads end. */
#include "daemon/coordinator/coordinator.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/clock.h"
#include "daemon/base/version.h"
#include "daemon/checkpoint/catalog.h"
#include "daemon/coordinator/runtime.h"
#include "daemon/rpc/runtime.h"

enum {
    STOP_STORE_MS = 1500, /* for facts on their way to the disk */
    STOP_GRACE_MS = 300,  /* for answers on their way to clients */
    STOP_FILES_MS = 1500, /* for a manifest on its way to the disk */
};
static_assert(STOP_STORE_MS + STOP_GRACE_MS + STOP_FILES_MS < MR_SHUTDOWN_TIMEOUT_MS,
              "the bounds of an ordered end fit the whole");

void mr_runtime_take(mr_coordinator *coordinator, mr_event *event) {
    MR_ASSERT(!coordinator->deciding);
    coordinator->deciding = true;
    event->now_ms = mr_clock_now_ms();
    event->wall_ms = mr_clock_wall_ms();
    mr_status status = mr_decide(&coordinator->state, event, &coordinator->actions);
    if (mr_status_is_ok(status))
        mr_perform_actions(coordinator);
    else if (event->request != 0)
        mr_services_answer(coordinator, event->request, NULL, status);
    else
        MR_LOG(ERROR, "event not taken", MR_I("kind", event->kind), MR_S("why", status.text));
    coordinator->deciding = false;
}

/* ---- ticks ----------------------------------------------------------------------------------- */

/* A quiet watcher's sign of life. */
static void watcher_repeat(void *context, uint64_t job_number) {
    mr_coordinator *coordinator = context;
    const mr_job_record *job = mr_jobs_find(&coordinator->state.jobs, job_number);
    if (job != NULL)
        mr_services_notify(coordinator, job, NULL);
}

/* For the service manager: "1 jobs active, 0 queued; 4 members, 2 idle". */
static void coordinator_describe(const mr_coordinator *coordinator,
                                 char text[MR_NOTIFY_STATUS_BYTES]) {
    const mr_jobs *jobs = &coordinator->state.jobs;
    const mr_registry *registry = &coordinator->state.registry;
    size_t waiting = 0;
    size_t active = 0;
    size_t idle = 0;
    for (size_t i = 0; i < jobs->count; i++) {
        mr_job_state state = jobs->records[i]->facts.state;
        waiting += state == MR_JOB_QUEUED;
        active += state != MR_JOB_QUEUED && !mr_job_state_is_final(state);
    }
    for (size_t i = 0; i < registry->count; i++)
        idle += registry->members[i]->state == MR_MEMBER_IDLE;
    (void)snprintf(text, MR_NOTIFY_STATUS_BYTES,
                   "%zu jobs active, %zu queued; %zu members, %zu idle", active, waiting,
                   registry->count, idle);
}

static void coordinator_tick(void *context) {
    mr_coordinator *coordinator = context;
    int64_t now_ms = mr_clock_now_ms();
    mr_runtime_take(coordinator, &(mr_event){.kind = MR_EVENT_TICK});
    mr_services_control_tick(coordinator, now_ms);
    if (mr_outbox_tick(coordinator->outbox, now_ms))
        MR_LOG(ERROR, "the store does not answer; orders go out before it",
               MR_I("waited_ms", MR_OUTBOX_WAIT_MS));
    mr_watchers_tick(coordinator->watchers, now_ms, watcher_repeat, coordinator);
    mr_status_board_tick(coordinator, now_ms);
    mr_status_server_tick(coordinator->status_server, now_ms);
    char text[MR_NOTIFY_STATUS_BYTES];
    coordinator_describe(coordinator, text);
    mr_notify_tick(&coordinator->notify, now_ms, true, text);
}

static void coordinator_signalled(void *context, int signal_number) {
    mr_coordinator *coordinator = context;
    MR_LOG(INFO, "coordinator stopping", MR_I("signal", signal_number));
    mr_coordinator_stop(coordinator);
}

/* ---- create ---------------------------------------------------------------------------------- */

/* What a QUEUED job needs to run is in its job file; of one that has ended only the texts are
 * needed. */
static mr_status restored_ended(const mr_store_job *job, mr_job_spec **out_spec) {
    mr_job_spec *spec = NULL;
    MR_TRY(mr_job_spec_ended(job->facts.name, job->job_file, job->base_directory,
                             job->facts.mode, &spec));
    mr_status status = mr_job_spec_keep_profile(spec, job->profile);
    if (mr_status_is_ok(status))
        *out_spec = spec;
    else
        mr_job_spec_destroy(spec);
    return status;
}

static mr_status restored_spec(const mr_store_job *job, mr_job_spec **out_spec,
                               uint64_t *out_epoch_floor) {
    const mr_job_facts *facts = &job->facts;
    if (mr_job_state_is_final(facts->state))
        return restored_ended(job, out_spec);
    const mr_spec_source source = {
        .job_file = job->job_file,
        .base_directory = job->base_directory,
        .mode = facts->mode,
        .profile = job->profile,
    };
    mr_status status = mr_job_spec_read(&source, out_spec);
    if (mr_status_is_ok(status) && (*out_spec)->checkpoint_dir[0] != '\0') {
        mr_status seen = mr_catalog_epoch((*out_spec)->checkpoint_dir, out_epoch_floor);
        (void)seen; /* a folder that cannot be read will fail the job when it starts */
    }
    return status;
}

/* The jobs of earlier terms, while they are read. */
typedef struct restored_job {
    mr_job_facts facts;
    mr_job_spec *spec;
    uint64_t epoch_floor;
    mr_status status;
} restored_job;

typedef struct restored_jobs {
    restored_job *items;
    size_t count;
} restored_jobs;

static mr_status restored_add(void *context, const mr_store_job *job) {
    restored_jobs *restored = context;
    MR_ASSERT(restored->count < MR_JOBS_MAX);
    restored_job *item = &restored->items[restored->count];
    item->facts = job->facts;
    item->status = restored_spec(job, &item->spec, &item->epoch_floor);
    if (!mr_status_is_ok(item->status))
        MR_TRY(restored_ended(job, &item->spec));
    restored->count++;
    return MR_OK;
}

static mr_status coordinator_open(mr_coordinator *coordinator,
                                  const mr_coordinator_options *options) {
    coordinator->started_ms = mr_clock_wall_ms();
    mr_notify_extend(MR_PREPARE_TIMEOUT_MS); /* the jobs of long years are read */
    MR_TRY(mr_store_open(options->state_dir, &coordinator->store));
    MR_TRY(mr_loop_create(&coordinator->loop));
    MR_TRY(mr_outbox_create(&coordinator->outbox));
    MR_TRY(mr_watchers_create(&coordinator->watchers));
    MR_TRY(mr_metrics_create(&coordinator->metrics));
    MR_TRY(mr_history_create(&coordinator->history));
    MR_TRY(mr_timeline_create(&coordinator->timeline));
    MR_TRY(mr_event_stream_create(&coordinator->events));
    MR_TRY(mr_status_page_create(&coordinator->page));
    return MR_OK;
}

/* First everything is read, then the store is its DISK thread's, and the decisions about old jobs
 * are stored like any others. */
static mr_status coordinator_restore(mr_coordinator *coordinator) {
    restored_jobs restored = {.items = mr_alloc_array(MR_JOBS_MAX, sizeof(restored_job))};
    if (restored.items == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the stored jobs");
    mr_status status = mr_store_load(coordinator->store, MR_JOBS_MAX, restored_add, &restored);
    if (mr_status_is_ok(status))
        status = mr_disk_create(coordinator->loop, &coordinator->store_disk);
    if (mr_status_is_ok(status))
        status = mr_disk_create(coordinator->loop, &coordinator->file_disk);
    for (size_t i = 0; i < restored.count; i++) {
        restored_job *item = &restored.items[i];
        if (!mr_status_is_ok(status)) {
            mr_job_spec_destroy(item->spec);
            continue;
        }
        mr_event event = {.kind = MR_EVENT_RESTORE};
        event.u.restore.facts = &item->facts;
        event.u.restore.owned_spec = item->spec;
        event.u.restore.epoch_floor = item->epoch_floor;
        event.u.restore.status = item->status;
        mr_runtime_take(coordinator, &event);
    }
    mr_free(restored.items);
    return status;
}

static mr_status coordinator_listen(mr_coordinator *coordinator,
                                    const mr_coordinator_options *options) {
    const mr_rpc_service services[] = {
        mr_services_jobs(coordinator),
        mr_services_control(coordinator),
    };
    if (options->status_listen != NULL && options->status_listen[0] != '\0') {
        const mr_status_server_options status_options = {
            .address = options->status_listen,
            .any_address = options->credentials.insecure,
            .version = MR_VERSION,
            .commit = MR_COMMIT,
            .page = coordinator->page,
            .metrics = coordinator->metrics,
            .history = coordinator->history,
            .timeline = coordinator->timeline,
            .events = coordinator->events,
            .settings = options->settings,
            .setting_count = options->setting_count,
        };
        MR_TRY(mr_status_server_start(&status_options, &coordinator->status_server));
    }
    const mr_rpc_server_options server_options = {
        .listen = options->listen,
        .credentials = options->credentials,
        .services = services,
        .service_count = sizeof(services) / sizeof(services[0]),
    };
    return mr_rpc_server_start(&server_options, &coordinator->server);
}

mr_status mr_coordinator_create(const mr_coordinator_options *options,
                                mr_coordinator **out_coordinator) {
    mr_log_level_set(options->log_level);
    mr_coordinator *coordinator = mr_alloc(sizeof(*coordinator));
    if (coordinator == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the coordinator");
    mr_status status = coordinator_open(coordinator, options);
    if (mr_status_is_ok(status))
        status = coordinator_restore(coordinator);
    if (mr_status_is_ok(status))
        status = coordinator_listen(coordinator, options);
    if (mr_status_is_ok(status))
        status = mr_loop_timer_start(coordinator->loop, 0, MR_TICK_PERIOD_MS, coordinator_tick,
                                     coordinator, &coordinator->ticks);
    if (!mr_status_is_ok(status)) {
        mr_coordinator_destroy(coordinator);
        return status;
    }
    mr_status_page_started_set(coordinator->page, true);
    mr_status_page_ready_set(coordinator->page, true, NULL);
    *out_coordinator = coordinator;
    return MR_OK;
}

const char *mr_coordinator_address(const mr_coordinator *coordinator) {
    return mr_rpc_server_address(coordinator->server);
}

const char *mr_coordinator_status_address(const mr_coordinator *coordinator) {
    if (coordinator->status_server == NULL)
        return "";
    return mr_status_server_address(coordinator->status_server);
}

/* ---- serve and end --------------------------------------------------------------------------- */

void mr_coordinator_serve(mr_coordinator *coordinator) {
    mr_loop_run(coordinator->loop);
}

void mr_coordinator_stop(mr_coordinator *coordinator) {
    mr_loop_stop(coordinator->loop);
}

/* Tells everybody who waits, and closes the ports. */
static void coordinator_close_ports(mr_coordinator *coordinator) {
    mr_status why = MR_ERROR(UNAVAILABLE, "the coordinator is stopping");
    if (coordinator->outbox != NULL)
        mr_outbox_flush(coordinator->outbox); /* what was decided goes out */
    mr_services_jobs_stop(coordinator, why);
    if (coordinator->watchers != NULL)
        mr_watchers_end(coordinator->watchers, why);
    mr_services_control_stop(coordinator, why);
    mr_rpc_server_stop(coordinator->server, STOP_GRACE_MS);
    mr_status_server_stop(coordinator->status_server);
}

void mr_coordinator_destroy(mr_coordinator *coordinator) {
    if (coordinator == NULL)
        return;
    coordinator->stopping = true;
    mr_notify_stopping(MR_SHUTDOWN_TIMEOUT_MS);
    if (coordinator->page != NULL)
        mr_status_page_ready_set(coordinator->page, false, "stopping");
    mr_loop_timer_stop(coordinator->ticks);
    mr_status stored = mr_disk_stop(coordinator->store_disk, STOP_STORE_MS);
    coordinator_close_ports(coordinator);
    mr_status cleaned = mr_disk_stop(coordinator->file_disk, STOP_FILES_MS);
    if (!mr_status_is_ok(stored) || !mr_status_is_ok(cleaned)) {
        MR_LOG(ERROR, "the disk hangs; ending without it", MR_S("store", stored.text),
               MR_S("files", cleaned.text));
        return; /* its thread still uses the memory, and the process ends now */
    }
    mr_loop_destroy(coordinator->loop); /* runs what was posted: it only frees */
    mr_outbox_destroy(coordinator->outbox);
    mr_watchers_destroy(coordinator->watchers);
    mr_status_page_destroy(coordinator->page);
    mr_metrics_destroy(coordinator->metrics);
    mr_event_stream_destroy(coordinator->events);
    mr_timeline_destroy(coordinator->timeline);
    mr_history_destroy(coordinator->history);
    mr_actions_deinit(&coordinator->actions);
    mr_coordinator_state_deinit(&coordinator->state);
    mr_store_close(coordinator->store);
    mr_free(coordinator);
}

static mr_status coordinator_run(const mr_coordinator_options *options) {
    mr_coordinator *coordinator = NULL;
    MR_TRY(mr_coordinator_create(options, &coordinator));
    mr_status status =
        mr_loop_signal_watch(coordinator->loop, SIGTERM, coordinator_signalled, coordinator);
    if (mr_status_is_ok(status))
        status =
            mr_loop_signal_watch(coordinator->loop, SIGINT, coordinator_signalled, coordinator);
    if (mr_status_is_ok(status)) {
        MR_LOG(INFO, "coordinator ready", MR_S("address", mr_coordinator_address(coordinator)),
               MR_S("status_address", mr_coordinator_status_address(coordinator)),
               MR_I("term", mr_store_term(coordinator->store)),
               MR_I("jobs", coordinator->state.jobs.count));
        char text[MR_NOTIFY_STATUS_BYTES];
        coordinator_describe(coordinator, text);
        mr_notify_ready(&coordinator->notify, text);
        mr_coordinator_serve(coordinator);
    }
    mr_coordinator_destroy(coordinator);
    MR_LOG(INFO, "coordinator stopped", MR_S("code", mr_code_name(status.code)));
    return status;
}

mr_status mr_coordinator_run(const mr_coordinator_options *options) {
    MR_TRY(mr_rpc_start());
    mr_status status = coordinator_run(options);
    mr_rpc_stop();
    return status;
}
