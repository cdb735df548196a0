/* SPDX-License-Identifier: Apache-2.0 */
/* A save lives in one of a job's few slots. Ranks name it by its tag; a save that was asked for
 * without a tag takes the first new step-N tag that a rank reports. A slot that is done keeps its
 * tag and step, so that a report that comes twice is known as old. */
#include "daemon/coordinator/saves.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/coordinator/job_machine.h"
#include "daemon/coordinator/waiters.h"

static bool save_is_pending(const mr_job_save *save) {
    return save->phase == MR_SAVE_GATHERING || save->phase == MR_SAVE_COMMITTING;
}

/* A step-N tag may be saved again at the same step by a later epoch, never twice in one. */
static mr_job_save *saves_find(mr_job_record *job, const char *tag) {
    for (size_t i = 0; i < MR_JOB_SAVES_MAX; i++)
        if (save_is_pending(&job->saves[i]) && strcmp(job->saves[i].tag, tag) == 0)
            return &job->saves[i];
    return NULL;
}

static bool saves_is_done(const mr_job_record *job, const char *tag, uint64_t step) {
    for (size_t i = 0; i < MR_JOB_SAVES_MAX; i++) {
        const mr_job_save *save = &job->saves[i];
        if (save->phase == MR_SAVE_DONE && save->step == step && strcmp(save->tag, tag) == 0)
            return true;
    }
    return false;
}

/* A free slot, else the oldest that is done; NULL where all are under way. */
static mr_job_save *saves_take(mr_decision *decision, mr_job_record *job, const char *tag) {
    mr_job_save *best = NULL;
    for (size_t i = 0; i < MR_JOB_SAVES_MAX; i++) {
        mr_job_save *save = &job->saves[i];
        if (save_is_pending(save))
            continue;
        if (best == NULL || save->sequence < best->sequence)
            best = save;
    }
    if (best == NULL)
        return NULL;
    bool *reported = best->reported;
    memset(reported, 0, job->spec->rank_count * sizeof(*reported));
    *best = (mr_job_save){
        .phase = MR_SAVE_GATHERING,
        .reported = reported,
        .epoch = job->facts.epoch,
        .deadline_ms = decision->now_ms + MR_SAVE_TIMEOUT_MS,
        .sequence = ++job->save_sequence,
    };
    (void)snprintf(best->tag, sizeof(best->tag), "%s", tag); /* checked before */
    return best;
}

static void save_finish(mr_job_save *save) {
    mr_free(save->files);
    save->files = NULL;
    save->file_count = 0;
    save->file_capacity = 0;
    save->phase = MR_SAVE_DONE;
}

static void save_error(mr_job_save *save, mr_status status) {
    if (save->error[0] != '\0')
        return;
    save->error_code = status.code;
    memcpy(save->error, status.text, sizeof(save->error));
}

/* Gives a save up: whoever waits learns why, what was written is deleted, the job remembers it. */
static void save_give_up(mr_decision *decision, mr_job_record *job, mr_job_save *save,
                         mr_status why) {
    mr_decision_log(decision, "save failed", NULL, job, why);
    mr_waiters_saved(decision, job, save, 0, why);
    if (save->reported_count > 0) {
        mr_action *action = mr_actions_add(decision->actions, MR_ACTION_DISCARD);
        action->job = job;
        action->epoch = save->epoch;
        action->step = save->step;
        memcpy(action->tag, save->tag, sizeof(action->tag));
        job->save_failed = true;
        job->save_failed_step = save->step;
        memcpy(job->save_failed_text, why.text, sizeof(job->save_failed_text));
    }
    save_finish(save);
}

mr_status mr_saves_ask(mr_decision *decision, mr_job_record *job, const char *tag,
                       mr_job_save **out_save) {
    mr_job_save *save = saves_find(job, tag);
    if (save != NULL && tag[0] != '\0')
        return MR_ERROR(ALREADY_EXISTS, "tag \"%s\" is being saved by job %s already", tag,
                        job->facts.id);
    if (save == NULL) {
        save = saves_take(decision, job, tag);
        if (save == NULL)
            return MR_ERROR(RESOURCE_EXHAUSTED, "%d saves of job %s are under way; the limit is %d",
                            MR_JOB_SAVES_MAX, job->facts.id, MR_JOB_SAVES_MAX);
        save->asked = true;
        mr_decision_order_all(decision, job, MR_ORDER_SAVE, tag, 0);
    }
    *out_save = save;
    return MR_OK;
}

