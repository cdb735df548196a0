/* SPDX-License-Identifier: Apache-2.0 */
/* main.c: the client, top to bottom: read the command line, run its command, say what went wrong,
 * turn the result into an exit code. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/client.h"
#include "client/commands.h"
#include "client/config.h"
#include "client/environment.h"
#include "client/exit_code.h"
#include "client/help.h"
#include "client/manual.h"
#include "client/nouns.h"
#include "client/terminal.h"

/* By mr_command_id, which follows the rows of commands.def. */
static mr_status (*const main_commands[])(mr_client *client) = {
#define MR_COMMAND(id, noun, verb, arguments, minimum, maximum, help)                              \
    [MR_COMMAND_##id] = mr_command_##id,
#include "client/commands.def"
};

mr_status mr_command_help(mr_client *client) {
    const mr_invocation *invocation = client->invocation;
    if (mr_invocation_given(invocation, "man")) {
        mr_manual_print(stdout);
        return MR_OK;
    }
    const char *noun = invocation->argument_count > 0 ? invocation->arguments[0] : NULL;
    const char *verb = invocation->argument_count > 1 ? invocation->arguments[1] : "";
    bool known = noun == NULL;
    for (size_t i = 0; i < mr_noun_count && !known; i++)
        known = strcmp(mr_nouns[i].name, noun) == 0;
    if (!known)
        return MR_ERROR(INVALID_ARGUMENT, "no help on %s; see millrace --help", noun);
    const mr_command *command = noun ? mr_command_find(noun, verb) : NULL;
    if (command == NULL && verb[0] != '\0')
        return MR_ERROR(INVALID_ARGUMENT, "%s has no verb %s; see millrace %s --help", noun, verb,
                        noun);
    mr_help_print(stdout, mr_terminal_columns(), command, noun);
    return MR_OK;
}

/* An error on stderr; its exit code. */
static mr_exit_code main_fail(mr_status status) {
    mr_client_warn("millrace: %s", status.text);
    return mr_exit_code_of(status.code);
}

/* Commands that a broken configuration must not stop: they need none, or they mend it. */
static bool main_lenient(const mr_invocation *invocation) {
    static const char *const nouns[] = {"help", "version", "completion", "config"};
    for (size_t i = 0; i < sizeof(nouns) / sizeof(nouns[0]); i++) {
        if (strcmp(invocation->noun, nouns[i]) == 0)
            return true;
    }
    return false;
}

/* Reads the configuration from its real places. What cannot be read stops a command that needs it;
 * the verbs of config stop only where a file cannot be understood. */
static mr_status main_configure(mr_invocation *invocation, mr_config *config) {
    char user[MR_ENVIRONMENT_PATH_BYTES];
    char folder[MR_ENVIRONMENT_PATH_BYTES];
    bool placed =
        mr_status_is_ok(mr_environment_path(MR_ENVIRONMENT_CONFIG, MR_CONFIG_USER_NAME, user));
    const mr_config_sources sources = {
        .environment = mr_environment_get,
        .project_folder = getcwd(folder, sizeof(folder)),
        .user_path = placed ? user : NULL,
        .system_path = MR_CONFIG_SYSTEM_PATH,
    };
    const bool lenient = main_lenient(invocation);
    mr_status status = mr_config_load(&sources, invocation, config);
    if (config->foreign_project != NULL && !mr_invocation_given(invocation, "quiet"))
        mr_client_warn("millrace: %s belongs to another user and is not used",
                       config->foreign_project);
    if (!mr_status_is_ok(status) && (!lenient || strcmp(invocation->noun, "config") == 0))
        return status;
    status = mr_config_apply(config, invocation);
    return lenient ? MR_OK : status;
}

static mr_exit_code main_run(mr_invocation *invocation) {
    static mr_config config; /* large; one process runs one command */
    mr_client client = {0};
    mr_status status = main_configure(invocation, &config);
    if (mr_status_is_ok(status))
        status = mr_client_init(&client, invocation, &config);
    if (mr_status_is_ok(status))
        status = main_commands[invocation->command->id](&client);
    mr_client_deinit(&client);
    mr_config_deinit(&config);
    if (!mr_status_is_ok(status))
        return main_fail(status);
    return client.exit_code;
}

int main(int argc, char **argv) {
    mr_invocation invocation;
    if (argc == 2 && strcmp(argv[1], "--version") == 0)
        argv[1] = argv[1] + strlen("--"); /* a habit of every tool; here it is a noun */
    mr_status status = mr_invocation_parse(argc, argv, &invocation);
    mr_exit_code code = MR_EXIT_CODE_DONE;
    if (argc <= 1)
        mr_help_print(stderr, mr_terminal_columns(), NULL, NULL);
    if (!mr_status_is_ok(status))
        code = main_fail(status);
    else if (invocation.help)
        mr_help_print(stdout, mr_terminal_columns(), invocation.command, invocation.noun);
    else
        code = main_run(&invocation);
    /* Data that did not reach its place is an error, though the command went well. */
    if (fflush(stdout) != 0 || ferror(stdout)) {
        mr_client_warn("millrace: stdout: %s", "not all data could be written");
        code = code == MR_EXIT_CODE_DONE ? MR_EXIT_CODE_OTHER : code;
    }
    return (int)code;
}
