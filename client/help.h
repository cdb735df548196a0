/* SPDX-License-Identifier: Apache-2.0 */
/* help.h: the texts of --help, made from commands.def.
 * Owner: client. Thread: main. Not here: the manual page (manual.h). */
#ifndef MR_CLIENT_HELP_H
#define MR_CLIENT_HELP_H

#include <stdio.h>

#include "client/commands.h"

/* Help on a command, else on a noun with verbs, else on the client. command and noun may be NULL.
 * Lines are broken at width letters; 0: they are not broken. */
void mr_help_print(FILE *out, size_t width, const mr_command *command, const char *noun);

#endif
