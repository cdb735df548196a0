/* SPDX-License-Identifier: Apache-2.0 */
/* shell_fish.c: completions for fish: one complete line for each noun, verb and option, shown where
 * the words before the cursor fit. */
#include <string.h>

#include "client/shell.h"

static const char fish_head[] =
    "# fish completion of millrace; made by: millrace completion fish\n"
    "# Noun and verb that stand before the cursor, one a line.\n"
    "function __millrace_words\n"
    "    set -l waits 0\n"
    "    for word in (commandline -opc)[2..-1]\n"
    "        if test $waits = 1\n"
    "            set waits 0\n"
    "            continue\n"
    "        end\n"
    "        switch $word\n"
    "            case ";

static const char fish_middle[] = "\n"
                                  "                set waits 1\n"
                                  "            case '-*'\n"
                                  "            case '*'\n"
                                  "                echo -- $word\n"
                                  "        end\n"
                                  "    end\n"
                                  "end\n\n"
                                  "# Do exactly these words stand there?\n"
                                  "function __millrace_at\n"
                                  "    set -l words (__millrace_words)\n"
                                  "    test \"$words\" = \"$argv\"\n"
                                  "end\n\n"
                                  "# Do these words stand there first?\n"
                                  "function __millrace_after\n"
                                  "    set -l words (__millrace_words)\n"
                                  "    set -l count (count $argv)\n"
                                  "    test (count $words) -ge $count; and "
                                  "test \"$words[1..$count]\" = \"$argv\"\n"
                                  "end\n\n"
                                  "complete -c millrace -f\n";

static void fish_quoted(FILE *out, const char *text) {
    fputc('\'', out);
    for (; *text != '\0'; text++) {
        if (*text == '\'' || *text == '\\')
            fputc('\\', out);
        fputc(*text, out);
    }
    fputc('\'', out);
}

static void fish_value_options(FILE *out) {
    for (size_t i = 0; i < mr_option_count; i++) {
        const mr_option *option = &mr_options[i];
        if (!mr_shell_takes_word(option))
            continue;
        bool before = false;
        for (size_t j = 0; j < i && !before; j++)
            before = strcmp(mr_options[j].name, option->name) == 0;
        if (!before)
            fprintf(out, " --%s", option->name);
        if (option->letter != 0)
            fprintf(out, " -%c", option->letter);
    }
}

/* -a '(...)' or -F for values of that kind; nothing where none can be offered. */
static void fish_value(FILE *out, mr_shell_value value) {
    const char *query = mr_shell_query(value);
    if (query != NULL)
        fprintf(out, " -a '(command millrace %s 2>/dev/null)'", query);
    else if (value == MR_SHELL_VALUE_FILE)
        fputs(" -F", out);
    else if (value == MR_SHELL_VALUE_SHELL)
        fputs(" -a 'bash zsh fish'", out);
}

static void fish_option(FILE *out, const mr_option *option, const mr_command *command) {
    fputs("complete -c millrace", out);
    if (command != NULL)
        fprintf(out, " -n '__millrace_after %s%s%s'", command->noun,
                command->verb[0] ? " " : "", command->verb);
    fprintf(out, " -l %s", option->name);
    if (option->letter != 0)
        fprintf(out, " -s %c", option->letter);
    if (mr_shell_takes_word(option))
        fputs(mr_shell_option(option) == MR_SHELL_VALUE_FILE ? " -r" : " -x", out);
    if (option->kind == MR_OPTION_CHOICE) {
        fputs(" -a '", out);
        for (const char *at = option->argument; *at != '\0'; at++)
            fputc(*at == '|' ? ' ' : *at, out);
        fputc('\'', out);
    } else {
        fish_value(out, mr_shell_option(option));
    }
    fputs(" -d ", out);
    fish_quoted(out, option->help);
    fputc('\n', out);
}

static void fish_words(FILE *out) {
    for (size_t i = 0; i < mr_noun_count; i++) {
        fprintf(out, "complete -c millrace -n '__millrace_at' -a %s -d ", mr_nouns[i].name);
        fish_quoted(out, mr_nouns[i].help);
        fputc('\n', out);
    }
    for (size_t i = 0; i < mr_command_count; i++) {
        const mr_command *command = &mr_commands[i];
        mr_shell_value value = mr_shell_argument(command);
        if (command->verb[0] != '\0') {
            fprintf(out, "complete -c millrace -n '__millrace_at %s' -a %s -d ", command->noun,
                    command->verb);
            fish_quoted(out, command->help);
            fputc('\n', out);
        }
        if (value == MR_SHELL_VALUE_OTHER)
            continue;
        fprintf(out, "complete -c millrace -n '__millrace_after %s%s%s'", command->noun,
                command->verb[0] ? " " : "", command->verb);
        if (value == MR_SHELL_VALUE_NOUN) {
            fputs(" -a '", out);
            for (size_t n = 0; n < mr_noun_count; n++)
                fprintf(out, "%s ", mr_nouns[n].name);
            fputc('\'', out);
        }
        fish_value(out, value);
        fputc('\n', out);
    }
}

void mr_shell_print_fish(FILE *out) {
    fputs(fish_head, out);
    fish_value_options(out);
    fputs(fish_middle, out);
    fish_words(out);
    for (size_t i = 0; i < mr_option_count; i++) {
        const mr_option *option = &mr_options[i];
        bool global = option->scope == MR_COMMAND_global;
        fish_option(out, option, global ? NULL : &mr_commands[option->scope]);
    }
}
