/* SPDX-License-Identifier: Apache-2.0 */
/* Actions become items of the outbox. Facts to be stored go to DISK first, and a barrier holds the
 * rest of the decision, and all later ones, back until they are on the disk. */
#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/clock.h"
#include "daemon/coordinator/replies.h"
#include "daemon/coordinator/runtime.h"

/* ---- store ----------------------------------------------------------------------------------- */

/* One job's facts on their way to the disk and back. */
typedef struct store_task {
    mr_coordinator *coordinator;
    mr_store_job job;
    char *job_file;
    char *base_directory;
    char *profile;
    int64_t at_ms;
    uint64_t ticket; /* of the barrier that falls with it; 0: another task of the decision has it */
    mr_status status;
} store_task;

static void store_task_destroy(store_task *task) {
    mr_free(task->job_file);
    mr_free(task->base_directory);
    mr_free(task->profile);
    mr_free(task);
}

/* DISK. */
static void store_work(void *context) {
    store_task *task = context;
    task->status = mr_store_put(task->coordinator->store, &task->job, task->at_ms);
}

/* LOOP. */
static void store_done(void *context) {
    store_task *task = context;
    mr_coordinator *coordinator = task->coordinator;
    if (!mr_status_is_ok(task->status))
        MR_LOG(ERROR, "job not stored", MR_S("job", task->job.facts.id),
               MR_S("why", task->status.text));
    if (task->ticket > 0)
        mr_outbox_release(coordinator->outbox, task->ticket);
    mr_event event = {.kind = MR_EVENT_STORED};
    event.u.stored.number = task->job.facts.number;
    event.u.stored.status = task->status;
    store_task_destroy(task);
    if (!coordinator->stopping)
        mr_runtime_take(coordinator, &event);
}

static store_task *store_task_make(mr_coordinator *coordinator, const mr_job_record *job) {
    store_task *task = mr_alloc(sizeof(*task));
    if (task == NULL)
        return NULL;
    task->coordinator = coordinator;
    task->job.facts = job->facts;
    task->job_file = mr_strdup(job->spec->job_file);
    task->base_directory = mr_strdup(job->spec->base_directory);
    task->job.job_file = task->job_file;
    task->job.base_directory = task->base_directory;
    task->profile = mr_strdup(job->spec->profile_text);
    task->job.profile = task->profile;
    task->at_ms = mr_clock_wall_ms();
    if (task->job_file == NULL || task->base_directory == NULL ||
        (task->profile == NULL && job->spec->profile_text != NULL)) {
        store_task_destroy(task);
        return NULL;
    }
    return task;
}

/* Sends the facts to DISK. False: they could not be sent, and nothing will release ticket. */
static bool perform_store(mr_coordinator *coordinator, mr_job_record *job, uint64_t ticket) {
    if (job->logged != job->facts.state)
        MR_LOG(INFO, "job state", MR_S("job", job->facts.id),
               MR_S("state", mr_job_state_name(job->facts.state)),
               MR_S("reason", job->facts.reason), MR_I("epoch", job->facts.epoch),
               MR_I("step", job->facts.step));
    if (job->logged != job->facts.state)
        mr_news_job(coordinator, job);
    job->logged = job->facts.state;
    store_task *task = store_task_make(coordinator, job);
    if (task != NULL) {
        task->ticket = ticket;
        if (mr_status_is_ok(mr_disk_post(coordinator->store_disk, store_work, store_done, task)))
            return true;
        store_task_destroy(task);
    }
    job->dirty = true; /* the next tick tries again */
    (void)snprintf(coordinator->state.store_error, sizeof(coordinator->state.store_error),
                   "the disk is behind");
    return false;
}

/* Stores what the decision wants stored and puts the barrier. */
static void perform_stores(mr_coordinator *coordinator) {
    const mr_actions *actions = &coordinator->actions;
    size_t last = actions->count;
    for (size_t i = 0; i < actions->count; i++)
        if (actions->items[i].kind == MR_ACTION_STORE)
            last = i;
    if (last == actions->count)
        return;
    coordinator->published_ms = 0; /* the next tick shows it */
    uint64_t ticket = mr_outbox_barrier(coordinator->outbox, mr_clock_now_ms());
    for (size_t i = 0; i <= last; i++) {
        if (actions->items[i].kind != MR_ACTION_STORE)
            continue;
        bool sent = perform_store(coordinator, actions->items[i].job, i == last ? ticket : 0);
        if (!sent && i == last)
            mr_outbox_release(coordinator->outbox, ticket);
    }
}

/* ---- orders ---------------------------------------------------------------------------------- */

/* A stage that does not read its orders is as good as gone. */
static void order_run(const mr_outbox_item *item) {
    mr_status status = mr_rpc_stream_send(item->stream, item->message, NULL);
    if (!mr_status_is_ok(status))
        mr_rpc_stream_cancel(item->stream); /* its end comes as an event */
}

static void close_run(const mr_outbox_item *item) {
    mr_rpc_stream_cancel(item->stream);
}

