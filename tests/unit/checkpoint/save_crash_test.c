/* SPDX-License-Identifier: Apache-2.0 */
/* Goal (law 3): whatever happens in the middle of a save, the newest checkpoint is the old one
 * or the new one, whole, and the next save works. (The field writes in place, and its pointer to
 * the newest may name a tag that is not complete: deepspeed.md 110.)
 * Method: a child process saves step 20 over a folder that holds step 10 (and, in a second
 * scenario, saves a tag again). The parent traces it and, for every k, kills it before its k-th
 * system call, or makes its k-th file call fail; then it looks with the ordinary catalogue. The
 * named fault points of the save are failed one after the other as well, and all of them must
 * have been met. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/base/fault.h"
#include "daemon/checkpoint/catalog.h"
#include "tests/unit/checkpoint/fixture.h"

enum { CALLS_MAX = 4000 }; /* far above what a save makes; a loop here would be a bug */

/* What the child does: the second save of a folder. */
typedef struct scenario {
    const char *name;
    const char *tag;     /* saved by the child at epoch 2, step 20 */
    const char *old_tag; /* saved before at epoch 1, step 10 */
    size_t keep;         /* > 0: retention follows */
} scenario;

static const scenario scenarios[] = {
    {"fresh tag, retention", "step-000000000020", "step-000000000010", 1},
    {"exchanged tag", "best", "best", 0},
};

static char base[FIXTURE_PATH_BYTES];

/* In memory where we may: some five hundred saves, each with a score of fsyncs. */
static int setup(void **state) {
    (void)state;
    fixture_make(base);
    if (!fixture_mount(base, "16m"))
        print_message("on the disk: may not mount here\n");
    return 0;
}

static int teardown(void **state) {
    (void)state;
    (void)umount(base); /* not mounted: nothing to do */
    fixture_remove(base);
    return 0;
}

static void make_dir(char out_dir[FIXTURE_PATH_BYTES]) {
    fixture_path(out_dir, base, "run", NULL);
    assert_int_equal(mkdir(out_dir, 0700), 0);
}

static mr_status scenario_run(const scenario *s, const char *dir) {
    MR_TRY(fixture_save(dir, s->tag, 2, 20));
    return s->keep == 0 ? MR_OK : mr_catalog_retain(dir, "tiny", s->keep, s->tag, NULL);
}

/* Nothing but a whole old or a whole new checkpoint may be found; returns the step that was. */
static uint64_t scenario_check(const scenario *s, const char *dir) {
    char path[FIXTURE_PATH_BYTES];
    mr_catalog_entry newest;
    mr_catalog_entry *entries = NULL;
    size_t count = 0;
    fixture_ok(mr_catalog_newest(dir, "tiny", NULL, NULL, &newest));
    assert_true(newest.step == 10 || newest.step == 20);
    assert_string_equal(newest.tag, newest.step == 20 ? s->tag : s->old_tag);
    fixture_ok(mr_catalog_list(dir, NULL, NULL, NULL, &entries, &count));
    for (size_t i = 0; i < count; i++) {
        fixture_path(path, dir, entries[i].tag, NULL);
        fixture_ok(mr_catalog_verify(path, NULL, NULL, NULL));
    }
    free(entries); /* mr_free's heap */
    return newest.step;
}

/* Start-up after the crash: sweep, save again, and nothing is left over. */
static void scenario_recover(const scenario *s, const char *dir) {
    fixture_ok(mr_catalog_sweep(dir, 3, NULL));
    fixture_ok(fixture_save(dir, s->tag, 3, 20));
    assert_int_equal(scenario_check(s, dir), 20);
    assert_int_equal(fixture_count(dir, ".") + fixture_count(dir, "trash-"), 0);
}

#if defined(__x86_64__)

/* Calls that a file system answers; another one failing would only upset the C library. */
static bool is_file_call(unsigned long long number) {
    static const unsigned long long numbers[] = {
        SYS_openat,     SYS_read,     SYS_pread64,  SYS_write,     SYS_close, SYS_fstat,
        SYS_newfstatat, SYS_fsync,    SYS_renameat, SYS_renameat2, SYS_mkdir, SYS_fallocate,
        SYS_lseek,      SYS_unlinkat, SYS_fcntl,    SYS_getdents64};
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        if (numbers[i] == number)
            return true;
    return false;
}

/* Runs the scenario in a traced child and stops it before its k-th call (from 1). inject 0: kills
 * it there; otherwise the call does not happen and returns -inject. *out_calls: how many calls
 * counted. Returns the child's wait status; -1 where tracing is not allowed here. */
