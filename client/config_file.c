/* SPDX-License-Identifier: Apache-2.0 */
#include "client/config_file.h"

#include <stdio.h>
#include <string.h>

#include "client/job_file.h"
#include "client/path_text.h"
#include "client/suggest.h"
#include "daemon/base/alloc.h"
#include "daemon/base/limits.h"
#include "daemon/model/yaml_tree.h"

/* What is being read, for errors and relative paths. */
typedef struct config_reader {
    const char *path;
    const char *folder;
} config_reader;

mr_status mr_config_values_set(mr_config_values *values, size_t setting, const char *label,
                               const char *text) {
    MR_ASSERT(setting < mr_setting_count);
    char *copy = NULL;
    if (text != NULL) {
        MR_TRY(mr_setting_check(setting, label, text));
        copy = mr_strdup(text);
        if (copy == NULL)
            return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %s", label);
    }
    mr_free(values->text[setting]);
    values->text[setting] = copy;
    return MR_OK;
}

static void config_values_deinit(mr_config_values *values) {
    for (size_t i = 0; i < MR_SETTINGS_MAX; i++)
        mr_free(values->text[i]);
    *values = (mr_config_values){0};
}

mr_config_context *mr_config_file_find(mr_config_file *file, const char *name) {
    for (size_t i = 0; i < file->context_count; i++) {
        if (strcmp(file->contexts[i].name, name) == 0)
            return &file->contexts[i];
    }
    return NULL;
}

mr_status mr_config_file_context(mr_config_file *file, const char *name,
                                 mr_config_context **out_context) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789._-";
    size_t length = strlen(name);
    if (length == 0 || length >= MR_NAME_BYTES || strspn(name, letters) != length)
        return MR_ERROR(INVALID_ARGUMENT,
                        "a context's name is \"%.70s\"; it must be 1 to %d letters, digits, '.', "
                        "'_' or '-'",
                        name, MR_NAME_BYTES - 1);
    *out_context = mr_config_file_find(file, name);
    if (*out_context != NULL)
        return MR_OK;
    if (file->context_count == MR_CONFIG_CONTEXTS_MAX)
        return MR_ERROR(RESOURCE_EXHAUSTED, "context %s is one too many; a file has at most %d",
                        name, (int)MR_CONFIG_CONTEXTS_MAX);
    mr_config_context *context = &file->contexts[file->context_count];
    *context = (mr_config_context){.name = mr_strdup(name)};
    if (context->name == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for context %s", name);
    file->context_count++;
    *out_context = context;
    return MR_OK;
}

void mr_config_file_remove(mr_config_file *file, mr_config_context *context) {
    size_t index = (size_t)(context - file->contexts);
    MR_ASSERT(index < file->context_count);
    mr_free(context->name);
    config_values_deinit(&context->values);
    file->context_count--;
    memmove(context, context + 1, (file->context_count - index) * sizeof(*context));
    file->contexts[file->context_count] = (mr_config_context){0};
}

void mr_config_file_deinit(mr_config_file *file) {
    while (file->context_count > 0)
        mr_config_file_remove(file, &file->contexts[0]);
    config_values_deinit(&file->values);
    mr_free(file->path);
    *file = (mr_config_file){0};
}

/* ---- reading --------------------------------------------------------------------------------- */

