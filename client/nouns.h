/* SPDX-License-Identifier: Apache-2.0 */
/* nouns.h: what each command of commands.def runs, one function a row; one file per noun. A
 * function prints its data and returns the first error; an end that is no error but not plain
 * success (a job that failed) is left in client->exit_code. Owner: client. Thread: main. */
#ifndef MR_CLIENT_NOUNS_H
#define MR_CLIENT_NOUNS_H

#include "client/client.h"

#define MR_COMMAND(id, noun, verb, arguments, minimum, maximum, help)                              \
    MR_MUST_CHECK mr_status mr_command_##id(mr_client *client);
#include "client/commands.def"

#endif