/* The slot that a report belongs to; NULL where it is a duplicate or there is no room. */
static mr_job_save *saves_of_report(mr_decision *decision, mr_job_record *job,
                                    const mr_event *event) {
    const char *tag = event->u.saved.tag;
    mr_job_save *save = saves_find(job, tag);
    if (save != NULL)
        return save;
    save = mr_layout_step_parse(tag, NULL) ? saves_find(job, "") : NULL;
    if (save != NULL) {
        (void)snprintf(save->tag, sizeof(save->tag), "%s", tag); /* of step-N form: fits */
        return save;
    }
    if (saves_is_done(job, tag, event->u.saved.step))
        return NULL;
    save = saves_take(decision, job, tag);
    if (save == NULL)
        mr_decision_log(
            decision, "save dropped", NULL, job,
            MR_ERROR(RESOURCE_EXHAUSTED, "tag %s: %d saves are under way", tag, MR_JOB_SAVES_MAX));
    return save;
}

static mr_status save_add_files(mr_job_save *save, const mr_checkpoint_file *files, size_t count) {
    if (count > MR_CHECKPOINT_FILES_MAX - save->file_count)
        return MR_ERROR(RESOURCE_EXHAUSTED, "the checkpoint has over %d files",
                        MR_CHECKPOINT_FILES_MAX);
    size_t needed = save->file_count + count;
    if (needed > save->file_capacity) {
        size_t capacity = needed * 2;
        mr_checkpoint_file *grown =
            mr_realloc_array(save->files, save->file_capacity, capacity, sizeof(*grown));
        if (grown == NULL)
            return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the list of %zu files", needed);
        save->files = grown;
        save->file_capacity = capacity;
    }
    if (count > 0)
        memcpy(&save->files[save->file_count], files, count * sizeof(*files));
    save->file_count = needed;
    return MR_OK;
}

static int file_compare(const void *left, const void *right) {
    const mr_checkpoint_file *a = left;
    const mr_checkpoint_file *b = right;
    return strcmp(a->name, b->name);
}

/* Layers whose weights are in the sorted list: those before the first '-' of a name. */
static size_t save_count_layers(const mr_job_save *save) {
    size_t count = 0;
    size_t last_bytes = 0;
    const char *last = "";
    for (size_t i = 0; i < save->file_count; i++) {
        const char *name = save->files[i].name;
        size_t bytes = strcspn(name, "-");
        if (strstr(name, "-model_states") == NULL)
            continue;
        count += bytes != last_bytes || strncmp(name, last, bytes) != 0;
        last = name;
        last_bytes = bytes;
    }
    return count;
}

/* The replicas of a stage share its layers out: what one of them leaves to the others must be with
 * them, whatever build they are of. */
static mr_status save_check_layers(const mr_job_record *job, const mr_job_save *save) {
    size_t wanted = job->spec->saved_layers;
    size_t found = save_count_layers(save);
    if (wanted != 0 && found != wanted)
        return MR_ERROR(DATA_LOSS, "the ranks wrote weights of %zu layers; the job has %zu", found,
                        wanted);
    return MR_OK;
}

/* One list, sorted by name. A file that two ranks report must be the same bytes. */
static mr_status save_merge(const mr_job_record *job, mr_job_save *save) {
    if (save->file_count == 0)
        return MR_ERROR(DATA_LOSS, "no stage reported a file");
    qsort(save->files, save->file_count, sizeof(save->files[0]), file_compare);
    size_t kept = 0;
    for (size_t i = 0; i < save->file_count; i++) {
        const mr_checkpoint_file *file = &save->files[i];
        mr_checkpoint_file *last = kept == 0 ? NULL : &save->files[kept - 1];
        if (last == NULL || strcmp(last->name, file->name) != 0) {
            save->files[kept++] = *file;
            continue;
        }
        if (last->bytes != file->bytes || strcmp(last->sha256, file->sha256) != 0)
            return MR_ERROR(DATA_LOSS, "two stages report different bytes for %s", file->name);
    }
    save->file_count = kept;
    return save_check_layers(job, save);
}

/* Every rank has reported in this epoch: the only place from which a manifest is committed. */
static void save_complete(mr_decision *decision, mr_job_record *job, mr_job_save *save) {
    MR_ASSERT(save->reported_count == job->spec->rank_count);
    if (save->error[0] == '\0') {
        mr_status merged = save_merge(job, save);
        if (!mr_status_is_ok(merged))
            save_error(save, merged);
    }
    if (save->error[0] != '\0') {
        mr_status why = {.code = save->error_code, .file = __FILE__, .line = __LINE__};
        memcpy(why.text, save->error, sizeof(why.text));
        save_give_up(decision, job, save, why);
        return;
    }
    save->phase = MR_SAVE_COMMITTING;
    mr_action *action = mr_actions_add(decision->actions, MR_ACTION_COMMIT);
    action->job = job;
    action->save = save;
    action->epoch = save->epoch;
    action->step = save->step;
    memcpy(action->tag, save->tag, sizeof(action->tag));
}

