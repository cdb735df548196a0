/* SPDX-License-Identifier: Apache-2.0 */
#include "client/environment.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *variable;
    const char *below_home;
} environment_folders[MR_ENVIRONMENT_FOLDER_COUNT] = {
    [MR_ENVIRONMENT_CONFIG] = {"XDG_CONFIG_HOME", ".config"},
    [MR_ENVIRONMENT_STATE] = {"XDG_STATE_HOME", ".local/state"},
};

const char *mr_environment_get(const char *name) {
    const char *value = getenv(name);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

mr_status mr_environment_path(mr_environment_folder folder, const char *name, char *out) {
    MR_ASSERT(folder < MR_ENVIRONMENT_FOLDER_COUNT);
    const char *base = mr_environment_get(environment_folders[folder].variable);
    const char *home = mr_environment_get("HOME");
    int length = 0;
    if (base != NULL && base[0] == '/')
        length = snprintf(out, MR_ENVIRONMENT_PATH_BYTES, "%s/millrace/%s", base, name);
    else if (home != NULL && home[0] == '/')
        length = snprintf(out, MR_ENVIRONMENT_PATH_BYTES, "%s/%s/millrace/%s", home,
                          environment_folders[folder].below_home, name);
    else
        return MR_ERROR(NOT_FOUND, "neither %s nor HOME names a folder",
                        environment_folders[folder].variable);
    if (length >= MR_ENVIRONMENT_PATH_BYTES)
        return MR_ERROR(INVALID_ARGUMENT, "the path of %s has %d bytes; at most %d are allowed",
                        name, length, MR_ENVIRONMENT_PATH_BYTES - 1);
    return MR_OK;
}

bool mr_environment_terminal(void) {
    const char *term = mr_environment_get("TERM");
    return term != NULL && strcmp(term, "dumb") != 0;
}

bool mr_environment_colour(void) {
    return mr_environment_terminal() && mr_environment_get("NO_COLOR") == NULL;
}
