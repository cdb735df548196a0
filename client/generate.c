/* SPDX-License-Identifier: Apache-2.0 */
/* generate.c: text from a trained model, through its pipeline. An inference job loads a checkpoint;
 * for every new token one microbatch goes through it: row 0 holds the last T tokens so far, padded
 * on the right, which causal attention makes harmless; the other rows are zeros. Back come the
 * scores at the last real position, and the next token is drawn here (sample.h). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/data.h"
#include "client/job_run.h"
#include "client/job_source.h"
#include "client/lane.h"
#include "client/nouns.h"
#include "client/render.h"
#include "client/sample.h"
#include "daemon/base/alloc.h"
#include "daemon/base/clock.h"
#include "daemon/base/limits.h"

enum {
    GENERATE_TEXT_VOCABULARY = 256, /* up to here tokens are bytes */
    GENERATE_PROMPT_TOKENS_MAX = 1 << 20,
    GENERATE_RESULT_TIMEOUT_MS = 2 * MR_STEP_WAIT_TIMEOUT_MS,
};

typedef struct generate {
    mr_client *client;
    mr_job_file file;
    mr_job_run run;
    mr_lane lane;
    mr_sample_settings settings;
    uint32_t vocab;
    /* the text: prompt, then what was drawn */
    int32_t *tokens;
    size_t prompt_count;
    size_t count;
    size_t wanted; /* count at the end */
    /* one microbatch on its way: inputs [B, T] and the position */
    int32_t *batch;
    size_t batch_tokens;
    bool batch_busy;
    float *logits;
    uint32_t *order;
    char job_id[MR_NAME_BYTES];
    uint64_t epoch;
    uint64_t step; /* of the next microbatch */
    bool opened;   /* the feed was asked for */
    int64_t retry_ms;
    int64_t waiting_ms; /* since when a result is awaited; 0: none is */
} generate;

static bool generate_is_text(const generate *g) {
    return g->vocab <= GENERATE_TEXT_VOCABULARY;
}

/* ---- preparation ------------------------------------------------------------------------------
 */

static mr_status generate_add_prompt_token(generate *g, unsigned long token) {
    if (token >= g->vocab)
        return MR_ERROR(INVALID_ARGUMENT,
                        "--prompt: token %zu is %lu; the model's vocabulary ends "
                        "at %u",
                        g->count, token, g->vocab - 1);
    if (g->count == GENERATE_PROMPT_TOKENS_MAX)
        return MR_ERROR(INVALID_ARGUMENT, "--prompt has more than %d tokens",
                        (int)GENERATE_PROMPT_TOKENS_MAX);
    g->tokens[g->count++] = (int32_t)token;
    return MR_OK;
}

/* Bytes are tokens; for a larger vocabulary the prompt is a list of token ids. */
static mr_status generate_read_prompt(generate *g, const char *prompt) {
    if (generate_is_text(g)) {
        for (const char *at = prompt; *at != '\0'; at++)
            MR_TRY(generate_add_prompt_token(g, (unsigned char)*at));
    } else {
        for (const char *at = prompt; at[strspn(at, ", \t\n")] != '\0';) {
            char *end = NULL;
            at += strspn(at, ", \t\n");
            unsigned long token = strtoul(at, &end, 10);
            if (end == at || *at == '-')
                return MR_ERROR(INVALID_ARGUMENT,
                                "--prompt: %.20s is no token id; the model's "
                                "vocabulary of %u needs ids, such as 464,2068",
                                at, g->vocab);
            MR_TRY(generate_add_prompt_token(g, token));
            at = end;
        }
    }
    if (g->count == 0)
        return MR_ERROR(INVALID_ARGUMENT, "--prompt is empty; it must have at least one token");
    return MR_OK;
}

