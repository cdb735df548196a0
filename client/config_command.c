/* SPDX-License-Identifier: Apache-2.0 */
/* config_command.c: what the client's settings are and where they come from; contexts. Only the
 * user's own file is ever written. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/config.h"
#include "client/confirm.h"
#include "client/nouns.h"
#include "client/path_text.h"
#include "client/render.h"
#include "daemon/base/limits.h"

static const char *const config_origins[MR_CONFIG_ORIGIN_COUNT] = {
    "flag", "environment", "project", "user", "system", "default",
};

/* ---- show ------------------------------------------------------------------------------------ */

static json_t *config_json(size_t setting, const mr_config_found *found) {
    return json_pack("{s:s, s:o, s:s, s:o, s:o}", "setting", mr_settings[setting].name, "value",
                     mr_render_string(found->value), "origin", config_origins[found->origin],
                     "context", mr_render_string(found->context), "file",
                     mr_render_string(found->path));
}

/* "user, context lab (PATH)" */
static void cell_origin(const json_t *item, char *out, size_t bytes) {
    const char *context = json_string_value(json_object_get(item, "context"));
    const char *file = json_string_value(json_object_get(item, "file"));
    snprintf(out, bytes, "%s%s%s%s%s%s", json_string_value(json_object_get(item, "origin")),
             context ? ", context " : "", context ? context : "", file ? " (" : "",
             file ? file : "", file ? ")" : "");
}

static const mr_column show_columns[] = {
    {"SETTING", "setting", NULL},
    {"VALUE", "value", NULL},
    {"ORIGIN", NULL, cell_origin},
};

mr_status mr_command_config_show(mr_client *client) {
    const bool origin = mr_invocation_given(client->invocation, "origin");
    const mr_view view = {
        .singular = "setting",
        .plural = "settings",
        .name_key = "setting",
        .columns = show_columns,
        .column_count = origin ? 3 : 2,
    };
    mr_status unknown = MR_OK;
    json_t *items = json_array();
    for (size_t i = 0; i < mr_setting_count; i++) {
        mr_config_found found;
        mr_status status = mr_config_find(client->config, i, &found);
        if (!mr_status_is_ok(status))
            unknown = status;
        (void)json_array_append_new(items, config_json(i, &found));
    }
    MR_TRY(mr_render_list(client, &view, items));
    return unknown;
}

/* ---- contexts -------------------------------------------------------------------------------- */

static json_t *context_json(const mr_config_context *context, bool in_use, const char *origin,
                            const char *path) {
    json_t *item = json_pack("{s:s, s:b, s:s, s:s}", "name", context->name, "in_use", (int)in_use,
                             "origin", origin, "file", path);
    json_t *values = json_object();
    for (size_t i = 0; i < mr_setting_count; i++) {
        if (context->values.text[i] != NULL)
            (void)json_object_set_new(values, mr_settings[i].name,
                                      mr_render_string(context->values.text[i]));
    }
    (void)json_object_set_new(item, "settings", values);
    return item;
}

static void cell_server(const json_t *item, char *out, size_t bytes) {
    const json_t *settings = json_object_get(item, "settings");
    const char *server = json_string_value(json_object_get(settings, "server"));
    snprintf(out, bytes, "%s", server ? server : "-");
}

static const mr_column context_columns[] = {
    {"NAME", "name", NULL},
    {"IN USE", "in_use", NULL},
    {"SERVER", NULL, cell_server},
    {"FILE", "file", NULL},
};
static const mr_view context_view = {
    .singular = "context",
    .plural = "contexts",
    .name_key = "name",
    .columns = context_columns,
    .column_count = sizeof(context_columns) / sizeof(context_columns[0]),
};

static const char *config_context_in_use(mr_client *client) {
    mr_config_found found;
    mr_status status = mr_config_find(client->config, mr_setting_find("context"), &found);
    return mr_status_is_ok(status) && found.value != NULL ? found.value : "";
}

