/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/model/layer_reader.h"

#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/model/field.h"
#include "daemon/model/job_errors.h"
#include "daemon/model/layer_type.h"
#include "daemon/model/parameter_names_reader.h"
#include "daemon/model/scalar.h"

enum { TIED_ENTRIES_MAX = 256 };

/* One entry of the list, before repeat. */
typedef struct layer_entry {
    mr_layer_spec spec;
    size_t repeat;
    size_t index; /* in the list */
} layer_entry;

#define ENTRY(NAME) (1u << MR_LAYER_TYPE_##NAME)
#define SPEC(member) .offset = offsetof(layer_entry, spec.member)
#define DIMENSION .kind = MR_FIELD_SIZE, .minimum = 1, .maximum = MR_DIMENSION_MAX

static const mr_field_choice norm_choices[] = {
    {"layernorm", MR_NORM_LAYERNORM, false},
    {"rmsnorm", MR_NORM_RMSNORM, true},
    {NULL, 0, false},
};
static const mr_field_choice activation_choices[] = {
    {"gelu_tanh", MR_ACTIVATION_GELU_TANH, false},
    {"swiglu", MR_ACTIVATION_SWIGLU, true},
    {NULL, 0, false},
};
static const mr_field_choice position_choices[] = {
    {"none", MR_POSITION_NONE, false},
    {"rope", MR_POSITION_ROPE, true},
    {NULL, 0, false},
};
static const mr_field_choice parallel_choices[] = {
    {"none", MR_PARALLEL_NONE, false},
    {"column", MR_PARALLEL_COLUMN, false},
    {"row", MR_PARALLEL_ROW, false},
    {NULL, 0, false},
};

static bool type_is_read(void *target, const mr_yaml_node *node, const char *path,
                         mr_job_errors *errors);
static bool tie_read(void *target, const mr_yaml_node *node, const char *path,
                     mr_job_errors *errors);
static bool frozen_read(void *target, const mr_yaml_node *node, const char *path,
                        mr_job_errors *errors);

/* Every field of the layer types that share one struct of fields, with its default, in one place; a
 * type whose fields are its own has them in its row (layer_type.h). */
