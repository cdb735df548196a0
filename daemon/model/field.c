/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/model/field.h"

#include <ctype.h>
#include <float.h>
#include <stdio.h>
#include <string.h>

#include "daemon/model/job_errors.h"
#include "daemon/model/nearest.h"
#include "daemon/model/scalar.h"

static_assert(sizeof(mr_loss) == sizeof(int) && sizeof(mr_norm) == sizeof(int),
              "a choice is written as an int");

enum { BOUND_TEXT_BYTES = 96, CHOICES_TEXT_BYTES = 160 };

/* One reading of one mapping by one table. */
typedef struct field_walk {
    const mr_field_table *table;
    void *target;
    mr_field_mark *marks;
    mr_job_errors *errors;
} field_walk;

static bool field_belongs(const mr_field_table *table, const mr_field *field) {
    return field->entries == 0 || table->entry == 0 || (field->entries & table->entry) != 0;
}

/* Index of the row with this path, or count. */
static size_t field_index(const mr_field_table *table, const char *path) {
    size_t i = 0;
    while (i < table->count && (!field_belongs(table, &table->fields[i]) ||
                                strcmp(table->fields[i].path, path) != 0))
        i++;
    return i;
}

/* Is the field's path inside section ("" is the mapping itself)? Then *out_key is the rest. */
static bool field_is_inside(const mr_field *field, const char *section, const char **out_key) {
    size_t bytes = strlen(section);
    if (bytes == 0) {
        *out_key = field->path;
        return true;
    }
    if (strncmp(field->path, section, bytes) != 0 || field->path[bytes] != '.')
        return false;
    *out_key = field->path + bytes + 1;
    return true;
}

static bool section_exists(const mr_field_table *table, const char *path) {
    const char *key = NULL;
    for (size_t i = 0; i < table->count; i++)
        if (field_belongs(table, &table->fields[i]) &&
            field_is_inside(&table->fields[i], path, &key))
            return true;
    return false;
}

/* ---- what would be right ---- */

static const char *number_bounds_text(const mr_field *field, char out_text[BOUND_TEXT_BYTES]) {
    const char *low = field->low_open ? "above" : "of at least";
    if (field->high >= DBL_MAX)
        (void)snprintf(out_text, BOUND_TEXT_BYTES, "%s %g", low, field->low);
    else
        (void)snprintf(out_text, BOUND_TEXT_BYTES, "%s %g and %s %g", low, field->low,
                       field->high_open ? "below" : "at most", field->high);
    return out_text;
}

static const char *counter_bounds_text(const mr_field *field, char out_text[BOUND_TEXT_BYTES]) {
    if (field->maximum == UINT64_MAX)
        (void)snprintf(out_text, BOUND_TEXT_BYTES, "%llu or more",
                       (unsigned long long)field->minimum);
    else
        (void)snprintf(out_text, BOUND_TEXT_BYTES, "%llu to %llu",
                       (unsigned long long)field->minimum, (unsigned long long)field->maximum);
    return out_text;
}

/* "a, b or c": the words that this version runs. */
static const char *choices_text(const mr_field_choice *choices, char out_text[CHOICES_TEXT_BYTES]) {
    size_t left = 0;
    size_t used = 0;
    for (const mr_field_choice *c = choices; c->text != NULL; c++)
        left += !c->later;
    out_text[0] = '\0';
    for (const mr_field_choice *c = choices; c->text != NULL; c++) {
        if (c->later)
            continue;
        left--;
        int wrote = snprintf(out_text + used, CHOICES_TEXT_BYTES - used, "%s%s", c->text,
                             left > 1 ? ", " : left == 1 ? " or " : "");
        MR_ASSERT(wrote > 0 && used + (size_t)wrote < CHOICES_TEXT_BYTES);
        used += (size_t)wrote;
    }
    return out_text;
}

static void value_refuse(const field_walk *walk, const mr_field *field, const mr_yaml_node *node,
                         const char *right) {
    char text[MR_SCALAR_TEXT_BYTES];
    mr_job_errors_add(walk->errors, node->line, "%s%s is %s; it must be %s", walk->table->prefix,
                      field->path, mr_scalar_describe(node, text), right);
}

