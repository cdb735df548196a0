/* SPDX-License-Identifier: Apache-2.0 */
/* shell.h: what makes a shell complete millrace's command lines, made from commands.def: nouns,
 * verbs, options and choices are written out; jobs, stages and contexts are asked of millrace when
 * the key is pressed, at most MR_SHELL_WAIT_SECONDS long. Owner: client. Thread: main. */
#ifndef MR_CLIENT_SHELL_H
#define MR_CLIENT_SHELL_H

#include <stdbool.h>
#include <stdio.h>

#include "client/commands.h"

#define MR_SHELL_WAIT_SECONDS "2"

/* What an argument or an option's value is, as far as completion can help. */
typedef enum mr_shell_value {
    MR_SHELL_VALUE_OTHER, /* nothing can be offered */
    MR_SHELL_VALUE_FILE,
    MR_SHELL_VALUE_JOB,
    MR_SHELL_VALUE_MEMBER,
    MR_SHELL_VALUE_CONTEXT,
    MR_SHELL_VALUE_NOUN,
    MR_SHELL_VALUE_SHELL,
    MR_SHELL_VALUE_COUNT
} mr_shell_value;

/* What the arguments of a command are, and the value of an option. */
mr_shell_value mr_shell_argument(const mr_command *command);
mr_shell_value mr_shell_option(const mr_option *option);
/* The command line that lists the values of such a kind, without its first word; NULL: none. */
const char *mr_shell_query(mr_shell_value value);
/* Does the noun have a row with a verb? */
bool mr_shell_noun_has_verbs(const char *noun);
/* Does the option take a value as a word of its own? */
bool mr_shell_takes_word(const mr_option *option);

/* What bash sources: one function, in bash alone. */
void mr_shell_print_bash(FILE *out);
/* The same for zsh, as a file of $fpath or to be sourced. */
void mr_shell_print_zsh(FILE *out);
/* The same for fish. */
void mr_shell_print_fish(FILE *out);

#endif
