/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "daemon/base/limits.h"
#include "daemon/base/version.h"
#include "daemon/options.def.h"

enum { OPTIONS_COUNT_MAX = 4096 };

typedef enum option_type { OPTION_TEXT, OPTION_COUNT, OPTION_FLAG, OPTION_LEVEL } option_type;

enum { ROLE_C = 1, ROLE_S = 2, ROLE_N = 4, ROLE_SN = 6, ROLE_ALL = 7 };

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
                 "       millraced stage [options]\n"
                 "       millraced node [options]      a stage for each device of this machine\n\n",
                 MR_VERSION);
    for (size_t i = 0; i < OPTION_ID_COUNT; i++) {
        const option_row *row = &option_rows[i];
        const char *role = row->roles == ROLE_C   ? "coordinator: "
                           : row->roles == ROLE_S  ? "stage: "
                           : row->roles == ROLE_N  ? "node: "
                           : row->roles == ROLE_SN ? "stage, node: "
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

/* A text in roff: hyphens that are typed. */
static void manual_text(const char *text) {
    for (const char *c = text; *c != '\0'; c++) {
        if (*c == '-' || *c == '\\')
            (void)putchar('\\');
        (void)putchar(*c);
    }
}

static void manual_options(unsigned role, const char *heading) {
    (void)printf(".SS %s\n", heading);
    for (size_t i = 0; i < OPTION_ID_COUNT; i++) {
        const option_row *row = &option_rows[i];
        if ((row->roles & role) == 0)
            continue;
        (void)printf(".TP\n\\fB\\-\\-");
        manual_text(row->name);
        (void)printf("\\fR \\fI%s\\fR\n", row->value_name != NULL ? row->value_name : "");
        manual_text(row->help);
        if (row->preset != NULL) {
            (void)printf("; by default ");
            manual_text(row->preset);
        }
        (void)putchar('\n');
    }
}

/* millraced(8), from the same table as the parser. */
static void manual_print(void) {
    (void)printf(
        ".TH MILLRACED 8 \"\" \"Millrace %s\" \"Millrace\"\n.SH NAME\nmillraced \\- the daemons "
        "of Millrace, which trains models as a pipeline of stages\n.SH SYNOPSIS\n"
        ".B millraced coordinator\n.RI [ options ]\n.br\n.B millraced node\n.RI [ options ]\n"
        ".br\n.B millraced stage\n.RI [ options ]\n.SH DESCRIPTION\nThe coordinator, one for each "
        "cluster, decides which stages do which job. The node, one for each machine, finds its "
        "devices and keeps a stage process for each of them alive. A stage computes a run of a "
        "model's layers on one device.\n.SH OPTIONS\n",
        MR_VERSION);
    manual_options(ROLE_C, "Of the coordinator");
    manual_options(ROLE_N, "Of a node");
    manual_options(ROLE_S, "Of a stage");
    (void)printf(
        ".SH SIGNALS\n.TP\nSIGTERM, SIGINT\nAn end in good order. A stage with time for it "
        "(\\-\\-drain) has its job saved first. A node lets its stages end, and kills what has not "
        "ended in time; a second signal kills at once.\n.TP\nSIGHUP\nA node "
        "starts the stages that wait, were refused or have ended.\n.SH EXIT STATUS\n"
        "0 a good end, 64 usage, 65 damaged data, 69 not reachable, 70 a bug, 71 out of something, "
        "75 please start again, 77 not allowed, 78 configuration. After 64, 65, 77 and 78 another "
        "start would end the same way: neither the units nor a node try one.\n.SH FILES\n.TP\n"
        ".I /etc/millrace/coordinator.env, node.env, stage.env\nOptions of the systemd units.\n"
        ".TP\n.I /etc/millrace/tls\nca.crt, tls.crt and tls.key, which the units hand to the "
        "daemons as credentials.\n.SH ENVIRONMENT\nNOTIFY_SOCKET and WATCHDOG_USEC, as a service "
        "manager sets them: sd_notify(3).\n.SH SEE ALSO\n.BR millrace (1)\n");
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
                            role == ROLE_C   ? "coordinator"
                            : role == ROLE_S ? "stage"
                                             : "node");
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

/* The file of a folder, where it is there and holds more than an empty line, which is how a service
 * manager stands in for a credential that does not exist; NULL where not. */
static const char *tls_file(const char *folder, const char *name,
                            char path[MR_OPTIONS_PATH_BYTES]) {
    struct stat file;
    if (folder == NULL)
        return NULL;
    (void)snprintf(path, MR_OPTIONS_PATH_BYTES, "%s/%s", folder, name);
    return stat(path, &file) == 0 && file.st_size > 1 ? path : NULL;
}

static mr_rpc_credentials options_credentials(const char *const values[OPTION_ID_COUNT],
                                              mr_options_tls *tls) {
    const char *folder = values[OPTION_ID_TLS_DIR];
    return (mr_rpc_credentials){
        .ca_file = value_or(values[OPTION_ID_TLS_CA], tls_file(folder, "ca.crt", tls->ca)),
        .certificate_file =
            value_or(values[OPTION_ID_TLS_CERT], tls_file(folder, "tls.crt", tls->certificate)),
        .key_file = value_or(values[OPTION_ID_TLS_KEY], tls_file(folder, "tls.key", tls->key)),
        .insecure = values[OPTION_ID_INSECURE] != NULL,
    };
}

static mr_node_options options_node(const char *const values[OPTION_ID_COUNT],
                                    const mr_rpc_credentials *credentials) {
    return (mr_node_options){
        .devices = values[OPTION_ID_DEVICES],
        .threads = (unsigned)strtoul(values[OPTION_ID_THREADS], NULL, 10),
        .pin = values[OPTION_ID_PIN] != NULL,
        .coordinator = values[OPTION_ID_COORDINATOR],
        .listen = value_or(values[OPTION_ID_LISTEN], "127.0.0.1:0"),
        .advertise = values[OPTION_ID_ADVERTISE],
        .status_listen = value_or(values[OPTION_ID_STATUS], "127.0.0.1:9790"),
        .drain_seconds = (unsigned)strtoul(value_or(values[OPTION_ID_DRAIN], "25"), NULL, 10),
        .log_level = values[OPTION_ID_LOG_LEVEL],
        .credentials = *credentials,
    };
}

static void options_fill(const char *const values[OPTION_ID_COUNT], mr_options *options) {
    mr_rpc_credentials credentials = options_credentials(values, &options->tls);
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
        .drain_seconds = (unsigned)strtoul(value_or(values[OPTION_ID_DRAIN], "0"), NULL, 10),
        .credentials = credentials,
    };
    options->fabric = values[OPTION_ID_FABRIC];
    options->node = options_node(values, &credentials);
}