static const mr_field layer_fields[] = {
    {.path = "type",
     .kind = MR_FIELD_CUSTOM,
     .required = true,
     .read = type_is_read,
     .help = "what the layer is"},
    {.path = "repeat",
     .kind = MR_FIELD_SIZE,
     .minimum = 1,
     .maximum = MR_LAYERS_MAX,
     .fallback = "1",
     .offset = offsetof(layer_entry, repeat),
     .help = "number of equal layers that the entry stands for"},
    {.path = "name",
     .kind = MR_FIELD_NAME,
     SPEC(name),
     .capacity = MR_NAME_BYTES,
     .help = "what you call it, for partition: type:REGEX; default: none"},
    {.path = "tie",
     .kind = MR_FIELD_CUSTOM,
     .read = tie_read,
     .help = "key of the layers that share parameters, or {key: K, parameters: [NAME, ...]}"},
    {.path = "put",
     .kind = MR_FIELD_NAME,
     SPEC(put),
     .capacity = MR_ASIDE_NAME_BYTES,
     .help = "name under which later layers may take its output; default: none"},
    {.path = "take",
     .kind = MR_FIELD_NAME,
     SPEC(take),
     .capacity = MR_ASIDE_NAME_BYTES,
     .help = "of a type that reads a second input: the name that an earlier layer put"},
    {.path = "frozen",
     .kind = MR_FIELD_CUSTOM,
     .fallback = "false",
     .read = frozen_read,
     .help = "true: no parameter is trained; or a list of those that are not"},
    {.path = "vocab",
     DIMENSION,
     .required = true,
     .entries = ENTRY(EMBEDDING),
     SPEC(vocab),
     .help = "number of token ids, V"},
    {.path = "vocab",
     DIMENSION,
     .entries = ENTRY(LM_HEAD),
     SPEC(vocab),
     .help = "number of token ids, V; default: its tie's"},
    {.path = "dim",
     DIMENSION,
     .required = true,
     .entries = ENTRY(EMBEDDING) | ENTRY(TRANSFORMER_BLOCK) | ENTRY(LAYERNORM) | ENTRY(RMSNORM),
     SPEC(dim),
     .help = "width, C"},
    {.path = "dim",
     DIMENSION,
     .entries = ENTRY(LM_HEAD),
     SPEC(dim),
     .help = "width, C; default: its tie's"},
    {.path = "positions",
     DIMENSION,
     .entries = ENTRY(EMBEDDING),
     SPEC(positions),
     .help = "learned positions, at least the sequence length; default: none"},
    {.path = "heads",
     DIMENSION,
     .required = true,
     .entries = ENTRY(TRANSFORMER_BLOCK),
     SPEC(heads),
     .help = "attention heads; divides dim"},
    {.path = "kv_heads",
     DIMENSION,
     .entries = ENTRY(TRANSFORMER_BLOCK),
     SPEC(kv_heads),
     .help = "key and value heads; default: heads"},
    {.path = "ffn",
     DIMENSION,
     .entries = ENTRY(TRANSFORMER_BLOCK),
     SPEC(ffn),
     .help = "inner width of the MLP, F; default: 4 dim"},
    {.path = "norm",
     .kind = MR_FIELD_CHOICE,
     .entries = ENTRY(TRANSFORMER_BLOCK),
     .fallback = "layernorm",
     SPEC(norm),
     .choices = norm_choices,
     .help = "normalisation before attention and MLP"},
    {.path = "activation",
     .kind = MR_FIELD_CHOICE,
     .entries = ENTRY(TRANSFORMER_BLOCK),
     .fallback = "gelu_tanh",
     SPEC(activation),
     .choices = activation_choices,
     .help = "inside the MLP"},
    {.path = "position",
     .kind = MR_FIELD_CHOICE,
     .entries = ENTRY(TRANSFORMER_BLOCK),
     .fallback = "none",
     SPEC(position),
     .choices = position_choices,
     .help = "position encoding inside attention"},
    {.path = "bias",
     .kind = MR_FIELD_BOOL,
     .entries = ENTRY(TRANSFORMER_BLOCK) | ENTRY(LINEAR),
     .fallback = "true",
     SPEC(bias),
     .help = "the linear maps have biases"},
    {.path = "causal",
     .kind = MR_FIELD_BOOL,
     .entries = ENTRY(TRANSFORMER_BLOCK),
     .fallback = "true",
     SPEC(causal),
     .help = "a token attends to itself and earlier ones only"},
    {.path = "dropout",
     .kind = MR_FIELD_NUMBER,
     .entries = ENTRY(TRANSFORMER_BLOCK),
     .fallback = "0",
     SPEC(dropout),
     .low = 0,
     .high = 1,
     .high_open = true,
     .help = "probability of zero in attention and in both branches"},
    {.path = "p",
     .kind = MR_FIELD_NUMBER,
     .entries = ENTRY(DROPOUT),
     .fallback = "0.5",
     SPEC(dropout),
     .low = 0,
     .high = 1,
     .high_open = true,
     .help = "probability of zero"},
    {.path = "eps",
     .kind = MR_FIELD_NUMBER,
     .entries = ENTRY(TRANSFORMER_BLOCK) | ENTRY(LAYERNORM) | ENTRY(RMSNORM),
     .fallback = "1e-5",
     SPEC(eps),
     .low = 0,
     .low_open = true,
     .high = 1,
     .help = "added to the variance"},
    {.path = "in",
     DIMENSION,
     .required = true,
     .entries = ENTRY(LINEAR),
     SPEC(in),
     .help = "input width"},
    {.path = "out",
     DIMENSION,
     .required = true,
     .entries = ENTRY(LINEAR),
     SPEC(out),
     .help = "output width"},
    {.path = "parallel",
     .kind = MR_FIELD_CHOICE,
     .entries = ENTRY(LINEAR),
     .fallback = "none",
     SPEC(parallel),
     .choices = parallel_choices,
     .help = "how the model axis cuts it"},
};

