/* SPDX-License-Identifier: Apache-2.0 */
/* completion.c: prints the completions of a shell. */
#include <stdio.h>
#include <string.h>

#include "client/nouns.h"
#include "client/shell.h"
#include "client/suggest.h"

mr_status mr_command_completion(mr_client *client) {
    static const struct {
        const char *name;
        void (*print)(FILE *out);
    } shells[] = {
        {"bash", mr_shell_print_bash},
        {"zsh", mr_shell_print_zsh},
        {"fish", mr_shell_print_fish},
    };
    const char *wanted = client->invocation->arguments[0];
    const char *near = NULL;
    size_t best = SIZE_MAX;
    for (size_t i = 0; i < sizeof(shells) / sizeof(shells[0]); i++) {
        if (strcmp(shells[i].name, wanted) == 0) {
            shells[i].print(stdout);
            return MR_OK;
        }
        if (mr_suggest_better(wanted, shells[i].name, &best))
            near = shells[i].name;
    }
    return MR_ERROR(INVALID_ARGUMENT, "SHELL is %.40s; it must be bash, zsh or fish%s%s%s", wanted,
                    near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
}
