/* SPDX-License-Identifier: Apache-2.0 */
/* One table of jobs, one of their changes, one of single numbers. All statements are prepared once.
 * A job is written by one transaction, so facts and history never disagree. */
#include "daemon/coordinator/store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sqlite3.h>

#include "daemon/base/alloc.h"
#include "daemon/base/fault.h"

enum { STORE_SCHEMA = 4, STORE_SCHEMA_MADE = 2, STORE_BUSY_MS = 1000 };

typedef enum store_statement {
    STORE_BEGIN,
    STORE_COMMIT,
    STORE_ROLLBACK,
    STORE_PUT,
    STORE_APPEND,
    STORE_LOAD,
    STORE_HISTORY,
    STORE_STATEMENT_COUNT
} store_statement;

#define STORE_JOB_COLUMNS                                                                          \
    "number, id, name, mode, state, reason, epoch, step, start_step, total_steps, loss, "     \
    "gradient_norm, learning_rate, tokens, tokens_per_second, bubble, step_seconds, created_ms, "  \
    "started_ms, ended_ms, checkpoint_tag, checkpoint_path, request_id, job_file, base_directory, "\
    "profile, predicted_step_seconds, predicted_bubble, load_note"

static const char *const store_texts[STORE_STATEMENT_COUNT] = {
    [STORE_BEGIN] = "BEGIN IMMEDIATE",
    [STORE_COMMIT] = "COMMIT",
    [STORE_ROLLBACK] = "ROLLBACK",
    [STORE_PUT] = "INSERT OR REPLACE INTO jobs (" STORE_JOB_COLUMNS ") VALUES "
                  "(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
    /* Only where it differs from the newest change. */
    [STORE_APPEND] =
        "INSERT INTO changes (job, sequence, at_ms, state, epoch, step, reason) "
        "SELECT ?1, (SELECT 1 + coalesce(max(sequence), 0) FROM changes WHERE job = ?1), "
        "?2, ?3, ?4, ?5, ?6 WHERE NOT EXISTS (SELECT 1 FROM changes WHERE job = ?1 AND "
        "state = ?3 AND reason = ?6 AND "
        "sequence = (SELECT max(sequence) FROM changes WHERE job = ?1))",
    [STORE_LOAD] = "SELECT " STORE_JOB_COLUMNS " FROM (SELECT * FROM jobs "
                   "ORDER BY state >= 7, number DESC LIMIT ?) ORDER BY number",
    [STORE_HISTORY] = "SELECT at_ms, state, epoch, step, changes.reason FROM changes "
                      "WHERE job = (SELECT number FROM jobs WHERE id = ?) ORDER BY sequence",
};

static const char store_schema[] =
    "CREATE TABLE jobs (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, "
    "mode INTEGER NOT NULL, state INTEGER NOT NULL, reason TEXT NOT NULL, "
    "epoch INTEGER NOT NULL, step INTEGER NOT NULL, start_step INTEGER NOT NULL, "
    "total_steps INTEGER NOT NULL, loss REAL, gradient_norm REAL, learning_rate REAL, "
    "tokens INTEGER NOT NULL, tokens_per_second REAL, bubble REAL, step_seconds REAL, "
    "created_ms INTEGER NOT NULL, started_ms INTEGER NOT NULL, ended_ms INTEGER NOT NULL, "
    "checkpoint_tag TEXT NOT NULL, checkpoint_path TEXT NOT NULL, request_id TEXT NOT NULL, "
    "job_file TEXT NOT NULL, base_directory TEXT NOT NULL);"
    "CREATE TABLE changes (job INTEGER NOT NULL, sequence INTEGER NOT NULL, "
    "at_ms INTEGER NOT NULL, state INTEGER NOT NULL, epoch INTEGER NOT NULL, "
    "step INTEGER NOT NULL, reason TEXT NOT NULL, "
    "PRIMARY KEY (job, sequence)) WITHOUT ROWID;"
    "CREATE TABLE numbers (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;"
    "INSERT INTO numbers VALUES ('term', 0);"
    "PRAGMA user_version = 2;";
/* store_updates[s] makes schema s + 1 of schema s; the text above makes STORE_SCHEMA_MADE of an
 * empty file. */
