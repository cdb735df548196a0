/* SPDX-License-Identifier: Apache-2.0 */
#include "client/confirm.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "client/terminal.h"

enum { CONFIRM_TEXT_BYTES = 200, CONFIRM_ANSWER_BYTES = 16 };

bool mr_confirm_possible(void) {
    return isatty(STDIN_FILENO) == 1 && isatty(STDERR_FILENO) == 1;
}

mr_status mr_confirm(const mr_client *client, const char *format, ...) {
    char text[CONFIRM_TEXT_BYTES];
    char clean[CONFIRM_TEXT_BYTES];
    char answer[CONFIRM_ANSWER_BYTES];
    va_list arguments;
    if (mr_invocation_given(client->invocation, "yes"))
        return MR_OK;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    MR_ASSERT(length >= 0);
    mr_terminal_clean(text, clean, sizeof(clean));
    if (!mr_confirm_possible())
        return MR_ERROR(INVALID_ARGUMENT, "%s: there is no terminal to ask on; --yes says yes",
                        clean);
    fprintf(stderr, "%s? [y/N] ", clean);
    fflush(stderr);
    if (fgets(answer, sizeof(answer), stdin) == NULL)
        answer[0] = '\0';
    answer[strcspn(answer, "\r\n")] = '\0';
    if (strcasecmp(answer, "y") == 0 || strcasecmp(answer, "yes") == 0)
        return MR_OK;
    return MR_ERROR(CANCELLED, "nothing was done");
}