mr_status mr_command_config_get_contexts(mr_client *client) {
    mr_config *config = client->config;
    json_t *items = json_array();
    for (size_t origin = MR_CONFIG_PROJECT; origin <= MR_CONFIG_SYSTEM; origin++) {
        mr_config_file *file = &config->files[origin];
        for (size_t i = 0; i < file->context_count; i++) {
            const char *name = file->contexts[i].name;
            mr_config_origin nearest = MR_CONFIG_DEFAULT;
            if (mr_config_context_find(config, name, &nearest) != &file->contexts[i])
                continue; /* a nearer file has one of that name */
            bool in_use = strcmp(name, config_context_in_use(client)) == 0;
            (void)json_array_append_new(items, context_json(&file->contexts[i], in_use,
                                                            config_origins[origin], file->path));
        }
    }
    if (json_array_size(items) == 0)
        mr_client_say(client, "no context");
    return mr_render_list(client, &context_view, items);
}

static mr_status config_user_file(mr_client *client, mr_config_file **out_file) {
    *out_file = &client->config->files[MR_CONFIG_USER];
    if ((*out_file)->path == NULL)
        return MR_ERROR(NOT_FOUND, "the user's configuration has no place: neither "
                                   "XDG_CONFIG_HOME nor HOME names a folder");
    return MR_OK;
}

/* A path of the command line means one of the working folder. */
static mr_status config_whole_path(const char *label, const char *text, char *out, size_t bytes) {
    char folder[MR_CHECKPOINT_PATH_BYTES];
    if (getcwd(folder, sizeof(folder)) == NULL)
        return MR_ERROR(UNKNOWN, "--%s: the working folder has no name", label);
    int length = snprintf(out, bytes, "%s%s%s", text[0] == '/' ? "" : folder,
                          text[0] == '/' ? "" : "/", text);
    if (length < 0 || (size_t)length >= bytes)
        return MR_ERROR(INVALID_ARGUMENT, "--%s has %d bytes; at most %zu are allowed", label,
                        length, bytes - 1);
    return MR_OK;
}

/* What the command line sets goes into the context; the rest of it stays. */
static mr_status config_fill_context(const mr_client *client, mr_config_context *context) {
    const mr_invocation *invocation = client->invocation;
    char whole[MR_CHECKPOINT_PATH_BYTES];
    size_t count = 0;
    for (size_t i = 0; i < mr_setting_count; i++) {
        const char *name = mr_settings[i].name;
        if (strcmp(name, "context") == 0 || !mr_invocation_given(invocation, name))
            continue;
        const char *text = mr_invocation_text(invocation, name);
        if (mr_setting_option(i)->kind == MR_OPTION_FLAG)
            text = "true";
        if (mr_settings[i].path) {
            MR_TRY(config_whole_path(name, text, whole, sizeof(whole)));
            text = whole;
        }
        MR_TRY(mr_config_values_set(&context->values, i, name, text));
        count++;
    }
    if (count == 0)
        return MR_ERROR(INVALID_ARGUMENT, "config set-context %s sets nothing; give it --server "
                                          "ADDRESS or another option",
                        context->name);
    return MR_OK;
}

static mr_status config_print_context(const mr_client *client, const mr_config_file *file,
                                      const mr_config_context *context) {
    const char *chosen = file->values.text[mr_setting_find("context")];
    bool in_use = chosen != NULL && strcmp(chosen, context->name) == 0;
    return mr_render_item(client, &context_view,
                          context_json(context, in_use, config_origins[MR_CONFIG_USER],
                                       file->path));
}

mr_status mr_command_config_set_context(mr_client *client) {
    const char *name = client->invocation->arguments[0];
    mr_config_file *file = NULL;
    mr_config_context *context = NULL;
    MR_TRY(config_user_file(client, &file));
    MR_TRY(mr_config_file_context(file, name, &context));
    MR_TRY(config_fill_context(client, context));
    if (mr_invocation_given(client->invocation, "use"))
        MR_TRY(mr_config_values_set(&file->values, mr_setting_find("context"), "context", name));
    MR_TRY(mr_config_file_write(file));
    return config_print_context(client, file, context);
}

mr_status mr_command_config_use_context(mr_client *client) {
    const char *name = client->invocation->arguments[0];
    mr_config_file *file = NULL;
    mr_config_origin origin = MR_CONFIG_DEFAULT;
    MR_TRY(config_user_file(client, &file));
    const mr_config_context *context = mr_config_context_find(client->config, name, &origin);
    if (context == NULL)
        return MR_ERROR(NOT_FOUND, "there is no context %.64s; millrace config get-contexts lists "
                                   "them",
                        name);
    MR_TRY(mr_config_values_set(&file->values, mr_setting_find("context"), "context", name));
    MR_TRY(mr_config_file_write(file));
    if (strcmp(config_context_in_use(client), name) != 0)
        mr_client_say(client, "something nearer chooses context %s; see millrace config show "
                              "--origin",
                      config_context_in_use(client));
    return mr_render_item(client, &context_view,
                          context_json(context, true, config_origins[origin],
                                       client->config->files[origin].path));
}

