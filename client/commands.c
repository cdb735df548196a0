/* SPDX-License-Identifier: Apache-2.0 */
#include "client/commands.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/suggest.h"

const mr_noun mr_nouns[] = {
#define MR_NOUN(noun, help) {noun, help},
#include "client/commands.def"
};
const size_t mr_noun_count = sizeof(mr_nouns) / sizeof(mr_nouns[0]);

const mr_command mr_commands[] = {
#define MR_COMMAND(id, noun, verb, arguments, minimum, maximum, help)                              \
    {MR_COMMAND_##id, noun, verb, arguments, minimum, maximum, help},
#include "client/commands.def"
};
const size_t mr_command_count = sizeof(mr_commands) / sizeof(mr_commands[0]);

const mr_option mr_options[] = {
#define MR_OPTION(scope, name, letter, kind, argument, value, minimum, maximum, help)              \
    {MR_COMMAND_##scope, name, letter, MR_OPTION_##kind, argument, value, minimum, maximum, help},
#include "client/commands.def"
};
const size_t mr_option_count = sizeof(mr_options) / sizeof(mr_options[0]);

const mr_setting mr_settings[] = {
#define MR_SETTING(name, path) {name, path},
#include "client/commands.def"
};
const size_t mr_setting_count = sizeof(mr_settings) / sizeof(mr_settings[0]);

static_assert(sizeof(mr_options) / sizeof(mr_options[0]) <= MR_OPTIONS_MAX,
              "an invocation has room for every option");
static_assert(sizeof(mr_settings) / sizeof(mr_settings[0]) <= MR_SETTINGS_MAX,
              "a configuration has room for every setting");

/* Where the reading of a command line stands. */
typedef struct parse_state {
    mr_invocation *invocation;
    int argc;
    char *const *argv;
    int next;          /* argument to read next */
    bool options_done; /* after "--" */
} parse_state;

const mr_command *mr_command_find(const char *noun, const char *verb) {
    for (size_t i = 0; i < mr_command_count; i++) {
        const mr_command *command = &mr_commands[i];
        if (strcmp(command->noun, noun) == 0 && strcmp(command->verb, verb ? verb : "") == 0)
            return command;
    }
    return NULL;
}

static bool option_applies(const mr_option *option, const mr_command *command) {
    return option->scope == MR_COMMAND_global || (command != NULL && option->scope == command->id);
}

static size_t option_find(const mr_command *command, const char *name, size_t length) {
    for (size_t i = 0; i < mr_option_count; i++) {
        if (option_applies(&mr_options[i], command) && strlen(mr_options[i].name) == length &&
            strncmp(mr_options[i].name, name, length) == 0)
            return i;
    }
    return MR_OPTIONS_MAX;
}

static size_t option_find_letter(const mr_command *command, char letter) {
    for (size_t i = 0; i < mr_option_count; i++) {
        if (option_applies(&mr_options[i], command) && mr_options[i].letter == letter)
            return i;
    }
    return MR_OPTIONS_MAX;
}

/* Is value one of the words in "a|b|c"? */
static bool option_choice_listed(const char *choices, const char *value) {
    size_t length = strlen(value);
    for (const char *at = choices; at != NULL; at = strchr(at, '|')) {
        if (*at == '|')
            at++;
        if (strncmp(at, value, length) == 0 && (at[length] == '|' || at[length] == '\0'))
            return length > 0;
    }
    return false;
}

static mr_status option_check_integer(const mr_option *option, const char *label,
                                      const char *value) {
    char *end = NULL;
    errno = 0;
    long long number = strtoll(value, &end, 10);
    if (end == value || *end != '\0' || errno != 0 || (double)number < option->minimum ||
        (double)number > option->maximum)
        return MR_ERROR(INVALID_ARGUMENT,
                        "%s is %.80s; it must be a whole number from %.0f to %.0f", label, value,
                        option->minimum, option->maximum);
    return MR_OK;
}

/* A number; one of SECONDS may have a unit: 500ms, 30s, 2m, 1h. False: it is none. */
static bool option_number(const mr_option *option, const char *value, double *out_number) {
    static const struct {
        const char *unit;
        double seconds;
    } units[] = {{"ms", 0.001}, {"s", 1}, {"m", 60}, {"h", 3600}};
    char *end = NULL;
    errno = 0;
    *out_number = strtod(value, &end);
    if (end == value || errno != 0)
        return false;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (strcmp(option->argument, "SECONDS") == 0 && strcmp(end, units[i].unit) == 0) {
            *out_number *= units[i].seconds;
            return true;
        }
    }
    return *end == '\0';
}

static mr_status option_check_number(const mr_option *option, const char *label,
                                     const char *value) {
    double number = 0;
    if (!option_number(option, value, &number) ||
        !(number >= option->minimum && number <= option->maximum))
        return MR_ERROR(INVALID_ARGUMENT, "%s is %.80s; it must be a number from %g to %g", label,
                        value, option->minimum, option->maximum);
    return MR_OK;
}

/* label: what the error calls the value's place. */
static mr_status option_check(const mr_option *option, const char *label, const char *value) {
    switch (option->kind) {
    case MR_OPTION_INTEGER:
        return option_check_integer(option, label, value);
    case MR_OPTION_NUMBER:
        return option_check_number(option, label, value);
    case MR_OPTION_CHOICE:
        if (!option_choice_listed(option->argument, value))
            return MR_ERROR(INVALID_ARGUMENT, "%s is %.80s; it must be one of %s", label, value,
                            option->argument);
        return MR_OK;
    default:
        return MR_OK;
    }
}

static mr_status option_set(parse_state *state, size_t row, const char *value) {
    MR_ASSERT(row < mr_option_count);
    char label[64];
    snprintf(label, sizeof(label), "--%s", mr_options[row].name);
    MR_TRY(option_check(&mr_options[row], label, value));
    state->invocation->given[row] = true;
    state->invocation->values[row] = value;
    if (strcmp(mr_options[row].name, "help") == 0)
        state->invocation->help = true;
    return MR_OK;
}

/* The word after an option that needs a value. */
static mr_status option_take_value(parse_state *state, const mr_option *option,
                                   const char **out_value) {
    if (state->next >= state->argc)
        return MR_ERROR(INVALID_ARGUMENT, "--%s needs a value: --%s %s", option->name, option->name,
                        option->argument);
    *out_value = state->argv[state->next++];
    return MR_OK;
}

static mr_status option_unknown(const parse_state *state, const char *word) {
    const mr_command *command = state->invocation->command;
    const char *near = NULL;
    size_t best = SIZE_MAX;
    for (size_t i = 0; i < mr_option_count; i++) {
        if (option_applies(&mr_options[i], command) &&
            mr_suggest_better(word, mr_options[i].name, &best))
            near = mr_options[i].name;
    }
    if (near != NULL)
        return MR_ERROR(INVALID_ARGUMENT, "unknown option --%s; did you mean --%s?", word, near);
    return MR_ERROR(INVALID_ARGUMENT, "unknown option --%s", word);
}

static mr_status parse_long(parse_state *state, const char *text) {
    const char *equals = strchr(text, '=');
    size_t length = equals ? (size_t)(equals - text) : strlen(text);
    size_t row = option_find(state->invocation->command, text, length);
    if (row == MR_OPTIONS_MAX) {
        char word[64];
        size_t copied = length < sizeof(word) ? length : sizeof(word) - 1;
        memcpy(word, text, copied);
        word[copied] = '\0';
        return option_unknown(state, word);
    }
    const mr_option *option = &mr_options[row];
    const char *value = equals ? equals + 1 : "";
    if (option->kind == MR_OPTION_FLAG && equals != NULL)
        return MR_ERROR(INVALID_ARGUMENT, "--%s takes no value; got %s", option->name, value);
    if (equals == NULL && option->kind != MR_OPTION_FLAG && option->kind != MR_OPTION_OPTIONAL)
        MR_TRY(option_take_value(state, option, &value));
    return option_set(state, row, value);
}

/* -q, -o json, -ojson; flags may be joined: -qo json. */
static mr_status parse_short(parse_state *state, const char *letters) {
    for (; *letters != '\0'; letters++) {
        size_t row = option_find_letter(state->invocation->command, *letters);
        if (row == MR_OPTIONS_MAX)
            return MR_ERROR(INVALID_ARGUMENT, "unknown option -%c", *letters);
        const mr_option *option = &mr_options[row];
        if (option->kind == MR_OPTION_FLAG) {
            MR_TRY(option_set(state, row, ""));
            continue;
        }
        const char *value = letters + 1;
        if (*value == '\0')
            MR_TRY(option_take_value(state, option, &value));
        return option_set(state, row, value);
    }
    return MR_OK;
}

static mr_status noun_unknown(const char *word) {
    const char *near = NULL;
    size_t best = SIZE_MAX;
    for (size_t i = 0; i < mr_command_count; i++) {
        if (mr_commands[i].verb[0] != '\0' && strcmp(mr_commands[i].verb, word) == 0)
            return MR_ERROR(INVALID_ARGUMENT, "%s is a verb; did you mean %s %s?", word,
                            mr_commands[i].noun, word);
    }
    for (size_t i = 0; i < mr_noun_count; i++) {
        if (mr_suggest_better(word, mr_nouns[i].name, &best))
            near = mr_nouns[i].name;
    }
    if (near != NULL)
        return MR_ERROR(INVALID_ARGUMENT, "unknown command %s; did you mean %s?", word, near);
    return MR_ERROR(INVALID_ARGUMENT, "unknown command %s", word);
}

static mr_status verb_unknown(const char *noun, const char *word) {
    const char *near = NULL;
    size_t best = SIZE_MAX;
    for (size_t i = 0; i < mr_command_count; i++) {
        if (strcmp(mr_commands[i].noun, noun) == 0 &&
            mr_suggest_better(word, mr_commands[i].verb, &best))
            near = mr_commands[i].verb;
    }
    if (near != NULL)
        return MR_ERROR(INVALID_ARGUMENT, "%s has no verb %s; did you mean %s %s?", noun, word,
                        noun, near);
    return MR_ERROR(INVALID_ARGUMENT, "%s has no verb %s", noun, word);
}

static bool noun_has_verbs(const char *noun) {
    for (size_t i = 0; i < mr_command_count; i++) {
        if (mr_commands[i].verb[0] != '\0' && strcmp(mr_commands[i].noun, noun) == 0)
            return true;
    }
    return false;
}

/* The first word is the noun, the second the verb of a noun that has verbs, the rest arguments. */
static mr_status parse_word(parse_state *state, const char *word) {
    mr_invocation *invocation = state->invocation;
    if (invocation->noun == NULL) {
        for (size_t i = 0; i < mr_noun_count; i++) {
            if (strcmp(mr_nouns[i].name, word) == 0)
                invocation->noun = mr_nouns[i].name;
        }
        if (invocation->noun == NULL)
            return noun_unknown(word);
        invocation->command = mr_command_find(invocation->noun, "");
        return MR_OK;
    }
    if (invocation->command == NULL) {
        invocation->command = mr_command_find(invocation->noun, word);
        return invocation->command ? MR_OK : verb_unknown(invocation->noun, word);
    }
    const mr_command *command = invocation->command;
    /* A noun that is a command by itself may have verbs, too. */
    if (command->verb[0] == '\0' && command->argument_maximum == 0 &&
        noun_has_verbs(command->noun)) {
        invocation->command = mr_command_find(command->noun, word);
        return invocation->command ? MR_OK : verb_unknown(command->noun, word);
    }
    if (invocation->argument_count == command->argument_maximum)
        return MR_ERROR(INVALID_ARGUMENT, "%s%s%s takes %s; %s is too much", command->noun,
                        command->verb[0] ? " " : "", command->verb,
                        command->arguments[0] ? command->arguments : "no argument", word);
    MR_ASSERT(invocation->argument_count < MR_ARGUMENTS_MAX);
    invocation->arguments[invocation->argument_count++] = word;
    return MR_OK;
}

static mr_status parse_all(parse_state *state) {
    while (state->next < state->argc) {
        const char *word = state->argv[state->next++];
        if (state->options_done || word[0] != '-' || word[1] == '\0')
            MR_TRY(parse_word(state, word));
        else if (strcmp(word, "--") == 0)
            state->options_done = true;
        else if (word[1] == '-')
            MR_TRY(parse_long(state, word + 2));
        else
            MR_TRY(parse_short(state, word + 1));
    }
    return MR_OK;
}

/* Everything is read; is it enough? Help needs nothing more. */
static mr_status parse_complete(mr_invocation *invocation) {
    if (invocation->help)
        return MR_OK;
    if (invocation->noun == NULL)
        return MR_ERROR(INVALID_ARGUMENT, "no command; see millrace --help");
    if (invocation->command == NULL)
        return MR_ERROR(INVALID_ARGUMENT, "%s needs a verb; see millrace %s --help",
                        invocation->noun, invocation->noun);
    const mr_command *command = invocation->command;
    for (size_t i = 0; i < mr_option_count; i++) {
        /* read before the verb was known */
        if (invocation->given[i] && !option_applies(&mr_options[i], command))
            return MR_ERROR(INVALID_ARGUMENT, "%s %s has no option --%s", command->noun,
                            command->verb, mr_options[i].name);
    }
    if (invocation->argument_count < command->argument_minimum)
        return MR_ERROR(INVALID_ARGUMENT, "%s%s%s needs %s", command->noun,
                        command->verb[0] ? " " : "", command->verb, command->arguments);
    return MR_OK;
}

mr_status mr_invocation_parse(int argc, char *const *argv, mr_invocation *out_invocation) {
    MR_ASSERT(argc >= 0);
    *out_invocation = (mr_invocation){0};
    for (size_t i = 0; i < mr_option_count; i++)
        out_invocation->values[i] = mr_options[i].value;
    parse_state state = {.invocation = out_invocation, .argc = argc, .argv = argv, .next = 1};
    MR_TRY(parse_all(&state));
    return parse_complete(out_invocation);
}

/* Asking for an option that the command lacks is our bug. */
static size_t invocation_row(const mr_invocation *invocation, const char *name) {
    size_t row = option_find(invocation->command, name, strlen(name));
    MR_ASSERT(row < mr_option_count);
    return row;
}

bool mr_invocation_given(const mr_invocation *invocation, const char *name) {
    return invocation->given[invocation_row(invocation, name)];
}

bool mr_invocation_set(const mr_invocation *invocation, const char *name) {
    size_t row = invocation_row(invocation, name);
    return invocation->given[row] || invocation->configured[row];
}

bool mr_invocation_flag(const mr_invocation *invocation, const char *name) {
    size_t row = invocation_row(invocation, name);
    return invocation->given[row] ||
           (invocation->configured[row] && strcmp(invocation->values[row], "true") == 0);
}

const char *mr_invocation_text(const mr_invocation *invocation, const char *name) {
    return invocation->values[invocation_row(invocation, name)];
}

int64_t mr_invocation_integer(const mr_invocation *invocation, const char *name) {
    const char *value = mr_invocation_text(invocation, name);
    return value ? strtoll(value, NULL, 10) : 0;
}

double mr_invocation_number(const mr_invocation *invocation, const char *name) {
    const mr_option *option = &mr_options[invocation_row(invocation, name)];
    const char *value = mr_invocation_text(invocation, name);
    double number = 0;
    return value != NULL && option_number(option, value, &number) ? number : 0;
}

/* ---- settings -------------------------------------------------------------------------------- */

size_t mr_setting_find(const char *name) {
    for (size_t i = 0; i < mr_setting_count; i++) {
        if (strcmp(mr_settings[i].name, name) == 0)
            return i;
    }
    return MR_SETTINGS_MAX;
}

const mr_option *mr_setting_option(size_t setting) {
    MR_ASSERT(setting < mr_setting_count);
    size_t row = option_find(NULL, mr_settings[setting].name, strlen(mr_settings[setting].name));
    MR_ASSERT(row < mr_option_count); /* commands.def: a setting is a global option */
    return &mr_options[row];
}

mr_status mr_setting_check(size_t setting, const char *label, const char *text) {
    const mr_option *option = mr_setting_option(setting);
    if (option->kind == MR_OPTION_FLAG && strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
        return MR_ERROR(INVALID_ARGUMENT, "%s is %.80s; it must be true or false", label, text);
    return option_check(option, label, text);
}

void mr_invocation_configure(mr_invocation *invocation, const char *name, const char *value) {
    size_t row = invocation_row(invocation, name);
    if (invocation->given[row])
        return;
    invocation->configured[row] = true;
    invocation->values[row] = value;
}
