/* SPDX-License-Identifier: Apache-2.0 */
/* environment.h: the environment of the client's process, read in one place: MILLRACE_* settings
 * (config.h), NO_COLOR and TERM, and the folders that the XDG base directory specification names.
 * An empty variable is an unset one, as that specification and no-color.org have it.
 * Owner: client. Thread: main. */
#ifndef MR_CLIENT_ENVIRONMENT_H
#define MR_CLIENT_ENVIRONMENT_H

#include "daemon/base/status.h"

enum { MR_ENVIRONMENT_PATH_BYTES = 4096 };

typedef enum mr_environment_folder {
    MR_ENVIRONMENT_CONFIG, /* $XDG_CONFIG_HOME/millrace, else $HOME/.config/millrace */
    MR_ENVIRONMENT_STATE,  /* $XDG_STATE_HOME/millrace, else $HOME/.local/state/millrace */
    MR_ENVIRONMENT_FOLDER_COUNT
} mr_environment_folder;

/* NULL where it is unset or empty. The text is the environment's. */
const char *mr_environment_get(const char *name);
/* FOLDER/name; out has MR_ENVIRONMENT_PATH_BYTES. A relative path in the variable is passed over,
 * as the specification asks. NOT_FOUND: neither the variable nor HOME is set. */
MR_MUST_CHECK mr_status mr_environment_path(mr_environment_folder folder, const char *name,
                                            char *out);
/* May colours and a rewritten screen be shown, as far as TERM and NO_COLOR say? */
bool mr_environment_terminal(void);
bool mr_environment_colour(void);

#endif
