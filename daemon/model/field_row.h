/* SPDX-License-Identifier: Apache-2.0 */
/* field_row.h: one key of a mapping in a job file, as a row of a table: its path, type, default,
 * bounds and meaning. What reads by it is field.h. Layer types give their own keys in such rows.
 * Owner: model. Plain data. */
#ifndef MR_MODEL_FIELD_ROW_H
#define MR_MODEL_FIELD_ROW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mr_yaml_node;
struct mr_job_errors;

typedef enum mr_field_kind {
    MR_FIELD_SIZE,    /* size_t, minimum..maximum */
    MR_FIELD_COUNTER, /* uint64_t, minimum..maximum */
    MR_FIELD_NUMBER,  /* double, low..high */
    MR_FIELD_PAIR,    /* a list of two numbers into double[2], low..high */
    MR_FIELD_BOOL,
    MR_FIELD_TEXT,   /* char[capacity], not empty */
    MR_FIELD_NAME,   /* char[capacity]: letters, digits, '.', '_', '-'; starts with none of ".-" */
    MR_FIELD_CHOICE, /* an enum of int's size */
    MR_FIELD_CUSTOM, /* read() does it */
} mr_field_kind;

/* The words of a choice, ended by a NULL text. */
typedef struct mr_field_choice {
    const char *text;
    int value;
    bool later; /* a word of the format that this version does not run */
} mr_field_choice;

/* What a custom reader gets: the whole target of the table; false when it reported an error. */
typedef bool (*mr_field_read)(void *target, const struct mr_yaml_node *node, const char *path,
                              struct mr_job_errors *errors);

typedef struct mr_field {
    const char *path; /* keys joined by dots, from the table's mapping on */
    mr_field_kind kind;
    bool required;
    bool low_open;        /* low itself is refused */
    bool high_open;       /* high itself is refused */
    unsigned entries;     /* bits: kinds of entry that have the field; 0: all */
    const char *fallback; /* the default as it would be written; NULL: none, stays zero */
    size_t offset;        /* in the target */
    size_t capacity;
    uint64_t minimum;
    uint64_t maximum;
    double low;
    double high;
    const mr_field_choice *choices;
    mr_field_read read;
    const char *help;
} mr_field;

#endif
