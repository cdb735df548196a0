/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: what was stored is there after a restart, whole; what was being stored when the process
 * died is there entirely or not at all; two coordinators cannot share a folder; damage is said, not
 * read. Method: stores in fresh folders; a child process that dies at each named fault point of a
 * write. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "daemon/base/fault.h"
#include "daemon/coordinator/store.h"

enum { PATH_BYTES = 512, JOBS_MAX = 64, CHANGES_MAX = 16 };

typedef struct loaded {
    mr_store_job jobs[JOBS_MAX];
    char job_file[64]; /* of the last one */
    char profile[64];
    size_t count;
} loaded;

typedef struct changes {
    mr_job_state states[CHANGES_MAX];
    char reasons[CHANGES_MAX][64];
    size_t count;
} changes;

static int setup(void **state) {
    static char folder[PATH_BYTES];
    const char *base = getenv("TEST_TMPDIR");
    (void)snprintf(folder, sizeof(folder), "%s/store.XXXXXX", base == NULL ? "/tmp" : base);
    assert_non_null(mkdtemp(folder));
    *state = folder;
    return 0;
}

static int teardown(void **state) {
    char command[PATH_BYTES + 16];
    (void)snprintf(command, sizeof(command), "rm -rf %s", (char *)*state);
    assert_int_equal(system(command), 0);
    return 0;
}

static mr_store *open_store(const char *folder) {
    char dir[PATH_BYTES + 8];
    (void)snprintf(dir, sizeof(dir), "%s/state", folder);
    mr_store *store = NULL;
    mr_status status = mr_store_open(dir, &store);
    if (!mr_status_is_ok(status))
        fail_msg("%s", status.text);
    return store;
}

static mr_store_job make_job(uint64_t number, mr_job_state job_state, const char *reason) {
    mr_store_job job = {.job_file = "schema: millrace.job/v1\n", .base_directory = "/data"};
    job.facts.number = number;
    job.facts.state = job_state;
    job.facts.epoch = 3 * number;
    job.facts.step = 7;
    job.facts.total_steps = 100;
    job.facts.result.loss = 2.25;
    job.facts.created_ms = 1700000000000;
    (void)snprintf(job.facts.id, sizeof(job.facts.id), "job-%d", (int)number);
    (void)snprintf(job.facts.name, sizeof(job.facts.name), "job");
    (void)snprintf(job.facts.reason, sizeof(job.facts.reason), "%s", reason);
    (void)snprintf(job.facts.request_id, sizeof(job.facts.request_id), "r%d", (int)number);
    (void)snprintf(job.facts.checkpoint_tag, sizeof(job.facts.checkpoint_tag), "step-7");
    return job;
}

static void put(mr_store *store, uint64_t number, mr_job_state job_state, const char *reason) {
    mr_store_job job = make_job(number, job_state, reason);
    mr_status status = mr_store_put(store, &job, 1000);
    if (!mr_status_is_ok(status))
        fail_msg("%s", status.text);
}

static mr_status load_one(void *context, const mr_store_job *job) {
    loaded *all = context;
    assert_true(all->count < JOBS_MAX);
    (void)snprintf(all->job_file, sizeof(all->job_file), "%s", job->job_file);
    (void)snprintf(all->profile, sizeof(all->profile), "%s", job->profile);
    all->jobs[all->count++] = *job;
    return MR_OK;
}

static void load(mr_store *store, size_t limit, loaded *out) {
    *out = (loaded){0};
    mr_status status = mr_store_load(store, limit, load_one, out);
    if (!mr_status_is_ok(status))
        fail_msg("%s", status.text);
}

static void history_one(void *context, const mr_store_change *change) {
    changes *all = context;
    assert_true(all->count < CHANGES_MAX);
    all->states[all->count] = change->state;
    (void)snprintf(all->reasons[all->count++], 64, "%s", change->reason);
}

