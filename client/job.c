/* SPDX-License-Identifier: Apache-2.0 */
/* job.c: jobs of the coordinator: submit, list, get, follow, steer. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "client/confirm.h"
#include "client/job_ranks.h"
#include "client/job_run.h"
#include "client/job_view.h"
#include "client/nouns.h"
#include "client/profile_file.h"
#include "client/progress.h"
#include "client/repeat.h"
#include "client/roster.h"
#include "daemon/base/alloc.h"
#include "daemon/base/clock.h"

mr_status mr_command_job_submit(mr_client *client) {
    const mr_invocation *invocation = client->invocation;
    mr_job_file file = {0};
    Millrace__V1__Job *job = NULL;
    mr_profile_file profile = {0};
    mr_status status = mr_job_file_read(invocation->arguments[0], &file, NULL);
    if (mr_status_is_ok(status))
        status = mr_job_ranks_apply(invocation, &file);
    if (mr_status_is_ok(status))
        status = mr_profile_file_read(&file, mr_invocation_text(invocation, "profile"), &profile);
    mr_job_run_submit submit = {
        .profile = profile.text,
        .file = &file,
        .resume = mr_invocation_given(invocation, "resume")
                      ? mr_invocation_text(invocation, "resume")
                      : NULL,
    };
    if (mr_status_is_ok(status))
        status = mr_job_submit(client, &submit, &job);
    mr_profile_file_deinit(&profile);
    mr_job_file_deinit(&file);
    MR_TRY(status);
    if (client->output == MR_OUTPUT_TABLE) {
        puts(job->id);
        mr_client_say(client, "job %s %s. Follow: millrace job watch %s", job->id,
                      mr_watch_state_name(job->state), job->id);
    } else {
        status = mr_render_item(client, &mr_job_item_view, mr_job_view_job(job, false));
    }
    protobuf_c_message_free_unpacked(&job->base, NULL);
    return status;
}

/* Does --state, where it is given, mean such a job? */
static bool job_is_wanted(const mr_client *client, const json_t *job) {
    const char *wanted = mr_invocation_text(client->invocation, "state");
    const char *state = json_string_value(json_object_get(job, "state"));
    if (wanted == NULL)
        return true;
    if (strcmp(wanted, "active") == 0)
        return json_integer_value(json_object_get(job, "ended_ms")) == 0;
    return state != NULL && strcasecmp(wanted, state) == 0;
}

static mr_status job_list_fetch(mr_client *client, json_t **out_value) {
    MR_TRY(mr_roster_jobs(client, out_value));
    for (size_t i = json_array_size(*out_value); i > 0; i--) {
        if (!job_is_wanted(client, json_array_get(*out_value, i - 1)))
            (void)json_array_remove(*out_value, i - 1);
    }
    if (json_array_size(*out_value) == 0)
        mr_client_say(client, "no job");
    return MR_OK;
}

static mr_status job_list_print(mr_client *client, json_t *owned_value) {
    return mr_render_list(client, &mr_job_list_view, owned_value);
}

mr_status mr_command_job_list(mr_client *client) {
    return mr_repeat_run(client, job_list_fetch, job_list_print);
}

/* One call whose answer is a job. */
static mr_status job_ask(mr_client *client, const char *method, const ProtobufCMessage *request,
                         bool text, json_t **out_item) {
    ProtobufCMessage *response = NULL;
    MR_TRY(mr_client_call(client, method, request, &response));
    *out_item = mr_job_view_job((Millrace__V1__Job *)response, text);
    protobuf_c_message_free_unpacked(response, NULL);
    return MR_OK;
}

/* The same for a call that only names a job. */
static mr_status job_fetch(mr_client *client, const char *method, const char *job_name, bool text,
                           json_t **out_item) {
    Millrace__V1__JobRequest request = MILLRACE__V1__JOB_REQUEST__INIT;
    request.job = (char *)(uintptr_t)job_name; /* only packed */
    return job_ask(client, method, &request.base, text, out_item);
}

static mr_status job_print(mr_client *client, json_t *owned_item) {
    json_t *stages = json_incref(json_object_get(owned_item, "stages"));
    mr_status status = mr_render_item(client, &mr_job_item_view, owned_item);
    if (mr_status_is_ok(status) && client->output == MR_OUTPUT_TABLE &&
        json_array_size(stages) > 0) {
        putchar('\n');
        mr_render_rows(client, &mr_job_stage_view, stages);
    }
    json_decref(stages);
    return status;
}

