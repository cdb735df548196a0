/* SPDX-License-Identifier: Apache-2.0 */
/* train.c: the main command: submit a job, feed it its data, show its steps, end with it. And its
 * second half alone: feed a job that somebody submitted, or whose client has gone. */
#include <stdio.h>

#include "client/data.h"
#include "client/feeder.h"
#include "client/job_ranks.h"
#include "client/job_run.h"
#include "client/job_view.h"
#include "client/nouns.h"
#include "client/path_text.h"
#include "client/profile_file.h"
#include "client/progress.h"
#include "daemon/plan/plan.h"

/* Everything that a training command holds. */
typedef struct train {
    mr_client *client;
    mr_job_file file;
    mr_profile_file profile;
    mr_data *data;
    mr_job_run run;
    mr_feeder *feeder;
    mr_progress progress;
} train;

/* All that can be wrong without a server is found before one is asked. */
static mr_status train_prepare(train *t, const char *path) {
    mr_plan *plan = NULL;
    MR_TRY(mr_job_file_read(path, &t->file, NULL));
    MR_TRY(mr_job_ranks_apply(t->client->invocation, &t->file));
    if (t->file.job->total_steps == 0)
        return MR_ERROR(INVALID_ARGUMENT,
                        "%s: lr_schedule.total_steps is not set; training needs at least 1",
                        mr_path_shorten(path).text);
    MR_TRY(mr_profile_file_read(&t->file, mr_invocation_text(t->client->invocation, "profile"),
                                &t->profile));
    mr_status status = mr_plan_make_profiled(t->file.job, false, t->profile.profile, &plan);
    if (!mr_status_is_ok(status))
        return mr_status_prefix(status, "%s", mr_path_shorten(path).text);
    mr_plan_destroy(plan);
    return mr_data_open(t->file.job, t->file.base_directory, &t->data);
}

static void train_event(train *t, mr_event *event, const Millrace__V1__StepResult *step) {
    if (step != NULL)
        mr_progress_step(&t->progress, step, t->run.watch.total_steps);
    else
        mr_job_run_fail(&t->run, mr_feeder_event(t->feeder, event));
    mr_event_deinit(event);
}

/* Feeds while the job goes on; afterwards ends the lanes in order, or cuts them where nothing good
 * can come. */
static void train_feed(train *t) {
    if (t->run.abandoned)
        mr_feeder_stop(t->feeder, true);
    else if (t->run.watch.ended)
        mr_feeder_stop(t->feeder, false);
    else
        mr_job_run_fail(&t->run, mr_feeder_tick(t->feeder, &t->run.watch));
}

static void train_follow(train *t) {
    while (!mr_job_run_over(&t->run) || !mr_feeder_idle(t->feeder)) {
        mr_event event;
        const Millrace__V1__StepResult *step = NULL;
        if (mr_job_run_next(&t->run, &event, &step))
            train_event(t, &event, step);
        train_feed(t);
    }
}

/* The job's end on stdout. Steps of -o jsonl are printed already, the id of -o name too. */
static mr_status train_print_end(train *t) {
    if (t->client->exit_code == MR_EXIT_CODE_INTERRUPTED)
        return MR_OK;
    if (t->client->output == MR_OUTPUT_JSON) {
        ProtobufCMessage *response = NULL;
        Millrace__V1__JobRequest request = MILLRACE__V1__JOB_REQUEST__INIT;
        request.job = t->run.watch.job_id;
        MR_TRY(mr_client_call(t->client, "Get", &request.base, &response));
        json_t *item = mr_job_view_job((Millrace__V1__Job *)response, false);
        protobuf_c_message_free_unpacked(response, NULL);
        return mr_render_item(t->client, &mr_job_item_view, item);
    }
    if (t->client->output == MR_OUTPUT_TABLE && t->client->exit_code == MR_EXIT_CODE_DONE)
        printf("final loss %.2f\n", t->progress.steps > 0 ? t->progress.loss : t->run.watch.loss);
    return MR_OK;
}

static mr_status train_run(train *t) {
    const mr_invocation *invocation = t->client->invocation;
    mr_job_run_submit submit = {
        .file = &t->file,
        .resume = mr_invocation_given(invocation, "resume")
                      ? mr_invocation_text(invocation, "resume")
                      : NULL,
    };
    MR_TRY(train_prepare(t, invocation->arguments[0]));
    submit.profile = t->profile.text;
    MR_TRY(mr_job_run_init(&t->run, t->client));
    MR_TRY(mr_feeder_create(t->client, t->file.job, t->data, t->run.events, &t->feeder));
    MR_TRY(mr_job_run_start(&t->run, &submit));
    train_follow(t);
    MR_TRY(mr_job_run_result(&t->run));
    return train_print_end(t);
}

static mr_status train_end(train *t, mr_status status) {
    mr_feeder_destroy(t->feeder);
    mr_job_run_deinit(&t->run);
    mr_data_close(t->data);
    mr_profile_file_deinit(&t->profile);
    mr_job_file_deinit(&t->file);
    return status;
}

mr_status mr_command_train(mr_client *client) {
    train t = {.client = client, .progress = {.client = client}};
    return train_end(&t, train_run(&t));
}

/* ---- a job that is there already ------------------------------------------------------------- */

/* The job's own file says what its data is; it must lie here under the same path. */
static mr_status feed_prepare(train *t, const char *name) {
    ProtobufCMessage *response = NULL;
    Millrace__V1__JobRequest request = MILLRACE__V1__JOB_REQUEST__INIT;
    request.job = (char *)(uintptr_t)name; /* only packed */
    MR_TRY(mr_client_call(t->client, "Get", &request.base, &response));
    const Millrace__V1__Job *job = (Millrace__V1__Job *)response;
    mr_status status = MR_OK;
    if (job->mode != MILLRACE__V1__JOB_MODE__JOB_MODE_TRAIN)
        status = MR_ERROR(FAILED_PRECONDITION, "job %s does not train; only training is fed so",
                          job->id);
    else if (mr_watch_state_final(job->state))
        status = MR_ERROR(FAILED_PRECONDITION, "job %s is %s; nothing more is fed to it", job->id,
                          mr_watch_state_name(job->state));
    else
        status = mr_job_file_copy(name, job->job_file, job->base_directory, &t->file);
    if (mr_status_is_ok(status) && t->client->output == MR_OUTPUT_NAME)
        puts(job->id);
    protobuf_c_message_free_unpacked(response, NULL);
    MR_TRY(status);
    return mr_data_open(t->file.job, t->file.base_directory, &t->data);
}

static mr_status feed_run(train *t) {
    const char *name = t->client->invocation->arguments[0];
    MR_TRY(feed_prepare(t, name));
    MR_TRY(mr_job_run_init(&t->run, t->client));
    t->run.feeds = true;
    MR_TRY(mr_feeder_create(t->client, t->file.job, t->data, t->run.events, &t->feeder));
    MR_TRY(mr_job_run_follow(&t->run, name));
    train_follow(t);
    MR_TRY(mr_job_run_result(&t->run));
    return train_print_end(t);
}

mr_status mr_command_job_feed(mr_client *client) {
    train t = {.client = client, .progress = {.client = client}};
    return train_end(&t, feed_run(&t));
}