/* ---- one value: false when an error was reported ---- */

static bool value_counter(const field_walk *walk, const mr_field *field, const mr_yaml_node *node) {
    char bounds[BOUND_TEXT_BYTES];
    char right[BOUND_TEXT_BYTES + 32];
    uint64_t value = 0;
    void *at = (char *)walk->target + field->offset;
    counter_bounds_text(field, bounds);
    if (!mr_scalar_is_integer(node)) {
        (void)snprintf(right, sizeof(right), "a whole number, %s", bounds);
        value_refuse(walk, field, node, right);
        return false;
    }
    if (!mr_scalar_counter(node, &value) || value < field->minimum || value > field->maximum) {
        value_refuse(walk, field, node, bounds);
        return false;
    }
    if (field->kind == MR_FIELD_SIZE)
        *(size_t *)at = (size_t)value;
    else
        *(uint64_t *)at = value;
    return true;
}

static bool number_is_inside(const mr_field *field, double value) {
    return (field->low_open ? value > field->low : value >= field->low) &&
           (field->high_open ? value < field->high : value <= field->high);
}

static bool value_number(const field_walk *walk, const mr_field *field, const mr_yaml_node *node) {
    char bounds[BOUND_TEXT_BYTES];
    char right[BOUND_TEXT_BYTES + 32];
    double value = 0;
    if (!mr_scalar_number(node, &value) || !number_is_inside(field, value)) {
        (void)snprintf(right, sizeof(right), "a number %s", number_bounds_text(field, bounds));
        value_refuse(walk, field, node, right);
        return false;
    }
    *(double *)((char *)walk->target + field->offset) = value;
    return true;
}

static bool value_pair(const field_walk *walk, const mr_field *field, const mr_yaml_node *node) {
    char bounds[BOUND_TEXT_BYTES];
    char right[BOUND_TEXT_BYTES + 48];
    double *at = (double *)((char *)walk->target + field->offset);
    double pair[2] = {0, 0};
    size_t i = 0;
    (void)snprintf(right, sizeof(right), "a list of two numbers, each %s",
                   number_bounds_text(field, bounds));
    if (node->kind != MR_YAML_LIST || node->child_count != 2) {
        value_refuse(walk, field, node, right);
        return false;
    }
    for (const mr_yaml_node *item = node->child; item != NULL; item = item->next, i++) {
        if (!mr_scalar_number(item, &pair[i]) || !number_is_inside(field, pair[i])) {
            char text[MR_SCALAR_TEXT_BYTES];
            mr_job_errors_add(walk->errors, item->line, "%s%s[%zu] is %s; it must be a number %s",
                              walk->table->prefix, field->path, i, mr_scalar_describe(item, text),
                              bounds);
            return false;
        }
    }
    memcpy(at, pair, sizeof(pair));
    return true;
}

static bool value_bool(const field_walk *walk, const mr_field *field, const mr_yaml_node *node) {
    if (mr_scalar_bool(node, (bool *)((char *)walk->target + field->offset)))
        return true;
    value_refuse(walk, field, node, "true or false");
    return false;
}

static bool name_is_good(const char *text) {
    if (text[0] == '.' || text[0] == '-')
        return false;
    for (const char *s = text; *s != '\0'; s++)
        if ((unsigned char)*s >= 0x80 || (!isalnum((unsigned char)*s) && !strchr("._-", *s)))
            return false;
    return true;
}

static bool value_text(const field_walk *walk, const mr_field *field, const mr_yaml_node *node) {
    char right[128];
    bool name = field->kind == MR_FIELD_NAME;
    if (name)
        (void)snprintf(right, sizeof(right),
                       "1 to %zu letters, digits, '_', '.' or '-', the last two not first",
                       field->capacity - 1);
    else
        (void)snprintf(right, sizeof(right), "a text of 1 to %zu bytes", field->capacity - 1);
    if (mr_scalar_is_ambiguous(node) && !mr_scalar_is_null(node)) {
        char text[MR_SCALAR_TEXT_BYTES];
        mr_job_errors_add(walk->errors, node->line,
                          "%s%s is %s, which is not a text; write it in quotes if it is meant as "
                          "one",
                          walk->table->prefix, field->path, mr_scalar_describe(node, text));
        return false;
    }
    if (node->kind != MR_YAML_SCALAR || mr_scalar_is_null(node) || node->text[0] == '\0' ||
        strlen(node->text) >= field->capacity || (name && !name_is_good(node->text))) {
        value_refuse(walk, field, node, right);
        return false;
    }
    (void)snprintf((char *)walk->target + field->offset, field->capacity, "%s", node->text);
    return true;
}

