/* SPDX-License-Identifier: Apache-2.0 */
#include "client/help.h"

#include <string.h>

enum {
    HELP_COLUMN = 30,        /* where the explanations begin */
    HELP_COLUMN_NARROW = 8,  /* below HELP_WIDTH_NARROW, on a line of their own */
    HELP_WIDTH_NARROW = 72,
    HELP_WIDTH_MAX = 100,
    HELP_TEXT_BYTES = 512,
};

/* Where the text goes, and how wide it may be. */
typedef struct help_page {
    FILE *out;
    size_t width;
} help_page;

/* The text from column at on; further lines begin at indent. Ends the line. */
static void help_wrapped(const help_page *page, const char *text, size_t at, size_t indent) {
    bool first = true;
    while (*text != '\0') {
        size_t word = strcspn(text, " ");
        if (!first && at + 1 + word > page->width) {
            fprintf(page->out, "\n%*s", (int)indent, "");
            at = indent;
        } else if (!first) {
            fputc(' ', page->out);
            at++;
        }
        fprintf(page->out, "%.*s", (int)word, text);
        at += word;
        text += word + (text[word] == ' ');
        first = false;
    }
    fputc('\n', page->out);
}

/* "  left            right", right on a line of its own where left is too long. */
static void help_row(const help_page *page, const char *left, const char *right) {
    size_t column = page->width < HELP_WIDTH_NARROW ? HELP_COLUMN_NARROW : HELP_COLUMN;
    if (strlen(left) + 4 > column)
        fprintf(page->out, "  %s\n%*s", left, (int)column, "");
    else
        fprintf(page->out, "  %-*s", (int)column - 2, left);
    help_wrapped(page, right, column, column);
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

/* What an option does, and its default. */
static void help_option_right(const mr_option *option, char *out, size_t bytes) {
    if (option->value == NULL)
        snprintf(out, bytes, "%s", option->help);
    else if (strcmp(option->value, "\n") == 0)
        snprintf(out, bytes, "%s (default: a line feed)", option->help);
    else
        snprintf(out, bytes, "%s (default: %s)", option->help, option->value);
}

static void help_options(const help_page *page, mr_command_id scope, const char *title) {
    bool any = false;
    for (size_t i = 0; i < mr_option_count; i++) {
        const mr_option *option = &mr_options[i];
        if (option->scope != scope)
            continue;
        if (!any)
            fprintf(page->out, "\n%s\n", title);
        any = true;
        char left[96];
        char right[HELP_TEXT_BYTES];
        help_option_left(option, left, sizeof(left));
        help_option_right(option, right, sizeof(right));
        help_row(page, left, right);
    }
}

static void help_command(const help_page *page, const mr_command *command) {
    char text[HELP_TEXT_BYTES];
    fprintf(page->out, "Usage: millrace %s%s%s%s%s [options]\n\n", command->noun,
            command->verb[0] ? " " : "", command->verb, command->arguments[0] ? " " : "",
            command->arguments);
    snprintf(text, sizeof(text), "%s.", command->help);
    help_wrapped(page, text, 0, 0);
    help_options(page, command->id, "Options:");
    help_options(page, MR_COMMAND_global, "Options of every command:");
}

/* The verbs of a noun; a row without a verb is the noun by itself. */
static void help_verbs(const help_page *page, const char *noun) {
    fprintf(page->out, "\nVerbs:\n");
    for (size_t i = 0; i < mr_command_count; i++) {
        const mr_command *command = &mr_commands[i];
        if (strcmp(command->noun, noun) != 0 || command->verb[0] == '\0')
            continue;
        char left[64];
        snprintf(left, sizeof(left), "%s%s%s", command->verb, command->arguments[0] ? " " : "",
                 command->arguments);
        help_row(page, left, command->help);
    }
    char text[HELP_TEXT_BYTES];
    fputc('\n', page->out);
    snprintf(text, sizeof(text), "millrace %s VERB --help tells a verb's options.", noun);
    help_wrapped(page, text, 0, 0);
}

static void help_noun(const help_page *page, const mr_noun *noun) {
    char text[HELP_TEXT_BYTES];
    fprintf(page->out, "Usage: millrace %s VERB [options]\n\n", noun->name);
    snprintf(text, sizeof(text), "%s: %s.", noun->name, noun->help);
    help_wrapped(page, text, 0, 0);
    help_verbs(page, noun->name);
}

static bool help_has_verbs(const char *noun) {
    for (size_t i = 0; i < mr_command_count; i++) {
        if (strcmp(mr_commands[i].noun, noun) == 0 && mr_commands[i].verb[0] != '\0')
            return true;
    }
    return false;
}

static void help_client(const help_page *page) {
    fprintf(page->out, "Usage: millrace [options] NOUN [VERB] [arguments]\n\n");
    help_wrapped(page, "Train and run models as a pipeline of stage daemons.", 0, 0);
    fprintf(page->out, "\nCommands:\n");
    for (size_t i = 0; i < mr_noun_count; i++)
        help_row(page, mr_nouns[i].name, mr_nouns[i].help);
    help_options(page, MR_COMMAND_global, "Options of every command:");
    fputc('\n', page->out);
    help_wrapped(page, "millrace NOUN --help tells a noun's verbs.", 0, 0);
    help_wrapped(page,
                 "Data goes to stdout, messages to stderr. Exit codes: 0 done, 1 other error, 2 "
                 "wrong usage or file, 3 not found, 4 not in this state, 5 not reachable, 6 not "
                 "allowed, 7 out of time, 8 the job failed, 9 the job was cancelled, 130 "
                 "interrupted.",
                 0, 0);
}

void mr_help_print(FILE *out, size_t width, const mr_command *command, const char *noun) {
    const help_page page = {
        .out = out,
        .width = width == 0 ? SIZE_MAX : width < HELP_WIDTH_MAX ? width : HELP_WIDTH_MAX,
    };
    if (command != NULL) {
        help_command(&page, command);
        if (command->verb[0] == '\0' && help_has_verbs(command->noun))
            help_verbs(&page, command->noun);
        return;
    }
    for (size_t i = 0; noun != NULL && i < mr_noun_count; i++) {
        if (strcmp(mr_nouns[i].name, noun) == 0) {
            help_noun(&page, &mr_nouns[i]);
            return;
        }
    }
    help_client(&page);
}