static mr_status generate_allocate(generate *g, const char *prompt) {
    const mr_job *job = g->file.job;
    size_t wanted = (size_t)mr_invocation_integer(g->client->invocation, "tokens");
    g->batch_tokens = job->micro_batch_size * job->sequence_length;
    if (g->batch_tokens >
        (MR_RPC_MESSAGE_BYTES_MAX - MR_RPC_HEADER_BYTES_MAX) / sizeof(int32_t) - 1)
        return MR_ERROR(INVALID_ARGUMENT,
                        "batch.micro_batch_size x batch.sequence_length is %zu; "
                        "it does not fit one message",
                        g->batch_tokens);
    g->tokens = mr_alloc_array(strlen(prompt) + wanted + 1, sizeof(*g->tokens));
    g->batch = mr_alloc_array(g->batch_tokens + 1, sizeof(*g->batch));
    g->logits = mr_alloc_array(g->vocab, sizeof(*g->logits));
    g->order = mr_alloc_array(g->vocab, sizeof(*g->order));
    if (g->tokens == NULL || g->batch == NULL || g->logits == NULL || g->order == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to generate %zu tokens", wanted);
    MR_TRY(generate_read_prompt(g, prompt));
    g->prompt_count = g->count;
    g->wanted = g->count + wanted;
    return MR_OK;
}

static mr_status generate_prepare(generate *g) {
    const mr_invocation *invocation = g->client->invocation;
    MR_TRY(mr_job_source_read(g->client, &g->file));
    MR_TRY(mr_data_vocabulary(g->file.job, &g->vocab));
    g->settings = (mr_sample_settings){
        .temperature = mr_invocation_number(invocation, "temperature"),
        .top_k = (size_t)mr_invocation_integer(invocation, "top-k"),
        .seed = (uint64_t)mr_invocation_integer(invocation, "seed"),
    };
    return generate_allocate(g, mr_invocation_text(invocation, "prompt"));
}

/* ---- output -----------------------------------------------------------------------------------
 */

/* One token on stdout as it comes. On a terminal what does not print is escaped: the text is a
 * machine's and could steer the terminal. */
static void generate_print(const generate *g, int32_t token) {
    if (g->client->output != MR_OUTPUT_TABLE)
        return;
    bool plain = (token >= 0x20 && token < 0x7f) || token == '\n' || token == '\t';
    if (!generate_is_text(g))
        printf("%d ", (int)token);
    else if (plain || isatty(STDOUT_FILENO) != 1)
        putchar((int)token);
    else
        printf("\\x%02x", (unsigned)token);
    fflush(stdout);
}

static json_t *generate_text_json(const generate *g, size_t first, size_t end) {
    if (!generate_is_text(g))
        return json_null();
    char *text = mr_alloc(end - first + 1);
    if (text == NULL)
        return NULL;
    for (size_t i = first; i < end; i++)
        text[i - first] = (char)g->tokens[i];
    json_t *result = mr_render_text(text, end - first);
    mr_free(text);
    return result;
}

static mr_status generate_print_document(const generate *g) {
    json_t *ids = json_array();
    for (size_t i = g->prompt_count; i < g->count; i++)
        (void)json_array_append_new(ids, json_integer(g->tokens[i]));
    return mr_render_document(
        g->client, "generation",
        json_pack("{s:o, s:I, s:I, s:o, s:o, s:f, s:I, s:I}", "job",
                  mr_render_string(g->run.watch.job_id), "step", (json_int_t)g->run.watch.step,
                  "prompt_tokens", (json_int_t)g->prompt_count, "text",
                  generate_text_json(g, g->prompt_count, g->count), "tokens", ids, "temperature",
                  g->settings.temperature, "top_k", (json_int_t)g->settings.top_k, "seed",
                  (json_int_t)g->settings.seed));
}

/* ---- the exchange -----------------------------------------------------------------------------
 */

/* RPC thread: the microbatch's bytes are sent. */
static void generate_batch_sent(void *context) {
    mr_queue *events = context;
    mr_event event = {.kind = MR_EVENT_SENT};
    mr_status status = mr_queue_push(events, &event);
    MR_ASSERT(mr_status_is_ok(status)); /* event.h: the queue has room */
}

/* Sends the last T tokens so far. */
static void generate_send(generate *g) {
    uint64_t B = g->file.job->micro_batch_size;
    uint64_t T = g->file.job->sequence_length;
    size_t n = g->count < T ? g->count : (size_t)T;
    MR_ASSERT(!g->batch_busy);
    memset(g->batch, 0, g->batch_tokens * sizeof(*g->batch));
    memcpy(g->batch, g->tokens + (g->count - n), n * sizeof(*g->batch));
    g->batch[g->batch_tokens] = (int32_t)(n - 1);
    mr_lane_message message = {
        .job_id = g->job_id,
        .epoch = g->epoch,
        .step = g->step++,
        .tensors = {{"inputs", {B, T}}, {"position", {1, 0}}},
        .want_logits = true,
        .raw =
            {
                .data = g->batch,
                .bytes = (g->batch_tokens + 1) * sizeof(*g->batch),
                .sent = generate_batch_sent,
                .context = g->run.events,
            },
    };
    g->batch_busy = true;
    g->waiting_ms = mr_clock_now_ms();
    /* Where the stream is ending, its END says why. */
    if (!mr_status_is_ok(mr_lane_send(&g->lane, &message)))
        mr_lane_cancel(&g->lane);
}

/* Takes the scores, draws a token, prints it and asks for the next one. */
static mr_status generate_take_result(generate *g, const Millrace__V1__FeedResponse *response,
                                      const mr_rpc_tail *tail) {
    if (response->n_tensors != 1 || strcmp(response->tensors[0]->name, "logits") != 0 ||
        mr_rpc_tail_bytes(tail) != g->vocab * sizeof(float))
        return MR_ERROR(INTERNAL,
                        "the stage answered with %zu tensors of %zu bytes; one of %zu, "
                        "named logits, is right",
                        response->n_tensors, mr_rpc_tail_bytes(tail), g->vocab * sizeof(float));
    uint32_t token = 0;
    MR_TRY(mr_rpc_tail_copy(tail, 0, g->vocab * sizeof(float), g->logits));
    MR_TRY(mr_sample_token(&g->settings, g->logits, g->vocab, g->count - g->prompt_count, g->order,
                           &token));
    MR_ASSERT(g->count < g->wanted);
    g->tokens[g->count++] = (int32_t)token;
    g->waiting_ms = 0;
    generate_print(g, (int32_t)token);
    return MR_OK;
}

static mr_status generate_message(generate *g, const mr_event *event) {
    const Millrace__V1__FeedResponse *response = (Millrace__V1__FeedResponse *)event->message;
    if (response->event == MILLRACE__V1__FEED_EVENT__FEED_EVENT_OPEN)
        g->step = response->step;
    else if (response->event == MILLRACE__V1__FEED_EVENT__FEED_EVENT_RESULT)
        MR_TRY(generate_take_result(g, response, event->tail));
    else
        return MR_OK; /* an acknowledgement */
    if (g->count == g->wanted)
        mr_lane_finish(&g->lane);
    else if (!g->batch_busy)
        generate_send(g);
    return MR_OK;
}

static mr_status generate_event(generate *g, const mr_event *event) {
    if (event->kind == MR_EVENT_SENT) {
        g->batch_busy = false;
        /* The result can overtake the news that its question was sent. */
        if (g->waiting_ms == 0 && g->count < g->wanted && mr_lane_is_open(&g->lane) &&
            !g->lane.closing)
            generate_send(g);
        return MR_OK;
    }
    if (event->kind == MR_EVENT_END) {
        mr_lane_close(&g->lane);
        if (g->count == g->wanted || g->run.abandoned)
            return MR_OK;
        if (mr_status_is_ok(event->status))
            return MR_ERROR(UNAVAILABLE, "the first stage ended the feed after %zu tokens",
                            g->count - g->prompt_count);
        return mr_status_prefix(event->status, "the feed ended after %zu tokens",
                                g->count - g->prompt_count);
    }
    MR_TRY(generate_message(g, event));
    mr_rpc_stream_receive(g->lane.stream.stream);
    return MR_OK;
}

static mr_status generate_open_feed(generate *g) {
    ProtobufCMessage *message = NULL;
    Millrace__V1__JobRequest request = MILLRACE__V1__JOB_REQUEST__INIT;
    request.job = g->run.watch.job_id;
    g->retry_ms = mr_clock_now_ms() + MR_JOB_RUN_TICK_MS;
    mr_status status = mr_client_call(g->client, "OpenFeed", &request.base, &message);
    if (status.code == MR_CODE_FAILED_PRECONDITION) /* not yet, or over: the watch tells */
        return MR_OK;
    MR_TRY(status);
    const Millrace__V1__OpenFeedResponse *feed = (Millrace__V1__OpenFeedResponse *)message;
    if (feed->n_addresses < 1 || strlen(feed->job_id) >= sizeof(g->job_id)) {
        status = MR_ERROR(INTERNAL, "the coordinator names no first stage");
    } else {
        memcpy(g->job_id, feed->job_id, strlen(feed->job_id) + 1);
        g->epoch = feed->epoch;
        g->opened = true;
        status = mr_lane_open(&g->lane, g->client, g->run.events, 0, feed->addresses[0]);
    }
    protobuf_c_message_free_unpacked(message, NULL);
    return status;
}

/* What is due between events. */
static mr_status generate_tick(generate *g) {
    int64_t now_ms = mr_clock_now_ms();
    if (g->run.abandoned)
        mr_lane_cancel(&g->lane);
    else if (mr_watch_running(&g->run.watch) && !g->opened && now_ms >= g->retry_ms)
        return generate_open_feed(g);
    if (g->waiting_ms != 0 && now_ms - g->waiting_ms > GENERATE_RESULT_TIMEOUT_MS &&
        mr_lane_is_open(&g->lane) && !g->run.abandoned)
        return MR_ERROR(DEADLINE_EXCEEDED, "no scores for token %zu came within %d s",
                        g->count - g->prompt_count, GENERATE_RESULT_TIMEOUT_MS / 1000);
    return MR_OK;
}

static void generate_follow(generate *g) {
    while (!mr_job_run_over(&g->run) || mr_lane_is_open(&g->lane) || g->batch_busy) {
        mr_event event;
        const Millrace__V1__StepResult *step = NULL;
        if (mr_job_run_next(&g->run, &event, &step)) {
            if (step == NULL)
                mr_job_run_fail(&g->run, generate_event(g, &event));
            mr_event_deinit(&event);
        }
        mr_job_run_fail(&g->run, generate_tick(g));
    }
}

static mr_status generate_run(generate *g) {
    const mr_invocation *invocation = g->client->invocation;
    const char *tag = mr_invocation_text(invocation, "checkpoint");
    MR_TRY(generate_prepare(g));
    mr_job_run_submit submit = {
        .file = &g->file, .mode = MR_JOB_MODE_INFERENCE, .resume = tag ? tag : ""};
    MR_TRY(mr_job_run_init(&g->run, g->client));
    MR_TRY(mr_job_run_start(&g->run, &submit));
    for (size_t i = 0; mr_invocation_given(invocation, "prompt") && i < g->prompt_count; i++)
        generate_print(g, g->tokens[i]);
    generate_follow(g);
    if (g->client->output == MR_OUTPUT_TABLE && g->tokens[g->count - 1] != '\n')
        putchar('\n');
    fflush(stdout);
    MR_TRY(mr_job_run_result(&g->run));
    if (g->client->output == MR_OUTPUT_JSON || g->client->output == MR_OUTPUT_JSONL)
        return generate_print_document(g);
    return MR_OK;
}

mr_status mr_command_generate(mr_client *client) {
    generate g = {.client = client};
    mr_status status = generate_run(&g);
    mr_job_run_deinit(&g.run);
    mr_job_file_deinit(&g.file);
    mr_free(g.tokens);
    mr_free(g.batch);
    mr_free(g.logits);
    mr_free(g.order);
    return status;
}
