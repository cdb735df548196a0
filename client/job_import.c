/* SPDX-License-Identifier: Apache-2.0 */
/* job_import.c: a ds_config.json as part of a job file. The part goes to stdout as YAML, what
 * has no counterpart or another meaning to stderr, one line a key; with -o json all is one
 * document. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ds_config.h"
#include "client/job_file.h"
#include "client/nouns.h"
#include "client/path_text.h"
#include "client/render.h"
#include "client/terminal.h"
#include "daemon/model/layer_pattern.h"

/* A pattern is the longest text; JSON writes a byte of it in at most six. */
enum { NUMBER_TEXT_BYTES = 40, YAML_TEXT_BYTES = 6 * MR_PATTERN_BYTES + 64 };

/* ---- YAML ------------------------------------------------------------------------------------ */

/* The shortest decimal that is this number, without blanks in its exponent: 1e-8. */
static void yaml_number(double value, char out[NUMBER_TEXT_BYTES]) {
    for (int digits = 15; digits <= 17; digits++) {
        (void)snprintf(out, NUMBER_TEXT_BYTES, "%.*g", digits, value);
        if (strtod(out, NULL) == value)
            break;
    }
    char *exponent = strchr(out, 'e');
    if (exponent == NULL)
        return;
    char *to = exponent + 1 + (exponent[1] == '-');
    const char *from = exponent + 2; /* after the sign, which is always there */
    while (*from == '0')
        from++;
    memmove(to, from, strlen(from) + 1);
}

/* One line of flow style; texts in quotes but for plain words. */
static void yaml_value(const json_t *value) {
    char text[YAML_TEXT_BYTES];
    const char *key = NULL;
    json_t *item = NULL;
    const char *gap = "";
    if (json_is_object(value)) {
        putchar('{');
        json_object_foreach ((json_t *)(uintptr_t)value, key, item) {
            printf("%s%s: ", gap, key);
            yaml_value(item);
            gap = ", ";
        }
        putchar('}');
    } else if (json_is_array(value)) {
        putchar('[');
        for (size_t i = 0; i < json_array_size(value); i++) {
            fputs(i > 0 ? ", " : "", stdout);
            yaml_value(json_array_get(value, i));
        }
        putchar(']');
    } else if (json_is_real(value)) {
        yaml_number(json_real_value(value), text);
        fputs(text, stdout);
    } else {
        /* JSON's texts and numbers are YAML's */
        size_t bytes = json_dumpb(value, text, sizeof(text) - 1, JSON_ENCODE_ANY);
        MR_ASSERT(bytes > 0 && bytes < sizeof(text));
        text[bytes] = '\0';
        bool word = strspn(text + 1, "abcdefghijklmnopqrstuvwxyz0123456789") == bytes - 2;
        if (text[0] == '"' && word)
            printf("%.*s", (int)bytes - 2, text + 1);
        else
            fputs(text, stdout);
    }
}

static void import_print_yaml(const char *path, const mr_ds_report *report) {
    const char *key = NULL;
    json_t *value = NULL;
    char clean[MR_TERMINAL_LINE_BYTES];
    mr_terminal_clean(path, clean, sizeof(clean));
    printf("# From %s. A job file wants besides:", clean);
    for (size_t i = 0; i < json_array_size(report->missing); i++)
        printf("%s %s", i > 0 ? "," : "", json_string_value(json_array_get(report->missing, i)));
    putchar('\n');
    json_object_foreach (report->job, key, value) {
        printf("%s: ", key);
        yaml_value(value);
        putchar('\n');
    }
}

/* ---- the report ------------------------------------------------------------------------------ */

static void import_tell(const char *label, const json_t *lines) {
    for (size_t i = 0; i < json_array_size(lines); i++) {
        const json_t *line = json_array_get(lines, i);
        mr_client_warn("%s: %s: %s", label, json_string_value(json_object_get(line, "key")),
                       json_string_value(json_object_get(line, "why")));
    }
}

static mr_status import_print_json(const mr_client *client, const char *path,
                                   const mr_ds_report *report) {
    bool bad = json_array_size(report->errors) > 0;
    json_t *job = bad ? json_null() : json_incref(report->job);
    json_t *document =
        json_pack("{s:o, s:b, s:o, s:O, s:O, s:O, s:O}", "file", mr_render_string(path), "valid",
                  (int)!bad, "job", job, "missing", report->missing, "left_out", report->left_out,
                  "differs", report->differs, "errors", report->errors);
    return mr_render_document(client, "import", document);
}

static mr_status import_print(mr_client *client, const char *path, const mr_ds_report *report) {
    bool bad = json_array_size(report->errors) > 0;
    if (bad)
        client->exit_code =
            MR_EXIT_CODE_USAGE; /* the errors are told; only the exit code is left */
    if (client->output == MR_OUTPUT_JSON || client->output == MR_OUTPUT_JSONL)
        return import_print_json(client, path, report);
    if (bad) {
        import_tell(path, report->errors);
        return MR_OK;
    }
    /* -q keeps errors only, but what is not carried over is never silent */
    import_tell("no counterpart", report->left_out);
    import_tell("differs", report->differs);
    import_print_yaml(path, report);
    return MR_OK;
}

static mr_status import_parse(const char *path, const mr_job_file *file, json_t **out_root) {
    json_error_t error;
    *out_root = json_loadb(file->text, file->bytes, JSON_REJECT_DUPLICATES, &error);
    if (*out_root != NULL)
        return MR_OK;
    return MR_ERROR(INVALID_ARGUMENT, "%s: line %d, column %d: %s", mr_path_shorten(path).text,
                    error.line, error.column, error.text);
}

mr_status mr_command_job_import_deepspeed(mr_client *client) {
    const char *path = client->invocation->arguments[0];
    mr_job_file file = {0};
    mr_ds_report report;
    json_t *root = NULL;
    uint64_t replicas = 0;
    if (mr_invocation_given(client->invocation, "replicas"))
        replicas = (uint64_t)mr_invocation_integer(client->invocation, "replicas");
    mr_ds_report_init(&report);
    mr_status status = mr_job_file_load(path, &file);
    if (mr_status_is_ok(status))
        status = import_parse(path, &file, &root);
    if (mr_status_is_ok(status)) {
        mr_ds_config_read(root, replicas, &report);
        status = report.exhausted ? MR_ERROR(RESOURCE_EXHAUSTED, "no memory to import %s",
                                             mr_path_shorten(path).text)
                                  : import_print(client, path, &report);
    }
    json_decref(root);
    mr_ds_report_deinit(&report);
    mr_job_file_deinit(&file);
    return status;
}
