/* SPDX-License-Identifier: Apache-2.0 */
/* render.h: data on stdout in the form that --output asks for. A command builds JSON once; the
 * table for people is made from the same objects, so the forms cannot drift apart. Owner: client.
 * Thread: main. */
#ifndef MR_CLIENT_RENDER_H
#define MR_CLIENT_RENDER_H

#include <stddef.h>

#include <jansson.h>

#include "client/client.h"
#include "daemon/base/status.h"

enum { MR_RENDER_CELL_BYTES = 256, MR_RENDER_COLUMNS_MAX = 24 };

/* One column of a table, or one line of a single object. format makes the cell where the value of
 * key alone does not say it (NULL: the value as it is). */
typedef struct mr_column {
    const char *title;
    const char *key;
    void (*format)(const json_t *item, char *out, size_t bytes);
} mr_column;

typedef struct mr_view {
    const char *singular; /* the JSON key of one: "job" */
    const char *plural;   /* of many: "jobs" */
    const char *name_key; /* what -o name prints */
    const mr_column *columns;
    size_t column_count;
    const mr_column *wide_columns; /* more of them with -o wide; may be none */
    size_t wide_count;
} mr_view;

/* Prints an array of objects; consumes it. A table has no line at all where the array is empty. */
MR_MUST_CHECK mr_status mr_render_list(const mr_client *client, const mr_view *view,
                                       json_t *owned_items);
/* Prints one object; consumes it. */
MR_MUST_CHECK mr_status mr_render_item(const mr_client *client, const mr_view *view,
                                       json_t *owned_item);
/* Prints an array of objects as a table, whatever --output says; borrows it. On a terminal that is
 * too narrow the last column is cut, and where even that does not do each object gets lines of its
 * own. */
void mr_render_table(const mr_view *view, const json_t *items);
/* The same, with the wide columns where -o wide asks for them; those are never cut. */
void mr_render_rows(const mr_client *client, const mr_view *view, const json_t *items);
/* Prints {"schema":...,key:value} as JSON, on one line or many; consumes value. */
MR_MUST_CHECK mr_status mr_render_document(const mr_client *client, const char *key,
                                           json_t *owned_value);
/* Prints a JSON value of a schema of its own, on many lines or one; consumes it. */
MR_MUST_CHECK mr_status mr_render_plain(json_t *owned_value, bool lines);

/* A JSON number; null where it is not finite. */
json_t *mr_render_real(double value);
/* A JSON string of bytes that may not be UTF-8: what is not becomes U+FFFD. */
json_t *mr_render_text(const char *text, size_t bytes);
/* A JSON string, or null for NULL and "". */
json_t *mr_render_string(const char *text);
/* "2026-01-31T12:00:00Z"; "-" for 0. */
void mr_render_time(int64_t wall_ms, char *out, size_t bytes);
/* "12.3 MiB". */
void mr_render_bytes(double bytes, char *out, size_t out_bytes);
/* "12.3 M": powers of 1000, for counts and rates. */
void mr_render_count(double count, char *out, size_t out_bytes);

#endif
