/* SPDX-License-Identifier: Apache-2.0 */
/* options.h: millraced's command line. Every option is one row of options.def.h; parser, --help and
 * the errors come from it.
 * Owner: main. */
#ifndef MR_OPTIONS_H
#define MR_OPTIONS_H

#include "daemon/base/log.h"
#include "daemon/coordinator/coordinator.h"
#include "daemon/node/node.h"
#include "daemon/observe/status_server.h"
#include "daemon/stage/stage.h"

typedef enum mr_role {
    MR_ROLE_NONE,
    MR_ROLE_COORDINATOR,
    MR_ROLE_STAGE,
    MR_ROLE_NODE
} mr_role;

enum { MR_OPTIONS_PATH_BYTES = 4096, MR_OPTIONS_MAX = 32 };

/* The files of --tls-dir, by name. */
typedef struct mr_options_tls {
    char ca[MR_OPTIONS_PATH_BYTES];
    char certificate[MR_OPTIONS_PATH_BYTES];
    char key[MR_OPTIONS_PATH_BYTES];
} mr_options_tls;

typedef struct mr_options {
    mr_role role; /* NONE: --help, --version or --man was printed */
    mr_log_level log_level;
    mr_coordinator_options coordinator;
    mr_stage_options stage; /* without its fabric_open */
    const char *fabric;
    mr_node_options node;
    mr_options_tls tls;
    mr_status_setting settings[MR_OPTIONS_MAX]; /* those of the role */
    size_t setting_count;
} mr_options;

/* Reads "ROLE --option VALUE ...". Texts are borrowed from the arguments and from out_options
 * itself, which must not be copied. INVALID_ARGUMENT names the option, what was given and what
 * would be right. */
MR_MUST_CHECK mr_status mr_options_parse(int argument_count, char **arguments,
                                         mr_options *out_options);

#endif