enum {
    LAYER_FIELD_COUNT = sizeof(layer_fields) / sizeof(layer_fields[0]),
    ENTRY_FIELDS_MAX = LAYER_FIELD_COUNT + MR_LAYER_TYPE_FIELDS_MAX
};

static_assert(MR_LAYER_TYPE_COUNT < 32, "built-in layer types are bits of a row's entries");

/* The words for type, ended as mr_field_choose wants them. */
typedef struct type_words {
    mr_field_choice choices[MR_LAYER_TYPES_MAX + 1];
} type_words;

static const mr_field_choice *type_words_make(type_words *words) {
    size_t count = mr_layer_type_count();
    for (size_t i = 0; i < count; i++) {
        const mr_layer_type_row *row = mr_layer_type_row_of((mr_layer_type)i);
        words->choices[i] = (mr_field_choice){row->name, (int)i, row->later};
    }
    words->choices[count] = (mr_field_choice){NULL, 0, false};
    return words->choices;
}

/* The fields that an entry of a type may have: those of all, then the type's own. */
typedef struct entry_fields {
    mr_field rows[ENTRY_FIELDS_MAX];
    mr_field_mark marks[ENTRY_FIELDS_MAX];
    mr_field_table table;
} entry_fields;

static void entry_fields_make(mr_layer_type type, const char *noun, const char *prefix,
                              entry_fields *out) {
    const mr_layer_type_row *row = mr_layer_type_row_of(type);
    size_t count = 0;
    unsigned entry = type < MR_LAYER_TYPE_COUNT ? 1u << type : 1u << 31;
    for (size_t i = 0; i < LAYER_FIELD_COUNT; i++)
        if (layer_fields[i].entries == 0 || (layer_fields[i].entries & entry) != 0)
            out->rows[count++] = layer_fields[i];
    for (size_t i = 0; i < row->field_count; i++) {
        out->rows[count] = row->fields[i];
        out->rows[count++].offset += offsetof(layer_entry, spec.own);
    }
    out->table = (mr_field_table){out->rows, count, entry, noun, prefix};
}

/* tie: KEY. Read as a mapping of this key alone, so that it is refused as any other name is. */
static bool tie_read_key(layer_entry *entry, const mr_yaml_node *node, const char *path,
                         mr_job_errors *errors) {
    static const mr_field key_field[] = {
        {.path = "tie", .kind = MR_FIELD_NAME, SPEC(tie), .capacity = MR_NAME_BYTES}};
    char prefix[MR_FIELD_PATH_BYTES];
    mr_field_mark mark;
    mr_yaml_node copy = *node;
    mr_yaml_node map = {.kind = MR_YAML_MAP, .line = node->line, .child_count = 1, .child = &copy};
    copy.key = "tie";
    copy.key_line = node->line;
    copy.next = NULL;
    (void)snprintf(prefix, sizeof(prefix), "%.*s", (int)(strlen(path) - strlen(copy.key)), path);
    mr_field_table table = {key_field, 1, 0, "a layer", prefix};
    mr_field_table_read(&table, &map, entry, &mark, errors);
    return !mark.bad;
}

static bool tie_names_read(void *target, const mr_yaml_node *node, const char *path,
                           mr_job_errors *errors) {
    return mr_parameter_names_read(node, path, ((layer_entry *)target)->spec.tie_names, errors);
}

static bool tie_read(void *target, const mr_yaml_node *node, const char *path,
                     mr_job_errors *errors) {
    static const mr_field tie_fields[] = {
        {.path = "key",
         .kind = MR_FIELD_NAME,
         .required = true,
         SPEC(tie),
         .capacity = MR_NAME_BYTES,
         .help = "the tie's name"},
        {.path = "parameters",
         .kind = MR_FIELD_CUSTOM,
         .read = tie_names_read,
         .help = "names of the layer's parameters that are shared, in the tie's order"},
    };
    enum { FIELDS = sizeof(tie_fields) / sizeof(tie_fields[0]) };
    char prefix[MR_FIELD_PATH_BYTES];
    mr_field_mark marks[FIELDS];
    if (node->kind != MR_YAML_MAP)
        return tie_read_key(target, node, path, errors);
    (void)snprintf(prefix, sizeof(prefix), "%s.", path);
    mr_field_table table = {tie_fields, FIELDS, 0, "a tie", prefix};
    mr_field_table_read(&table, node, target, marks, errors);
    return !marks[0].bad && !marks[1].bad;
}

