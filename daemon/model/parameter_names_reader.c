/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/model/parameter_names_reader.h"

#include <string.h>

#include "daemon/model/job_errors.h"
#include "daemon/model/scalar.h"

static bool name_is_good(const mr_yaml_node *item) {
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    return item->kind == MR_YAML_SCALAR && item->text[0] != '\0' &&
           strlen(item->text) < MR_PARAMETER_NAME_BYTES &&
           strspn(item->text, letters) == strlen(item->text);
}

bool mr_parameter_names_read(const mr_yaml_node *node, const char *path,
                             char out_names[MR_PARAMETER_NAMES_BYTES], mr_job_errors *errors) {
    char text[MR_SCALAR_TEXT_BYTES];
    size_t index = 0;
    out_names[0] = '\0';
    if (node->kind != MR_YAML_LIST || node->child_count == 0) {
        mr_job_errors_add(errors, node->line,
                          "%s is %s; it must be a list of names of parameters such as [weight]",
                          path,
                          node->kind == MR_YAML_LIST ? "an empty list"
                                                     : mr_scalar_describe(node, text));
        return false;
    }
    for (const mr_yaml_node *item = node->child; item != NULL; item = item->next, index++) {
        if (!name_is_good(item)) {
            mr_job_errors_add(errors, item->line,
                              "%s[%zu] is %s; it must be the name of a parameter, up to %d "
                              "letters, digits, '.', '_' or '-'",
                              path, index, mr_scalar_describe(item, text),
                              MR_PARAMETER_NAME_BYTES - 1);
            return false;
        }
        if (mr_parameter_names_find(out_names, item->text) < index) {
            mr_job_errors_add(errors, item->line, "%s[%zu] is %s, which the list already has", path,
                              index, item->text);
            return false;
        }
        if (!mr_parameter_names_add(out_names, item->text)) {
            mr_job_errors_add(errors, item->line,
                              "%s is too long: its names may have %d bytes together", path,
                              MR_PARAMETER_NAMES_BYTES - 1);
            return false;
        }
    }
    return true;
}