static mr_status config_unknown_key(const config_reader *reader, const mr_yaml_node *node,
                                    bool top) {
    static const char *const extra[] = {"schema", "contexts"};
    const char *near = NULL;
    size_t best = SIZE_MAX;
    for (size_t i = 0; i < mr_setting_count; i++) {
        if (mr_suggest_better(node->key, mr_settings[i].name, &best))
            near = mr_settings[i].name;
    }
    for (size_t i = 0; top && i < sizeof(extra) / sizeof(extra[0]); i++) {
        if (mr_suggest_better(node->key, extra[i], &best))
            near = extra[i];
    }
    return MR_ERROR(INVALID_ARGUMENT, "%s: line %zu: unknown key %.40s%s%s%s",
                    mr_path_shorten(reader->path).text, node->key_line, node->key,
                    near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
}

/* A key that stands twice among siblings. */
static mr_status config_check_twice(const config_reader *reader, const mr_yaml_node *map) {
    for (const mr_yaml_node *node = map->child; node != NULL; node = node->next) {
        for (const mr_yaml_node *other = map->child; other != node; other = other->next) {
            if (strcmp(node->key, other->key) == 0)
                return MR_ERROR(INVALID_ARGUMENT,
                                "%s: line %zu: key %.40s stands on line %zu already",
                                mr_path_shorten(reader->path).text, node->key_line, node->key,
                                other->key_line);
        }
    }
    return MR_OK;
}

static mr_status config_read_value(const config_reader *reader, const mr_yaml_node *node,
                                   mr_config_values *values) {
    size_t setting = mr_setting_find(node->key);
    char whole[MR_CHECKPOINT_PATH_BYTES];
    const char *text = node->text;
    MR_ASSERT(setting < mr_setting_count);
    if (node->kind != MR_YAML_SCALAR || text == NULL || text[0] == '\0')
        return MR_ERROR(INVALID_ARGUMENT, "%s: line %zu: %s has no value; it must be one text",
                        mr_path_shorten(reader->path).text, node->line, node->key);
    if (mr_settings[setting].path && text[0] != '/') {
        int length = snprintf(whole, sizeof(whole), "%s/%s", reader->folder, text);
        if (length < 0 || (size_t)length >= sizeof(whole))
            return MR_ERROR(INVALID_ARGUMENT,
                            "%s: line %zu: %s has %d bytes; at most %zu are allowed",
                            mr_path_shorten(reader->path).text, node->line, node->key, length,
                            sizeof(whole) - 1);
        text = whole;
    }
    return mr_status_prefix(mr_config_values_set(values, setting, node->key, text),
                            "%s: line %zu", mr_path_shorten(reader->path).text, node->line);
}

static mr_status config_read_context(const config_reader *reader, const mr_yaml_node *node,
                                     mr_config_file *file) {
    mr_config_context *context = NULL;
    if (node->kind != MR_YAML_MAP)
        return MR_ERROR(INVALID_ARGUMENT,
                        "%s: line %zu: context %.40s is no mapping; write {server: HOST:PORT}",
                        mr_path_shorten(reader->path).text, node->line, node->key);
    MR_TRY(config_check_twice(reader, node));
    MR_TRY(mr_status_prefix(mr_config_file_context(file, node->key, &context), "%s: line %zu",
                            mr_path_shorten(reader->path).text, node->key_line));
    for (const mr_yaml_node *child = node->child; child != NULL; child = child->next) {
        if (strcmp(child->key, "context") == 0)
            return MR_ERROR(INVALID_ARGUMENT,
                            "%s: line %zu: context stands in context %s; contexts do not nest",
                            mr_path_shorten(reader->path).text, child->key_line, context->name);
        if (mr_setting_find(child->key) == MR_SETTINGS_MAX)
            return config_unknown_key(reader, child, false);
        MR_TRY(config_read_value(reader, child, &context->values));
    }
    return MR_OK;
}

static mr_status config_read_contexts(const config_reader *reader, const mr_yaml_node *node,
                                      mr_config_file *file) {
    if (node->kind != MR_YAML_MAP)
        return MR_ERROR(INVALID_ARGUMENT,
                        "%s: line %zu: contexts is no mapping; write NAME: {server: HOST:PORT}",
                        mr_path_shorten(reader->path).text, node->line);
    MR_TRY(config_check_twice(reader, node));
    for (const mr_yaml_node *child = node->child; child != NULL; child = child->next)
        MR_TRY(config_read_context(reader, child, file));
    return MR_OK;
}

static mr_status config_read_root(const config_reader *reader, const mr_yaml_node *root,
                                  mr_config_file *file) {
    const char *schema = NULL;
    if (root == NULL || root->kind != MR_YAML_MAP)
        return MR_ERROR(INVALID_ARGUMENT, "%s is no mapping of settings",
                        mr_path_shorten(reader->path).text);
    MR_TRY(config_check_twice(reader, root));
    for (const mr_yaml_node *node = root->child; node != NULL; node = node->next) {
        if (strcmp(node->key, "schema") == 0 && node->kind == MR_YAML_SCALAR)
            schema = node->text;
    }
    if (schema == NULL || strcmp(schema, MR_CONFIG_SCHEMA) != 0)
        return MR_ERROR(INVALID_ARGUMENT, "%s: schema is %.40s; it must be " MR_CONFIG_SCHEMA,
                        mr_path_shorten(reader->path).text, schema ? schema : "not there");
    for (const mr_yaml_node *node = root->child; node != NULL; node = node->next) {
        if (strcmp(node->key, "schema") == 0)
            continue;
        if (strcmp(node->key, "contexts") == 0)
            MR_TRY(config_read_contexts(reader, node, file));
        else if (mr_setting_find(node->key) == MR_SETTINGS_MAX)
            return config_unknown_key(reader, node, true);
        else
            MR_TRY(config_read_value(reader, node, &file->values));
    }
    return MR_OK;
}

mr_status mr_config_file_parse(const char *path, const char *folder, const char *text, size_t bytes,
                               mr_config_file *out_file) {
    const config_reader reader = {.path = path, .folder = folder};
    mr_yaml_tree *tree = NULL;
    size_t line = 0;
    *out_file = (mr_config_file){.path = mr_strdup(path)};
    if (out_file->path == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %s", mr_path_shorten(path).text);
    mr_status status = mr_yaml_tree_parse(text, bytes, &tree, &line);
    if (mr_status_is_ok(status))
        status = config_read_root(&reader, mr_yaml_tree_root(tree), out_file);
    else
        status = mr_status_prefix(status, "%s: line %zu", mr_path_shorten(path).text, line);
    mr_yaml_tree_destroy(tree);
    if (!mr_status_is_ok(status))
        mr_config_file_deinit(out_file);
    return status;
}

mr_status mr_config_file_read(const char *path, mr_config_file *out_file) {
    mr_job_file text = {0};
    *out_file = (mr_config_file){0};
    mr_status status = mr_job_file_load(path, &text);
    if (mr_status_is_ok(status))
        status = mr_config_file_parse(path, text.base_directory, text.text, text.bytes, out_file);
    else if (status.code == MR_CODE_NOT_FOUND)
        out_file->path = mr_strdup(path);
    mr_job_file_deinit(&text);
    return status;
}