static bool frozen_read(void *target, const mr_yaml_node *node, const char *path,
                        mr_job_errors *errors) {
    mr_layer_spec *spec = &((layer_entry *)target)->spec;
    char text[MR_SCALAR_TEXT_BYTES];
    if (node->kind == MR_YAML_LIST)
        return mr_parameter_names_read(node, path, spec->frozen_names, errors);
    if (mr_scalar_bool(node, &spec->frozen))
        return true;
    mr_job_errors_add(errors, node->line,
                      "%s is %s; it must be true, false or a list of names of parameters", path,
                      mr_scalar_describe(node, text));
    return false;
}

/* The type is read before the rest, because it decides what else may be there. */
static bool type_is_read(void *target, const mr_yaml_node *node, const char *path,
                         mr_job_errors *errors) {
    (void)target;
    (void)node;
    (void)path;
    (void)errors;
    return true;
}

static bool entry_type(const mr_yaml_node *node, const char *prefix, layer_entry *entry,
                       mr_job_errors *errors) {
    type_words words;
    const mr_field type_field[] = {{.path = "type",
                                    .kind = MR_FIELD_CHOICE,
                                    .required = true,
                                    SPEC(type),
                                    .choices = type_words_make(&words),
                                    .help = "what the layer is"}};
    mr_field_table table = {type_field, 1, 0, "a layer", prefix};
    mr_field_mark mark;
    mr_yaml_node only_type = {.kind = MR_YAML_MAP, .line = node->line};
    mr_yaml_node copy;
    for (const mr_yaml_node *key = node->child; key != NULL; key = key->next) {
        if (strcmp(key->key, "type") != 0)
            continue;
        copy = *key;
        copy.next = NULL;
        only_type.child = &copy;
        only_type.child_count = 1;
        break;
    }
    mr_field_table_read(&table, &only_type, entry, &mark, errors);
    return !mark.bad;
}

/* heads and their relatives; one error at most. */
static bool entry_check_heads(const layer_entry *entry, const char *prefix,
                              mr_job_errors *errors) {
    const mr_layer_spec *spec = &entry->spec;
    if (spec->dim % spec->heads != 0)
        mr_job_errors_add(errors, spec->line, "%sheads is %zu; it must divide dim, which is %zu",
                          prefix, spec->heads, spec->dim);
    else if (spec->kv_heads != spec->heads)
        mr_job_errors_add(errors, spec->line,
                          "%skv_heads other than heads is not supported by this version: it is "
                          "%zu; it must be %zu",
                          prefix, spec->kv_heads, spec->heads);
    else
        return true;
    return false;
}

/* Defaults that depend on other fields, and what must hold between fields of one entry. */
static bool entry_finish(layer_entry *entry, const char *prefix, mr_job_errors *errors) {
    mr_layer_spec *spec = &entry->spec;
    if (spec->type == MR_LAYER_TYPE_TRANSFORMER_BLOCK) {
        if (spec->kv_heads == 0)
            spec->kv_heads = spec->heads;
        if (spec->ffn == 0)
            spec->ffn = 4 * spec->dim;
        return entry_check_heads(entry, prefix, errors);
    }
    const mr_layer_type_row *row = mr_layer_type_row_of(spec->type);
    mr_status status = row->check == NULL ? MR_OK : row->check(spec);
    if (!mr_status_is_ok(status)) {
        mr_job_errors_add(errors, spec->line, "%s%s", prefix, status.text);
        return false;
    }
    if (spec->type == MR_LAYER_TYPE_LM_HEAD && spec->tie[0] == '\0' &&
        (spec->vocab == 0 || spec->dim == 0)) {
        mr_job_errors_add(errors, spec->line,
                          "%s%s is missing; an lm_head needs dim and vocab, or a tie to take them "
                          "from",
                          prefix, spec->dim == 0 ? "dim" : "vocab");
        return false;
    }
    return true;
}

