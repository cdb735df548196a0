/* SPDX-License-Identifier: Apache-2.0 */
/* Everything that happens is a piece of mail with a time. A job's stages work in step: a piece of
 * work happens when every rank has been told to run and none is dead or mute. */
#include "tests/simulation/coordinator_world.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"

/* ---- chance and mail ------------------------------------------------------------------------- */

/* splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014). */
uint64_t world_random(world *w, uint64_t bound) {
    w->random += 0x9e3779b97f4a7c15u;
    uint64_t z = w->random;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % bound;
}

/* One time in n, and only while faults are on. */
static bool world_mishap(world *w, uint64_t n) {
    uint64_t drawn = world_random(w, n);
    return w->faults && drawn == 0;
}

static bool mail_before(const world_mail *a, const world_mail *b) {
    return a->at_ms < b->at_ms || (a->at_ms == b->at_ms && a->sequence < b->sequence);
}

static void mail_swap(world_mail *a, world_mail *b) {
    world_mail copy = *a;
    *a = *b;
    *b = copy;
}

static void mail_push(world *w, world_mail mail) {
    MR_ASSERT(w->mail_count < WORLD_MAIL_MAX);
    mail.sequence = ++w->sequence;
    size_t i = w->mail_count++;
    w->mail[i] = mail;
    while (i > 0 && mail_before(&w->mail[i], &w->mail[(i - 1) / 2])) {
        mail_swap(&w->mail[i], &w->mail[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
}

static world_mail mail_pop(world *w) {
    MR_ASSERT(w->mail_count > 0);
    world_mail first = w->mail[0];
    w->mail[0] = w->mail[--w->mail_count];
    for (size_t i = 0;;) {
        size_t least = i;
        for (size_t child = 2 * i + 1; child <= 2 * i + 2 && child < w->mail_count; child++)
            if (mail_before(&w->mail[child], &w->mail[least]))
                least = child;
        if (least == i)
            return first;
        mail_swap(&w->mail[i], &w->mail[least]);
        i = least;
    }
}

static void mail_after(world *w, int64_t delay_ms, world_mail_kind kind, size_t index) {
    mail_push(w, (world_mail){.at_ms = w->now_ms + delay_ms, .kind = kind, .index = index});
}

/* ---- stages ---------------------------------------------------------------------------------- */

world_job *world_job_find(world *w, const char *id) {
    for (size_t i = 0; i < w->job_count; i++)
        if (strcmp(w->jobs[i].id, id) == 0)
            return &w->jobs[i];
    return NULL;
}

/* A report goes up the stage's stream: late, in order, sometimes twice. */
static void stage_report(world *w, world_stage *stage, world_mail mail) {
    int64_t at_ms = w->now_ms + 1 + (int64_t)world_random(w, 30);
    stage->report_ms = at_ms > stage->report_ms ? at_ms : stage->report_ms;
    mail.at_ms = stage->report_ms;
    mail.kind = WORLD_EVENT;
    mail.member = stage->member;
    mail_push(w, mail);
    if (world_mishap(w, 30))
        mail_push(w, mail);
    if (w->faults)
        w->past[w->past_count++ % WORLD_PAST_MAX] = mail;
}

static world_mail stage_mail(const world_stage *stage, mr_event_kind kind) {
    world_mail mail = {.event = {.kind = kind}, .epoch = stage->epoch};
    memcpy(mail.job, stage->job, sizeof(mail.job));
    return mail;
}

static void stage_attach(world *w, size_t index) {
    world_stage *stage = &w->stages[index];
    int64_t report_ms = stage->report_ms;
    *stage = (world_stage){.alive = true, .member = ++w->members, .report_ms = report_ms};
    world_mail mail = {.event = {.kind = MR_EVENT_ATTACHED}};
    (void)snprintf(mail.text, sizeof(mail.text), "instance-%zu", index);
    /* Numbers must arrive in order: an attachment is not delayed. */
    mail.at_ms = w->now_ms;
    mail.kind = WORLD_EVENT;
    mail.member = stage->member;
    mail_push(w, mail);
    stage->report_ms = w->now_ms + 1;
    mail_after(w, MR_HEARTBEAT_PERIOD_MS, WORLD_BEAT, index);
}

/* The job in which the coordinator has this stage now. */
static world_job *stage_active_job(world *w, const world_stage *stage) {
    const mr_member *member = mr_registry_find(&w->state.registry, stage->member);
    if (member == NULL || member->job == 0 || member->state == MR_MEMBER_LOST)
        return NULL;
    const mr_job_record *job = mr_jobs_find(&w->state.jobs, member->job);
    return mr_job_state_is_active(job->facts.state) ? world_job_find(w, job->facts.id) : NULL;
}

/* Its neighbours see their links end. */
static void stage_neighbours_fail(world *w, const world_stage *dead) {
    for (size_t i = 0; i < w->stage_count; i++) {
        world_stage *stage = &w->stages[i];
        if (stage == dead || !stage->alive || stage->mute || stage->job[0] == '\0' ||
            strcmp(stage->job, dead->job) != 0 || world_random(w, 4) == 0)
            continue;
        stage->running = false;
        world_mail mail = stage_mail(stage, MR_EVENT_FAILED);
        mail.event.u.failed.code = MR_CODE_UNAVAILABLE;
        mail.event.u.failed.secondary = true;
        (void)snprintf(mail.text, sizeof(mail.text), "RA0: a neighbour is gone");
        stage_report(w, stage, mail);
    }
}

/* The stage dies (its stream ends soon) or hangs (nothing tells). */
static void stage_kill(world *w, size_t index, bool mute) {
    world_stage *stage = &w->stages[index];
    if (!stage->alive || stage->mute)
        return;
    world_job *job = stage_active_job(w, stage);
    if (job != NULL) {
        job->other_cause = job->other_cause || job->killed_ms != 0;
        job->killed_ms = w->now_ms;
        job->killed_member = stage->member;
    }
    stage->mute = true;
    stage->alive = mute;
    stage_neighbours_fail(w, stage);
    if (mute)
        return;
    world_mail mail = {.event = {.kind = MR_EVENT_LOST}};
    (void)snprintf(mail.text, sizeof(mail.text), "stream ended");
    stage_report(w, stage, mail);
}

static void stage_release(world *w, world_stage *stage, const world_mail *order) {
    world_mail mail = {.event = {.kind = MR_EVENT_RELEASED}, .epoch = order->epoch};
    memcpy(mail.job, order->job, sizeof(mail.job));
    stage_report(w, stage, mail);
    if (strcmp(stage->job, order->job) != 0)
        return;
    stage->job[0] = '\0';
    stage->running = false;
    stage->paused = false;
}

/* The stage's own answer to PROFILE, PREPARE and CONNECT: mostly yes. */
static void stage_answer(world *w, world_stage *stage, mr_event_kind kind) {
    world_mail mail = stage_mail(stage, kind);
    world_job *job = world_job_find(w, stage->job);
    if (world_mishap(w, 40)) {
        job->other_cause = true;
        mail.event.kind = MR_EVENT_FAILED;
        mail.event.u.failed.code = MR_CODE_RESOURCE_EXHAUSTED;
        (void)snprintf(mail.text, sizeof(mail.text), "no memory for its layers");
    } else if (kind == MR_EVENT_PROFILED) {
        stage->report_ms += (int64_t)world_random(w, 8000); /* it takes its time */
    } else if (kind == MR_EVENT_PREPARED) {
        (void)snprintf(mail.text, sizeof(mail.text), "%s",
                       world_mishap(w, 60) ? "another hash" : "hash");
        job->other_cause = job->other_cause || strcmp(mail.text, "hash") != 0;
        mail.event.u.prepared.next_step = job->step;
    }
    stage_report(w, stage, mail);
}

static void stage_obey(world *w, const world_mail *order) {
    world_stage *stage = &w->stages[order->index];
    if (!stage->alive || stage->mute || stage->member != order->member)
        return;
    bool mine = strcmp(stage->job, order->job) == 0;
    switch (order->order) {
    case MR_ORDER_PROFILE:
        memcpy(stage->job, order->job, sizeof(stage->job));
        stage->epoch = order->epoch;
        stage->rank = (uint32_t)order->event.request;
        stage->running = stage->paused = stage->pause_wanted = stage->save_wanted = false;
        stage_answer(w, stage, MR_EVENT_PROFILED);
        break;
    case MR_ORDER_PREPARE:
        memcpy(stage->job, order->job, sizeof(stage->job));
        stage->epoch = order->epoch;
        stage->rank = (uint32_t)order->event.request;
        stage->running = stage->paused = stage->pause_wanted = stage->save_wanted = false;
        stage_answer(w, stage, MR_EVENT_PREPARED);
        break;
    case MR_ORDER_CONNECT:
        if (mine)
            stage_answer(w, stage, MR_EVENT_CONNECTED);
        break;
    case MR_ORDER_RUN:
        stage->running = mine;
        stage->paused = false;
        break;
    case MR_ORDER_PAUSE:
        stage->pause_wanted = mine;
        break;
    case MR_ORDER_SAVE:
        stage->save_wanted = mine;
        memcpy(stage->save_tag, order->tag, sizeof(stage->save_tag));
        break;
    case MR_ORDER_ABORT:
    case MR_ORDER_RELEASE:
        stage_release(w, stage, order);
        break;
    case MR_ORDER_SHUTDOWN:
        stage_kill(w, order->index, false);
        break;
    case MR_ORDER_REGISTERED:
    case MR_ORDER_COMMITTED:
    case MR_ORDER_SET:
    case MR_ORDER_COUNT:
        break;
    }
}

static void stage_beat(world *w, size_t index) {
    world_stage *stage = &w->stages[index];
    if (!stage->alive || stage->mute)
        return;
    stage_report(w, stage, stage_mail(stage, MR_EVENT_HEARTBEAT));
    mail_after(w, MR_HEARTBEAT_PERIOD_MS, WORLD_BEAT, index);
}

/* ---- work ------------------------------------------------------------------------------------ */

/* The stages of a job by rank; false where one is missing, dead or mute. */
static bool work_stages(world *w, const world_job *job, world_stage *out[WORLD_RANKS_MAX]) {
    size_t found = 0;
    for (size_t i = 0; i < w->stage_count; i++) {
        world_stage *stage = &w->stages[i];
        if (strcmp(stage->job, job->id) != 0 || !stage->alive || stage->mute)
            continue;
        out[stage->rank] = stage;
        found++;
    }
    return found == job->ranks;
}

static void work_save(world *w, const world_job *job, world_stage **stages, const char *tag) {
    static const mr_checkpoint_file files[WORLD_RANKS_MAX] = {
        {.name = "layer_00-model_states.safetensors", .bytes = 1},
        {.name = "layer_01-model_states.safetensors", .bytes = 1},
        {.name = "layer_02-model_states.safetensors", .bytes = 1},
        {.name = "layer_03-model_states.safetensors", .bytes = 1},
    };
    for (size_t rank = 0; rank < job->ranks; rank++) {
        world_mail mail = stage_mail(stages[rank], MR_EVENT_SAVED);
        if (tag[0] == '\0')
            mr_layout_step_tag(job->step, mail.tag);
        else
            memcpy(mail.tag, tag, sizeof(mail.tag));
        mail.event.u.saved.step = job->step;
        mail.event.u.saved.optimizer_steps = job->step;
        mail.event.u.saved.files = &files[rank];
        mail.event.u.saved.file_count = 1;
        mail.event.u.saved.error_code = MR_CODE_RESOURCE_EXHAUSTED;
        if (world_mishap(w, 20))
            (void)snprintf(mail.text, sizeof(mail.text), "no space left on device");
        stage_report(w, stages[rank], mail);
    }
}

static void work_feed(world *w, world_job *job, world_stage *first, bool open) {
    job->feed_told = open;
    world_mail mail = stage_mail(first, MR_EVENT_FEED_STATE);
    mail.event.u.feed_state.open = open;
    stage_report(w, first, mail);
}

static void work_finish(world *w, const world_job *job, world_stage **stages, size_t count) {
    for (size_t rank = 0; rank < count; rank++) {
        world_mail mail = stage_mail(stages[rank], MR_EVENT_FINISHED);
        mail.event.u.finished.step = job->step;
        stage_report(w, stages[rank], mail);
    }
    for (size_t rank = 0; rank < job->ranks; rank++)
        stages[rank]->running = false;
}

static void work_step(world *w, world_job *job, world_stage **stages) {
    job->step++;
    world_mail mail = stage_mail(stages[0], MR_EVENT_STEP_DONE);
    mail.event.u.step_done = (mr_job_step){.step = job->step, .loss = 2.5, .tokens = 64};
    stage_report(w, stages[0], mail);
    if (!job->trains) {
        if (world_random(w, 20) == 0)
            work_finish(w, job, stages, 1);
        return;
    }
    if (job->step % job->every == 0 || job->step == job->total)
        work_save(w, job, stages, "");
    if (job->step == job->total)
        work_finish(w, job, stages, job->ranks);
}

/* What every rank has been told decides what happens at this boundary. */
static void work_do(world *w, world_job *job) {
    world_stage *stages[WORLD_RANKS_MAX] = {NULL};
    if (!work_stages(w, job, stages))
        return;
    size_t running = 0;
    size_t paused = 0;
    size_t pausing = 0;
    size_t saving = 0;
    for (size_t rank = 0; rank < job->ranks; rank++) {
        running += stages[rank]->running;
        paused += stages[rank]->paused;
        pausing += stages[rank]->pause_wanted;
        saving += stages[rank]->save_wanted;
    }
    if (saving == job->ranks && (running == job->ranks || paused == job->ranks)) {
        work_save(w, job, stages, stages[0]->save_tag);
        for (size_t rank = 0; rank < job->ranks; rank++)
            stages[rank]->save_wanted = false;
    } else if (running != job->ranks) {
        return;
    } else if (pausing == job->ranks) {
        for (size_t rank = 0; rank < job->ranks; rank++) {
            stages[rank]->pause_wanted = stages[rank]->running = false;
            stages[rank]->paused = true;
            world_mail mail = stage_mail(stages[rank], MR_EVENT_PAUSED);
            mail.event.u.paused.step = job->step;
            stage_report(w, stages[rank], mail);
        }
    } else if (!job->feed_told) {
        if (world_random(w, 3) == 0)
            work_feed(w, job, stages[0], true);
    } else if (world_mishap(w, 60)) {
        work_feed(w, job, stages[0], false);
    } else {
        work_step(w, job, stages);
    }
}

/* ---- clients and faults ---------------------------------------------------------------------- */

static mr_job_spec *client_spec(world *w) {
    mr_job_spec *spec = NULL;
    char name[8];
    (void)snprintf(name, sizeof(name), "job%d", (int)world_random(w, 6));
    bool trains = world_random(w, 5) != 0;
    mr_status made = mr_job_spec_ended(
        name, "text", "/", trains ? MR_JOB_MODE_TRAIN : MR_JOB_MODE_EVALUATION, &spec);
    MR_ASSERT(mr_status_is_ok(made));
    spec->rank_count = 1 + (size_t)world_random(w, WORLD_RANKS_MAX);
    spec->ranks = mr_alloc_array(spec->rank_count, sizeof(*spec->ranks));
    for (uint32_t rank = 0; rank < spec->rank_count; rank++)
        spec->ranks[rank] = (mr_spec_rank){.stage = rank, .first = rank == 0};
    if (!trains && world_random(w, 3) == 0)
        spec->mode = MR_JOB_MODE_PROFILE;
    spec->profiles =
        spec->mode == MR_JOB_MODE_PROFILE || (trains && world_random(w, 3) == 0);
    spec->total_steps = trains ? 3 + world_random(w, 60) : 0;
    (void)snprintf(spec->schedule_hash, sizeof(spec->schedule_hash), "hash");
    if (world_random(w, 4) != 0)
        (void)snprintf(spec->checkpoint_dir, sizeof(spec->checkpoint_dir), "/ckpt");
    return spec;
}

/* What DISK makes of it once it is cut. */
static mr_job_spec *client_spec_copy(const mr_job_spec *old) {
    mr_job_spec *spec = NULL;
    mr_status made = mr_job_spec_ended(old->name, "text", "/", old->mode, &spec);
    MR_ASSERT(mr_status_is_ok(made));
    spec->rank_count = old->rank_count;
    spec->ranks = mr_alloc_array(spec->rank_count, sizeof(*spec->ranks));
    memcpy(spec->ranks, old->ranks, spec->rank_count * sizeof(*spec->ranks));
    spec->total_steps = old->total_steps;
    memcpy(spec->schedule_hash, old->schedule_hash, sizeof(spec->schedule_hash));
    memcpy(spec->checkpoint_dir, old->checkpoint_dir, sizeof(spec->checkpoint_dir));
    return spec;
}

static world_mail client_mail(world *w, mr_event_kind kind) {
    world_mail mail = {.at_ms = w->now_ms, .kind = WORLD_EVENT, .event = {.kind = kind}};
    mail.event.request = w->request_count++;
    return mail;
}

static void client_submit(world *w) {
    world_mail mail = client_mail(w, MR_EVENT_SUBMIT);
    mail.event.u.submit.owned_spec = client_spec(w);
    if (world_random(w, 3) == 0)
        (void)snprintf(mail.text, sizeof(mail.text), "request-%d", (int)world_random(w, 8));
    mail.event.u.submit.epoch_floor = world_random(w, 100);
    mail_push(w, mail);
}

static void client_act(world *w) {
    if (w->request_count + 2 >= WORLD_REQUESTS_MAX)
        return;
    uint64_t choice = world_random(w, 12);
    if ((choice < 4 && w->job_count < WORLD_JOBS_MAX) || w->job_count == 0) {
        client_submit(w);
        return;
    }
    static const mr_event_kind kinds[12] = {
        MR_EVENT_PAUSE,  MR_EVENT_PAUSE, MR_EVENT_PAUSE, MR_EVENT_RESUME,
        MR_EVENT_RESUME, MR_EVENT_SAVE,  MR_EVENT_SAVE,  MR_EVENT_SAVE,
        MR_EVENT_CANCEL, MR_EVENT_DRAIN, MR_EVENT_PAUSE, MR_EVENT_RESUME,
    };
    world_mail mail = client_mail(w, kinds[choice]);
    /* Mostly one of the newest jobs. */
    uint64_t back = world_random(w, w->job_count < 4 ? w->job_count : 4);
    world_job *job = &w->jobs[w->job_count - 1 - back];
    memcpy(mail.job, job->id, sizeof(mail.job));
    if (mail.event.kind == MR_EVENT_CANCEL || mail.event.kind == MR_EVENT_DRAIN)
        job->other_cause = true;
    if (mail.event.kind == MR_EVENT_SAVE && world_random(w, 2) == 0)
        (void)snprintf(mail.tag, sizeof(mail.tag), "tag-%d", (int)world_random(w, 3));
    mail.event.u.save.tag_taken = false;
    if (mail.event.kind == MR_EVENT_DRAIN) {
        const world_stage *stage = &w->stages[world_random(w, w->stage_count)];
        (void)snprintf(mail.text, sizeof(mail.text), "m%" PRIu64, stage->member);
        for (size_t i = 0; i < w->job_count; i++)
            w->jobs[i].other_cause = true;
    }
    mail_push(w, mail);
}

/* A stage that lives says something again that it said long ago. */
static void fault_repeat(world *w) {
    if (w->past_count == 0)
        return;
    size_t held = w->past_count < WORLD_PAST_MAX ? w->past_count : WORLD_PAST_MAX;
    world_mail mail = w->past[world_random(w, held)];
    mail.at_ms = w->now_ms;
    for (size_t i = 0; i < w->stage_count; i++)
        if (w->stages[i].member == mail.member && w->stages[i].alive && !w->stages[i].mute)
            mail_push(w, mail);
}

/* A stage that is asked to end says so; its job may then fail for that. Not often: nothing can be
 * demanded of a failure's reason any more. */
static void fault_leave(world *w, world_stage *stage) {
    if (!stage->alive || stage->mute || world_random(w, 4) != 0)
        return;
    for (size_t i = 0; i < w->job_count; i++)
        w->jobs[i].other_cause = true;
    stage_report(w, stage, stage_mail(stage, MR_EVENT_LEAVING));
}

static void fault_act(world *w) {
    size_t index = (size_t)world_random(w, w->stage_count);
    switch (world_random(w, 7)) {
    case 0:
        stage_kill(w, index, false);
        break;
    case 1:
        stage_kill(w, index, true);
        break;
    case 2:
        fault_repeat(w);
        break;
    case 3:
        w->disk_fails = world_random(w, 3) == 0;
        break;
    case 4:
        fault_leave(w, &w->stages[index]);
        break;
    default:
        if (!w->stages[index].alive)
            stage_attach(w, index);
        else if (w->stages[index].mute) /* it was hung, and its process is started again */
            stage_attach(w, index);
        break;
    }
}

/* The end game: whatever is broken is replaced, whoever waits is helped. */
static void fault_heal(world *w) {
    w->disk_fails = false;
    if (w->stage_count < WORLD_RANKS_MAX)
        w->stage_count = WORLD_RANKS_MAX; /* enough for every job */
    for (size_t i = 0; i < w->stage_count; i++)
        if (!w->stages[i].alive || w->stages[i].mute)
            stage_attach(w, i);
    for (size_t i = 0; i < w->state.jobs.count; i++) {
        const mr_job_facts *facts = &w->state.jobs.records[i]->facts;
        if (facts->state != MR_JOB_PAUSED || w->request_count + 2 >= WORLD_REQUESTS_MAX)
            continue;
        world_mail mail = client_mail(w, MR_EVENT_RESUME);
        memcpy(mail.job, facts->id, sizeof(mail.job));
        mail_push(w, mail);
    }
}

/* ---- what the coordinator wants done --------------------------------------------------------- */

static void act_send(world *w, const mr_action *action) {
    world_job *job = world_job_find(w, action->job_id);
    bool heard = false;
    for (size_t i = 0; i < w->stage_count; i++) {
        world_stage *stage = &w->stages[i];
        if (stage->member != action->member)
            continue;
        int64_t at_ms = w->now_ms + 1 + (int64_t)world_random(w, 20);
        stage->order_ms = at_ms > stage->order_ms ? at_ms : stage->order_ms;
        world_mail mail = {
            .at_ms = stage->order_ms,
            .kind = WORLD_ORDER,
            .index = i,
            .member = action->member,
            .order = action->order,
            .epoch = action->epoch,
            .event = {.request = action->rank},
        };
        memcpy(mail.job, action->job_id, sizeof(mail.job));
        memcpy(mail.tag, action->tag, sizeof(mail.tag));
        mail_push(w, mail);
        heard = stage->alive && !stage->mute;
    }
    if (job != NULL && !heard) /* it died before it got the job */
        job->other_cause = true;
}

static void act_commit(world *w, const mr_action *action) {
    world_mail mail = {
        .at_ms = w->now_ms + 5 + (int64_t)world_random(w, 300),
        .kind = WORLD_EVENT,
        .epoch = action->epoch,
        .event = {.kind = MR_EVENT_COMMIT},
    };
    memcpy(mail.job, action->job->facts.id, sizeof(mail.job));
    memcpy(mail.tag, action->tag, sizeof(mail.tag));
    mail.event.u.commit.step = action->step;
    if (world_mishap(w, 15))
        mail.event.u.commit.status = MR_ERROR(RESOURCE_EXHAUSTED, "no space for the manifest");
    mail_push(w, mail);
}

/* The same spec with bounds; sometimes nothing fits, sometimes it takes long. */
static void act_cut(world *w, const mr_action *action) {
    const mr_job_spec *old = action->job->spec;
    world_mail mail = {
        .at_ms = w->now_ms + 1 + (int64_t)world_random(w, 1500),
        .kind = WORLD_EVENT,
        .epoch = action->epoch,
        .event = {.kind = MR_EVENT_CUT},
    };
    world_job *job = world_job_find(w, action->job->facts.id);
    memcpy(mail.job, action->job->facts.id, sizeof(mail.job));
    if (world_mishap(w, 10)) {
        job->other_cause = true;
        mail.event.u.cut.status = MR_ERROR(RESOURCE_EXHAUSTED, "no cut into stages fits");
    } else {
        mail.event.u.cut.owned_spec = client_spec_copy(old);
    }
    job->cut = true;
    mail_push(w, mail);
}

static void act_store(world *w, const mr_action *action) {
    world_mail mail = {
        .at_ms = w->now_ms + 1 + (int64_t)world_random(w, 10),
        .kind = WORLD_EVENT,
        .event = {.kind = MR_EVENT_STORED},
    };
    mail.event.u.stored.number = action->job->facts.number;
    if (w->disk_fails)
        mail.event.u.stored.status = MR_ERROR(RESOURCE_EXHAUSTED, "the disk is full");
    mail_push(w, mail);
}

/* A job the world has not seen: it begins to be worked for. */
static void act_learn(world *w, const mr_job_record *job) {
    if (world_job_find(w, job->facts.id) != NULL)
        return;
    MR_ASSERT(w->job_count < WORLD_JOBS_MAX);
    world_job *known = &w->jobs[w->job_count++];
    *known = (world_job){
        .total = job->spec->total_steps,
        .every = 1 + world_random(w, 9),
        .ranks = job->spec->rank_count,
        .trains = mr_job_mode_trains(job->spec->mode),
        .profiles = job->spec->profiles,
        .profile_only = job->spec->mode == MR_JOB_MODE_PROFILE,
        .last_state = MR_JOB_QUEUED,
    };
    memcpy(known->id, job->facts.id, sizeof(known->id));
    mail_after(w, 50, WORLD_WORK, w->job_count - 1);
}

void world_act(world *w) {
    for (size_t i = 0; i < w->actions.count; i++)
        if (w->actions.items[i].kind == MR_ACTION_STORE)
            act_learn(w, w->actions.items[i].job);
    for (size_t i = 0; i < w->actions.count; i++) {
        const mr_action *action = &w->actions.items[i];
        switch (action->kind) {
        case MR_ACTION_SEND:
            act_send(w, action);
            break;
        case MR_ACTION_CLOSE:
            for (size_t k = 0; k < w->stage_count; k++)
                if (w->stages[k].member == action->member) {
                    w->stages[k].alive = false;
                    w->stages[k].mute = true;
                }
            break;
        case MR_ACTION_STORE:
            act_store(w, action);
            break;
        case MR_ACTION_COMMIT:
            act_commit(w, action);
            break;
        case MR_ACTION_CUT:
            act_cut(w, action);
            break;
        case MR_ACTION_ANSWER:
            MR_ASSERT(action->request < w->request_count);
            MR_ASSERT(!w->answered[action->request]);
            w->answered[action->request] = true;
            break;
        case MR_ACTION_NOTIFY:
        case MR_ACTION_DISCARD:
        case MR_ACTION_SWEEP:
        case MR_ACTION_LOG:
        case MR_ACTION_KIND_COUNT:
            break;
        }
    }
}

/* ---- time ------------------------------------------------------------------------------------ */

void world_init(world *w, uint64_t seed) {
    *w = (world){.random = seed, .faults = true, .now_ms = 1000};
    w->mail = mr_alloc_array(WORLD_MAIL_MAX, sizeof(*w->mail));
    MR_ASSERT(w->mail != NULL);
    w->stage_count = 3 + (size_t)world_random(w, 6);
    for (size_t i = 0; i < w->stage_count; i++)
        stage_attach(w, i);
    mail_after(w, 0, WORLD_TICK, 0);
    mail_after(w, 100, WORLD_CLIENT, 0);
    mail_after(w, 500, WORLD_FAULT, 0);
}

void world_deinit(world *w) {
    for (size_t i = 0; i < w->mail_count; i++)
        if (w->mail[i].kind == WORLD_EVENT && w->mail[i].event.kind == MR_EVENT_SUBMIT)
            mr_job_spec_destroy(w->mail[i].event.u.submit.owned_spec);
        else if (w->mail[i].kind == WORLD_EVENT && w->mail[i].event.kind == MR_EVENT_CUT)
            mr_job_spec_destroy(w->mail[i].event.u.cut.owned_spec);
    mr_free(w->mail);
    mr_actions_deinit(&w->actions);
    mr_coordinator_state_deinit(&w->state);
}

/* An event's strings live in its piece of mail. */
static void mail_fix_up(const world *w, world_mail *mail) {
    mr_event *event = &mail->event;
    event->now_ms = w->now_ms;
    event->wall_ms = 1700000000000 + w->now_ms;
    event->member = mail->member;
    event->job = mail->job;
    event->epoch = mail->epoch;
    if (event->kind == MR_EVENT_ATTACHED)
        event->u.attached = (mr_member_info){
            .instance_id = mail->text, .device = "cpu", .address = "127.0.0.1:7000"};
    else if (event->kind == MR_EVENT_LOST)
        event->u.lost.text = mail->text;
    else if (event->kind == MR_EVENT_HEARTBEAT)
        event->u.heartbeat.instruction = "F0";
    else if (event->kind == MR_EVENT_PREPARED)
        event->u.prepared.schedule_hash = mail->text;
    else if (event->kind == MR_EVENT_FAILED)
        event->u.failed.text = mail->text;
    else if (event->kind == MR_EVENT_SUBMIT) {
        event->u.submit.request_id = mail->text;
        event->u.submit.checkpoint_path = "";
    } else if (event->kind == MR_EVENT_SAVE)
        event->u.save.tag = mail->tag;
    else if (event->kind == MR_EVENT_DRAIN)
        event->u.drain.member_id = mail->text;
    else if (event->kind == MR_EVENT_COMMIT)
        event->u.commit.tag = mail->tag;
    else if (event->kind == MR_EVENT_PROFILED) {
        mr_status made = mr_profile_device_create(1, &event->u.profiled.owned_profile);
        MR_ASSERT(mr_status_is_ok(made)); /* made on arrival: the same report may come twice */
    }
    else if (event->kind == MR_EVENT_SAVED) {
        event->u.saved.tag = mail->tag;
        event->u.saved.error = mail->text;
    }
}

bool world_next(world *w, world_mail *out_mail) {
    *out_mail = mail_pop(w);
    w->now_ms = out_mail->at_ms;
    switch (out_mail->kind) {
    case WORLD_EVENT:
        mail_fix_up(w, out_mail);
        return true;
    case WORLD_ORDER:
        stage_obey(w, out_mail);
        return false;
    case WORLD_BEAT:
        stage_beat(w, out_mail->index);
        return false;
    case WORLD_WORK:
        work_do(w, &w->jobs[out_mail->index]);
        if (!w->jobs[out_mail->index].done)
            mail_after(w, 20 + (int64_t)world_random(w, 200), WORLD_WORK, out_mail->index);
        return false;
    case WORLD_FAULT:
        if (w->faults)
            fault_act(w);
        else
            fault_heal(w);
        mail_after(w, 300 + (int64_t)world_random(w, 3000), WORLD_FAULT, 0);
        return false;
    case WORLD_CLIENT:
        if (w->faults)
            client_act(w);
        mail_after(w, 100 + (int64_t)world_random(w, 1500), WORLD_CLIENT, 0);
        return false;
    case WORLD_TICK:
        mail_after(w, MR_TICK_PERIOD_MS, WORLD_TICK, 0);
        *out_mail = (world_mail){.kind = WORLD_EVENT, .event = {.kind = MR_EVENT_TICK}};
        mail_fix_up(w, out_mail);
        return true;
    }
    return false;
}
