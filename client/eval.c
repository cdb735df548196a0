/* SPDX-License-Identifier: Apache-2.0 */
/* eval.c: how well a model predicts data: the mean loss of a checkpoint, through the job's
 * pipeline, forward alone. Every step is so many microbatches, as the job or the options say, and
 * has one mean loss; all steps are of one size, so the loss of the whole is the mean of theirs. A
 * step that comes twice, because a stage was lost on the way, has the same bits. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "client/data.h"
#include "client/feeder.h"
#include "client/job_run.h"
#include "client/job_source.h"
#include "client/logit_file.h"
#include "client/nouns.h"
#include "client/render.h"
#include "daemon/base/alloc.h"
#include "daemon/model/yaml_edit.h"

enum { EVAL_OVERRIDES = 3, EVAL_NUMBER_BYTES = 24 };

/* Everything that an evaluation holds. */
typedef struct eval {
    mr_client *client;
    mr_job_file file;
    mr_data *data;
    mr_job_run run;
    mr_feeder *feeder;
    mr_logit_file *logits; /* NULL: not asked for */
    double *losses;        /* [steps] */
    bool *known;           /* [steps] */
    uint64_t steps;
    uint64_t done;
} eval;

/* ---- preparation ----------------------------------------------------------------------------- */

/* The job file with the sizes that the options give, if they give any. */
static mr_status eval_override(eval *e) {
    static const char *const options[EVAL_OVERRIDES][2] = {
        {"micro-batches", "/batch/micro_batches"},
        {"micro-batch-size", "/batch/micro_batch_size"},
        {"sequence-length", "/batch/sequence_length"},
    };
    mr_yaml_change changes[EVAL_OVERRIDES];
    char numbers[EVAL_OVERRIDES][EVAL_NUMBER_BYTES];
    size_t count = 0;
    for (size_t i = 0; i < EVAL_OVERRIDES; i++) {
        if (!mr_invocation_given(e->client->invocation, options[i][0]))
            continue;
        (void)snprintf(numbers[count], EVAL_NUMBER_BYTES, "%" PRId64,
                       mr_invocation_integer(e->client->invocation, options[i][0]));
        changes[count] = (mr_yaml_change){.path = options[i][1], .value = numbers[count]};
        count++;
    }
    if (count == 0)
        return MR_OK;
    char *text = NULL;
    mr_job_file edited = {0};
    MR_TRY(mr_yaml_edit(e->file.text, changes, count, &text));
    mr_status status =
        mr_job_file_copy("with these options", text, e->file.base_directory, &edited);
    mr_free(text);
    mr_job_file_deinit(&e->file);
    e->file = edited;
    return status;
}

/* --data names a file of this user's folder, data.eval one of the job's. */
static mr_status eval_open_data(eval *e) {
    mr_job *job = e->file.job;
    const char *path = mr_invocation_text(e->client->invocation, "data");
    const char *field = path != NULL ? "--data" : "data.eval";
    job->data_shuffle = false;
    if (path == NULL && job->data_eval[0] == '\0') {
        mr_client_say(e->client, "data.eval is not set: data.train is read");
        return mr_data_open(job, e->file.base_directory, &e->data);
    }
    const char *from = path != NULL ? path : job->data_eval;
    if (strlen(from) >= sizeof(job->data_train))
        return MR_ERROR(INVALID_ARGUMENT, "%s has %zu bytes; at most %zu fit", field, strlen(from),
                        sizeof(job->data_train) - 1);
    (void)snprintf(job->data_train, sizeof(job->data_train), "%s", from);
    mr_status status = mr_data_open(job, path != NULL ? "." : e->file.base_directory, &e->data);
    return mr_status_is_ok(status) ? status : mr_status_prefix(status, "%s", field);
}

static mr_status eval_count_steps(eval *e) {
    mr_job *job = e->file.job;
    uint64_t samples = mr_data_samples(e->data);
    uint64_t step = (uint64_t)job->micro_batches * job->micro_batch_size;
    e->steps = samples / step;
    if (e->steps == 0)
        return MR_ERROR(INVALID_ARGUMENT,
                        "the data has %" PRIu64 " samples of %zu tokens; one step takes %" PRIu64
                        ": fewer --micro-batches or a smaller --micro-batch-size would fit",
                        samples, job->sequence_length, step);
    if (mr_invocation_given(e->client->invocation, "steps"))
        e->steps = (uint64_t)mr_invocation_integer(e->client->invocation, "steps");
    job->total_steps = e->steps;
    e->losses = mr_alloc_array(e->steps, sizeof(*e->losses));
    e->known = mr_alloc_array(e->steps, sizeof(*e->known));
    if (e->losses == NULL || e->known == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the losses of %" PRIu64 " steps",
                        e->steps);
    return MR_OK;
}

static mr_status eval_open_logits(eval *e) {
    const char *path = mr_invocation_text(e->client->invocation, "logits");
    const mr_job *job = e->file.job;
    uint32_t vocab = 0;
    if (path == NULL)
        return MR_OK;
    MR_TRY(mr_data_vocabulary(job, &vocab));
    const uint64_t dims[3] = {e->steps * job->micro_batches * job->micro_batch_size,
                              job->sequence_length, vocab};
    return mr_logit_file_create(path, dims, e->steps, &e->logits);
}

static mr_status eval_prepare(eval *e) {
    MR_TRY(mr_job_source_read(e->client, &e->file));
    MR_TRY(eval_override(e));
    mr_job_become(e->file.job, MR_JOB_MODE_EVALUATION);
    MR_TRY(mr_job_check_runnable(e->file.job, MR_JOB_MODE_EVALUATION));
    MR_TRY(eval_open_data(e));
    MR_TRY(eval_count_steps(e));
    return eval_open_logits(e);
}

