/* SPDX-License-Identifier: Apache-2.0 */
/* config.h: where the value of a setting comes from. The first of these that says something counts:
 *
 *     the command line, MILLRACE_* of the environment, millrace.yaml of the project,
 *     $XDG_CONFIG_HOME/millrace/config.yaml, /etc/millrace/config.yaml, the default
 *
 * Each of them may set a value or name a context; its own value comes before its context's. So
 * --context lab is stronger than MILLRACE_SERVER, and MILLRACE_SERVER than the user's context.
 * Contexts of one name in several files are not mixed: the nearest file's counts.
 * The project's file is the nearest millrace.yaml from the working folder up; it must belong to the
 * user or to root, else somebody else could choose the server. A job file of that name is no
 * configuration and is passed over.
 * Owner: client. Thread: main.
 * Not here: the files' form (config_file.h), the verbs (config_command.c). */
#ifndef MR_CLIENT_CONFIG_H
#define MR_CLIENT_CONFIG_H

#include "client/commands.h"
#include "client/config_file.h"
#include "daemon/base/status.h"

#define MR_CONFIG_PROJECT_NAME "millrace.yaml"
#define MR_CONFIG_USER_NAME "config.yaml"
#define MR_CONFIG_SYSTEM_PATH "/etc/millrace/config.yaml"

typedef enum mr_config_origin {
    MR_CONFIG_FLAG,
    MR_CONFIG_ENVIRONMENT,
    MR_CONFIG_PROJECT,
    MR_CONFIG_USER,
    MR_CONFIG_SYSTEM,
    MR_CONFIG_DEFAULT,
    MR_CONFIG_ORIGIN_COUNT
} mr_config_origin;

/* Where to look; tests have their own. */
typedef struct mr_config_sources {
    const char *(*environment)(const char *name); /* NULL where unset */
    const char *project_folder;                   /* to begin at; NULL: no project */
    const char *user_path;                        /* NULL: none */
    const char *system_path;                      /* NULL: none */
} mr_config_sources;

typedef struct mr_config {
    mr_config_values given; /* the command line's and the environment's, as one file each */
    mr_config_values environment;
    mr_config_file files[MR_CONFIG_ORIGIN_COUNT]; /* PROJECT, USER and SYSTEM are used */
    char *foreign_project; /* a project's file that belongs to another user; NULL: none */
} mr_config;

/* What a setting is, and why. Strings live as long as the config. */
typedef struct mr_config_found {
    const char *value; /* NULL: nothing says anything and there is no default */
    mr_config_origin origin;
    const char *context; /* the context that says it; NULL: the origin itself */
    const char *path;    /* of the file that says it; NULL: no file */
} mr_config_found;

/* Reads all sources. INVALID_ARGUMENT, PERMISSION_DENIED: a value or a file; the text names which.
 * What was read so far stands in *out_config and is freed with mr_config_deinit in every case. */
MR_MUST_CHECK mr_status mr_config_load(const mr_config_sources *sources,
                                       const mr_invocation *invocation, mr_config *out_config);
void mr_config_deinit(mr_config *config);

/* The value of a setting (a row of mr_settings). NOT_FOUND: a context is named that no file
 * defines; *out_found is then good without it. */
MR_MUST_CHECK mr_status mr_config_find(mr_config *config, size_t setting,
                                       mr_config_found *out_found);
/* The context of that name in the nearest file; *out_origin says which file's. NULL: none. */
mr_config_context *mr_config_context_find(mr_config *config, const char *name,
                                          mr_config_origin *out_origin);
/* Gives the invocation the values that its command line leaves open. Errors of mr_config_find; all
 * that can be applied is. */
MR_MUST_CHECK mr_status mr_config_apply(mr_config *config, mr_invocation *invocation);

#endif
