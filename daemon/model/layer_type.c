/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/model/layer_type.h"

#include <string.h>

#include "daemon/model/describe_own.h"

enum { NAME_BYTES = 32 };

static size_t embedding_like_width(const mr_layer_spec *spec) {
    return spec->dim;
}

static size_t linear_width(const mr_layer_spec *spec) {
    return spec->in;
}

/* Built-in types. The keys of those that had them before there were registered types are in
 * layer_reader.c. */
static const mr_layer_type_row built_in[MR_LAYER_TYPE_COUNT] = {
    [MR_LAYER_TYPE_EMBEDDING] = {.name = "embedding",
                                 .describe = mr_describe_embedding,
                                 .input_width = embedding_like_width},
    [MR_LAYER_TYPE_TRANSFORMER_BLOCK] = {.name = "transformer_block",
                                         .describe = mr_describe_transformer_block,
                                         .input_width = embedding_like_width},
    [MR_LAYER_TYPE_LAYERNORM] = {.name = "layernorm",
                                 .describe = mr_describe_norm,
                                 .input_width = embedding_like_width},
    [MR_LAYER_TYPE_RMSNORM] = {.name = "rmsnorm",
                               .describe = mr_describe_norm,
                               .input_width = embedding_like_width,
                               .later = true},
    [MR_LAYER_TYPE_LM_HEAD] = {.name = "lm_head",
                               .describe = mr_describe_lm_head,
                               .input_width = embedding_like_width,
                               .scores = true},
    [MR_LAYER_TYPE_LINEAR] = {.name = "linear",
                              .describe = mr_describe_linear,
                              .input_width = linear_width,
                              .scores = true},
    [MR_LAYER_TYPE_CONV2D] = {.name = "conv2d",
                              .describe = mr_describe_conv2d,
                              .fields = mr_conv2d_fields,
                              .field_count = MR_CONV2D_FIELDS,
                              .own_bytes = sizeof(mr_conv2d),
                              .check = mr_conv2d_check},
    [MR_LAYER_TYPE_MAXPOOL2D] = {.name = "maxpool2d",
                                 .describe = mr_describe_maxpool2d,
                                 .fields = mr_maxpool2d_fields,
                                 .field_count = MR_MAXPOOL2D_FIELDS,
                                 .own_bytes = sizeof(mr_maxpool2d),
                                 .check = mr_maxpool2d_check},
    [MR_LAYER_TYPE_FLATTEN] = {.name = "flatten", .describe = mr_describe_flatten},
    [MR_LAYER_TYPE_RELU] = {.name = "relu", .describe = mr_describe_pointwise},
    [MR_LAYER_TYPE_GELU] = {.name = "gelu", .describe = mr_describe_pointwise},
    [MR_LAYER_TYPE_SILU] = {.name = "silu", .describe = mr_describe_pointwise},
    [MR_LAYER_TYPE_DROPOUT] = {.name = "dropout", .describe = mr_describe_pointwise},
    [MR_LAYER_TYPE_IDENTITY] = {.name = "identity", .describe = mr_describe_pointwise},
    [MR_LAYER_TYPE_ADD] = {.name = "add", .describe = mr_describe_pointwise, .takes = true},
};

/* What was registered, and the first thing that was wrong. */
static struct {
    size_t count;
    const mr_layer_type_row *rows[MR_LAYER_TYPES_MAX];
    bool failed;
    mr_status failure;
} registered;

static_assert((int)MR_LAYER_TYPE_COUNT < (int)MR_LAYER_TYPES_MAX,
              "there is room for types of users");

size_t mr_layer_type_count(void) {
    return MR_LAYER_TYPE_COUNT + registered.count;
}

const mr_layer_type_row *mr_layer_type_row_of(mr_layer_type type) {
    size_t number = (size_t)type;
    MR_ASSERT(number < mr_layer_type_count());
    return number < MR_LAYER_TYPE_COUNT ? &built_in[number]
                                        : registered.rows[number - MR_LAYER_TYPE_COUNT];
}

const char *mr_layer_type_name(mr_layer_type type) {
    return mr_layer_type_row_of(type)->name;
}

