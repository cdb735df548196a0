/* SPDX-License-Identifier: Apache-2.0 */
/* main.c: millraced: read the command line, become a role, run it, and say by the exit code how it
 * went (sysexits; reference in deploy/CLIENT.md). */
#include <signal.h>
#include <stdio.h>

#include "daemon/base/log.h"
#include "daemon/base/version.h"
#include "daemon/coordinator/coordinator.h"
#include "daemon/node/node.h"
#include "daemon/options.h"
#include "daemon/stage/fabric_open.h"
#include "daemon/stage/stage.h"

/* 64, 65, 77 and 78 mean "do not start again"; 69 and 74 may go away by themselves. */
static int exit_code(mr_code code) {
    switch (code) {
    case MR_CODE_OK:
        return 0;
    case MR_CODE_INVALID_ARGUMENT:
        return 64;
    case MR_CODE_DATA_LOSS:
        return 65;
    case MR_CODE_UNAVAILABLE:
    case MR_CODE_DEADLINE_EXCEEDED:
        return 69;
    case MR_CODE_PERMISSION_DENIED:
    case MR_CODE_UNAUTHENTICATED:
        return 77;
    case MR_CODE_FAILED_PRECONDITION:
    case MR_CODE_ALREADY_EXISTS:
    case MR_CODE_NOT_FOUND:
        return 78;
    case MR_CODE_RESOURCE_EXHAUSTED:
        return 71;
    default:
        return 70;
    }
}

static mr_status run_role(const mr_options *options) {
    mr_log_level_set(options->log_level);
    mr_log_journal_detect();
    if (options->role == MR_ROLE_COORDINATOR) {
        mr_log_role_set("coordinator");
        return mr_coordinator_run(&options->coordinator);
    }
    if (options->role == MR_ROLE_NODE) {
        mr_log_role_set("node");
        return mr_node_run(&options->node);
    }
    mr_log_role_set("stage");
    mr_stage_options stage = options->stage;
    MR_TRY(mr_fabric_opener_find(options->fabric, &stage.fabric_open));
    return mr_stage_run(&stage);
}

/* A write to a closed socket or past a file limit is an error that its caller reports, not a
 * death. */
static void ignore_write_signals(void) {
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGXFSZ, SIG_IGN);
}

int main(int argument_count, char **arguments) {
    ignore_write_signals();
    static mr_options options; /* its paths are too large for a stack */
    mr_status status = mr_options_parse(argument_count, arguments, &options);
    if (!mr_status_is_ok(status)) {
        (void)fprintf(stderr, "millraced: %s\n", status.text);
        return exit_code(status.code);
    }
    if (options.role == MR_ROLE_NONE) /* --help, --version or --man was answered */
        return 0;
    status = run_role(&options);
    if (!mr_status_is_ok(status))
        MR_LOG(ERROR, "ended by an error", MR_S("code", mr_code_name(status.code)),
               MR_S("why", status.text), MR_S("file", status.file), MR_I("line", status.line));
    return exit_code(status.code);
}
