/* SPDX-License-Identifier: Apache-2.0 */
#include "client/manual.h"

#include <ctype.h>
#include <string.h>

#include "client/commands.h"
#include "daemon/base/version.h"

/* Text as roff takes it: hyphens stay hyphens, and no line begins with a control letter. */
static void manual_text(FILE *out, const char *text) {
    bool begins = true;
    for (; *text != '\0'; text++) {
        if (begins && (*text == '.' || *text == '\''))
            fputs("\\&", out);
        begins = *text == '\n';
        if (*text == '\\')
            fputs("\\e", out);
        else if (*text == '-')
            fputs("\\-", out);
        else
            fputc(*text, out);
    }
}

static void manual_paragraph(FILE *out, const char *text) {
    fputs(".PP\n", out);
    manual_text(out, text);
    fputc('\n', out);
}

/* A term in bold and its explanation. */
static void manual_item(FILE *out, const char *term, const char *text) {
    fputs(".TP\n\\fB", out);
    manual_text(out, term);
    fputs("\\fR\n", out);
    manual_text(out, text);
    fputc('\n', out);
}

static void manual_option(FILE *out, const mr_option *option) {
    fputs(".TP\n", out);
    if (option->letter != 0)
        fprintf(out, "\\fB\\-%c\\fR, ", option->letter);
    fputs("\\fB\\-\\-", out);
    manual_text(out, option->name);
    fputs("\\fR", out);
    if (option->kind == MR_OPTION_OPTIONAL)
        fputs("[=", out);
    else if (option->kind != MR_OPTION_FLAG)
        fputc(' ', out);
    if (option->kind != MR_OPTION_FLAG) {
        fputs("\\fI", out);
        manual_text(out, option->argument);
        fputs("\\fR", out);
    }
    fputs(option->kind == MR_OPTION_OPTIONAL ? "]\n" : "\n", out);
    manual_text(out, option->help);
    if (option->value != NULL) {
        fputs(" (default: ", out);
        manual_text(out, strcmp(option->value, "\n") == 0 ? "a line feed" : option->value);
        fputc(')', out);
    }
    fputs(".\n", out);
}

static void manual_options(FILE *out, mr_command_id scope) {
    for (size_t i = 0; i < mr_option_count; i++) {
        if (mr_options[i].scope == scope)
            manual_option(out, &mr_options[i]);
    }
}

static void manual_command(FILE *out, const mr_command *command) {
    bool options = false;
    fputs(".TP\n\\fBmillrace ", out);
    manual_text(out, command->noun);
    fputs(command->verb[0] ? " " : "", out);
    manual_text(out, command->verb);
    fputs("\\fR", out);
    if (command->arguments[0] != '\0') {
        fputs(" \\fI", out);
        manual_text(out, command->arguments);
        fputs("\\fR", out);
    }
    fputc('\n', out);
    manual_text(out, command->help);
    fputs(".\n", out);
    for (size_t i = 0; i < mr_option_count && !options; i++)
        options = mr_options[i].scope == command->id;
    if (!options)
        return;
    fputs(".RS\n", out);
    manual_options(out, command->id);
    fputs(".RE\n", out);
}

static void manual_commands(FILE *out) {
    fputs(".SH COMMANDS\n", out);
    for (size_t n = 0; n < mr_noun_count; n++) {
        fputs(".SS ", out);
        manual_text(out, mr_nouns[n].name);
        fputc('\n', out);
        manual_text(out, mr_nouns[n].help);
        fputs(".\n", out);
        for (size_t i = 0; i < mr_command_count; i++) {
            if (strcmp(mr_commands[i].noun, mr_nouns[n].name) == 0)
                manual_command(out, &mr_commands[i]);
        }
    }
}

static void manual_environment(FILE *out) {
    fputs(".SH ENVIRONMENT\n", out);
    for (size_t i = 0; i < mr_setting_count; i++) {
        fputs(".TP\n\\fBMILLRACE_", out);
        for (const char *at = mr_settings[i].name; *at != '\0'; at++)
            fputc(*at == '-' ? '_' : toupper((unsigned char)*at), out);
        fputs("\\fR\nAs \\fB\\-\\-", out);
        manual_text(out, mr_settings[i].name);
        fputs("\\fR", out);
        fputs(mr_setting_option(i)->kind == MR_OPTION_FLAG ? "; true or false.\n" : ".\n", out);
    }
    manual_item(out, "NO_COLOR", "Not empty: no colours.");
    manual_item(out, "TERM", "dumb: no colours, no rewritten lines and no full screen.");
    manual_item(out, "XDG_CONFIG_HOME, XDG_STATE_HOME",
                "Where the user's configuration and the state of a local cluster lie; "
                "~/.config and ~/.local/state where they are not set.");
}

