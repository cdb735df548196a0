/* SPDX-License-Identifier: Apache-2.0 */
/* commands.h: what a command line means, by the one table in commands.def.
 * Options may stand anywhere, as --name VALUE, --name=VALUE, -x VALUE or -xVALUE; "--" ends them.
 * Owner: client. Thread: main. Pure: no I/O. Limits: MR_ARGUMENTS_MAX.
 * Not here: what a command does (one file per noun), the texts of --help (help.h). */
#ifndef MR_CLIENT_COMMANDS_H
#define MR_CLIENT_COMMANDS_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/base/status.h"

enum { MR_ARGUMENTS_MAX = 2 };

typedef enum mr_command_id {
#define MR_COMMAND(id, noun, verb, arguments, minimum, maximum, help) MR_COMMAND_##id,
#include "client/commands.def"
    MR_COMMAND_global, /* the scope of options that every command has; no command */
    MR_COMMAND_COUNT
} mr_command_id;

typedef struct mr_noun {
    const char *name;
    const char *help;
} mr_noun;

typedef struct mr_command {
    mr_command_id id;
    const char *noun;
    const char *verb; /* "" where the noun alone is the command */
    const char *arguments;
    size_t argument_minimum;
    size_t argument_maximum;
    const char *help;
} mr_command;

typedef enum mr_option_kind {
    MR_OPTION_FLAG,
    MR_OPTION_TEXT,
    MR_OPTION_OPTIONAL, /* with or without =VALUE */
    MR_OPTION_INTEGER,
    MR_OPTION_NUMBER,
    MR_OPTION_CHOICE,
    MR_OPTION_KIND_COUNT
} mr_option_kind;

typedef struct mr_option {
    mr_command_id scope;
    const char *name;
    char letter; /* 0: none */
    mr_option_kind kind;
    const char *argument; /* for a CHOICE the choices, separated by '|' */
    const char *value;    /* default; NULL: none */
    double minimum;
    double maximum;
    const char *help;
} mr_option;

/* A global option whose value the environment and configuration files may set, too. */
typedef struct mr_setting {
    const char *name;
    bool path; /* a relative one in a file starts from the file's folder */
} mr_setting;

extern const mr_noun mr_nouns[];
extern const size_t mr_noun_count;
extern const mr_command mr_commands[];
extern const size_t mr_command_count;
extern const mr_option mr_options[];
extern const size_t mr_option_count;
extern const mr_setting mr_settings[];
extern const size_t mr_setting_count;

enum { MR_OPTIONS_MAX = 192, MR_SETTINGS_MAX = 16 };

/* A command line, read. Strings point into argv. */
typedef struct mr_invocation {
    const mr_command *command; /* NULL: help on the client or on noun */
    const char *noun;          /* NULL: none was named */
    bool help;                 /* --help was given, or nothing to run */
    size_t argument_count;
    const char *arguments[MR_ARGUMENTS_MAX];
    bool given[MR_OPTIONS_MAX];         /* on the command line; by row of mr_options */
    bool configured[MR_OPTIONS_MAX];    /* by the environment or a file */
    const char *values[MR_OPTIONS_MAX]; /* as given or configured, else the default, else NULL */
} mr_invocation;

/* Reads argv (argv[0] is the program). INVALID_ARGUMENT: a usage error; its text names what is
 * wrong and the nearest noun, verb or option where one is near. *out_invocation is then still good
 * for telling which help to offer. */
MR_MUST_CHECK mr_status mr_invocation_parse(int argc, char *const *argv,
                                            mr_invocation *out_invocation);

/* Values of an option by its name; the option must be global or of the invocation's command. */
bool mr_invocation_given(const mr_invocation *invocation, const char *name);
/* Was it given, or configured? */
bool mr_invocation_set(const mr_invocation *invocation, const char *name);
/* Is a FLAG on: given, or configured as true? */
bool mr_invocation_flag(const mr_invocation *invocation, const char *name);
/* NULL where there is neither value nor default. */
const char *mr_invocation_text(const mr_invocation *invocation, const char *name);
int64_t mr_invocation_integer(const mr_invocation *invocation, const char *name);
double mr_invocation_number(const mr_invocation *invocation, const char *name);

/* The row of mr_settings of that name; MR_SETTINGS_MAX where there is none. */
size_t mr_setting_find(const char *name);
/* The option whose value the setting is. */
const mr_option *mr_setting_option(size_t setting);
/* May text be a setting's value? label names it in the error. A FLAG is true or false. */
MR_MUST_CHECK mr_status mr_setting_check(size_t setting, const char *label, const char *text);
/* Gives an option that the command line leaves open a checked value, which must outlive the
 * invocation. */
void mr_invocation_configure(mr_invocation *invocation, const char *name, const char *value);

/* The command of that noun and verb ("" or NULL: none); NULL where there is none. */
const mr_command *mr_command_find(const char *noun, const char *verb);

#endif
