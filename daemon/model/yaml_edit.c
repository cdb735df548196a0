/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/model/yaml_edit.h"

#include <stdlib.h>
#include <string.h>

#include <libfyaml.h>

#include "daemon/base/alloc.h"

enum { EDIT_PATH_BYTES = 128 };

/* A top-level mapping that the text leaves to its defaults. The document keeps a copy of key. */
static mr_status edit_add_map(struct fy_document *document, struct fy_node *root, const char *key,
                              struct fy_node **out_map) {
    struct fy_node *map = fy_node_create_mapping(document);
    if (map == NULL ||
        fy_node_mapping_append(root, fy_node_create_scalar_copy(document, key, FY_NT), map) != 0)
        return MR_ERROR(INVALID_ARGUMENT, "%s cannot be added: the text is no mapping", key);
    *out_map = map;
    return MR_OK;
}

/* The mapping that holds the last word of path, and that word. */
static mr_status edit_find(struct fy_document *document, const char *path,
                           struct fy_node **out_map, const char **out_key) {
    char folder[EDIT_PATH_BYTES];
    const char *slash = strrchr(path, '/');
    MR_ASSERT(path[0] == '/' && (size_t)(slash - path) < sizeof(folder));
    memcpy(folder, path, (size_t)(slash - path));
    folder[slash - path] = '\0';
    struct fy_node *root = fy_document_root(document);
    *out_map = folder[0] == '\0' ? root : fy_node_by_path(root, folder, FY_NT, FYNWF_DONT_FOLLOW);
    *out_key = slash + 1;
    if (*out_map == NULL && strrchr(folder, '/') == folder && root != NULL)
        MR_TRY(edit_add_map(document, root, folder + 1, out_map));
    if (*out_map == NULL || fy_node_get_type(*out_map) != FYNT_MAPPING)
        return MR_ERROR(INVALID_ARGUMENT, "%s cannot be set: the text has no mapping %s", path,
                        folder[0] == '\0' ? "/" : folder);
    return MR_OK;
}

static mr_status edit_set(struct fy_document *document, const mr_yaml_change *change) {
    struct fy_node *map = NULL;
    const char *key = NULL;
    MR_TRY(edit_find(document, change->path, &map, &key));
    struct fy_node *value = fy_node_build_from_string(document, change->value, FY_NT);
    struct fy_node_pair *pair = fy_node_mapping_lookup_pair_by_string(map, key, FY_NT);
    if (value == NULL)
        return MR_ERROR(INVALID_ARGUMENT, "%s cannot be set to \"%.60s\"", change->path,
                        change->value);
    int failed = pair != NULL ? fy_node_pair_set_value(pair, value)
                              : fy_node_mapping_append(
                                    map, fy_node_build_from_string(document, key, FY_NT), value);
    return failed == 0 ? MR_OK
                       : MR_ERROR(RESOURCE_EXHAUSTED, "no memory to set %s", change->path);
}

mr_status mr_yaml_edit(const char *text, const mr_yaml_change *changes, size_t count,
                       char **out_text) {
    const struct fy_parse_cfg quiet = {.flags = FYPCF_QUIET};
    struct fy_document *document = fy_document_build_from_string(&quiet, text, strlen(text));
    char *edited = NULL;
    mr_status status = MR_OK;
    if (document == NULL)
        return MR_ERROR(INVALID_ARGUMENT, "the text that is to be changed is no YAML");
    for (size_t i = 0; i < count && mr_status_is_ok(status); i++)
        status = edit_set(document, &changes[i]);
    if (mr_status_is_ok(status)) {
        edited = fy_emit_document_to_string(document, FYECF_MODE_ORIGINAL | FYECF_WIDTH_INF);
        *out_text = edited == NULL ? NULL : mr_strdup(edited);
        if (edited == NULL || *out_text == NULL)
            status = MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the changed text");
    }
    free(edited); /* libfyaml's memory is libc's */
    fy_document_destroy(document);
    return status;
}