static void entry_prefix(const char *path, size_t index, char out_prefix[MR_FIELD_PATH_BYTES]) {
    (void)snprintf(out_prefix, MR_FIELD_PATH_BYTES, "%s[%zu].", path, index);
}

static bool entry_read(const mr_yaml_node *node, const char *path, layer_entry *entry,
                       mr_job_errors *errors) {
    char prefix[MR_FIELD_PATH_BYTES];
    char text[MR_SCALAR_TEXT_BYTES];
    entry_fields fields;
    size_t errors_before = errors->count;
    entry_prefix(path, entry->index, prefix);
    entry->spec.line = node->line;
    if (node->kind != MR_YAML_MAP) {
        mr_job_errors_add(errors, node->line,
                          "%s[%zu] is %s; it must be a mapping such as {type: layernorm, dim: 64}",
                          path, entry->index, mr_scalar_describe(node, text));
        return false;
    }
    if (!entry_type(node, prefix, entry, errors))
        return false;
    char noun[64];
    (void)snprintf(noun, sizeof(noun), "a layer of type %s", mr_layer_type_name(entry->spec.type));
    entry_fields_make(entry->spec.type, noun, prefix, &fields);
    mr_field_table_read(&fields.table, node, entry, fields.marks, errors);
    bool good = errors->count == errors_before && errors->count < MR_JOB_ERRORS_MAX;
    return good && entry_finish(entry, prefix, errors);
}

/* The first other entry of the same tie that gives what wanted leaves out: dim or vocab. */
static size_t tie_size(const layer_entry *entries, size_t count, const char *tie, bool want_dim) {
    for (size_t i = 0; i < count; i++) {
        size_t size = want_dim ? entries[i].spec.dim : entries[i].spec.vocab;
        if (strcmp(entries[i].spec.tie, tie) == 0 && entries[i].spec.vocab > 0 && size > 0)
            return size;
    }
    return 0;
}

/* Number of layers in a tie; at most 2 are counted. */
static size_t tie_layers(const layer_entry *entries, size_t count, const char *tie) {
    size_t layers = 0;
    for (size_t i = 0; i < count && layers < 2; i++)
        if (strcmp(entries[i].spec.tie, tie) == 0)
            layers += entries[i].repeat;
    return layers;
}

static bool tie_check(layer_entry *entries, size_t count, layer_entry *entry, const char *path,
                      mr_job_errors *errors) {
    mr_layer_spec *spec = &entry->spec;
    bool sized = spec->type == MR_LAYER_TYPE_EMBEDDING || spec->type == MR_LAYER_TYPE_LM_HEAD;
    size_t dim = tie_size(entries, count, spec->tie, true);
    size_t vocab = tie_size(entries, count, spec->tie, false);
    if (sized && spec->dim == 0)
        spec->dim = dim;
    if (sized && spec->vocab == 0)
        spec->vocab = vocab;
    if (tie_layers(entries, count, spec->tie) < 2)
        mr_job_errors_add(errors, spec->line,
                          "%s[%zu].tie is %s, which no other layer has; a tie joins at least two",
                          path, entry->index, spec->tie);
    else if (!sized)
        return true; /* its parameters are compared when all layers are described */
    else if (spec->dim == 0 || spec->vocab == 0)
        mr_job_errors_add(errors, spec->line,
                          "%s[%zu].%s is missing, and no other layer of tie %s has it", path,
                          entry->index, spec->dim == 0 ? "dim" : "vocab", spec->tie);
    else if (spec->dim != dim || spec->vocab != vocab)
        mr_job_errors_add(errors, spec->line,
                          "%s[%zu] has a weight of [%zu, %zu] but its tie %s shares [%zu, %zu]; "
                          "vocab and dim must be equal",
                          path, entry->index, spec->vocab, spec->dim, spec->tie, vocab, dim);
    else
        return true;
    return false;
}

