/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/base/version.h"
#include "daemon/options.def.h"

enum { OPTIONS_COUNT_MAX = 4096 };

typedef enum option_type { OPTION_TEXT, OPTION_COUNT, OPTION_FLAG, OPTION_LEVEL } option_type;

enum { ROLE_C = 1, ROLE_S = 2, ROLE_B = 3 };

typedef enum option_id {
#define OPTION_ENUM(id, name, roles, type, preset, value, help) OPTION_ID_##id,
    MR_OPTIONS(OPTION_ENUM)
#undef OPTION_ENUM
        OPTION_ID_COUNT
} option_id;

typedef struct option_row {
    const char *name;
    unsigned roles;
    option_type type;
    const char *preset;
    const char *value_name;
    const char *help;
} option_row;

static const option_row option_rows[OPTION_ID_COUNT] = {
#define OPTION_ROW(id, name, roles, type, preset, value, help)                                     \
    [OPTION_ID_##id] = {name, ROLE_##roles, OPTION_##type, preset, value, help},
    MR_OPTIONS(OPTION_ROW)
#undef OPTION_ROW
};

static const char *const level_names[MR_LOG_COUNT] = {"debug", "info", "warn", "error"};

static void help_print(void) {
    (void)printf("millraced %s: trains models too large for one device as a pipeline of daemons\n\n"
                 "usage: millraced coordinator [options]\n"
                 "       millraced stage [options]\n\n",
                 MR_VERSION);
    for (size_t i = 0; i < OPTION_ID_COUNT; i++) {
        const option_row *row = &option_rows[i];
        const char *role = row->roles == ROLE_C ? "coordinator: "
                           : row->roles == ROLE_S ? "stage: "
                                                  : "";
        char left[64];
        (void)snprintf(left, sizeof(left), "--%s %s", row->name,
                       row->value_name != NULL ? row->value_name : "");
        (void)printf("  %-34s %s%s", left, role, row->help);
        if (row->preset != NULL)
            (void)printf(" (%s)", row->preset);
        (void)printf("\n");
    }
}

static mr_status option_find(const char *argument, unsigned role, const char **out_value,
                             option_id *out_id) {
    const char *equals = strchr(argument, '=');
    size_t bytes = equals == NULL ? strlen(argument + 2) : (size_t)(equals - argument - 2);
    for (size_t i = 0; i < OPTION_ID_COUNT; i++) {
        const option_row *row = &option_rows[i];
        if (strlen(row->name) != bytes || strncmp(row->name, argument + 2, bytes) != 0)
            continue;
        if ((row->roles & role) == 0)
            return MR_ERROR(INVALID_ARGUMENT, "--%s is no option of a %s", row->name,
                            role == ROLE_C ? "coordinator" : "stage");
        *out_value = equals == NULL ? NULL : equals + 1;
        *out_id = (option_id)i;
        return MR_OK;
    }
    return MR_ERROR(INVALID_ARGUMENT, "%s is no option; millraced --help lists them", argument);
}

static mr_status option_check(const option_row *row, const char *value) {
    if (row->type == OPTION_COUNT) {
        char *end = NULL;
        unsigned long number = strtoul(value, &end, 10);
        if (value[0] < '0' || value[0] > '9' || *end != 0 || number > OPTIONS_COUNT_MAX)
            return MR_ERROR(INVALID_ARGUMENT, "--%s is %s; it must be a number from 0 to %d",
                            row->name, value, OPTIONS_COUNT_MAX);
    }
    if (row->type == OPTION_LEVEL) {
        for (int i = 0; i < MR_LOG_COUNT; i++)
            if (strcmp(value, level_names[i]) == 0)
                return MR_OK;
        return MR_ERROR(INVALID_ARGUMENT, "--%s is %s; it must be %s", row->name, value,
                        row->value_name);
    }
    return MR_OK;
}

/* Reads all options into values, which hold the defaults before. */
static mr_status options_read(int argument_count, char **arguments, unsigned role,
                              const char *values[OPTION_ID_COUNT]) {
    for (int i = 2; i < argument_count; i++) {
        const char *value = NULL;
        option_id id = OPTION_ID_COUNT;
        if (strncmp(arguments[i], "--", 2) != 0)
            return MR_ERROR(INVALID_ARGUMENT, "%s is no option; options begin with --",
                            arguments[i]);
        MR_TRY(option_find(arguments[i], role, &value, &id));
        const option_row *row = &option_rows[id];
        if (row->type == OPTION_FLAG) {
            if (value != NULL)
                return MR_ERROR(INVALID_ARGUMENT, "--%s takes no value", row->name);
            value = "yes";
        } else if (value == NULL) {
            if (++i == argument_count)
                return MR_ERROR(INVALID_ARGUMENT, "--%s needs a value: %s", row->name,
                                row->value_name);
            value = arguments[i];
        }
        MR_TRY(option_check(row, value));
        values[id] = value;
    }
    return MR_OK;
}

static const char *value_or(const char *value, const char *otherwise) {
    return value != NULL ? value : otherwise;
}

static void options_fill(const char *const values[OPTION_ID_COUNT], mr_options *options) {
    mr_rpc_credentials credentials = {
        .ca_file = values[OPTION_ID_TLS_CA],
        .certificate_file = values[OPTION_ID_TLS_CERT],
        .key_file = values[OPTION_ID_TLS_KEY],
        .insecure = values[OPTION_ID_INSECURE] != NULL,
    };
    for (int i = 0; i < MR_LOG_COUNT; i++)
        if (strcmp(values[OPTION_ID_LOG_LEVEL], level_names[i]) == 0)
            options->log_level = (mr_log_level)i;
    options->coordinator = (mr_coordinator_options){
        .listen = value_or(values[OPTION_ID_LISTEN], "127.0.0.1:9700"),
        .status_listen = value_or(values[OPTION_ID_STATUS], "127.0.0.1:9780"),
        .state_dir = values[OPTION_ID_STATE],
        .credentials = credentials,
        .log_level = options->log_level,
    };
    options->stage = (mr_stage_options){
        .coordinator = values[OPTION_ID_COORDINATOR],
        .listen = value_or(values[OPTION_ID_LISTEN], "127.0.0.1:0"),
        .advertise = values[OPTION_ID_ADVERTISE],
        .status_listen = value_or(values[OPTION_ID_STATUS], "127.0.0.1:0"),
        .device = {.kind = values[OPTION_ID_DEVICE],
                   .threads = (int)strtoul(values[OPTION_ID_THREADS], NULL, 10),
                   .pin = values[OPTION_ID_PIN] != NULL},
        .drain_seconds = (unsigned)strtoul(values[OPTION_ID_DRAIN], NULL, 10),
        .credentials = credentials,
    };
}

mr_status mr_options_parse(int argument_count, char **arguments, mr_options *out_options) {
    const char *values[OPTION_ID_COUNT];
    mr_options options = {.role = MR_ROLE_NONE};
    if (argument_count < 2)
        return MR_ERROR(INVALID_ARGUMENT, "which role? millraced coordinator or millraced stage");
    for (int i = 1; i < argument_count; i++)
        if (strcmp(arguments[i], "--help") == 0 || strcmp(arguments[i], "-h") == 0) {
            help_print();
            *out_options = options;
            return MR_OK;
        }
    if (strcmp(arguments[1], "--version") == 0) {
        (void)printf("millraced %s %s\n", MR_VERSION, MR_COMMIT);
        *out_options = options;
        return MR_OK;
    }
    if (strcmp(arguments[1], "coordinator") == 0)
        options.role = MR_ROLE_COORDINATOR;
    else if (strcmp(arguments[1], "stage") == 0)
        options.role = MR_ROLE_STAGE;
    else
        return MR_ERROR(INVALID_ARGUMENT, "%s is no role; it must be coordinator or stage",
                        arguments[1]);
    for (size_t i = 0; i < OPTION_ID_COUNT; i++)
        values[i] = option_rows[i].preset;
    MR_TRY(options_read(argument_count, arguments,
                        options.role == MR_ROLE_COORDINATOR ? ROLE_C : ROLE_S, values));
    options_fill(values, &options);
    *out_options = options;
    return MR_OK;
}