void mr_saves_report(mr_decision *decision, mr_job_record *job, uint32_t rank,
                     const mr_event *event) {
    char name[MR_RANK_NAME_BYTES];
    mr_job_machine_rank_name(decision, job, rank, name);
    mr_status checked = mr_layout_tag_check(event->u.saved.tag);
    if (!mr_job_spec_saves(job->spec) || !mr_status_is_ok(checked)) {
        mr_decision_log(
            decision, "save refused", NULL, job,
            MR_ERROR(INVALID_ARGUMENT, "%s saved, but %s", name,
                     mr_status_is_ok(checked) ? "the job has no checkpoint.dir" : checked.text));
        return;
    }
    mr_job_save *save = saves_of_report(decision, job, event);
    if (save == NULL || save->phase != MR_SAVE_GATHERING || save->reported[rank])
        return;
    if (save->reported_count == 0) {
        save->step = event->u.saved.step;
        save->optimizer_steps = event->u.saved.optimizer_steps;
        save->loss_scale = event->u.saved.loss_scale;
    }
    save->reported[rank] = true;
    save->reported_count++;
    if (event->u.saved.error[0] != '\0')
        save_error(save, mr_status_make(event->u.saved.error_code, __FILE__, __LINE__, "%s: %s",
                                        name, event->u.saved.error));
    else if (save->step != event->u.saved.step ||
             save->optimizer_steps != event->u.saved.optimizer_steps)
        save_error(save, MR_ERROR(DATA_LOSS, "%s saved step %" PRIu64 ", another stage %" PRIu64,
                                  name, event->u.saved.step, save->step));
    else {
        mr_status added = save_add_files(save, event->u.saved.files, event->u.saved.file_count);
        if (!mr_status_is_ok(added))
            save_error(save, added);
    }
    if (save->reported_count == job->spec->rank_count)
        save_complete(decision, job, save);
}

void mr_saves_committed(mr_decision *decision, mr_job_record *job, const mr_event *event) {
    mr_job_save *save = saves_find(job, event->u.commit.tag);
    if (save == NULL || save->phase != MR_SAVE_COMMITTING)
        return;
    if (!mr_status_is_ok(event->u.commit.status)) {
        save_give_up(decision, job, save, event->u.commit.status);
        return;
    }
    memcpy(job->facts.checkpoint_tag, save->tag, sizeof(job->facts.checkpoint_tag));
    mr_waiters_saved(decision, job, save, event->u.commit.bytes, MR_OK);
    if (mr_job_state_is_active(job->facts.state) && save->epoch == job->facts.epoch) {
        job->committed_step = save->step;
        job->committed = true;
        mr_decision_order_all(decision, job, MR_ORDER_COMMITTED, save->tag, save->step);
    }
    save_finish(save);
    mr_decision_store(decision, job);
    mr_decision_notify(decision, job, 0);
}

/* Names the first rank that has not reported. */
static mr_status save_lateness(const mr_decision *decision, const mr_job_record *job,
                               const mr_job_save *save) {
    char name[MR_RANK_NAME_BYTES] = "";
    for (uint32_t rank = 0; rank < job->spec->rank_count; rank++) {
        if (save->reported[rank])
            continue;
        mr_job_machine_rank_name(decision, job, rank, name);
        break;
    }
    return MR_ERROR(DEADLINE_EXCEEDED, "%s did not report its files in %d s", name,
                    MR_SAVE_TIMEOUT_MS / 1000);
}

void mr_saves_tick(mr_decision *decision, mr_job_record *job) {
    for (size_t i = 0; i < MR_JOB_SAVES_MAX; i++) {
        mr_job_save *save = &job->saves[i];
        if (save->phase == MR_SAVE_GATHERING && decision->now_ms >= save->deadline_ms)
            save_give_up(decision, job, save, save_lateness(decision, job, save));
    }
}

void mr_saves_end(mr_decision *decision, mr_job_record *job, mr_status why) {
    for (size_t i = 0; i < MR_JOB_SAVES_MAX; i++)
        if (job->saves[i].phase == MR_SAVE_GATHERING)
            save_give_up(decision, job, &job->saves[i], why);
}

bool mr_saves_asked_pending(const mr_job_record *job) {
    for (size_t i = 0; i < MR_JOB_SAVES_MAX; i++)
        if (job->saves[i].asked && save_is_pending(&job->saves[i]))
            return true;
    return false;
}

bool mr_saves_is_committing(const mr_job_record *job, uint64_t step) {
    for (size_t i = 0; i < MR_JOB_SAVES_MAX; i++)
        if (job->saves[i].phase == MR_SAVE_COMMITTING && job->saves[i].step == step)
            return true;
    return false;
}
