/* SPDX-License-Identifier: Apache-2.0 */
/* help.h: the texts of --help, made from commands.def.
 * Owner: client. Thread: main. */
#ifndef MR_CLIENT_HELP_H
#define MR_CLIENT_HELP_H

#include <stdio.h>

#include "client/commands.h"

/* Help on a command, else on a noun with verbs, else on the client. command and noun may be NULL.
 */
void mr_help_print(FILE *out, const mr_command *command, const char *noun);

#endif
