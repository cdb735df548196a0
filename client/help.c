/* SPDX-License-Identifier: Apache-2.0 */
#include "client/help.h"

#include <string.h>

enum { HELP_COLUMN = 30 }; /* where the explanations begin */

/* "  left            right", right on a line of its own where left is too long. */
static void help_row(FILE *out, const char *left, const char *right) {
    if (strlen(left) + 4 > HELP_COLUMN)
        fprintf(out, "  %s\n%*s%s", left, HELP_COLUMN, "", right);
    else
        fprintf(out, "  %-*s%s", HELP_COLUMN - 2, left, right);
}

static void help_option_left(const mr_option *option, char *out, size_t bytes) {
    char letter[8] = "    ";
    if (option->letter != 0)
        snprintf(letter, sizeof(letter), "-%c, ", option->letter);
    switch (option->kind) {
    case MR_OPTION_FLAG:
        snprintf(out, bytes, "%s--%s", letter, option->name);
        break;
    case MR_OPTION_OPTIONAL:
        snprintf(out, bytes, "%s--%s[=%s]", letter, option->name, option->argument);
        break;
    default:
        snprintf(out, bytes, "%s--%s %s", letter, option->name, option->argument);
        break;
    }
}

static void help_default(FILE *out, const mr_option *option) {
    if (option->value == NULL)
        return;
    if (strcmp(option->value, "\n") == 0)
        fprintf(out, " (default: a line feed)");
    else
        fprintf(out, " (default: %s)", option->value);
}

static void help_options(FILE *out, mr_command_id scope, const char *title) {
    bool any = false;
    for (size_t i = 0; i < mr_option_count; i++) {
        const mr_option *option = &mr_options[i];
        if (option->scope != scope)
            continue;
        if (!any)
            fprintf(out, "\n%s\n", title);
        any = true;
        char left[96];
        help_option_left(option, left, sizeof(left));
        help_row(out, left, option->help);
        help_default(out, option);
        fputc('\n', out);
    }
}

static void help_command(FILE *out, const mr_command *command) {
    fprintf(out, "Usage: millrace %s%s%s%s%s [options]\n\n%s.\n", command->noun,
            command->verb[0] ? " " : "", command->verb, command->arguments[0] ? " " : "",
            command->arguments, command->help);
    help_options(out, command->id, "Options:");
    help_options(out, MR_COMMAND_global, "Options of every command:");
}

static void help_noun(FILE *out, const mr_noun *noun) {
    fprintf(out, "Usage: millrace %s VERB [options]\n\n%s: %s.\n\nVerbs:\n", noun->name, noun->name,
            noun->help);
    for (size_t i = 0; i < mr_command_count; i++) {
        const mr_command *command = &mr_commands[i];
        if (strcmp(command->noun, noun->name) != 0)
            continue;
        char left[64];
        snprintf(left, sizeof(left), "%s %s", command->verb, command->arguments);
        help_row(out, left, command->help);
        fputc('\n', out);
    }
    fprintf(out, "\nmillrace %s VERB --help tells a verb's options.\n", noun->name);
}

static void help_client(FILE *out) {
    fprintf(out, "Usage: millrace [options] NOUN [VERB] [arguments]\n\n"
                 "Train and run models as a pipeline of stage daemons.\n\nCommands:\n");
    for (size_t i = 0; i < mr_noun_count; i++) {
        help_row(out, mr_nouns[i].name, mr_nouns[i].help);
        fputc('\n', out);
    }
    help_options(out, MR_COMMAND_global, "Options of every command:");
    fprintf(out, "\nmillrace NOUN --help tells a noun's verbs.\n"
                 "Data goes to stdout, messages to stderr. Exit codes: 0 done, 1 other error, "
                 "2 wrong usage\nor file, 3 not found, 4 not in this state, 5 not reachable, "
                 "6 not allowed, 7 out of time,\n8 the job failed, 9 the job was cancelled, "
                 "130 interrupted.\n");
}

void mr_help_print(FILE *out, const mr_command *command, const char *noun) {
    if (command != NULL) {
        help_command(out, command);
        return;
    }
    for (size_t i = 0; noun != NULL && i < mr_noun_count; i++) {
        if (strcmp(mr_nouns[i].name, noun) == 0) {
            help_noun(out, &mr_nouns[i]);
            return;
        }
    }
    help_client(out);
}