static void test_reopened_store_has_every_fact_and_change(void **state) {
    mr_store *store = open_store(*state);
    assert_int_equal(mr_store_term(store), 1);
    put(store, 1, MR_JOB_QUEUED, "waits");
    put(store, 1, MR_JOB_STARTING, "2 stages");
    put(store, 1, MR_JOB_STARTING, "2 stages"); /* nothing new: no change */
    put(store, 1, MR_JOB_FAILED, "stage 1: lost");
    mr_store_close(store);

    store = open_store(*state);
    assert_int_equal(mr_store_term(store), 2);
    loaded all;
    load(store, 10, &all);
    assert_int_equal(all.count, 1);
    const mr_store_job wanted = make_job(1, MR_JOB_FAILED, "stage 1: lost");
    const mr_job_facts *facts = &all.jobs[0].facts;
    assert_string_equal(facts->id, wanted.facts.id);
    assert_string_equal(facts->name, wanted.facts.name);
    assert_string_equal(facts->reason, wanted.facts.reason);
    assert_string_equal(facts->request_id, wanted.facts.request_id);
    assert_string_equal(facts->checkpoint_tag, wanted.facts.checkpoint_tag);
    assert_int_equal(facts->epoch, wanted.facts.epoch);
    assert_int_equal(facts->step, wanted.facts.step);
    assert_int_equal(facts->total_steps, wanted.facts.total_steps);
    assert_int_equal(facts->created_ms, wanted.facts.created_ms);
    assert_true(facts->result.loss > 2.2 && facts->result.loss < 2.3);
    assert_string_equal(all.job_file, wanted.job_file);
    changes history = {0};
    assert_int_equal(mr_store_history(store, "job-1", history_one, &history).code, MR_CODE_OK);
    assert_int_equal(history.count, 3);
    assert_int_equal(history.states[0], MR_JOB_QUEUED);
    assert_int_equal(history.states[1], MR_JOB_STARTING);
    assert_int_equal(history.states[2], MR_JOB_FAILED);
    assert_string_equal(history.reasons[2], "stage 1: lost");
    mr_store_close(store);
}

static void test_limit_keeps_active_jobs_and_the_newest(void **state) {
    mr_store *store = open_store(*state);
    for (uint64_t number = 1; number <= 9; number++)
        put(store, number, number == 2 ? MR_JOB_RUNNING : MR_JOB_SUCCEEDED, "");
    loaded all;
    load(store, 3, &all);
    assert_int_equal(all.count, 3);
    assert_int_equal(all.jobs[0].facts.number, 2);
    assert_int_equal(all.jobs[1].facts.number, 8);
    assert_int_equal(all.jobs[2].facts.number, 9);
    mr_store_close(store);
}

static void test_second_coordinator_is_refused(void **state) {
    mr_store *store = open_store(*state);
    char dir[PATH_BYTES + 8];
    (void)snprintf(dir, sizeof(dir), "%s/state", (char *)*state);
    mr_store *second = NULL;
    mr_status status = mr_store_open(dir, &second);
    assert_int_equal(status.code, MR_CODE_FAILED_PRECONDITION);
    assert_non_null(strstr(status.text, "another coordinator"));
    assert_null(second);
    mr_store_close(store);
    mr_store_close(open_store(*state));
}

static void test_folder_is_for_its_owner(void **state) {
    mr_store_close(open_store(*state));
    char path[PATH_BYTES + 32];
    struct stat found;
    (void)snprintf(path, sizeof(path), "%s/state", (char *)*state);
    assert_int_equal(stat(path, &found), 0);
    assert_int_equal(found.st_mode & 0777, 0700);
    (void)snprintf(path, sizeof(path), "%s/state/state.sqlite", (char *)*state);
    assert_int_equal(stat(path, &found), 0);
    assert_int_equal(found.st_mode & 0777, 0600);
}

static void test_damaged_file_is_said_to_be_damaged(void **state) {
    mr_store_close(open_store(*state));
    char path[PATH_BYTES + 32];
    (void)snprintf(path, sizeof(path), "%s/state/state.sqlite", (char *)*state);
    int file = open(path, O_WRONLY | O_TRUNC);
    assert_true(file >= 0);
    static const char garbage[4096] = "this is no database, it only lies where one was";
    assert_int_equal(write(file, garbage, sizeof(garbage)), sizeof(garbage));
    assert_int_equal(close(file), 0);
    (void)snprintf(path, sizeof(path), "%s/state", (char *)*state);
    mr_store *store = NULL;
    mr_status status = mr_store_open(path, &store);
    assert_int_equal(status.code, MR_CODE_DATA_LOSS);
    assert_non_null(strstr(status.text, "state.sqlite"));
}

static void test_folder_that_cannot_be_made_is_named(void **state) {
    (void)state;
    mr_store *store = NULL;
    mr_status status = mr_store_open("/proc/nowhere/state", &store);
    assert_int_equal(status.code, MR_CODE_PERMISSION_DENIED);
    assert_non_null(strstr(status.text, "/proc/nowhere/state"));
}

/* ---- death in the middle of a write ---------------------------------------------------------- */

static mr_status die_at(void *context, const char *point) {
    if (strcmp(point, context) == 0)
        _exit(0);
    return MR_OK;
}

static mr_status fail_at(void *context, const char *point) {
    if (strcmp(point, context) == 0)
        return MR_ERROR(RESOURCE_EXHAUSTED, "full");
    return MR_OK;
}