mr_status mr_layer_types_status(void) {
    return registered.failed ? registered.failure : MR_OK;
}

static bool name_is_good(const char *name) {
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";
    return name != NULL && name[0] != '\0' && strlen(name) < NAME_BYTES &&
           strspn(name, letters) == strlen(name);
}

/* Bytes of a value of this kind; 0: a kind that own keys cannot have. */
static size_t field_bytes(const mr_field *field) {
    switch (field->kind) {
    case MR_FIELD_SIZE:
        return sizeof(size_t);
    case MR_FIELD_COUNTER:
        return sizeof(uint64_t);
    case MR_FIELD_NUMBER:
        return sizeof(double);
    case MR_FIELD_BOOL:
        return sizeof(bool);
    case MR_FIELD_CHOICE:
        return sizeof(int);
    case MR_FIELD_TEXT:
    case MR_FIELD_NAME:
        return field->capacity;
    case MR_FIELD_PAIR:
    case MR_FIELD_CUSTOM:
        break;
    }
    return 0;
}

static mr_status row_check_field(const mr_layer_type_row *row, const mr_field *field) {
    static const char *const taken[] = {"type", "repeat", "name", "tie",
                                        "frozen", "put", "take"};
    size_t bytes = field_bytes(field);
    if (!name_is_good(field->path))
        return MR_ERROR(FAILED_PRECONDITION, "layer type %s has a key without a good name",
                        row->name);
    for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++)
        if (strcmp(taken[i], field->path) == 0)
            return MR_ERROR(FAILED_PRECONDITION,
                            "layer type %s has a key %s, which all layers have", row->name,
                            field->path);
    for (const mr_field *other = row->fields; other != field; other++)
        if (strcmp(other->path, field->path) == 0)
            return MR_ERROR(FAILED_PRECONDITION, "layer type %s has its key %s twice", row->name,
                            field->path);
    if (bytes == 0 || field->entries != 0)
        return MR_ERROR(FAILED_PRECONDITION,
                        "key %s of layer type %s is of a kind that it cannot be", field->path,
                        row->name);
    if (field->offset > row->own_bytes || bytes > row->own_bytes - field->offset)
        return MR_ERROR(FAILED_PRECONDITION,
                        "key %s of layer type %s lies outside its %zu own bytes", field->path,
                        row->name, row->own_bytes);
    return MR_OK;
}

mr_status mr_layer_type_row_check(const mr_layer_type_row *row) {
    if (!name_is_good(row->name))
        return MR_ERROR(FAILED_PRECONDITION,
                        "a layer type is registered without a good name: 1 to %d letters, digits "
                        "and '_'",
                        NAME_BYTES - 1);
    if (row->describe == NULL)
        return MR_ERROR(FAILED_PRECONDITION, "layer type %s has no describe function", row->name);
    if (row->own_bytes > MR_LAYER_OWN_BYTES || row->field_count > MR_LAYER_TYPE_FIELDS_MAX)
        return MR_ERROR(FAILED_PRECONDITION,
                        "layer type %s has %zu own bytes and %zu keys; at most %d and %d",
                        row->name, row->own_bytes, row->field_count, MR_LAYER_OWN_BYTES,
                        MR_LAYER_TYPE_FIELDS_MAX);
    if (mr_layer_type_count() == MR_LAYER_TYPES_MAX)
        return MR_ERROR(FAILED_PRECONDITION, "layer type %s is one too many; at most %d", row->name,
                        MR_LAYER_TYPES_MAX);
    for (size_t i = 0; i < mr_layer_type_count(); i++)
        if (strcmp(mr_layer_type_name((mr_layer_type)i), row->name) == 0)
            return MR_ERROR(FAILED_PRECONDITION, "layer type %s is registered twice", row->name);
    for (size_t i = 0; i < row->field_count; i++)
        MR_TRY(row_check_field(row, &row->fields[i]));
    return MR_OK;
}

void mr_layer_type_register(const mr_layer_type_row *row) {
    mr_status status = mr_layer_type_row_check(row);
    if (mr_status_is_ok(status)) {
        registered.rows[registered.count++] = row;
    } else if (!registered.failed) {
        registered.failed = true;
        registered.failure = status;
    }
}
