/* SPDX-License-Identifier: Apache-2.0 */
/* log.h: one event, one line of JSON on stderr: a constant message and key=value pairs.
 *   MR_LOG(INFO, "stage ready", MR_S("job", name), MR_I("stage", 3), MR_F("seconds", 0.2));
 * gives {"time":"2026-01-01T00:00:00.000Z","level":"info","message":"stage ready","job":"..."}.
 * Where stderr is the journal's (JOURNAL_STREAM, as systemd.exec(5) says), a line begins with the
 * syslog priority of its level, <3> to <7>, which the journal takes off and keeps as PRIORITY:
 * `journalctl -p warning` works, and MESSAGE is the JSON alone.
 * Rate-limited per call site: MR_LOG_BURST lines in a second, then one that counts the rest.
 * Owner: base. Thread: any; a line is written by one write call.
 * Not here: assembling sentences. */
#ifndef MR_BASE_LOG_H
#define MR_BASE_LOG_H

#include <stddef.h>
#include <stdint.h>

typedef enum mr_log_level {
    MR_LOG_DEBUG,
    MR_LOG_INFO,
    MR_LOG_WARN,
    MR_LOG_ERROR,
    MR_LOG_COUNT
} mr_log_level;

enum { MR_LOG_BURST = 50, MR_LOG_LINE_BYTES = 4096 };

/* One pair. kind: 's' string (NULL prints as null), 'i' integer, 'f' double. */
typedef struct mr_log_pair {
    const char *key;
    char kind;
    union {
        const char *s;
        int64_t i;
        double f;
    } value;
} mr_log_pair;

#define MR_S(k, v) ((mr_log_pair){.key = (k), .kind = 's', .value.s = (v)})
#define MR_I(k, v) ((mr_log_pair){.key = (k), .kind = 'i', .value.i = (int64_t)(v)})
#define MR_F(k, v) ((mr_log_pair){.key = (k), .kind = 'f', .value.f = (double)(v)})

/* State of one call site, for the rate limit. */
typedef struct mr_log_site {
    _Atomic int64_t second;
    _Atomic uint32_t count;
} mr_log_site;

#define MR_LOG(level, message, ...)                                                                \
    do {                                                                                           \
        static mr_log_site mr_log_site_;                                                           \
        const mr_log_pair mr_log_pairs_[] = {__VA_ARGS__};                                         \
        mr_log_write(MR_LOG_##level, &mr_log_site_, (message), mr_log_pairs_,                      \
                     sizeof(mr_log_pairs_) / sizeof(mr_log_pairs_[0]));                            \
    } while (0)

/* Lowest level that is written; INFO at start. */
void mr_log_level_set(mr_log_level level);
/* Looks whether stderr is the journal's; before that, and elsewhere, lines have no priority. */
void mr_log_journal_detect(void);
/* A word that every later line carries as "role" (coordinator, stage). Static storage. */
void mr_log_role_set(const char *role);
/* Use MR_LOG. A line over MR_LOG_LINE_BYTES is cut before the first pair that does not fit. */
void mr_log_write(mr_log_level level, mr_log_site *site, const char *message,
                  const mr_log_pair *pairs, size_t pair_count);

#endif