static char *const points[] = {
    "coordinator.store.before_begin",
    "coordinator.store.between_writes",
    "coordinator.store.before_commit",
};

/* The store still says RUNNING, with one change, and can be written. */
static void check_unchanged(const char *folder) {
    mr_store *store = open_store(folder);
    loaded all;
    load(store, 10, &all);
    assert_int_equal(all.count, 1);
    assert_int_equal(all.jobs[0].facts.state, MR_JOB_RUNNING);
    changes history = {0};
    assert_int_equal(mr_store_history(store, "job-1", history_one, &history).code, MR_CODE_OK);
    assert_int_equal(history.count, 1);
    put(store, 1, MR_JOB_RUNNING, "");
    mr_store_close(store);
}

static void test_death_in_mid_write_leaves_the_old_facts(void **state) {
    mr_store *store = open_store(*state);
    put(store, 1, MR_JOB_RUNNING, "");
    mr_store_close(store);
    for (size_t i = 0; i < sizeof(points) / sizeof(points[0]); i++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            mr_fault_hook_set(die_at, points[i]);
            put(open_store(*state), 1, MR_JOB_FAILED, "never");
            _exit(1); /* the point was not met */
        }
        int ended = 0;
        assert_int_equal(waitpid(child, &ended, 0), child);
        assert_true(WIFEXITED(ended));
        assert_int_equal(WEXITSTATUS(ended), 0);
        check_unchanged(*state);
    }
}

static void test_failed_write_leaves_the_old_facts(void **state) {
    mr_store *store = open_store(*state);
    put(store, 1, MR_JOB_RUNNING, "");
    for (size_t i = 0; i < sizeof(points) / sizeof(points[0]); i++) {
        mr_fault_hook_set(fail_at, points[i]);
        const mr_store_job job = make_job(1, MR_JOB_FAILED, "never");
        assert_int_equal(mr_store_put(store, &job, 2000).code, MR_CODE_RESOURCE_EXHAUSTED);
        mr_fault_hook_set(NULL, NULL);
    }
    mr_store_close(store);
    check_unchanged(*state);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* What the first version of the schema wrote. */
static void test_store_of_the_first_schema_is_carried_over(void **state) {
    mr_store *store = open_store(*state);
    put(store, 1, MR_JOB_FAILED, "stage 1: lost");
    mr_store_close(store);
    char path[PATH_BYTES + 32];
    sqlite3 *database = NULL;
    (void)snprintf(path, sizeof(path), "%s/state/state.sqlite", (const char *)*state);
    assert_int_equal(sqlite3_open(path, &database), SQLITE_OK);
    assert_int_equal(sqlite3_exec(database,
                                  "ALTER TABLE jobs DROP COLUMN profile;"
                                  "ALTER TABLE jobs DROP COLUMN predicted_step_seconds;"
                                  "ALTER TABLE jobs DROP COLUMN predicted_bubble;"
                                  "ALTER TABLE jobs DROP COLUMN load_note;"
                                  "ALTER TABLE jobs RENAME COLUMN mode TO inference;"
                                  "PRAGMA user_version = 1;",
                                  NULL, NULL, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_close(database), SQLITE_OK);
    store = open_store(*state);
    loaded all;
    load(store, 10, &all);
    assert_int_equal(all.count, 1);
    assert_string_equal(all.jobs[0].facts.reason, "stage 1: lost");
    assert_true(all.jobs[0].facts.predicted_step_seconds == 0);
    mr_store_job job = make_job(2, MR_JOB_QUEUED, "waits");
    job.profile = "{}";
    job.facts.mode = MR_JOB_MODE_PROFILE;
    job.facts.predicted_step_seconds = 0.25;
    assert_int_equal(mr_store_put(store, &job, 1000).code, MR_CODE_OK);
    load(store, 10, &all);
    assert_int_equal(all.count, 2);
    assert_int_equal(all.jobs[1].facts.mode, MR_JOB_MODE_PROFILE);
    assert_true(all.jobs[1].facts.predicted_step_seconds == 0.25);
    assert_string_equal(all.profile, "{}");
    mr_store_close(store);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_reopened_store_has_every_fact_and_change),
        TEST(test_store_of_the_first_schema_is_carried_over),
        TEST(test_limit_keeps_active_jobs_and_the_newest),
        TEST(test_second_coordinator_is_refused),
        TEST(test_folder_is_for_its_owner),
        TEST(test_damaged_file_is_said_to_be_damaged),
        TEST(test_folder_that_cannot_be_made_is_named),
        TEST(test_death_in_mid_write_leaves_the_old_facts),
        TEST(test_failed_write_leaves_the_old_facts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
