/* SPDX-License-Identifier: Apache-2.0 */
/* top.c: the cluster as it is, on a screen that is drawn anew each --interval seconds: coordinator,
 * jobs that run or wait, stages with what they do. Whole lines only, cut to the screen; the screen
 * before comes back at the end. Keys: q ends it, any other draws at once. Without a terminal, or
 * with another output than the table, it prints once.
 * One question to the coordinator at a time, each bounded by --timeout; what it last said stays on
 * the screen while it does not answer. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "client/interrupt.h"
#include "client/job_view.h"
#include "client/nouns.h"
#include "client/roster.h"
#include "client/terminal.h"

#define TOP_ENTER "\033[?1049h\033[?25l"
#define TOP_LEAVE "\033[?25h\033[?1049l"
#define TOP_HOME "\033[H"
#define TOP_LINE_END "\033[K\n"
#define TOP_REST "\033[J"

enum { TOP_LINE_BYTES = 512, TOP_BAR = 10 };

typedef struct top {
    mr_client *client;
    json_t *coordinator; /* NULL until the first answer */
    json_t *jobs;
    json_t *members;
    char trouble[MR_STATUS_TEXT_BYTES]; /* "": the coordinator answers */
    size_t columns;
    size_t rows;
    size_t row; /* lines drawn so far */
} top;

/* ---- asking ---------------------------------------------------------------------------------- */

static mr_status top_ask(top *self) {
    json_t *coordinator = NULL;
    json_t *jobs = NULL;
    json_t *members = NULL;
    mr_status status = mr_roster_coordinator(self->client, &coordinator);
    if (mr_status_is_ok(status))
        status = mr_roster_jobs(self->client, &jobs);
    if (mr_status_is_ok(status))
        status = mr_roster_members(self->client, &members);
    if (!mr_status_is_ok(status)) {
        json_decref(coordinator);
        json_decref(jobs);
        json_decref(members);
        return status;
    }
    json_decref(self->coordinator);
    json_decref(self->jobs);
    json_decref(self->members);
    self->coordinator = coordinator;
    self->jobs = jobs;
    self->members = members;
    return MR_OK;
}

static const char *top_text(const json_t *item, const char *key) {
    const char *text = json_string_value(json_object_get(item, key));
    return text ? text : "-";
}

static long long top_integer(const json_t *item, const char *key) {
    return json_integer_value(json_object_get(item, key));
}

static bool top_job_is_over(const json_t *job) {
    return top_integer(job, "ended_ms") > 0;
}

/* ---- drawing --------------------------------------------------------------------------------- */

/* One line of the screen, cut to it; below the last there is none. */
static void top_line(top *self, const char *format, ...) MR_PRINTF(2, 3);
static void top_line(top *self, const char *format, ...) {
    char text[TOP_LINE_BYTES];
    char clean[TOP_LINE_BYTES];
    va_list arguments;
    if (self->row + 1 >= self->rows)
        return;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    MR_ASSERT(length >= 0);
    mr_terminal_clean(text, clean, sizeof(clean));
    size_t letters = 0;
    size_t at = 0;
    for (; clean[at] != '\0'; at++) {
        letters += ((unsigned char)clean[at] & 0xc0u) != 0x80u;
        if (letters > self->columns)
            break;
    }
    clean[at] = '\0';
    printf("%s" TOP_LINE_END, clean);
    self->row++;
}

/* "[#####-----]" for a share. */
static const char *top_bar(double share, char out[TOP_BAR + 3]) {
    size_t full = (size_t)((share < 0 ? 0 : share > 1 ? 1 : share) * TOP_BAR + 0.5);
    out[0] = '[';
    for (size_t i = 0; i < TOP_BAR; i++)
        out[i + 1] = i < full ? '#' : '-';
    out[TOP_BAR + 1] = ']';
    out[TOP_BAR + 2] = '\0';
    return out;
}

static void top_draw_job(top *self, const json_t *job) {
    char bar[TOP_BAR + 3];
    char rate[32];
    long long step = top_integer(job, "step");
    long long total = top_integer(job, "total_steps");
    double speed = json_real_value(json_object_get(job, "tokens_per_second"));
    mr_render_count(speed, rate, sizeof(rate));
    top_line(self, "%s %s %s %s %lld/%lld  loss %.4f  %s tok/s  bubble %.0f%%",
             top_text(job, "id"), top_text(job, "name"), top_text(job, "state"),
             top_bar(total > 0 ? (double)step / (double)total : 0, bar), step, total,
             json_real_value(json_object_get(job, "loss")), rate,
             json_real_value(json_object_get(job, "bubble")) * 100);
    if (json_is_string(json_object_get(job, "reason")))
        top_line(self, "  %s", top_text(job, "reason"));
}

static void top_draw_jobs(top *self) {
    size_t over = 0;
    for (size_t i = 0; i < json_array_size(self->jobs); i++) {
        const json_t *job = json_array_get(self->jobs, i);
        if (top_job_is_over(job))
            over++;
        else
            top_draw_job(self, job);
    }
    top_line(self, "%zu %s ended", over, over == 1 ? "job has" : "jobs have");
}

