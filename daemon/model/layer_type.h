/* SPDX-License-Identifier: Apache-2.0 */
/* layer_type.h: the registry of layer types, describing half: a row says what a type is called in a
 * job file, which keys it has, and how its layers are described. The built-in types are rows of the
 * same kind (layer_type.c); a user's type is one more row, registered from the user's own library
 * before main runs:
 *
 *     static const mr_layer_type_row scale_row = {.name = "scale", .describe = scale_describe,
 * ...};     MR_LAYER_TYPE_REGISTER(scale_row)
 *
 * The library must be linked whole (Bazel: alwayslink), into millraced and into millrace, because
 * the client validates and plans by itself. The computing half is layers/layer_table.h.
 * deploy/examples/user_layer is a whole example.
 * A user's type has no enumerator; its mr_layer_type is a number from MR_LAYER_TYPE_COUNT on, the
 * same within one process only. Files and hashes use names.
 * Owner: model. Thread: registered before main; read by any thread after. */
#ifndef MR_MODEL_LAYER_TYPE_H
#define MR_MODEL_LAYER_TYPE_H

#include <stdint.h>

#include "daemon/model/describe.h"
#include "daemon/model/field_row.h"

enum {
    MR_LAYER_TYPES_MAX = 64,      /* built-in and registered: they are bits of a word */
    MR_LAYER_TYPE_FIELDS_MAX = 16, /* keys of one type's own */
};

typedef struct mr_layer_type_row {
    const char *name; /* letters, digits and '_'; at most 31 */
    /* The type's own keys. Their offsets count from the start of own_bytes bytes that every layer
     * of the type has for itself, zeroed before reading: mr_layer_spec_own. Keys that all layers
     * have (type, repeat, name, tie, frozen, put, take) are not repeated here. Kinds: all but
     * MR_FIELD_CUSTOM and MR_FIELD_PAIR. */
    const mr_field *fields;
    size_t field_count;
    size_t own_bytes;
    /* Required. Fills a zeroed description from the layer's keys and its input's shape. */
    mr_describe_layer describe;
    /* Optional: what must hold between the keys of one layer. INVALID_ARGUMENT begins with the
     * key: "kernel is 3; it must be odd". */
    mr_status (*check)(const mr_layer_spec *spec);
    /* Optional: elements of one sample's input for a model that starts with this type and has no
     * model.input; 0: unknown. Without it: unknown. */
    size_t (*input_width)(const mr_layer_spec *spec);
    bool scores; /* its output may be logits: cross_entropy may follow */
    bool takes;  /* needs take: what an earlier layer put aside, of its input's shape */
    bool later;  /* known and described, but no version computes it */
} mr_layer_type_row;

/* May the row be added? FAILED_PRECONDITION says what is wrong, by its name: no name or function, a
 * name that is taken, too many types or keys, a key that is taken or of a wrong kind. */
MR_MUST_CHECK mr_status mr_layer_type_row_check(const mr_layer_type_row *row);
/* Adds a row; it must stay as long as the process. What is wrong with it is kept for
 * mr_layer_types_status: there is nobody to tell before main. */
void mr_layer_type_register(const mr_layer_type_row *row);
/* FAILED_PRECONDITION: the first registration that was wrong, by its name. */
MR_MUST_CHECK mr_status mr_layer_types_status(void);

/* One row, one registration. */
#define MR_LAYER_TYPE_REGISTER(row)                                                                \
    __attribute__((constructor)) static void row##_register(void) {                               \
        mr_layer_type_register(&row);                                                              \
    }

/* Types there are; each smaller number is one. */
size_t mr_layer_type_count(void);
/* The row of a type; type must be one. */
const mr_layer_type_row *mr_layer_type_row_of(mr_layer_type type);

#endif