/* One call that takes a job and gives it back; prints it. */
static mr_status job_call(mr_client *client, const char *method, const char *job_name, bool text) {
    json_t *item = NULL;
    MR_TRY(job_fetch(client, method, job_name, text, &item));
    return job_print(client, item);
}

static mr_status job_get_fetch(mr_client *client, json_t **out_value) {
    return job_fetch(client, "Get", client->invocation->arguments[0], true, out_value);
}

mr_status mr_command_job_get(mr_client *client) {
    return mr_repeat_run(client, job_get_fetch, job_print);
}

mr_status mr_command_job_pause(mr_client *client) {
    return job_call(client, "Pause", client->invocation->arguments[0], false);
}

mr_status mr_command_job_resume(mr_client *client) {
    return job_call(client, "Resume", client->invocation->arguments[0], false);
}

/* A cancelled job keeps its checkpoints and can be resumed, so that scripts need no --yes; but a
 * person's slip of the finger deserves a question. */
mr_status mr_command_job_cancel(mr_client *client) {
    if (mr_confirm_possible())
        MR_TRY(mr_confirm(client, "cancel job %s", client->invocation->arguments[0]));
    return job_call(client, "Cancel", client->invocation->arguments[0], false);
}

mr_status mr_command_job_set(mr_client *client) {
    const char *change = client->invocation->arguments[1];
    const char *equals = strchr(change, '=');
    if (equals == NULL || equals == change || equals[1] == '\0')
        return MR_ERROR(INVALID_ARGUMENT, "\"%.80s\" is not of the form KEY=VALUE", change);
    char *key = mr_strdup(change);
    if (key == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a key of %zu letters", strlen(change));
    key[equals - change] = '\0';
    Millrace__V1__SetRequest request = MILLRACE__V1__SET_REQUEST__INIT;
    request.job = (char *)(uintptr_t)client->invocation->arguments[0]; /* only packed */
    request.key = key;
    request.value = (char *)(uintptr_t)(equals + 1);
    json_t *item = NULL;
    mr_status status = job_ask(client, "Set", &request.base, false, &item);
    mr_free(key);
    MR_TRY(status);
    return job_print(client, item);
}

/* Follows to the end, with or without its steps. */
static mr_status job_follow(mr_job_run *run, mr_progress *progress) {
    MR_TRY(mr_job_run_follow(run, run->client->invocation->arguments[0]));
    while (!mr_job_run_over(run)) {
        mr_event event;
        const Millrace__V1__StepResult *step = NULL;
        if (!mr_job_run_next(run, &event, &step))
            continue;
        if (step != NULL && progress != NULL)
            mr_progress_step(progress, step, run->watch.total_steps);
        mr_event_deinit(&event);
    }
    return mr_job_run_result(run);
}

/* The job's last state on stdout, in the form asked for. */
static mr_status job_print_end(const mr_job_run *run, bool steps_printed) {
    mr_client *client = run->client;
    if (run->interrupted)
        return MR_OK;
    if (client->output == MR_OUTPUT_TABLE)
        puts(mr_watch_state_name(run->watch.state));
    else if (client->output == MR_OUTPUT_NAME)
        puts(run->watch.job_id);
    else if (!steps_printed || client->output == MR_OUTPUT_JSON)
        return job_call(client, "Get", run->watch.job_id, false);
    return MR_OK;
}

mr_status mr_command_job_watch(mr_client *client) {
    mr_job_run run;
    mr_progress progress = {.client = client};
    mr_status status = mr_job_run_init(&run, client);
    if (mr_status_is_ok(status))
        status = job_follow(&run, &progress);
    if (mr_status_is_ok(status))
        status = job_print_end(&run, true);
    mr_job_run_deinit(&run);
    return status;
}

mr_status mr_command_job_wait(mr_client *client) {
    mr_job_run run;
    mr_status status = mr_job_run_init(&run, client);
    if (mr_invocation_given(client->invocation, "within"))
        run.within_ms = mr_clock_now_ms() +
                        (int64_t)(mr_invocation_number(client->invocation, "within") * 1000);
    if (mr_status_is_ok(status))
        status = job_follow(&run, NULL);
    if (mr_status_is_ok(status))
        status = job_print_end(&run, false);
    mr_job_run_deinit(&run);
    return status;
}