/* A word that ends in ':' stands for all that start with it. */
static bool choice_matches(const mr_field_choice *choice, const char *text) {
    size_t bytes = strlen(choice->text);
    return choice->text[bytes - 1] == ':' ? strncmp(text, choice->text, bytes) == 0
                                          : strcmp(text, choice->text) == 0;
}

bool mr_field_choose(const mr_field_choice *choices, const char *alternative,
                     const mr_yaml_node *node, const char *path, int *out_value,
                     mr_job_errors *errors) {
    char known[CHOICES_TEXT_BYTES];
    char text[MR_SCALAR_TEXT_BYTES];
    const char *gap = alternative[0] != '\0' ? ", " : "";
    choices_text(choices, known);
    for (const mr_field_choice *c = choices; c->text != NULL; c++) {
        if (node->kind != MR_YAML_SCALAR || !choice_matches(c, node->text))
            continue;
        if (c->later) {
            mr_job_errors_add(errors, node->line,
                              "%s %s is not supported by this version; it must be %s%s%s", path,
                              mr_scalar_describe(node, text), known, gap, alternative);
            return false;
        }
        *out_value = c->value;
        return true;
    }
    mr_job_errors_add(errors, node->line, "%s is %s; it must be %s%s%s", path,
                      mr_scalar_describe(node, text), known, gap, alternative);
    return false;
}

static bool value_choice(const field_walk *walk, const mr_field *field, const mr_yaml_node *node) {
    char path[MR_FIELD_PATH_BYTES];
    int value = 0;
    (void)snprintf(path, sizeof(path), "%s%s", walk->table->prefix, field->path);
    if (!mr_field_choose(field->choices, "", node, path, &value, walk->errors))
        return false;
    memcpy((char *)walk->target + field->offset, &value, sizeof(value));
    return true;
}

static bool value_read(const field_walk *walk, const mr_field *field, const mr_yaml_node *node) {
    char path[MR_FIELD_PATH_BYTES];
    switch (field->kind) {
    case MR_FIELD_SIZE:
    case MR_FIELD_COUNTER:
        return value_counter(walk, field, node);
    case MR_FIELD_NUMBER:
        return value_number(walk, field, node);
    case MR_FIELD_PAIR:
        return value_pair(walk, field, node);
    case MR_FIELD_BOOL:
        return value_bool(walk, field, node);
    case MR_FIELD_TEXT:
    case MR_FIELD_NAME:
        return value_text(walk, field, node);
    case MR_FIELD_CHOICE:
        return value_choice(walk, field, node);
    case MR_FIELD_CUSTOM:
        (void)snprintf(path, sizeof(path), "%s%s", walk->table->prefix, field->path);
        return field->read(walk->target, node, path, walk->errors);
    }
    return false;
}

/* ---- keys ---- */

/* "a, b, c": the keys of a section, as far as they fit. */
static void keys_text(const mr_field_table *table, const char *section, char *out_text,
                      size_t capacity) {
    const char *last = "";
    size_t last_bytes = 0;
    size_t used = 0;
    out_text[0] = '\0';
    for (size_t i = 0; i < table->count && used < capacity; i++) {
        const char *key = NULL;
        if (!field_belongs(table, &table->fields[i]) ||
            !field_is_inside(&table->fields[i], section, &key))
            continue;
        size_t bytes = strcspn(key, ".");
        if (bytes == last_bytes && strncmp(key, last, bytes) == 0)
            continue; /* another field of the same section */
        int wrote = snprintf(out_text + used, capacity - used, "%s%.*s", used > 0 ? ", " : "",
                             (int)bytes, key);
        used += wrote > 0 ? (size_t)wrote : 0;
        last = key;
        last_bytes = bytes;
    }
}

