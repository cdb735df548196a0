/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/base/log.h"

#include <math.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "daemon/base/clock.h"

/* A line under construction; ok turns false when something did not fit. */
typedef struct log_line {
    char text[MR_LOG_LINE_BYTES];
    size_t used;
    bool ok;
} log_line;

static _Atomic mr_log_level log_level_min = MR_LOG_INFO;
static const char *_Atomic log_role = NULL;
static _Atomic bool log_journal = false;
static const char *const log_level_names[MR_LOG_COUNT] = {"debug", "info", "warn", "error"};

void mr_log_level_set(mr_log_level level) {
    atomic_store(&log_level_min, level);
}

/* A daemon's stderr may be sent elsewhere while the variable is inherited, so the stream that it
 * names must be ours. */
void mr_log_journal_detect(void) {
    const char *stream = getenv("JOURNAL_STREAM");
    uintmax_t device = 0;
    uintmax_t inode = 0;
    struct stat facts;
    bool named = stream != NULL && sscanf(stream, "%ju:%ju", &device, &inode) == 2;
    atomic_store(&log_journal, named && fstat(STDERR_FILENO, &facts) == 0 &&
                                   facts.st_dev == device && facts.st_ino == inode);
}

void mr_log_role_set(const char *role) {
    atomic_store(&log_role, role);
}

/* Keeps room for the closing brace and newline. */
static void line_append(log_line *line, const char *text, size_t bytes) {
    if (!line->ok || line->used + bytes + 2 > sizeof(line->text)) {
        line->ok = false;
        return;
    }
    memcpy(line->text + line->used, text, bytes);
    line->used += bytes;
}

static void line_append_string(log_line *line, const char *text) {
    if (text == NULL) {
        line_append(line, "null", 4);
        return;
    }
    line_append(line, "\"", 1);
    for (const char *c = text; *c != 0 && line->ok; c++) {
        if (*c == '"' || *c == '\\') {
            line_append(line, "\\", 1);
            line_append(line, c, 1);
        } else if ((unsigned char)*c < 0x20) {
            char escape[8];
            int n = snprintf(escape, sizeof(escape), "\\u%04x", (unsigned)*c);
            line_append(line, escape, (size_t)n);
        } else {
            line_append(line, c, 1);
        }
    }
    line_append(line, "\"", 1);
}

/* JSON knows no infinity and no NaN; they are written as strings. */
static void line_append_number(log_line *line, double value) {
    char text[40];
    const char *format = isfinite(value) ? "%.9g" : "\"%f\"";
    int n = snprintf(text, sizeof(text), format, value);
    line_append(line, text, (size_t)n);
}

static void line_append_pair(log_line *line, const mr_log_pair *pair) {
    size_t before = line->used;
    line_append(line, ",", 1);
    line_append_string(line, pair->key);
    line_append(line, ":", 1);
    if (pair->kind == 's') {
        line_append_string(line, pair->value.s);
    } else if (pair->kind == 'f') {
        line_append_number(line, pair->value.f);
    } else {
        char text[24];
        int n = snprintf(text, sizeof(text), "%lld", (long long)pair->value.i);
        line_append(line, text, (size_t)n);
    }
    if (!line->ok)
        line->used = before;
}

static void line_append_head(log_line *line, mr_log_level level, const char *message) {
    static const char *const priorities[MR_LOG_COUNT] = {"<7>", "<6>", "<4>", "<3>"};
    int64_t wall_ms = mr_clock_wall_ms();
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm utc;
    char head[96];
    (void)gmtime_r(&seconds, &utc); /* cannot fail for the present */
    int n = snprintf(head, sizeof(head),
                     "{\"time\":\"%04d-%02d-%02dT%02d:%02d:%02d.%03dZ\",\"level\":\"%s\","
                     "\"message\":",
                     utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min,
                     utc.tm_sec, (int)(wall_ms % 1000), log_level_names[level]);
    if (atomic_load(&log_journal))
        line_append(line, priorities[level], 3);
    line_append(line, head, (size_t)n < sizeof(head) ? (size_t)n : sizeof(head) - 1);
    line_append_string(line, message);
    const char *role = atomic_load(&log_role);
    if (role != NULL)
        line_append_pair(line, &MR_S("role", role));
}

/* Counts the line at its site; false when the site has used up this second's burst. held is how
 * many lines the site held back in an earlier second. */
static bool site_admit(mr_log_site *site, uint32_t *out_held) {
    int64_t second = mr_clock_now_ms() / 1000;
    *out_held = 0;
    if (atomic_exchange(&site->second, second) != second) {
        uint32_t count = atomic_exchange(&site->count, 0);
        *out_held = count > MR_LOG_BURST ? count - MR_LOG_BURST : 0;
    }
    return atomic_fetch_add(&site->count, 1) < MR_LOG_BURST;
}

void mr_log_write(mr_log_level level, mr_log_site *site, const char *message,
                  const mr_log_pair *pairs, size_t pair_count) {
    uint32_t held;
    if (level < atomic_load(&log_level_min) || !site_admit(site, &held))
        return;
    log_line line = {.ok = true};
    line_append_head(&line, level, message);
    for (size_t i = 0; i < pair_count && line.ok; i++)
        line_append_pair(&line, &pairs[i]);
    if (held > 0)
        line_append_pair(&line, &MR_I("held_back", held));
    line.text[line.used++] = '}';
    line.text[line.used++] = '\n';
    ssize_t written = write(STDERR_FILENO, line.text, line.used);
    (void)written; /* there is nowhere to report a broken stderr */
}