static_assert((int)OPTION_ID_COUNT <= (int)MR_OPTIONS_MAX, "every option has a setting");

/* What /config shows: the options of the role and where their values come from. */
static void options_settings(const char *const values[OPTION_ID_COUNT], unsigned roles,
                             mr_options *options) {
    for (size_t i = 0; i < OPTION_ID_COUNT; i++)
        if ((option_rows[i].roles & roles) != 0)
            options->settings[options->setting_count++] = (mr_status_setting){
                .name = option_rows[i].name,
                .value = values[i],
                .given = values[i] != option_rows[i].preset,
                .secret = i == OPTION_ID_TLS_KEY,
            };
    options->coordinator.settings = options->settings;
    options->coordinator.setting_count = options->setting_count;
    options->stage.settings = options->settings;
    options->stage.setting_count = options->setting_count;
    options->node.settings = options->settings;
    options->node.setting_count = options->setting_count;
}

static const struct {
    const char *name;
    mr_role role;
    unsigned roles;
} role_rows[] = {
    {"coordinator", MR_ROLE_COORDINATOR, ROLE_C},
    {"stage", MR_ROLE_STAGE, ROLE_S},
    {"node", MR_ROLE_NODE, ROLE_N},
};

static mr_status role_find(const char *name, mr_role *out_role, unsigned *out_roles) {
    for (size_t i = 0; i < sizeof(role_rows) / sizeof(role_rows[0]); i++)
        if (strcmp(name, role_rows[i].name) == 0) {
            *out_role = role_rows[i].role;
            *out_roles = role_rows[i].roles;
            return MR_OK;
        }
    return MR_ERROR(INVALID_ARGUMENT, "%s is no role; it must be coordinator, stage or node", name);
}

mr_status mr_options_parse(int argument_count, char **arguments, mr_options *out_options) {
    const char *values[OPTION_ID_COUNT];
    mr_role role = MR_ROLE_NONE;
    unsigned roles = 0;
    *out_options = (mr_options){.role = MR_ROLE_NONE};
    if (argument_count < 2)
        return MR_ERROR(INVALID_ARGUMENT,
                        "which role? millraced coordinator, millraced stage or millraced node");
    for (int i = 1; i < argument_count; i++)
        if (strcmp(arguments[i], "--help") == 0 || strcmp(arguments[i], "-h") == 0) {
            help_print();
            return MR_OK;
        }
    if (strcmp(arguments[1], "--version") == 0) {
        (void)printf("millraced %s %s\n", MR_VERSION, MR_COMMIT);
        return MR_OK;
    }
    if (strcmp(arguments[1], "--man") == 0) {
        manual_print();
        return MR_OK;
    }
    MR_TRY(role_find(arguments[1], &role, &roles));
    for (size_t i = 0; i < OPTION_ID_COUNT; i++)
        values[i] = option_rows[i].preset;
    MR_TRY(options_read(argument_count, arguments, roles, values));
    unsigned long drain = strtoul(value_or(values[OPTION_ID_DRAIN], "1"), NULL, 10);
    unsigned long least = role == MR_ROLE_NODE ? 1 : 0;
    if (drain < least || drain > MR_DRAIN_SECONDS_MAX)
        return MR_ERROR(INVALID_ARGUMENT, "--drain is %lu; it must be from %lu to %d seconds",
                        drain, least, MR_DRAIN_SECONDS_MAX);
    options_fill(values, out_options);
    options_settings(values, roles, out_options);
    out_options->role = role;
    return MR_OK;
}
