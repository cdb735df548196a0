/* SPDX-License-Identifier: Apache-2.0 */
#include "client/config.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/path_text.h"
#include "client/suggest.h"
#include "daemon/base/alloc.h"
#include "daemon/base/limits.h"

enum { CONFIG_VARIABLE_BYTES = 64 };

/* "tls-ca": "MILLRACE_TLS_CA". */
static void config_variable(const char *name, char out[CONFIG_VARIABLE_BYTES]) {
    int n = snprintf(out, CONFIG_VARIABLE_BYTES, "MILLRACE_%s", name);
    MR_ASSERT(n > 0 && n < CONFIG_VARIABLE_BYTES);
    for (char *at = out; *at != '\0'; at++)
        *at = (char)(*at == '-' ? '_' : toupper((unsigned char)*at));
}

static mr_status config_load_environment(mr_config *config, const mr_config_sources *sources) {
    char variable[CONFIG_VARIABLE_BYTES];
    for (size_t i = 0; i < mr_setting_count; i++) {
        config_variable(mr_settings[i].name, variable);
        const char *value = sources->environment(variable);
        if (value != NULL)
            MR_TRY(mr_config_values_set(&config->environment, i, variable, value));
    }
    return MR_OK;
}

static mr_status config_load_flags(mr_config *config, const mr_invocation *invocation) {
    for (size_t i = 0; i < mr_setting_count; i++) {
        const char *name = mr_settings[i].name;
        bool flag = mr_setting_option(i)->kind == MR_OPTION_FLAG;
        if (mr_invocation_given(invocation, name))
            MR_TRY(mr_config_values_set(&config->given, i, name,
                                        flag ? "true" : mr_invocation_text(invocation, name)));
    }
    return MR_OK;
}

/* A file that may be missing. */
static mr_status config_load_file(mr_config *config, mr_config_origin origin, const char *path) {
    if (path == NULL)
        return MR_OK;
    mr_status status = mr_config_file_read(path, &config->files[origin]);
    return status.code == MR_CODE_NOT_FOUND ? MR_OK : status;
}

/* Is the text that of a job file, which may have any name? */
static bool config_is_job(const char *path) {
    char text[4096];
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    size_t bytes = fread(text, 1, sizeof(text) - 1, file);
    text[bytes] = '\0';
    (void)fclose(file); /* read-only */
    return strstr(text, "millrace.job/v1") != NULL;
}

/* The nearest project file from the folder up. */
static mr_status config_load_project(mr_config *config, const char *folder) {
    char path[MR_CHECKPOINT_PATH_BYTES];
    size_t length = folder ? strlen(folder) : 0;
    if (folder == NULL || folder[0] != '/' ||
        length + sizeof(MR_CONFIG_PROJECT_NAME) + 1 > sizeof(path))
        return MR_OK;
    memcpy(path, folder, length);
    for (;;) {
        struct stat info;
        while (length > 0 && path[length - 1] == '/')
            length--;
        snprintf(path + length, sizeof(path) - length, "/%s", MR_CONFIG_PROJECT_NAME);
        if (stat(path, &info) == 0 && S_ISREG(info.st_mode) && !config_is_job(path)) {
            if (info.st_uid == geteuid() || info.st_uid == 0)
                return config_load_file(config, MR_CONFIG_PROJECT, path);
            config->foreign_project = mr_strdup(path);
            return MR_OK;
        }
        while (length > 0 && path[length - 1] != '/')
            length--;
        if (length == 0)
            return MR_OK;
    }
}

mr_status mr_config_load(const mr_config_sources *sources, const mr_invocation *invocation,
                         mr_config *out_config) {
    *out_config = (mr_config){0};
    MR_TRY(config_load_flags(out_config, invocation));
    MR_TRY(config_load_environment(out_config, sources));
    MR_TRY(config_load_project(out_config, sources->project_folder));
    MR_TRY(config_load_file(out_config, MR_CONFIG_USER, sources->user_path));
    return config_load_file(out_config, MR_CONFIG_SYSTEM, sources->system_path);
}

