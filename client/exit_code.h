/* SPDX-License-Identifier: Apache-2.0 */
/* exit_code.h: what the client's exit code says, in one table.
 * Owner: client. Pure. */
#ifndef MR_CLIENT_EXIT_CODE_H
#define MR_CLIENT_EXIT_CODE_H

#include "daemon/base/status.h"

typedef enum mr_exit_code {
    MR_EXIT_CODE_DONE = 0,
    MR_EXIT_CODE_OTHER = 1,
    MR_EXIT_CODE_USAGE = 2, /* also an invalid file */
    MR_EXIT_CODE_NOT_FOUND = 3,
    MR_EXIT_CODE_STATE = 4,
    MR_EXIT_CODE_UNAVAILABLE = 5,
    MR_EXIT_CODE_PERMISSION = 6,
    MR_EXIT_CODE_DEADLINE = 7,
    MR_EXIT_CODE_JOB_FAILED = 8,
    MR_EXIT_CODE_JOB_CANCELLED = 9,
    MR_EXIT_CODE_INTERRUPTED = 130
} mr_exit_code;

/* The exit code of an error; DONE for OK. */
mr_exit_code mr_exit_code_of(mr_code code);

#endif