static const char *const store_updates[STORE_SCHEMA] = {
    [1] = "ALTER TABLE jobs RENAME COLUMN inference TO mode; PRAGMA user_version = 2;",
    [2] = "ALTER TABLE jobs ADD COLUMN profile TEXT NOT NULL DEFAULT '';"
          "ALTER TABLE jobs ADD COLUMN predicted_step_seconds REAL NOT NULL DEFAULT 0;"
          "ALTER TABLE jobs ADD COLUMN predicted_bubble REAL NOT NULL DEFAULT 0;"
          "PRAGMA user_version = 3;",
    [3] = "ALTER TABLE jobs ADD COLUMN load_note TEXT NOT NULL DEFAULT '';"
          "PRAGMA user_version = 4;",
};
static_assert(MR_JOB_SUCCEEDED == 7, "the texts above know the first final state");

struct mr_store {
    char dir[PATH_MAX];
    int lock;
    sqlite3 *database;
    sqlite3_stmt *statements[STORE_STATEMENT_COUNT];
    uint64_t term;
};

/* What SQLite says, as a status. */
static mr_status store_error(const mr_store *store, const char *doing) {
    int code = sqlite3_errcode(store->database) & 0xff;
    const char *text = sqlite3_errmsg(store->database);
    switch (code) {
    case SQLITE_FULL:
        return MR_ERROR(RESOURCE_EXHAUSTED, "%s in %.120s: no space left", doing, store->dir);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return MR_ERROR(DATA_LOSS, "%s in %.120s: state.sqlite is damaged: %s", doing, store->dir,
                        text);
    case SQLITE_PERM:
    case SQLITE_READONLY:
    case SQLITE_AUTH:
    case SQLITE_CANTOPEN:
        return MR_ERROR(PERMISSION_DENIED, "%s in %.120s: %s", doing, store->dir, text);
    default:
        return MR_ERROR(UNAVAILABLE, "%s in %.120s: %s", doing, store->dir, text);
    }
}

/* ---- open ------------------------------------------------------------------------------------ */

static mr_status store_folder(const mr_store *store) {
    if (mkdir(store->dir, 0700) == 0)
        return MR_OK;
    struct stat found;
    if (errno == EEXIST && stat(store->dir, &found) == 0 && S_ISDIR(found.st_mode))
        return MR_OK;
    return MR_ERROR(PERMISSION_DENIED, "the state folder %.150s cannot be made: %s", store->dir,
                    strerror(errno));
}

/* The lock belongs to the open file, not to the process: a second opening here is refused too. */
static mr_status store_take_lock(mr_store *store) {
    char path[PATH_MAX + 8];
    (void)snprintf(path, sizeof(path), "%s/lock", store->dir); /* dir was checked to fit */
    store->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (store->lock < 0)
        return MR_ERROR(PERMISSION_DENIED, "%.150s cannot be opened: %s", path, strerror(errno));
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(store->lock, F_OFD_SETLK, &lock) != 0)
        return MR_ERROR(FAILED_PRECONDITION,
                        "the state folder %.150s is in use by another coordinator", store->dir);
    return MR_OK;
}

static mr_status store_execute(mr_store *store, const char *text, const char *doing) {
    if (sqlite3_exec(store->database, text, NULL, NULL, NULL) != SQLITE_OK)
        return store_error(store, doing);
    return MR_OK;
}

/* One number that a statement gives. */
static mr_status store_number(mr_store *store, const char *text, int64_t *out_number) {
    sqlite3_stmt *statement = NULL;
    mr_status status = MR_OK;
    if (sqlite3_prepare_v2(store->database, text, -1, &statement, NULL) != SQLITE_OK)
        return store_error(store, "reading");
    if (sqlite3_step(statement) == SQLITE_ROW)
        *out_number = sqlite3_column_int64(statement, 0);
    else
        status = store_error(store, "reading");
    (void)sqlite3_finalize(statement); /* repeats the error above */
    return status;
}