static void top_draw_members(top *self) {
    top_line(self, "%-8s %-8s %-10s %-10s %5s %10s  %s", "STAGE", "DEVICE", "STATE", "JOB", "RANK",
             "HEARTBEAT", "ADDRESS");
    for (size_t i = 0; i < json_array_size(self->members); i++) {
        const json_t *member = json_array_get(self->members, i);
        const json_t *rank = json_object_get(member, "rank");
        char number[24] = "-";
        if (json_is_integer(rank))
            snprintf(number, sizeof(number), "%lld", json_integer_value(rank));
        top_line(self, "%-8s %-8s %-10s %-10s %5s %8.1f s  %s", top_text(member, "id"),
                 top_text(member, "device"), top_text(member, "state"), top_text(member, "job_id"),
                 number, (double)top_integer(member, "heartbeat_age_ms") / 1000,
                 top_text(member, "address"));
    }
}

static void top_draw(top *self) {
    char now[32];
    mr_render_time((int64_t)time(NULL) * 1000, now, sizeof(now));
    self->columns = mr_terminal_columns();
    self->rows = mr_terminal_rows();
    self->row = 0;
    fputs(TOP_HOME, stdout);
    top_line(self, "millrace top  %s  %s  q ends", top_text(self->coordinator, "address"), now);
    if (self->trouble[0] != '\0')
        top_line(self, "%s", self->trouble);
    else
        top_line(self, "%lld stages, %lld idle; %lld jobs running, %lld queued",
                 top_integer(self->coordinator, "members"),
                 top_integer(self->coordinator, "members_idle"),
                 top_integer(self->coordinator, "jobs_running"),
                 top_integer(self->coordinator, "jobs_queued"));
    top_line(self, "%s", "");
    top_draw_jobs(self);
    top_line(self, "%s", "");
    top_draw_members(self);
    fputs(TOP_REST, stdout);
    fflush(stdout);
}

/* ---- the screen ------------------------------------------------------------------------------ */

/* Keys come at once and unseen; Ctrl-C stays a signal. False: stdin is no terminal, keys are not
 * read. */
static bool top_keys(struct termios *out_before) {
    if (tcgetattr(STDIN_FILENO, out_before) != 0)
        return false;
    struct termios keys = *out_before;
    keys.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    return tcsetattr(STDIN_FILENO, TCSAFLUSH, &keys) == 0;
}

/* True: the key is the one that ends it, or there will be no more. */
static bool top_key_ends(void) {
    char key = 'q';
    ssize_t got = read(STDIN_FILENO, &key, 1);
    return got != 1 || key == 'q' || key == 'Q' || key == 4;
}

static mr_status top_watch(top *self) {
    struct termios before;
    bool keys = top_keys(&before);
    int64_t interval_ms =
        (int64_t)(mr_invocation_number(self->client->invocation, "interval") * 1000);
    bool ended = false;
    fputs(TOP_ENTER, stdout);
    while (!ended) {
        bool key = false;
        top_draw(self);
        ended = mr_interrupt_wait(interval_ms, keys ? STDIN_FILENO : -1, &key);
        ended = ended || (key && top_key_ends());
        if (ended)
            break;
        mr_status status = top_ask(self);
        snprintf(self->trouble, sizeof(self->trouble), "%s", status.text);
    }
    fputs(TOP_LEAVE, stdout);
    fflush(stdout);
    if (keys)
        (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &before); /* it was good before */
    if (mr_interrupt_came())
        self->client->exit_code = MR_EXIT_CODE_INTERRUPTED;
    return MR_OK;
}

/* ---- once ------------------------------------------------------------------------------------ */

static mr_status top_print(const top *self) {
    const mr_client *client = self->client;
    json_t *jobs = json_array();
    for (size_t i = 0; i < json_array_size(self->jobs); i++) {
        if (!top_job_is_over(json_array_get(self->jobs, i)))
            (void)json_array_append(jobs, json_array_get(self->jobs, i));
    }
    if (client->output != MR_OUTPUT_TABLE) {
        json_t *whole = json_pack("{s:O, s:o, s:O}", "coordinator", self->coordinator, "jobs", jobs,
                                  "stages", self->members);
        if (client->output != MR_OUTPUT_NAME)
            return mr_render_document(client, "top", whole);
        puts(top_text(self->coordinator, "address"));
        json_decref(whole);
        return MR_OK;
    }
    mr_render_rows(client, &mr_job_list_view, jobs);
    if (json_array_size(jobs) > 0 && json_array_size(self->members) > 0)
        putchar('\n');
    mr_render_rows(client, &mr_member_view, self->members);
    json_decref(jobs);
    return MR_OK;
}

mr_status mr_command_top(mr_client *client) {
    top self = {.client = client};
    const bool live = client->output == MR_OUTPUT_TABLE && mr_terminal_screen();
    if (live)
        mr_interrupt_catch();
    mr_status status = top_ask(&self);
    if (mr_status_is_ok(status))
        status = live ? top_watch(&self) : top_print(&self);
    json_decref(self.coordinator);
    json_decref(self.jobs);
    json_decref(self.members);
    return status;
}
