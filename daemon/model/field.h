/* SPDX-License-Identifier: Apache-2.0 */
/* field.h: reading a mapping strictly by a table. A table row says everything about one key: its
 * path, type, default, bounds and meaning; the reader refuses unknown keys (naming the nearest
 * known one), keys given twice, wrong types and values out of bounds, and reports what is missing.
 * What a scalar's text means is scalar.h's matter; a text that some YAML reader would take for a
 * number, a boolean or nothing (yes, off, 1e3, ~) must stand in quotes.
 * Owner: model. Pure, any thread. */
#ifndef MR_MODEL_FIELD_H
#define MR_MODEL_FIELD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/model/field_row.h"
#include "daemon/model/job.h"
#include "daemon/model/yaml_tree.h"

typedef struct mr_field_mark {
    size_t line; /* where the key was given; 0: it was not */
    bool bad;    /* an error was reported */
} mr_field_mark;

typedef struct mr_field_table {
    const mr_field *fields;
    size_t count;
    unsigned entry;     /* the bit of this entry; 0: all fields count */
    const char *noun;   /* "a job file": what the mapping is, in errors */
    const char *prefix; /* before every path in errors: "model.layers[2]." or "" */
} mr_field_table;

enum { MR_FIELD_PATH_BYTES = 160 };

/* Fills target: defaults first, then what map says. marks: table->count of them. Errors go to
 * errors. map must be a mapping. */
void mr_field_table_read(const mr_field_table *table, const mr_yaml_node *map, void *target,
                         mr_field_mark *marks, mr_job_errors *errors);
/* Reads a word of choices. alternative: what else is allowed, for the error ("" for nothing). */
bool mr_field_choose(const mr_field_choice *choices, const char *alternative,
                     const mr_yaml_node *node, const char *path, int *out_value,
                     mr_job_errors *errors);
/* The mark of a path, which must be in the table. */
const mr_field_mark *mr_field_table_mark(const mr_field_table *table, const mr_field_mark *marks,
                                         const char *path);

#endif