void mr_config_deinit(mr_config *config) {
    for (size_t i = 0; i < MR_SETTINGS_MAX; i++) {
        mr_free(config->given.text[i]);
        mr_free(config->environment.text[i]);
    }
    for (size_t i = 0; i < MR_CONFIG_ORIGIN_COUNT; i++)
        mr_config_file_deinit(&config->files[i]);
    mr_free(config->foreign_project);
    *config = (mr_config){0};
}

mr_config_context *mr_config_context_find(mr_config *config, const char *name,
                                          mr_config_origin *out_origin) {
    for (size_t origin = MR_CONFIG_PROJECT; origin <= MR_CONFIG_SYSTEM; origin++) {
        mr_config_context *context = mr_config_file_find(&config->files[origin], name);
        if (context == NULL)
            continue;
        *out_origin = (mr_config_origin)origin;
        return context;
    }
    return NULL;
}

static const mr_config_values *config_values(const mr_config *config, mr_config_origin origin) {
    if (origin == MR_CONFIG_FLAG)
        return &config->given;
    if (origin == MR_CONFIG_ENVIRONMENT)
        return &config->environment;
    return &config->files[origin].values;
}

static mr_status config_context_unknown(const mr_config *config, const char *name,
                                        mr_config_origin origin) {
    static const char *const sources[MR_CONFIG_ORIGIN_COUNT] = {"--context", "MILLRACE_CONTEXT"};
    const char *source = sources[origin] ? sources[origin] : config->files[origin].path;
    const char *near = NULL;
    size_t best = SIZE_MAX;
    for (size_t o = MR_CONFIG_PROJECT; o <= MR_CONFIG_SYSTEM; o++) {
        for (size_t i = 0; i < config->files[o].context_count; i++) {
            if (mr_suggest_better(name, config->files[o].contexts[i].name, &best))
                near = config->files[o].contexts[i].name;
        }
    }
    return MR_ERROR(NOT_FOUND, "%s: context is %.64s; no file defines it%s%s%s",
                    mr_path_shorten(source).text, name, near ? "; did you mean " : "",
                    near ? near : "", near ? "?" : "");
}

mr_status mr_config_find(mr_config *config, size_t setting, mr_config_found *out_found) {
    MR_ASSERT(setting < mr_setting_count);
    mr_status status = MR_OK;
    size_t chooser = mr_setting_find("context");
    for (size_t o = MR_CONFIG_FLAG; o <= MR_CONFIG_SYSTEM; o++) {
        mr_config_origin origin = (mr_config_origin)o;
        const mr_config_values *values = config_values(config, origin);
        *out_found = (mr_config_found){.origin = origin, .path = config->files[o].path};
        out_found->value = values->text[setting];
        if (out_found->value != NULL)
            return status;
        const char *name = values->text[chooser];
        if (name == NULL)
            continue;
        mr_config_origin holder = MR_CONFIG_DEFAULT;
        const mr_config_context *context = mr_config_context_find(config, name, &holder);
        if (context == NULL && mr_status_is_ok(status))
            status = config_context_unknown(config, name, origin);
        if (context == NULL || context->values.text[setting] == NULL)
            continue;
        out_found->value = context->values.text[setting];
        out_found->context = context->name;
        out_found->path = config->files[holder].path;
        return status;
    }
    *out_found = (mr_config_found){
        .value = mr_setting_option(setting)->value,
        .origin = MR_CONFIG_DEFAULT,
    };
    return status;
}

mr_status mr_config_apply(mr_config *config, mr_invocation *invocation) {
    mr_status first = MR_OK;
    for (size_t i = 0; i < mr_setting_count; i++) {
        mr_config_found found;
        mr_status status = mr_config_find(config, i, &found);
        if (!mr_status_is_ok(status) && mr_status_is_ok(first))
            first = status;
        if (found.origin != MR_CONFIG_DEFAULT)
            mr_invocation_configure(invocation, mr_settings[i].name, found.value);
    }
    return first;
}
