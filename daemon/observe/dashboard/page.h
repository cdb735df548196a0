/* SPDX-License-Identifier: Apache-2.0 */
/* page.h: words, numbers and table cells as HTML. What comes from outside goes in through one of
 * these, and so is escaped.
 * Owner: observe; private to this folder. Thread: one at a time. */
#ifndef MR_OBSERVE_DASHBOARD_PAGE_H
#define MR_OBSERVE_DASHBOARD_PAGE_H

#include <jansson.h>

#include "daemon/observe/text.h"

/* value as HTML text or as an attribute's value in double quotes; NULL is nothing. */
void mr_page_add_escaped(mr_text *text, const char *value);
/* value as a part of a URL. */
void mr_page_add_url(mr_text *text, const char *value);
/* Digits for people: four that count; not finite: a word. */
void mr_page_add_number(mr_text *text, double value);
/* "12.3 MiB". */
void mr_page_add_bytes(mr_text *text, double bytes);
/* "1 h 02 min", "3.2 s", "14.0 ms". */
void mr_page_add_seconds(mr_text *text, double seconds);
/* <time> of a wall clock in ms, UTC; 0: a dash. */
void mr_page_add_time(mr_text *text, int64_t wall_ms);
/* <td>value</td>, escaped; "" is a dash. */
void mr_page_add_cell(mr_text *text, const char *value);
/* The same for a text that may be long: it is wrapped. */
void mr_page_add_long_cell(mr_text *text, const char *value);
/* A command for the client, which dashboard.js makes copyable; id: of the document. */
void mr_page_add_command(mr_text *text, const char *id, const char *format, ...) MR_PRINTF(3, 4);

/* Opens a panel and writes its heading; title: our own text. Ended by mr_page_close_panel. */
void mr_page_open_panel(mr_text *text, const char *name, const char *title);
void mr_page_close_panel(mr_text *text);
/* Opens a table that scrolls by itself where the screen is narrow; heads: "Job|State|Step". */
void mr_page_open_table(mr_text *text, const char *label, const char *heads);
void mr_page_close_table(mr_text *text);

/* Members of a JSON object; "" and 0 where they are missing or of another type. Borrowed. */
const char *mr_page_string(const json_t *object, const char *key);
double mr_page_number(const json_t *object, const char *key);
int64_t mr_page_integer(const json_t *object, const char *key);

#endif