static void perform_send(mr_coordinator *coordinator, const mr_action *action) {
    mr_rpc_stream *stream = mr_services_member_stream(coordinator, action->member);
    if (stream == NULL)
        return;
    mr_reply_order order;
    mr_status status = mr_reply_order_init(&order, &coordinator->state, action);
    if (!mr_status_is_ok(status)) {
        mr_rpc_stream_cancel(stream); /* an order that is not given is a stage that is lost */
        return;
    }
    mr_outbox_add(
        coordinator->outbox,
        &(mr_outbox_item){.run = order_run, .stream = stream, .message = &order.message.base});
    mr_reply_order_deinit(&order);
}

static void perform_close(mr_coordinator *coordinator, const mr_action *action) {
    mr_rpc_stream *stream = mr_services_member_stream(coordinator, action->member);
    if (stream != NULL)
        mr_outbox_add(coordinator->outbox, &(mr_outbox_item){.run = close_run, .stream = stream});
}

/* ---- answers --------------------------------------------------------------------------------- */

static void answer_job(mr_coordinator *coordinator, const mr_action *action) {
    mr_reply_job reply;
    mr_status status = mr_reply_job_init(&reply, &coordinator->state, action->job, true);
    if (!mr_status_is_ok(status)) {
        mr_services_answer(coordinator, action->request, NULL, status);
        return;
    }
    mr_services_answer(coordinator, action->request, &reply.message.base, MR_OK);
    mr_reply_job_deinit(&reply);
}

static void answer_member(mr_coordinator *coordinator, const mr_action *action) {
    const mr_member *member = mr_registry_find(&coordinator->state.registry, action->member);
    mr_reply_member reply;
    mr_reply_member_init(&reply, &coordinator->state, member, mr_clock_now_ms());
    mr_services_answer(coordinator, action->request, &reply.message.base, MR_OK);
}

static void answer_checkpoint(mr_coordinator *coordinator, const mr_action *action) {
    char path[MR_PATH_BYTES + MR_NAME_BYTES];
    (void)snprintf(path, sizeof(path), "%s/%s", action->job->spec->checkpoint_dir, action->tag);
    Millrace__V1__Checkpoint message = MILLRACE__V1__CHECKPOINT__INIT;
    message.tag = (char *)(uintptr_t)action->tag; /* only packed */
    message.path = path;
    message.step = action->step;
    message.created_ms = mr_clock_wall_ms();
    message.bytes = action->bytes;
    message.newest = true;
    mr_services_answer(coordinator, action->request, &message.base, MR_OK);
}

static void perform_answer(mr_coordinator *coordinator, const mr_action *action) {
    switch (action->reply) {
    case MR_REPLY_STATUS:
        mr_services_answer(coordinator, action->request, NULL, action->status);
        break;
    case MR_REPLY_JOB:
        answer_job(coordinator, action);
        break;
    case MR_REPLY_MEMBER:
        answer_member(coordinator, action);
        break;
    case MR_REPLY_CHECKPOINT:
        answer_checkpoint(coordinator, action);
        break;
    }
}

static void perform_log(mr_coordinator *coordinator, const mr_action *action) {
    const mr_member *member = mr_registry_find(&coordinator->state.registry, action->member);
    bool good = mr_status_is_ok(action->status);
    static mr_log_site site;
    mr_log_pair pairs[4];
    size_t count = 0;
    if (member != NULL) {
        pairs[count++] = MR_S("member", member->id);
        pairs[count++] = MR_S("address", member->address);
    }
    if (action->job != NULL)
        pairs[count++] = MR_S("job", action->job->facts.id);
    if (!good)
        pairs[count++] = MR_S("why", action->status.text);
    mr_log_write(good ? MR_LOG_INFO : MR_LOG_WARN, &site, action->message, pairs, count);
    mr_news_tell(coordinator, action->message, member, action->job,
                 good ? "" : action->status.text);
    if (!good && action->job != NULL && strcmp(action->message, "save failed") == 0)
        mr_status_board_save_failed(coordinator, action->job, action->status);
}

static void perform_notify(mr_coordinator *coordinator, const mr_action *action) {
    bool step = action->step > 0;
    if (step) {
        mr_status_board_step(coordinator, action->job);
        mr_tensorboards_step(coordinator, action->job);
    }
    mr_services_notify(coordinator, action->job, step ? &action->job->facts.result : NULL);
}

void mr_perform_actions(mr_coordinator *coordinator) {
    perform_stores(coordinator);
    for (size_t i = 0; i < coordinator->actions.count; i++) {
        const mr_action *action = &coordinator->actions.items[i];
        switch (action->kind) {
        case MR_ACTION_STORE: /* above */
            break;
        case MR_ACTION_SEND:
            perform_send(coordinator, action);
            break;
        case MR_ACTION_CLOSE:
            perform_close(coordinator, action);
            break;
        case MR_ACTION_NOTIFY:
            perform_notify(coordinator, action);
            break;
        case MR_ACTION_ANSWER:
            perform_answer(coordinator, action);
            break;
        case MR_ACTION_COMMIT:
            mr_checkpoints_commit(coordinator, action);
            break;
        case MR_ACTION_DISCARD:
            mr_checkpoints_discard(coordinator, action);
            break;
        case MR_ACTION_SWEEP:
            mr_checkpoints_sweep(coordinator, action);
            break;
        case MR_ACTION_CUT:
            mr_cuts_begin(coordinator, action);
            break;
        case MR_ACTION_LOG:
            perform_log(coordinator, action);
            break;
        case MR_ACTION_KIND_COUNT:
            MR_ASSERT(!"an action of no kind");
        }
    }
}