/* Writes the layers out one by one. */
static bool layers_expand(const layer_entry *entries, size_t count, size_t line, const char *path,
                          mr_layer_spec **out_layers, size_t *out_count, mr_job_errors *errors) {
    size_t total = 0;
    for (size_t i = 0; i < count; i++)
        total += entries[i].repeat; /* both factors are at most MR_LAYERS_MAX */
    if (total > MR_LAYERS_MAX) {
        mr_job_errors_add(errors, line, "%s has %zu layers; it may have at most %d", path, total,
                          MR_LAYERS_MAX);
        return false;
    }
    mr_layer_spec *layers = mr_alloc_array(total, sizeof(*layers));
    if (layers == NULL) {
        mr_job_errors_add(errors, line, "%s: no memory for %zu layers", path, total);
        return false;
    }
    size_t at = 0;
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < entries[i].repeat; j++)
            layers[at++] = entries[i].spec;
    *out_layers = layers;
    *out_count = total;
    return true;
}

/* Ties are compared only where every entry is sound: otherwise one error would breed more. */
static bool ties_check(layer_entry *entries, size_t count, const char *path,
                       mr_job_errors *errors) {
    bool good = true;
    size_t tied = 0;
    for (size_t i = 0; i < count; i++) {
        if (entries[i].spec.tie[0] == '\0')
            continue;
        if (++tied > TIED_ENTRIES_MAX) { /* each is compared with all layers */
            mr_job_errors_add(errors, entries[i].spec.line, "%s has more than %d tied entries",
                              path, TIED_ENTRIES_MAX);
            return false;
        }
        good &= tie_check(entries, count, &entries[i], path, errors);
    }
    return good;
}

static bool entries_read(const mr_yaml_node *node, const char *path, layer_entry *entries,
                         mr_job_errors *errors) {
    bool good = true;
    size_t index = 0;
    for (const mr_yaml_node *item = node->child; item != NULL; item = item->next, index++) {
        if (errors->count == MR_JOB_ERRORS_MAX)
            return false; /* nothing more could be said */
        entries[index].index = index;
        good &= entry_read(item, path, &entries[index], errors);
    }
    return good && ties_check(entries, index, path, errors);
}

bool mr_layers_read(const mr_yaml_node *node, const char *path, mr_layer_spec **out_layers,
                    size_t *out_count, mr_job_errors *errors) {
    char text[MR_SCALAR_TEXT_BYTES];
    if (node->kind != MR_YAML_LIST || node->child_count == 0 ||
        node->child_count > MR_LAYERS_MAX) {
        mr_job_errors_add(errors, node->line, "%s is %s; it must be a list of 1 to %d layers", path,
                          node->kind != MR_YAML_LIST ? mr_scalar_describe(node, text)
                          : node->child_count == 0   ? "an empty list"
                                                     : "too long",
                          MR_LAYERS_MAX);
        return false;
    }
    layer_entry *entries = mr_alloc_array(node->child_count, sizeof(*entries));
    if (entries == NULL) {
        mr_job_errors_add(errors, node->line, "%s: no memory for %zu layers", path,
                          node->child_count);
        return false;
    }
    bool good = entries_read(node, path, entries, errors) &&
                layers_expand(entries, node->child_count, node->line, path, out_layers, out_count,
                              errors);
    mr_free(entries);
    return good;
}

bool mr_layer_types_read(const mr_yaml_node *node, const char *path, uint64_t *out_types,
                         mr_job_errors *errors) {
    char text[MR_SCALAR_TEXT_BYTES];
    if (node->kind != MR_YAML_LIST || node->child_count == 0) {
        mr_job_errors_add(errors, node->line,
                          "%s is %s; it must be a list of at least one layer type", path,
                          mr_scalar_describe(node, text));
        return false;
    }
    type_words words;
    const mr_field_choice *choices = type_words_make(&words);
    uint64_t types = 0;
    size_t index = 0;
    for (const mr_yaml_node *item = node->child; item != NULL; item = item->next, index++) {
        char item_path[MR_FIELD_PATH_BYTES];
        int type = 0;
        (void)snprintf(item_path, sizeof(item_path), "%s[%zu]", path, index);
        if (!mr_field_choose(choices, "", item, item_path, &type, errors))
            return false;
        types |= UINT64_C(1) << type;
    }
    *out_types = types;
    return true;
}
