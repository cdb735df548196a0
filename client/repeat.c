/* SPDX-License-Identifier: Apache-2.0 */
#include "client/repeat.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "client/interrupt.h"
#include "client/render.h"
#include "client/terminal.h"
#include "client/watch.h"
#include "daemon/base/clock.h"

#define REPEAT_HOME "\033[H\033[2J"

typedef struct repeat {
    mr_client *client;
    mr_repeat_fetch fetch;
    mr_repeat_print print;
    bool screen;     /* drawn anew in place */
    int64_t lost_ms; /* since when the coordinator is away; 0: it is not */
    json_t *before;  /* the last answer, without its ages; NULL: none */
} repeat;

/* A deep copy without what changes by itself. */
static json_t *repeat_steady(const json_t *value) {
    json_t *copy = json_deep_copy(value);
    json_t *child;
    size_t index;
    const char *key;
    void *next;
    if (json_is_array(copy)) {
        json_array_foreach (copy, index, child)
            (void)json_array_set_new(copy, index, repeat_steady(child));
    } else if (json_is_object(copy)) {
        (void)json_object_del(copy, "heartbeat_age_ms");
        json_object_foreach_safe (copy, next, key, child)
            (void)json_object_set_new(copy, key, repeat_steady(child));
    }
    return copy;
}

static bool repeat_array_has(const json_t *array, const json_t *value) {
    for (size_t i = 0; i < json_array_size(array); i++) {
        if (json_equal(json_array_get(array, i), value))
            return true;
    }
    return false;
}

/* Of an array the objects that were not there as they are now. */
static json_t *repeat_changed(const repeat *self, json_t *owned_value, const json_t *steady) {
    bool whole = self->client->output == MR_OUTPUT_TABLE || self->client->output == MR_OUTPUT_JSON;
    if (whole || !json_is_array(owned_value) || self->before == NULL)
        return owned_value;
    json_t *changed = json_array();
    for (size_t i = 0; i < json_array_size(owned_value); i++) {
        if (!repeat_array_has(self->before, json_array_get(steady, i)))
            (void)json_array_append(changed, json_array_get(owned_value, i));
    }
    json_decref(owned_value);
    return changed;
}

static mr_status repeat_show(repeat *self, json_t *owned_value) {
    json_t *steady = repeat_steady(owned_value);
    bool first = self->before == NULL;
    if (!self->screen && !first && json_equal(steady, self->before)) {
        json_decref(steady);
        json_decref(owned_value);
        return MR_OK;
    }
    if (self->screen) {
        char now[32];
        mr_render_time((int64_t)time(NULL) * 1000, now, sizeof(now));
        printf(REPEAT_HOME "%s, each %s s; Ctrl-C ends\n\n", now,
               mr_invocation_text(self->client->invocation, "interval"));
    } else if (!first && self->client->output == MR_OUTPUT_TABLE) {
        putchar('\n');
    }
    owned_value = repeat_changed(self, owned_value, steady);
    json_decref(self->before);
    self->before = steady;
    MR_TRY(self->print(self->client, owned_value));
    if (fflush(stdout) != 0)
        return MR_ERROR(UNKNOWN, "stdout does not take what is watched");
    return MR_OK;
}

static mr_status repeat_once(repeat *self) {
    json_t *value = NULL;
    mr_status status = self->fetch(self->client, &value);
    if (mr_status_is_ok(status)) {
        self->lost_ms = 0;
        return repeat_show(self, value);
    }
    int64_t now_ms = mr_clock_now_ms();
    if (self->before == NULL || status.code != MR_CODE_UNAVAILABLE)
        return status;
    if (self->lost_ms == 0) {
        mr_client_say(self->client, "%s; trying again", status.text);
        self->lost_ms = now_ms;
    }
    return now_ms - self->lost_ms < MR_WATCH_RETRY_MS ? MR_OK : status;
}

mr_status mr_repeat_run(mr_client *client, mr_repeat_fetch fetch, mr_repeat_print print) {
    if (!mr_invocation_given(client->invocation, "watch")) {
        json_t *value = NULL;
        MR_TRY(fetch(client, &value));
        return print(client, value);
    }
    repeat self = {
        .client = client,
        .fetch = fetch,
        .print = print,
        .screen = client->output == MR_OUTPUT_TABLE && mr_terminal_screen(),
    };
    int64_t interval_ms = (int64_t)(mr_invocation_number(client->invocation, "interval") * 1000);
    mr_interrupt_catch();
    mr_status status = repeat_once(&self);
    while (mr_status_is_ok(status) && !mr_interrupt_wait(interval_ms, -1, NULL))
        status = repeat_once(&self);
    json_decref(self.before);
    if (mr_interrupt_came())
        client->exit_code = MR_EXIT_CODE_INTERRUPTED;
    return mr_interrupt_came() ? MR_OK : status;
}