/* The same key elsewhere in the table: a right word in the wrong place. */
static const mr_field *field_elsewhere(const mr_field_table *table, const char *key) {
    for (size_t i = 0; i < table->count; i++) {
        const char *dot = strrchr(table->fields[i].path, '.');
        if (field_belongs(table, &table->fields[i]) && dot != NULL && strcmp(dot + 1, key) == 0)
            return &table->fields[i];
    }
    return NULL;
}

static void key_refuse(const field_walk *walk, const char *section, const mr_yaml_node *node) {
    char excerpt[MR_EXCERPT_BYTES];
    char known[192];
    const char *dot = section[0] != '\0' ? "." : "";
    mr_nearest nearest = mr_nearest_start(node->key);
    mr_excerpt(node->key, excerpt);
    for (size_t i = 0; i < walk->table->count; i++) {
        const char *key = NULL;
        if (field_belongs(walk->table, &walk->table->fields[i]) &&
            field_is_inside(&walk->table->fields[i], section, &key))
            mr_nearest_offer(&nearest, key, strcspn(key, "."));
    }
    const mr_field *elsewhere = field_elsewhere(walk->table, node->key);
    if (nearest.best != NULL)
        (void)snprintf(known, sizeof(known), "did you mean %.*s?", (int)nearest.best_bytes,
                       nearest.best);
    else if (elsewhere != NULL)
        (void)snprintf(known, sizeof(known), "did you mean %s?", elsewhere->path);
    else {
        (void)snprintf(known, sizeof(known), "known: ");
        keys_text(walk->table, section, known + 7, sizeof(known) - 7);
    }
    mr_job_errors_add(walk->errors, node->key_line, "%s%s%s%s is not a key of %s; %s",
                      walk->table->prefix, section, dot, excerpt, walk->table->noun, known);
}

/* Line of an earlier sibling with the same key; 0: none. */
static size_t key_earlier(const mr_yaml_node *map, const mr_yaml_node *node) {
    for (const mr_yaml_node *other = map->child; other != node; other = other->next)
        if (strcmp(other->key, node->key) == 0)
            return other->key_line;
    return 0;
}

static void section_mark_bad(const field_walk *walk, const char *section, size_t line) {
    const char *key = NULL;
    for (size_t i = 0; i < walk->table->count; i++)
        if (field_is_inside(&walk->table->fields[i], section, &key))
            walk->marks[i] = (mr_field_mark){.line = line, .bad = true};
}

static void section_read(const field_walk *walk, const char *section, const mr_yaml_node *map);

static void key_read(const field_walk *walk, const char *section, const mr_yaml_node *node) {
    char path[MR_FIELD_PATH_BYTES];
    int wrote = snprintf(path, sizeof(path), "%s%s%s", section, section[0] != '\0' ? "." : "",
                         node->key);
    /* A path with a dot inside a key would look like a deeper one. */
    bool known = wrote > 0 && (size_t)wrote < sizeof(path) && strchr(node->key, '.') == NULL;
    size_t index = known ? field_index(walk->table, path) : walk->table->count;
    if (index < walk->table->count) {
        walk->marks[index].line = node->key_line;
        walk->marks[index].bad = !value_read(walk, &walk->table->fields[index], node);
    } else if (!known || !section_exists(walk->table, path)) {
        key_refuse(walk, section, node);
    } else if (node->kind == MR_YAML_MAP) {
        section_read(walk, path, node);
    } else {
        char text[MR_SCALAR_TEXT_BYTES];
        mr_job_errors_add(walk->errors, node->line, "%s%s is %s; it must be a mapping",
                          walk->table->prefix, path, mr_scalar_describe(node, text));
        section_mark_bad(walk, path, node->key_line);
    }
}