mr_status mr_command_config_delete_context(mr_client *client) {
    const char *name = client->invocation->arguments[0];
    const size_t chooser = mr_setting_find("context");
    mr_config_file *file = NULL;
    MR_TRY(config_user_file(client, &file));
    mr_config_context *context = mr_config_file_find(file, name);
    if (context == NULL)
        return MR_ERROR(NOT_FOUND, "%s has no context %.64s", mr_path_shorten(file->path).text,
                        name);
    MR_TRY(mr_confirm(client, "delete context %s of %s", name, mr_path_shorten(file->path).text));
    json_t *item = context_json(context, false, config_origins[MR_CONFIG_USER], file->path);
    mr_config_file_remove(file, context);
    mr_status status = MR_OK;
    if (file->values.text[chooser] != NULL && strcmp(file->values.text[chooser], name) == 0)
        status = mr_config_values_set(&file->values, chooser, "context", NULL);
    if (mr_status_is_ok(status))
        status = mr_config_file_write(file);
    if (mr_status_is_ok(status))
        return mr_render_item(client, &context_view, item);
    json_decref(item);
    return status;
}

/* ---- schema ---------------------------------------------------------------------------------- */

/* "table|wide": ["table", "wide"]. */
static json_t *schema_choices(const char *choices) {
    json_t *list = json_array();
    while (*choices != '\0') {
        size_t length = strcspn(choices, "|");
        (void)json_array_append_new(list, json_stringn(choices, length));
        choices += length + (choices[length] == '|');
    }
    return list;
}

static json_t *schema_setting(const mr_option *option) {
    switch (option->kind) {
    case MR_OPTION_FLAG:
        return json_pack("{s:s, s:s}", "type", "boolean", "description", option->help);
    case MR_OPTION_NUMBER:
        return json_pack("{s:s, s:s, s:f, s:f}", "type", "number", "description", option->help,
                         "minimum", option->minimum, "maximum", option->maximum);
    case MR_OPTION_CHOICE:
        return json_pack("{s:o, s:s}", "enum", schema_choices(option->argument), "description",
                         option->help);
    default:
        return json_pack("{s:s, s:i, s:s}", "type", "string", "minLength", 1, "description",
                         option->help);
    }
}

static json_t *schema_settings(bool top) {
    json_t *properties = json_object();
    for (size_t i = 0; i < mr_setting_count; i++) {
        if (top || strcmp(mr_settings[i].name, "context") != 0)
            (void)json_object_set_new(properties, mr_settings[i].name,
                                      schema_setting(mr_setting_option(i)));
    }
    return properties;
}

mr_status mr_command_config_view_schema(mr_client *client) {
    json_t *context = json_pack("{s:s, s:b, s:o}", "type", "object", "additionalProperties", 0,
                                "properties", schema_settings(false));
    json_t *properties = json_pack("{s:{s:s}}", "schema", "const", MR_CONFIG_SCHEMA);
    json_t *settings = schema_settings(true);
    (void)json_object_update(properties, settings); /* an incomplete one fails below */
    json_decref(settings);
    (void)json_object_set_new(properties, "contexts",
                              json_pack("{s:s, s:o, s:i}", "type", "object",
                                        "additionalProperties", context, "maxProperties",
                                        (int)MR_CONFIG_CONTEXTS_MAX));
    json_t *schema = json_pack("{s:s, s:s, s:s, s:[s], s:b, s:o}", "$schema",
                               "https://json-schema.org/draft/2020-12/schema", "title",
                               "Millrace client configuration", "type", "object", "required",
                               "schema", "additionalProperties", 0, "properties", properties);
    if (client->output == MR_OUTPUT_NAME) {
        json_decref(schema);
        puts(MR_CONFIG_SCHEMA);
        return MR_OK;
    }
    return mr_render_plain(schema, client->output != MR_OUTPUT_JSONL);
}
