/* SPDX-License-Identifier: Apache-2.0 */
/* shell_bash.c: completions for bash, in one function that needs nothing but bash itself. */
#include <string.h>

#include "client/shell.h"

static const char bash_head[] =
    "# bash completion of millrace; made by: millrace completion bash\n"
    "_millrace_ask() {\n"
    "    local name\n"
    "    while IFS= read -r name; do\n"
    "        [[ $name == \"$cur\"* ]] && COMPREPLY+=(\"$name\")\n"
    "    done < <(\"${COMP_WORDS[0]}\" \"${connection[@]}\" \"$@\" 2>/dev/null </dev/null)\n"
    "}\n\n"
    "_millrace_words() {\n"
    "    mapfile -t COMPREPLY < <(compgen -W \"$1\" -- \"$cur\")\n"
    "}\n\n"
    "_millrace_files() {\n"
    "    mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n"
    "    compopt -o filenames 2>/dev/null\n"
    "}\n\n"
    "_millrace() {\n"
    "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}\n"
    "    local noun=\"\" verb=\"\" waits=\"\" word i\n"
    "    local -a connection=()\n"
    "    COMPREPLY=()\n"
    "    # bash cuts --name=value into three words\n"
    "    [[ $cur == = ]] && cur=\"\"\n"
    "    [[ $prev == = ]] && prev=${COMP_WORDS[COMP_CWORD - 2]}\n"
    "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
    "        word=${COMP_WORDS[i]}\n"
    "        [[ $word == = ]] && continue\n"
    "        if [[ -n $waits ]]; then\n"
    "            [[ $waits == --server || $waits == --context ]] && "
    "connection+=(\"$waits\" \"$word\")\n"
    "            waits=\"\"\n"
    "            continue\n"
    "        fi\n"
    "        case $word in\n"
    "        -s) waits=--server ;;\n";

static const char bash_middle[] = "        -*) ;;\n"
                                  "        *)\n"
                                  "            if [[ -z $noun ]]; then\n"
                                  "                noun=$word\n"
                                  "            elif [[ -z $verb ]]; then\n"
                                  "                verb=$word\n"
                                  "            fi\n"
                                  "            ;;\n"
                                  "        esac\n"
                                  "    done\n";

/* Every option with a value, so that its value is not taken for a noun. */
static void bash_value_options(FILE *out) {
    const char *between = "        ";
    for (size_t i = 0; i < mr_option_count; i++) {
        const mr_option *option = &mr_options[i];
        if (!mr_shell_takes_word(option))
            continue;
        bool before = false;
        for (size_t j = 0; j < i && !before; j++)
            before = strcmp(mr_options[j].name, option->name) == 0;
        if (!before) {
            fprintf(out, "%s--%s", between, option->name);
            between = " | ";
        }
        if (option->letter != 0 && option->letter != 's')
            fprintf(out, "%s-%c", between, option->letter);
    }
    fputs(") waits=$word ;;\n", out);
}

static void bash_value(FILE *out, mr_shell_value value) {
    const char *query = mr_shell_query(value);
    if (query != NULL)
        fprintf(out, "_millrace_ask %s", query);
    else if (value == MR_SHELL_VALUE_FILE)
        fputs("_millrace_files", out);
    else if (value == MR_SHELL_VALUE_SHELL)
        fputs("_millrace_words 'bash zsh fish'", out);
    else
        fputs(":", out);
}

/* What follows an option that takes a value. One of a name that several commands have means the
 * same in all of them. */
static void bash_option_values(FILE *out) {
    fputs("    case $prev in\n", out);
    for (size_t i = 0; i < mr_option_count; i++) {
        const mr_option *option = &mr_options[i];
        bool before = !mr_shell_takes_word(option);
        for (size_t j = 0; j < i && !before; j++)
            before = strcmp(mr_options[j].name, option->name) == 0;
        if (before)
            continue;
        fprintf(out, "    --%s", option->name);
        if (option->letter != 0)
            fprintf(out, " | -%c", option->letter);
        fputs(")\n        ", out);
        if (option->kind == MR_OPTION_CHOICE) {
            fputs("_millrace_words '", out);
            for (const char *at = option->argument; *at != '\0'; at++)
                fputc(*at == '|' ? ' ' : *at, out);
            fputs("'", out);
        } else {
            bash_value(out, mr_shell_option(option));
        }
        fputs("\n        return\n        ;;\n", out);
    }
    fputs("    esac\n", out);
}

static void bash_options_of(FILE *out, mr_command_id scope) {
    for (size_t i = 0; i < mr_option_count; i++) {
        if (mr_options[i].scope == scope)
            fprintf(out, " --%s", mr_options[i].name);
    }
}

/* The options of the command that stands there, with the global ones. */
static void bash_options(FILE *out) {
    fputs("    if [[ $cur == -* ]]; then\n        word='", out);
    bash_options_of(out, MR_COMMAND_global);
    fputs("'\n        case \"$noun $verb\" in\n", out);
    for (size_t i = 0; i < mr_command_count; i++) {
        const mr_command *command = &mr_commands[i];
        bool any = false;
        for (size_t o = 0; o < mr_option_count && !any; o++)
            any = mr_options[o].scope == command->id;
        if (!any)
            continue;
        fprintf(out, "        '%s %s'%s) word+='", command->noun, command->verb,
                command->verb[0] == '\0' && !mr_shell_noun_has_verbs(command->noun) ? "*" : "");
        bash_options_of(out, command->id);
        fputs("' ;;\n", out);
    }
    fputs("        esac\n        _millrace_words \"$word\"\n        return\n    fi\n", out);
}

static void bash_nouns(FILE *out) {
    for (size_t i = 0; i < mr_noun_count; i++)
        fprintf(out, "%s%s", i == 0 ? "" : " ", mr_nouns[i].name);
}

static void bash_verbs(FILE *out, const char *noun) {
    fprintf(out, "    '%s ') _millrace_words '", noun);
    for (size_t i = 0; i < mr_command_count; i++) {
        if (strcmp(mr_commands[i].noun, noun) == 0 && mr_commands[i].verb[0] != '\0')
            fprintf(out, "%s ", mr_commands[i].verb);
    }
    fputs("' ;;\n", out);
}

/* Nouns, then verbs, then arguments. */
static void bash_words(FILE *out) {
    fputs("    case \"$noun $verb\" in\n    ' ') _millrace_words '", out);
    bash_nouns(out);
    fputs("' ;;\n", out);
    for (size_t i = 0; i < mr_noun_count; i++) {
        if (mr_shell_noun_has_verbs(mr_nouns[i].name))
            bash_verbs(out, mr_nouns[i].name);
    }
    for (size_t i = 0; i < mr_command_count; i++) {
        const mr_command *command = &mr_commands[i];
        mr_shell_value value = mr_shell_argument(command);
        if (value == MR_SHELL_VALUE_OTHER)
            continue;
        fprintf(out, "    '%s %s'%s) ", command->noun, command->verb,
                command->verb[0] == '\0' ? "*" : "");
        if (value == MR_SHELL_VALUE_NOUN) {
            fputs("_millrace_words '", out);
            bash_nouns(out);
            fputs("'", out);
        } else {
            bash_value(out, value);
        }
        fputs(" ;;\n", out);
    }
    fputs("    esac\n", out);
}

void mr_shell_print_bash(FILE *out) {
    fputs(bash_head, out);
    bash_value_options(out);
    fputs(bash_middle, out);
    bash_option_values(out);
    bash_options(out);
    bash_words(out);
    fputs("}\n\ncomplete -F _millrace millrace\n", out);
}
