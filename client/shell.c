/* SPDX-License-Identifier: Apache-2.0 */
#include "client/shell.h"

#include <string.h>

/* A word of an argument's name, as commands.def writes it, and what it stands for. */
static const struct {
    const char *word;
    mr_shell_value value;
} shell_words[] = {
    {"NOUN", MR_SHELL_VALUE_NOUN},     {"SHELL", MR_SHELL_VALUE_SHELL},
    {"FILE", MR_SHELL_VALUE_FILE},     {"DIR", MR_SHELL_VALUE_FILE},
    {"PATH", MR_SHELL_VALUE_FILE},     {"DS_CONFIG", MR_SHELL_VALUE_FILE},
    {"SOURCE", MR_SHELL_VALUE_FILE},   {"JOB", MR_SHELL_VALUE_JOB},
    {"MEMBER", MR_SHELL_VALUE_MEMBER},
};

static mr_shell_value shell_value(const char *argument) {
    for (size_t i = 0; i < sizeof(shell_words) / sizeof(shell_words[0]); i++) {
        if (strstr(argument, shell_words[i].word) != NULL)
            return shell_words[i].value;
    }
    return MR_SHELL_VALUE_OTHER;
}

mr_shell_value mr_shell_argument(const mr_command *command) {
    if (strcmp(command->noun, "config") == 0 && strcmp(command->arguments, "NAME") == 0)
        return MR_SHELL_VALUE_CONTEXT;
    return shell_value(command->arguments);
}

mr_shell_value mr_shell_option(const mr_option *option) {
    if (strcmp(option->name, "context") == 0)
        return MR_SHELL_VALUE_CONTEXT;
    return option->argument == NULL || option->kind == MR_OPTION_CHOICE
               ? MR_SHELL_VALUE_OTHER
               : shell_value(option->argument);
}

const char *mr_shell_query(mr_shell_value value) {
    static const char *const queries[MR_SHELL_VALUE_COUNT] = {
        [MR_SHELL_VALUE_JOB] = "-q -o name --timeout " MR_SHELL_WAIT_SECONDS " job list",
        [MR_SHELL_VALUE_MEMBER] = "-q -o name --timeout " MR_SHELL_WAIT_SECONDS " stage list",
        [MR_SHELL_VALUE_CONTEXT] = "-q -o name config get-contexts",
    };
    MR_ASSERT(value < MR_SHELL_VALUE_COUNT);
    return queries[value];
}

bool mr_shell_noun_has_verbs(const char *noun) {
    for (size_t i = 0; i < mr_command_count; i++) {
        if (strcmp(mr_commands[i].noun, noun) == 0 && mr_commands[i].verb[0] != '\0')
            return true;
    }
    return false;
}

bool mr_shell_takes_word(const mr_option *option) {
    return option->kind != MR_OPTION_FLAG && option->kind != MR_OPTION_OPTIONAL;
}