static int trace_child(const scenario *s, const char *dir, unsigned k, int inject,
                       unsigned *out_calls) {
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
            _exit(99);
        (void)raise(SIGSTOP); /* the parent starts here */
        int code = mr_status_is_ok(scenario_run(s, dir)) ? 0 : 1;
        (void)raise(SIGSTOP); /* and ends here */
        _exit(code);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFSTOPPED(status))
        return -1;
    (void)ptrace(PTRACE_SETOPTIONS, child, NULL,
                 (void *)(long)(PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL));
    unsigned calls = 0;
    bool entering = true;
    bool injecting = false;
    while (calls < CALLS_MAX) {
        if (ptrace(PTRACE_SYSCALL, child, NULL, NULL) != 0)
            break;
        assert_int_equal(waitpid(child, &status, 0), child);
        if (!WIFSTOPPED(status))
            break;
        if (WSTOPSIG(status) == SIGSTOP) {
            (void)ptrace(PTRACE_DETACH, child, NULL, NULL);
            assert_int_equal(waitpid(child, &status, 0), child);
            break;
        }
        if (WSTOPSIG(status) != (SIGTRAP | 0x80))
            continue;
        struct user_regs_struct registers;
        assert_int_equal(ptrace(PTRACE_GETREGS, child, NULL, &registers), 0);
        bool counts = entering && (inject == 0 || is_file_call(registers.orig_rax));
        if (counts && ++calls == k) {
            if (inject == 0) {
                assert_int_equal(kill(child, SIGKILL), 0);
                assert_int_equal(waitpid(child, &status, 0), child);
                break;
            }
            registers.orig_rax = (unsigned long long)-1; /* no such call */
            assert_int_equal(ptrace(PTRACE_SETREGS, child, NULL, &registers), 0);
            injecting = true;
        } else if (!entering && injecting) {
            registers.rax = (unsigned long long)-(long long)inject;
            assert_int_equal(ptrace(PTRACE_SETREGS, child, NULL, &registers), 0);
            injecting = false;
        }
        entering = !entering;
    }
    assert_true(calls < CALLS_MAX);
    *out_calls = calls;
    return status;
}

/* All k for one scenario and one error, until a run ends before its k-th call. */
static void sweep(const scenario *s, int inject) {
    unsigned calls = 0;
    unsigned committed = 0;
    unsigned k = 1;
    for (;; k++) {
        char dir[FIXTURE_PATH_BYTES];
        make_dir(dir);
        fixture_ok(fixture_save(dir, s->old_tag, 1, 10));
        int status = trace_child(s, dir, k, inject, &calls);
        if (status < 0) {
            fixture_remove(dir);
            print_message("skipped: tracing is not allowed here\n");
            skip();
        }
        uint64_t step = scenario_check(s, dir);
        committed += step == 20;
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
            assert_int_equal(step, 20); /* success was reported, so it must be there */
        scenario_recover(s, dir);
        fixture_remove(dir);
        if (calls < k)
            break;
    }
    print_message("%s, %s: %u calls, newest was the new one in %u\n", s->name,
                  inject == 0 ? "killed" : strerror(inject), k - 1, committed);
    assert_true(k > 50);
    assert_true(committed > 1 && committed < k);
}

static void test_kill_at_every_call_leaves_old_or_new(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++)
        sweep(&scenarios[i], 0);
}

static void test_io_error_at_every_call_leaves_old_or_new(void **state) {
    (void)state;
    sweep(&scenarios[1], EIO);
}

static void test_full_disk_at_every_call_leaves_old_or_new(void **state) {
    (void)state;
    sweep(&scenarios[0], ENOSPC);
}

#else

static void test_kill_at_every_call_leaves_old_or_new(void **state) {
    (void)state;
    print_message("skipped: tracing is written for x86-64\n");
    skip();
}

#endif

/* ---- named points ---- */

static const char *const points[] = {
    "checkpoint.file.created",
    "checkpoint.file.write",
    "checkpoint.file.before_fsync",
    "checkpoint.file.before_rename",
    "checkpoint.file.before_folder_fsync",
    "checkpoint.commit.before_rename",
    "checkpoint.commit.before_folder_fsync",
    "checkpoint.commit.before_latest",
    "checkpoint.trash.before_folder_fsync",
    "checkpoint.trash.unlink",
};

enum { POINTS = sizeof(points) / sizeof(points[0]) };

typedef struct fault_plan {
    const char *fail; /* NULL: none */
    size_t met[POINTS];
} fault_plan;

static mr_status fault_hook(void *context, const char *point) {
    fault_plan *plan = context;
    size_t i = 0;
    while (i < POINTS && strcmp(points[i], point) != 0)
        i++;
    if (i == POINTS)
        fail_msg("point %s is not in the table", point);
    plan->met[i]++;
    if (plan->fail != NULL && strcmp(plan->fail, point) == 0)
        return MR_ERROR(DATA_LOSS, "injected at %s", point);
    return MR_OK;
}

static void test_every_point_is_met_and_may_fail(void **state) {
    (void)state;
    const scenario *s = &scenarios[1]; /* meets all of them */
    for (size_t i = 0; i <= POINTS; i++) {
        char dir[FIXTURE_PATH_BYTES];
        fault_plan plan = {.fail = i < POINTS ? points[i] : NULL};
        make_dir(dir);
        fixture_ok(fixture_save(dir, s->old_tag, 1, 10));
        mr_fault_hook_set(fault_hook, &plan);
        mr_status status = scenario_run(s, dir);
        mr_fault_hook_set(NULL, NULL);
        if (i < POINTS) {
            assert_true(plan.met[i] > 0);
            fixture_fails(status, MR_CODE_DATA_LOSS, points[i]);
        } else {
            fixture_ok(status);
        }
        (void)scenario_check(s, dir);
        scenario_recover(s, dir);
        fixture_remove(dir);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_point_is_met_and_may_fail),
        cmocka_unit_test(test_kill_at_every_call_leaves_old_or_new),
#if defined(__x86_64__)
        cmocka_unit_test(test_io_error_at_every_call_leaves_old_or_new),
        cmocka_unit_test(test_full_disk_at_every_call_leaves_old_or_new),
#endif
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
