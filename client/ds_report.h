/* SPDX-License-Identifier: Apache-2.0 */
/* ds_report.h: what comes of a ds_config.json: the part of a job file, and by name everything that
 * is not carried over or means something else here. A key that no reader asks for ends up in
 * left_out, so nothing is dropped in silence. Values are read through sections, which know their
 * path for errors. Owner: client. Thread: main. Pure: no I/O.
 * Not here: what the keys mean (ds_config.h). */
#ifndef MR_CLIENT_DS_REPORT_H
#define MR_CLIENT_DS_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "daemon/base/status.h"

enum { MR_DS_PATH_BYTES = 160 };

/* All members are owned; each is an array but job. */
typedef struct mr_ds_report {
    json_t *job;      /* sections of a job file: batch, optimizer, ... */
    json_t *missing;  /* texts: keys that a job file wants and the file does not say */
    json_t *left_out; /* {key, value, why}: no counterpart */
    json_t *differs;  /* {key, value, why}: carried over, or assumed, with another meaning */
    json_t *errors;   /* {key, value, why}: what makes the file unusable */
    bool exhausted;   /* an allocation failed, so the rest is not whole */
} mr_ds_report;

/* One object of the file; path is "" for the file itself. object NULL: it is not there. */
typedef struct mr_ds_section {
    mr_ds_report *report;
    char path[MR_DS_PATH_BYTES];
    const json_t *object;
} mr_ds_section;

/* Why a key has no counterpart. */
typedef struct mr_ds_reason {
    const char *key;
    const char *why;
} mr_ds_reason;

/* An empty report. */
void mr_ds_report_init(mr_ds_report *report);
/* Frees what it holds. */
void mr_ds_report_deinit(mr_ds_report *report);
/* Sets key in a section of the job; consumes value. */
void mr_ds_report_set(mr_ds_report *report, const char *section, const char *key,
                      json_t *owned_value);
/* Notes a key of the job file that the user must add. */
void mr_ds_report_miss(mr_ds_report *report, const char *text);

/* The object at key, as a section; without one its object is NULL, and what is no object is an
 * error. key "" gives parent itself. */
mr_ds_section mr_ds_section_open(const mr_ds_section *parent, const char *key);
/* The value at key; NULL: none. */
const json_t *mr_ds_section_get(const mr_ds_section *section, const char *key);
bool mr_ds_section_has(const mr_ds_section *section, const char *key);

/* Each reads one value; without one *value stays. False: it is an error, and reported. */
bool mr_ds_read_count(const mr_ds_section *section, const char *key, uint64_t minimum,
                      uint64_t maximum, uint64_t *value);
/* low_open: low itself is refused. */
bool mr_ds_read_number(const mr_ds_section *section, const char *key, double low, bool low_open,
                       double high, double *value);
bool mr_ds_read_bool(const mr_ds_section *section, const char *key, bool *value);
/* *value is borrowed from the file. */
bool mr_ds_read_text(const mr_ds_section *section, const char *key, const char **value);

/* Add a line to left_out, differs or errors. */
void mr_ds_leave(const mr_ds_section *section, const char *key, const char *format, ...)
    MR_PRINTF(3, 4);
void mr_ds_differ(const mr_ds_section *section, const char *key, const char *format, ...)
    MR_PRINTF(3, 4);
void mr_ds_fail(const mr_ds_section *section, const char *key, const char *format, ...)
    MR_PRINTF(3, 4);
/* Says that the value at key is not what it must be: right completes "it must be ...". */
void mr_ds_refuse(const mr_ds_section *section, const char *key, const char *right);
/* Leaves every key of the section that is not in carried (ended by NULL), with its reason of the
 * table (ended by a NULL key), else with fallback. */
void mr_ds_leave_rest(const mr_ds_section *section, const char *const *carried,
                      const mr_ds_reason *reasons, const char *fallback);

#endif
