/* SPDX-License-Identifier: Apache-2.0 */
/* shell_zsh.c: completions for zsh, with descriptions. The file works both as _millrace in $fpath
 * and sourced. */
#include <string.h>

#include "client/shell.h"

/* Inside single quotes; colon: one of the name's is not its end. */
static void zsh_quoted(FILE *out, const char *text, bool colon) {
    for (; *text != '\0'; text++) {
        if (*text == '\'')
            fputs("'\\''", out);
        else if (*text == ':' && colon)
            fputs("\\:", out);
        else
            fputc(*text, out);
    }
}

static void zsh_entry(FILE *out, const char *prefix, const char *name, const char *help) {
    fprintf(out, " '%s", prefix);
    zsh_quoted(out, name, true);
    fputc(':', out);
    zsh_quoted(out, help, false);
    fputc('\'', out);
}

static void zsh_options_of(FILE *out, mr_command_id scope) {
    for (size_t i = 0; i < mr_option_count; i++) {
        if (mr_options[i].scope == scope)
            zsh_entry(out, "--", mr_options[i].name, mr_options[i].help);
    }
}

static void zsh_value(FILE *out, mr_shell_value value) {
    const char *query = mr_shell_query(value);
    if (query != NULL)
        fprintf(out, "compadd -- ${(f)\"$(${words[1]} %s 2>/dev/null </dev/null)\"}", query);
    else if (value == MR_SHELL_VALUE_FILE)
        fputs("_files", out);
    else if (value == MR_SHELL_VALUE_SHELL)
        fputs("compadd -- bash zsh fish", out);
    else if (value == MR_SHELL_VALUE_NOUN)
        fputs("_describe -t commands noun nouns", out);
    else
        fputs("_message value", out);
}

/* Walks the words before the cursor, as the parser does. */
static void zsh_walk(FILE *out) {
    const char *between = "        ";
    fputs("    local noun='' verb='' waits='' word i\n"
          "    for ((i = 2; i < CURRENT; i++)); do\n"
          "        word=${words[i]}\n"
          "        if [[ -n $waits ]]; then waits=''; continue; fi\n"
          "        case $word in\n",
          out);
    for (size_t i = 0; i < mr_option_count; i++) {
        const mr_option *option = &mr_options[i];
        if (!mr_shell_takes_word(option))
            continue;
        bool before = false;
        for (size_t j = 0; j < i && !before; j++)
            before = strcmp(mr_options[j].name, option->name) == 0;
        if (!before)
            fprintf(out, "%s--%s", between, option->name);
        between = " | ";
        if (option->letter != 0)
            fprintf(out, "%s-%c", between, option->letter);
    }
    fputs(") waits=$word ;;\n"
          "        -*) ;;\n"
          "        *) if [[ -z $noun ]]; then noun=$word; elif [[ -z $verb ]]; then verb=$word; fi "
          ";;\n"
          "        esac\n"
          "    done\n",
          out);
}

static void zsh_option_values(FILE *out) {
    fputs("    case $waits in\n", out);
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
        fputs(") ", out);
        if (option->kind == MR_OPTION_CHOICE) {
            fputs("compadd --", out);
            for (const char *at = option->argument; *at != '\0'; at++) {
                if (at == option->argument || *at == '|')
                    fputc(' ', out);
                if (*at != '|')
                    fputc(*at, out);
            }
        } else {
            zsh_value(out, mr_shell_option(option));
        }
        fputs("; return ;;\n", out);
    }
    fputs("    esac\n", out);
}

static void zsh_options(FILE *out) {
    fputs("    local -a options verbs nouns\n    nouns=(", out);
    for (size_t i = 0; i < mr_noun_count; i++)
        zsh_entry(out, "", mr_nouns[i].name, mr_nouns[i].help);
    fputs(")\n    if [[ $PREFIX == -* ]]; then\n        options=(", out);
    zsh_options_of(out, MR_COMMAND_global);
    fputs(")\n        case \"$noun $verb\" in\n", out);
    for (size_t i = 0; i < mr_command_count; i++) {
        const mr_command *command = &mr_commands[i];
        fprintf(out, "        '%s %s'%s) options+=(", command->noun, command->verb,
                command->verb[0] == '\0' && !mr_shell_noun_has_verbs(command->noun) ? "*" : "");
        zsh_options_of(out, command->id);
        fputs(") ;;\n", out);
    }
    fputs("        esac\n        _describe -t options option options\n        return\n    fi\n",
          out);
}

static void zsh_words(FILE *out) {
    fputs("    case \"$noun $verb\" in\n    ' ') _describe -t commands noun nouns ;;\n", out);
    for (size_t n = 0; n < mr_noun_count; n++) {
        if (!mr_shell_noun_has_verbs(mr_nouns[n].name))
            continue;
        fprintf(out, "    '%s ') verbs=(", mr_nouns[n].name);
        for (size_t i = 0; i < mr_command_count; i++) {
            if (strcmp(mr_commands[i].noun, mr_nouns[n].name) == 0 &&
                mr_commands[i].verb[0] != '\0')
                zsh_entry(out, "", mr_commands[i].verb, mr_commands[i].help);
        }
        fputs("); _describe -t commands verb verbs ;;\n", out);
    }
    for (size_t i = 0; i < mr_command_count; i++) {
        const mr_command *command = &mr_commands[i];
        mr_shell_value value = mr_shell_argument(command);
        if (value == MR_SHELL_VALUE_OTHER)
            continue;
        fprintf(out, "    '%s %s'%s) ", command->noun, command->verb,
                command->verb[0] == '\0' ? "*" : "");
        zsh_value(out, value);
        fputs(" ;;\n", out);
    }
    fputs("    esac\n", out);
}

void mr_shell_print_zsh(FILE *out) {
    fputs("#compdef millrace\n# zsh completion of millrace; made by: millrace completion zsh\n"
          "_millrace() {\n",
          out);
    zsh_walk(out);
    zsh_option_values(out);
    zsh_options(out);
    zsh_words(out);
    fputs("}\n\nif [[ ${funcstack[1]} == _millrace ]]; then\n    _millrace \"$@\"\nelse\n"
          "    compdef _millrace millrace\nfi\n",
          out);
}