static mr_status store_open_database(mr_store *store) {
    char path[PATH_MAX + 16];
    (void)snprintf(path, sizeof(path), "%s/state.sqlite", store->dir); /* dir was checked to fit */
    mode_t mask = umask(0077);
    int opened = sqlite3_open_v2(path, &store->database,
                                 SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX |
                                     SQLITE_OPEN_NOFOLLOW,
                                 NULL);
    (void)umask(mask);
    if (store->database == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the store");
    if (opened != SQLITE_OK)
        return store_error(store, "opening");
    (void)sqlite3_busy_timeout(store->database, STORE_BUSY_MS); /* somebody looks with a tool */
    MR_TRY(store_execute(store, "PRAGMA journal_mode = WAL", "opening"));
    MR_TRY(store_execute(store, "PRAGMA synchronous = FULL", "opening"));
    int64_t schema = 0;
    MR_TRY(store_number(store, "PRAGMA user_version", &schema));
    if (schema > STORE_SCHEMA)
        return MR_ERROR(FAILED_PRECONDITION,
                        "%.120s/state.sqlite has schema %lld; this version knows %d", store->dir,
                        (long long)schema, STORE_SCHEMA);
    while (schema < STORE_SCHEMA) {
        const char *text = schema == 0 ? store_schema : store_updates[schema];
        MR_TRY(store_execute(store, "BEGIN IMMEDIATE", "making the tables"));
        MR_TRY(store_execute(store, text, "making the tables"));
        MR_TRY(store_execute(store, "COMMIT", "making the tables"));
        schema = schema == 0 ? STORE_SCHEMA_MADE : schema + 1;
    }
    MR_TRY(store_execute(store, "UPDATE numbers SET value = value + 1 WHERE name = 'term'",
                         "beginning a term"));
    int64_t term = 0;
    MR_TRY(store_number(store, "SELECT value FROM numbers WHERE name = 'term'", &term));
    store->term = (uint64_t)term;
    return MR_OK;
}

static mr_status store_prepare(mr_store *store) {
    for (size_t i = 0; i < STORE_STATEMENT_COUNT; i++)
        if (sqlite3_prepare_v3(store->database, store_texts[i], -1, SQLITE_PREPARE_PERSISTENT,
                               &store->statements[i], NULL) != SQLITE_OK)
            return store_error(store, "preparing");
    return MR_OK;
}

mr_status mr_store_open(const char *dir, mr_store **out_store) {
    if (dir == NULL || dir[0] == '\0' || strlen(dir) >= PATH_MAX)
        return MR_ERROR(INVALID_ARGUMENT, "the state folder's name is empty or too long");
    mr_store *store = mr_alloc(sizeof(*store));
    if (store == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the store");
    store->lock = -1;
    (void)snprintf(store->dir, sizeof(store->dir), "%s", dir); /* checked */
    mr_status status = store_folder(store);
    if (mr_status_is_ok(status))
        status = store_take_lock(store);
    if (mr_status_is_ok(status))
        status = store_open_database(store);
    if (mr_status_is_ok(status))
        status = store_prepare(store);
    if (!mr_status_is_ok(status)) {
        mr_store_close(store);
        return status;
    }
    *out_store = store;
    return MR_OK;
}

void mr_store_close(mr_store *store) {
    if (store == NULL)
        return;
    for (size_t i = 0; i < STORE_STATEMENT_COUNT; i++)
        (void)sqlite3_finalize(store->statements[i]); /* repeats an error that was reported */
    (void)sqlite3_close(store->database);             /* every statement is finalized */
    if (store->lock >= 0)
        (void)close(store->lock); /* nothing was written through it */
    mr_free(store);
}

uint64_t mr_store_term(const mr_store *store) {
    return store->term;
}

/* ---- write ----------------------------------------------------------------------------------- */

/* Binds the statement's parameters one after the other. Numbers of ours fit 63 bits. */
typedef struct store_binder {
    sqlite3_stmt *statement;
    int index;
    bool failed;
} store_binder;

static void bind_number(store_binder *binder, uint64_t value) {
    if (sqlite3_bind_int64(binder->statement, ++binder->index, (sqlite3_int64)value) != SQLITE_OK)
        binder->failed = true;
}

static void bind_real(store_binder *binder, double value) {
    if (sqlite3_bind_double(binder->statement, ++binder->index, value) != SQLITE_OK)
        binder->failed = true;
}

static void bind_text(store_binder *binder, const char *value) {
    if (sqlite3_bind_text(binder->statement, ++binder->index, value, -1, SQLITE_STATIC) !=
        SQLITE_OK)
        binder->failed = true;
}

/* Runs a statement that gives no rows. */
static mr_status store_run(mr_store *store, store_statement which, const char *doing) {
    sqlite3_stmt *statement = store->statements[which];
    mr_status status = MR_OK;
    if (sqlite3_step(statement) != SQLITE_DONE)
        status = store_error(store, doing);
    (void)sqlite3_reset(statement); /* repeats the error above */
    (void)sqlite3_clear_bindings(statement);
    return status;
}

static mr_status store_put_facts(mr_store *store, const mr_store_job *job) {
    const mr_job_facts *facts = &job->facts;
    store_binder binder = {.statement = store->statements[STORE_PUT]};
    bind_number(&binder, facts->number);
    bind_text(&binder, facts->id);
    bind_text(&binder, facts->name);
    bind_number(&binder, (uint64_t)facts->mode);
    bind_number(&binder, (uint64_t)facts->state);
    bind_text(&binder, facts->reason);
    bind_number(&binder, facts->epoch);
    bind_number(&binder, facts->step);
    bind_number(&binder, facts->start_step);
    bind_number(&binder, facts->total_steps);
    bind_real(&binder, facts->result.loss);
    bind_real(&binder, facts->result.gradient_norm);
    bind_real(&binder, facts->result.learning_rate);
    bind_number(&binder, facts->result.tokens);
    bind_real(&binder, facts->result.tokens_per_second);
    bind_real(&binder, facts->result.bubble);
    bind_real(&binder, facts->result.step_seconds);
    bind_number(&binder, (uint64_t)facts->created_ms);
    bind_number(&binder, (uint64_t)facts->started_ms);
    bind_number(&binder, (uint64_t)facts->ended_ms);
    bind_text(&binder, facts->checkpoint_tag);
    bind_text(&binder, facts->checkpoint_path);
    bind_text(&binder, facts->request_id);
    bind_text(&binder, job->job_file);
    bind_text(&binder, job->base_directory);
    bind_text(&binder, job->profile == NULL ? "" : job->profile);
    bind_real(&binder, facts->predicted_step_seconds);
    bind_real(&binder, facts->predicted_bubble);
    bind_text(&binder, facts->load_note);
    if (binder.failed)
        return store_error(store, "writing a job");
    return store_run(store, STORE_PUT, "writing a job");
}

static mr_status store_append_change(mr_store *store, const mr_job_facts *facts, int64_t at_ms) {
    store_binder binder = {.statement = store->statements[STORE_APPEND]};
    bind_number(&binder, facts->number);
    bind_number(&binder, (uint64_t)at_ms);
    bind_number(&binder, (uint64_t)facts->state);
    bind_number(&binder, facts->epoch);
    bind_number(&binder, facts->step);
    bind_text(&binder, facts->reason);
    if (binder.failed)
        return store_error(store, "writing history");
    return store_run(store, STORE_APPEND, "writing history");
}

mr_status mr_store_put(mr_store *store, const mr_store_job *job, int64_t at_ms) {
    MR_TRY(mr_fault("coordinator.store.before_begin"));
    MR_TRY(store_run(store, STORE_BEGIN, "writing"));
    mr_status status = store_put_facts(store, job);
    if (mr_status_is_ok(status))
        status = mr_fault("coordinator.store.between_writes");
    if (mr_status_is_ok(status))
        status = store_append_change(store, &job->facts, at_ms);
    if (mr_status_is_ok(status))
        status = mr_fault("coordinator.store.before_commit");
    if (mr_status_is_ok(status))
        status = store_run(store, STORE_COMMIT, "writing");
    if (!mr_status_is_ok(status)) {
        mr_status undone = store_run(store, STORE_ROLLBACK, "taking back");
        (void)undone; /* SQLite has taken it back by itself after some errors */
    }
    return status;
}

/* ---- read ------------------------------------------------------------------------------------ */

static const char *column_text(sqlite3_stmt *statement, int column) {
    const unsigned char *text = sqlite3_column_text(statement, column);
    return text == NULL ? "" : (const char *)text;
}

static void column_copy(sqlite3_stmt *statement, int column, char *out, size_t bytes) {
    (void)snprintf(out, bytes, "%s", column_text(statement, column)); /* as long as it was */
}

static uint64_t column_number(sqlite3_stmt *statement, int column) {
    return (uint64_t)sqlite3_column_int64(statement, column);
}

/* Columns in the order of STORE_JOB_COLUMNS. */
static void store_read_job(sqlite3_stmt *row, mr_store_job *out) {
    *out = (mr_store_job){0};
    mr_job_facts *facts = &out->facts;
    facts->number = column_number(row, 0);
    column_copy(row, 1, facts->id, sizeof(facts->id));
    column_copy(row, 2, facts->name, sizeof(facts->name));
    facts->mode = (mr_job_mode)column_number(row, 3);
    facts->state = (mr_job_state)column_number(row, 4);
    column_copy(row, 5, facts->reason, sizeof(facts->reason));
    facts->epoch = column_number(row, 6);
    facts->step = column_number(row, 7);
    facts->start_step = column_number(row, 8);
    facts->total_steps = column_number(row, 9);
    facts->result.step = facts->step;
    facts->result.loss = sqlite3_column_double(row, 10);
    facts->result.gradient_norm = sqlite3_column_double(row, 11);
    facts->result.learning_rate = sqlite3_column_double(row, 12);
    facts->result.tokens = column_number(row, 13);
    facts->result.tokens_per_second = sqlite3_column_double(row, 14);
    facts->result.bubble = sqlite3_column_double(row, 15);
    facts->result.step_seconds = sqlite3_column_double(row, 16);
    facts->created_ms = sqlite3_column_int64(row, 17);
    facts->started_ms = sqlite3_column_int64(row, 18);
    facts->ended_ms = sqlite3_column_int64(row, 19);
    column_copy(row, 20, facts->checkpoint_tag, sizeof(facts->checkpoint_tag));
    column_copy(row, 21, facts->checkpoint_path, sizeof(facts->checkpoint_path));
    column_copy(row, 22, facts->request_id, sizeof(facts->request_id));
    out->job_file = column_text(row, 23);
    out->base_directory = column_text(row, 24);
    out->profile = column_text(row, 25);
    facts->predicted_step_seconds = sqlite3_column_double(row, 26);
    facts->predicted_bubble = sqlite3_column_double(row, 27);
    column_copy(row, 28, facts->load_note, sizeof(facts->load_note));
}

mr_status mr_store_load(mr_store *store, size_t limit, mr_store_each each, void *context) {
    sqlite3_stmt *statement = store->statements[STORE_LOAD];
    store_binder binder = {.statement = statement};
    bind_number(&binder, limit);
    if (binder.failed)
        return store_error(store, "reading jobs");
    mr_status status = MR_OK;
    int stepped = SQLITE_ROW;
    while (mr_status_is_ok(status) && (stepped = sqlite3_step(statement)) == SQLITE_ROW) {
        mr_store_job job;
        store_read_job(statement, &job);
        if (job.facts.state < MR_JOB_QUEUED || job.facts.state >= MR_JOB_STATE_COUNT)
            status = MR_ERROR(DATA_LOSS, "job %s in %.120s has state %d", job.facts.id, store->dir,
                              (int)job.facts.state);
        else
            status = each(context, &job);
    }
    if (mr_status_is_ok(status) && stepped != SQLITE_DONE)
        status = store_error(store, "reading jobs");
    (void)sqlite3_reset(statement); /* repeats the error above */
    return status;
}

mr_status mr_store_history(mr_store *store, const char *job_id, mr_store_each_change each,
                           void *context) {
    sqlite3_stmt *statement = store->statements[STORE_HISTORY];
    store_binder binder = {.statement = statement};
    bind_text(&binder, job_id);
    if (binder.failed)
        return store_error(store, "reading history");
    mr_status status = MR_OK;
    int stepped = SQLITE_ROW;
    while ((stepped = sqlite3_step(statement)) == SQLITE_ROW) {
        const mr_store_change change = {
            .at_ms = sqlite3_column_int64(statement, 0),
            .state = (mr_job_state)column_number(statement, 1),
            .epoch = column_number(statement, 2),
            .step = column_number(statement, 3),
            .reason = column_text(statement, 4),
        };
        each(context, &change);
    }
    if (stepped != SQLITE_DONE)
        status = store_error(store, "reading history");
    (void)sqlite3_reset(statement); /* repeats the error above */
    return status;
}