static void manual_files(FILE *out) {
    fputs(".SH FILES\n", out);
    manual_item(out, "millrace.yaml",
                "Configuration of a project: the nearest one from the working folder up that "
                "belongs to the user or to root.");
    manual_item(out, "$XDG_CONFIG_HOME/millrace/config.yaml",
                "The user's configuration; millrace config set-context writes it.");
    manual_item(out, "/etc/millrace/config.yaml", "The machine's configuration.");
    manual_item(out, "$XDG_STATE_HOME/millrace/local",
                "State, logs and process ids of the cluster that millrace up starts.");
    fputs(".PP\nA configuration file is YAML. For example:\n.PP\n.nf\n", out);
    manual_text(out, "schema: millrace.config/v1\ncontext: lab\ncontexts:\n"
                     "  lab: {server: \"10.0.0.1:9700\", tls-ca: ca.pem}\n");
    fputs(".fi\n", out);
    manual_paragraph(out,
                     "The first of these that says something counts: the command line, the "
                     "environment, the project's file, the user's, the machine's. Each may set "
                     "a value or name a context; its own value comes before its context's.");
}

static void manual_exit_status(FILE *out) {
    static const struct {
        const char *code;
        const char *meaning;
    } rows[] = {
        {"0", "Done."},
        {"1", "Any other error."},
        {"2", "Wrong usage, or a file that is not as it must be."},
        {"3", "Not found."},
        {"4", "Not possible in this state."},
        {"5", "The coordinator or a stage is not reachable."},
        {"6", "Not allowed."},
        {"7", "Out of time."},
        {"8", "The job failed."},
        {"9", "The job was cancelled."},
        {"130", "Interrupted."},
    };
    fputs(".SH EXIT STATUS\n", out);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        manual_item(out, rows[i].code, rows[i].meaning);
}

static void manual_examples(FILE *out) {
    static const char *const rows[][2] = {
        {"millrace up --stages 2", "Start a coordinator and two stages on this machine."},
        {"millrace train job.yaml", "Train, and follow the training to its end."},
        {"millrace job list --watch", "See the jobs as they go."},
        {"millrace -o json job get tiny | jq .job.loss", "Give one value to a program."},
        {"millrace config set-context lab --server 10.0.0.1:9700 --use",
         "Talk to another cluster from now on."},
        {"millrace down", "End the local cluster."},
    };
    fputs(".SH EXAMPLES\n", out);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        manual_item(out, rows[i][0], rows[i][1]);
}

void mr_manual_print(FILE *out) {
    fprintf(out, ".TH MILLRACE 1 \"\" \"Millrace %s\" \"User Commands\"\n", MR_VERSION);
    fputs(".SH NAME\nmillrace \\- train and run models as a pipeline of stage daemons\n", out);
    fputs(".SH SYNOPSIS\n\\fBmillrace\\fR [\\fIoptions\\fR] \\fInoun\\fR [\\fIverb\\fR] "
          "[\\fIarguments\\fR]\n",
          out);
    fputs(".SH DESCRIPTION\n", out);
    manual_text(out, "millrace talks to a coordinator of Millrace daemons: it submits jobs, feeds "
                     "them their data, follows and steers them, and looks at their checkpoints. "
                     "Data goes to stdout, messages and progress to stderr. Tables are for people "
                     "and may change; JSON carries its schema's name and does not.\n");
    manual_paragraph(out, "Ctrl-C in a command that only follows ends the following; what is "
                          "followed goes on. Ctrl-C in train, which feeds its job, cancels the "
                          "job; its checkpoints stay, and --resume goes on from the newest. A "
                          "second Ctrl-C ends the client at once.");
    fputs(".SH OPTIONS\n", out);
    manual_options(out, MR_COMMAND_global);
    manual_commands(out);
    manual_environment(out);
    manual_files(out);
    manual_exit_status(out);
    manual_examples(out);
    fputs(".SH SEE ALSO\n\\fBmillraced\\fR(8)\n", out);
}