/* ---- results --------------------------------------------------------------------------------- */

static mr_status eval_take(void *context, uint64_t step, const Millrace__V1__FeedResponse *response,
                           const mr_rpc_tail *tail) {
    eval *e = context;
    if (step >= e->steps)
        return MR_ERROR(INTERNAL, "a result of step %" PRIu64 " came; there are %" PRIu64,
                        step, e->steps);
    if (!isfinite(response->loss))
        return MR_ERROR(OUT_OF_RANGE, "the loss of step %" PRIu64 " is %g: not finite",
                        step + 1, response->loss);
    if (e->logits != NULL)
        MR_TRY(mr_logit_file_write(e->logits, step, tail));
    e->losses[step] = response->loss;
    if (!e->known[step])
        e->done++;
    e->known[step] = true;
    if (e->client->output == MR_OUTPUT_JSONL) {
        printf("{\"step\":%" PRIu64 ",\"loss\":%.9g}\n", step + 1, response->loss);
        fflush(stdout);
    }
    return MR_OK;
}

static double eval_mean(const eval *e) {
    double sum = 0;
    for (uint64_t step = 0; step < e->steps; step++)
        sum += e->losses[step];
    return sum / (double)e->steps;
}

static mr_status eval_print(const eval *e, uint64_t trained) {
    const mr_job *job = e->file.job;
    double loss = eval_mean(e);
    uint64_t samples = e->steps * job->micro_batches * job->micro_batch_size;
    uint64_t tokens = samples * job->sequence_length;
    if (e->client->exit_code != MR_EXIT_CODE_DONE || e->client->output == MR_OUTPUT_NAME)
        return MR_OK; /* interrupted, or the id is printed already */
    if (e->client->output == MR_OUTPUT_TABLE) {
        printf("loss %.6f  perplexity %.4f  on %" PRIu64 " tokens, trained for %" PRIu64
               " steps\n",
               loss, exp(loss), tokens, trained);
        return MR_OK;
    }
    return mr_render_document(
        e->client, "evaluation",
        json_pack("{s:o, s:I, s:f, s:f, s:I, s:I, s:I}", "job",
                  mr_render_string(e->run.watch.job_id), "trained_steps", (json_int_t)trained,
                  "loss", loss, "perplexity", exp(loss), "tokens",
                  (json_int_t)tokens, "samples", (json_int_t)samples, "steps",
                  (json_int_t)e->steps));
}

/* The coordinator knows which checkpoint it took. */
static mr_status eval_print_end(eval *e) {
    ProtobufCMessage *response = NULL;
    Millrace__V1__JobRequest request = MILLRACE__V1__JOB_REQUEST__INIT;
    request.job = e->run.watch.job_id;
    MR_TRY(mr_client_call(e->client, "Get", &request.base, &response));
    mr_status status = eval_print(e, ((Millrace__V1__Job *)response)->start_step);
    protobuf_c_message_free_unpacked(response, NULL);
    return status;
}

/* ---- the run --------------------------------------------------------------------------------- */

static void eval_feed(eval *e) {
    if (e->run.abandoned)
        mr_feeder_stop(e->feeder, true);
    else if (e->done == e->steps || e->run.watch.ended)
        mr_feeder_stop(e->feeder, false);
    else
        mr_job_run_fail(&e->run, mr_feeder_tick(e->feeder, &e->run.watch));
}

static void eval_follow(eval *e) {
    while (!mr_job_run_over(&e->run) || !mr_feeder_idle(e->feeder)) {
        mr_event event;
        const Millrace__V1__StepResult *step = NULL;
        if (mr_job_run_next(&e->run, &event, &step)) {
            if (step == NULL)
                mr_job_run_fail(&e->run, mr_feeder_event(e->feeder, &event));
            mr_event_deinit(&event);
        }
        eval_feed(e);
    }
}

static mr_status eval_run(eval *e) {
    const char *tag = mr_invocation_text(e->client->invocation, "checkpoint");
    MR_TRY(eval_prepare(e));
    const mr_job_run_submit submit = {
        .file = &e->file, .mode = MR_JOB_MODE_EVALUATION, .resume = tag != NULL ? tag : ""};
    const mr_feeder_results results = {
        .wants_logits = e->logits != NULL, .take = eval_take, .context = e};
    MR_TRY(mr_job_run_init(&e->run, e->client));
    MR_TRY(mr_feeder_create(e->client, e->file.job, e->data, e->run.events, &e->feeder));
    mr_feeder_take_results(e->feeder, &results);
    MR_TRY(mr_job_run_start(&e->run, &submit));
    eval_follow(e);
    MR_TRY(mr_job_run_result(&e->run));
    if (e->client->exit_code == MR_EXIT_CODE_DONE && e->done < e->steps)
        return MR_ERROR(UNAVAILABLE, "the job ended after %" PRIu64 " of %" PRIu64 " steps",
                        e->done, e->steps);
    return eval_print_end(e);
}

mr_status mr_command_eval(mr_client *client) {
    eval e = {.client = client};
    mr_status status = eval_run(&e);
    mr_status closed = mr_logit_file_close(e.logits);
    mr_feeder_destroy(e.feeder);
    mr_job_run_deinit(&e.run);
    mr_data_close(e.data);
    mr_job_file_deinit(&e.file);
    mr_free(e.losses);
    mr_free(e.known);
    return mr_status_is_ok(status) ? closed : status;
}
