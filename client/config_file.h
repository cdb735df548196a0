/* SPDX-License-Identifier: Apache-2.0 */
/* config_file.h: one configuration file: values of settings, and contexts, which are named sets of
 * values. YAML (or JSON), strict as a job file is:
 *
 *     schema: millrace.config/v1
 *     context: lab                 # the context in use; what the file says itself comes first
 *     output: wide
 *     contexts:
 *       lab: {server: "10.0.0.1:9700", tls-ca: ca.pem}
 *
 * The settings are those that commands.def marks with MR_SETTING. A relative path of a tls-*
 * setting starts from the file's folder; in memory it is whole.
 * Owner: client. Thread: main. Limits: MR_CONFIG_CONTEXTS_MAX.
 * Not here: which of several files counts (config.h). */
#ifndef MR_CLIENT_CONFIG_FILE_H
#define MR_CLIENT_CONFIG_FILE_H

#include "client/commands.h"
#include "daemon/base/status.h"

#define MR_CONFIG_SCHEMA "millrace.config/v1"

enum { MR_CONFIG_CONTEXTS_MAX = 64 };

/* By the rows of mr_settings; NULL: not set. Owned. */
typedef struct mr_config_values {
    char *text[MR_SETTINGS_MAX];
} mr_config_values;

typedef struct mr_config_context {
    char *name;
    mr_config_values values;
} mr_config_context;

/* Zeroed: no file. */
typedef struct mr_config_file {
    char *path; /* NULL: none was read */
    mr_config_values values;
    size_t context_count;
    mr_config_context contexts[MR_CONFIG_CONTEXTS_MAX];
} mr_config_file;

/* Reads the file at path. NOT_FOUND: there is none (*out_file is then empty, but has its path).
 * INVALID_ARGUMENT: the text names file, line, key, value and what would be right. */
MR_MUST_CHECK mr_status mr_config_file_read(const char *path, mr_config_file *out_file);
/* The same from text; folder is where relative paths start. */
MR_MUST_CHECK mr_status mr_config_file_parse(const char *path, const char *folder, const char *text,
                                             size_t bytes, mr_config_file *out_file);
/* Puts the file in place of the one at file->path in one rename, with its folder where that lacks.
 * Comments of the file before are lost. */
MR_MUST_CHECK mr_status mr_config_file_write(const mr_config_file *file);
void mr_config_file_deinit(mr_config_file *file);

/* NULL where the file has none of that name. */
mr_config_context *mr_config_file_find(mr_config_file *file, const char *name);
/* Finds or makes it. INVALID_ARGUMENT: a name that is not 1 to 63 letters, digits, '.', '_', '-'.
 * RESOURCE_EXHAUSTED: MR_CONFIG_CONTEXTS_MAX. */
MR_MUST_CHECK mr_status mr_config_file_context(mr_config_file *file, const char *name,
                                               mr_config_context **out_context);
void mr_config_file_remove(mr_config_file *file, mr_config_context *context);
/* Sets or, with NULL, clears a value. The value is checked; label names it in the error. */
MR_MUST_CHECK mr_status mr_config_values_set(mr_config_values *values, size_t setting,
                                             const char *label, const char *text);

#endif