/* Recursion is as deep as the table's paths, not as the file. */
static void section_read(const field_walk *walk, const char *section, const mr_yaml_node *map) {
    for (const mr_yaml_node *node = map->child; node != NULL; node = node->next) {
        char excerpt[MR_EXCERPT_BYTES];
        size_t earlier = key_earlier(map, node);
        if (earlier == 0)
            key_read(walk, section, node);
        else
            mr_job_errors_add(walk->errors, node->key_line,
                              "%s%s%s%s is given twice; the first is on line %zu",
                              walk->table->prefix, section, section[0] != '\0' ? "." : "",
                              mr_excerpt(node->key, excerpt), earlier);
    }
}

/* ---- defaults and what is missing ---- */

static void field_set_default(const field_walk *walk, const mr_field *field) {
    mr_yaml_node node = {.kind = MR_YAML_SCALAR, .plain = true, .text = field->fallback};
    mr_yaml_node items[2] = {node, node};
    char text[64];
    if (field->kind == MR_FIELD_PAIR) { /* "0.9 0.999" */
        (void)snprintf(text, sizeof(text), "%s", field->fallback);
        char *space = strchr(text, ' ');
        MR_ASSERT(space != NULL);
        *space = '\0';
        items[0].text = text;
        items[0].next = &items[1];
        items[1].text = space + 1;
        node = (mr_yaml_node){.kind = MR_YAML_LIST, .child_count = 2, .child = items};
    }
    bool good = value_read(walk, field, &node);
    MR_ASSERT(good); /* the table's own default */
}

/* What a required field must be, for the error that it is missing. */
static const char *field_right_text(const mr_field *field, char *out_text, size_t capacity) {
    char bounds[BOUND_TEXT_BYTES];
    char choices[CHOICES_TEXT_BYTES];
    switch (field->kind) {
    case MR_FIELD_SIZE:
    case MR_FIELD_COUNTER:
        (void)snprintf(out_text, capacity, "a whole number, %s",
                       counter_bounds_text(field, bounds));
        return out_text;
    case MR_FIELD_NUMBER:
        (void)snprintf(out_text, capacity, "a number %s", number_bounds_text(field, bounds));
        return out_text;
    case MR_FIELD_CHOICE:
        (void)snprintf(out_text, capacity, "%s", choices_text(field->choices, choices));
        return out_text;
    default:
        return field->help;
    }
}

/* Where a missing field belongs: the innermost section of its path that the file has. */
static size_t section_line(const mr_field_table *table, const mr_yaml_node *map, const char *path) {
    size_t line = table->prefix[0] != '\0' ? map->line : 0; /* 0: the file as a whole */
    for (const char *dot = strchr(path, '.'); dot != NULL; dot = strchr(path, '.')) {
        size_t bytes = (size_t)(dot - path);
        const mr_yaml_node *node = map->child;
        while (node != NULL && (strncmp(node->key, path, bytes) != 0 || node->key[bytes] != '\0'))
            node = node->next;
        if (node == NULL)
            return line;
        line = node->key_line;
        map = node;
        path = dot + 1;
    }
    return line;
}

void mr_field_table_read(const mr_field_table *table, const mr_yaml_node *map, void *target,
                         mr_field_mark *marks, mr_job_errors *errors) {
    field_walk walk = {table, target, marks, errors};
    MR_ASSERT(map->kind == MR_YAML_MAP);
    memset(marks, 0, table->count * sizeof(*marks));
    for (size_t i = 0; i < table->count; i++)
        if (field_belongs(table, &table->fields[i]) && table->fields[i].fallback != NULL)
            field_set_default(&walk, &table->fields[i]);
    section_read(&walk, "", map);
    for (size_t i = 0; i < table->count; i++) {
        char right[CHOICES_TEXT_BYTES + 32];
        const mr_field *field = &table->fields[i];
        if (!field->required || marks[i].line != 0 || !field_belongs(table, field))
            continue;
        mr_job_errors_add(errors, section_line(table, map, field->path),
                          "%s%s is missing; it must be %s", table->prefix, field->path,
                          field_right_text(field, right, sizeof(right)));
        marks[i].bad = true;
    }
}

const mr_field_mark *mr_field_table_mark(const mr_field_table *table, const mr_field_mark *marks,
                                         const char *path) {
    size_t index = field_index(table, path);
    MR_ASSERT(index < table->count);
    return &marks[index];
}
