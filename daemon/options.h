/* SPDX-License-Identifier: Apache-2.0 */
/* options.h: millraced's command line. Every option is one row of options.def.h; parser, --help and
 * the errors come from it.
 * Owner: main. */
#ifndef MR_OPTIONS_H
#define MR_OPTIONS_H

#include "daemon/base/log.h"
#include "daemon/coordinator/coordinator.h"
#include "daemon/stage/stage.h"

typedef enum mr_role { MR_ROLE_NONE, MR_ROLE_COORDINATOR, MR_ROLE_STAGE } mr_role;

typedef struct mr_options {
    mr_role role; /* NONE: --help or --version was printed */
    mr_log_level log_level;
    mr_coordinator_options coordinator;
    mr_stage_options stage;
} mr_options;

/* Reads "ROLE --option VALUE ...". Texts are borrowed from the arguments. INVALID_ARGUMENT names
 * the option, what was given and what would be right. */
MR_MUST_CHECK mr_status mr_options_parse(int argument_count, char **arguments,
                                         mr_options *out_options);

#endif
