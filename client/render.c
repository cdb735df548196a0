/* SPDX-License-Identifier: Apache-2.0 */
#include "client/render.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "client/terminal.h"
#include "daemon/base/alloc.h"

enum { RENDER_REAL_DIGITS = 15 };

/* Letters on the screen, which is what columns count: bytes that do not continue a UTF-8 letter. */
static size_t render_letters(const char *text) {
    size_t letters = 0;
    for (; *text != '\0'; text++)
        letters += ((unsigned char)*text & 0xc0u) != 0x80u;
    return letters;
}

static void render_value(const json_t *value, char *out, size_t bytes) {
    switch (value ? json_typeof(value) : JSON_NULL) {
    case JSON_STRING:
        mr_terminal_clean(json_string_value(value), out, bytes);
        break;
    case JSON_INTEGER:
        snprintf(out, bytes, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        break;
    case JSON_REAL:
        snprintf(out, bytes, "%.6g", json_real_value(value));
        break;
    case JSON_TRUE:
        snprintf(out, bytes, "yes");
        break;
    case JSON_FALSE:
        snprintf(out, bytes, "no");
        break;
    default:
        snprintf(out, bytes, "-");
        break;
    }
}

static void render_cell(const mr_column *column, const json_t *item, char *out, size_t bytes) {
    char text[MR_RENDER_CELL_BYTES];
    if (column->format == NULL) {
        render_value(json_object_get(item, column->key), out, bytes);
        return;
    }
    column->format(item, text, sizeof(text));
    mr_terminal_clean(text, out, bytes);
}

/* Pads all but the last column. */
static void render_padded(const char *text, size_t width, bool last) {
    fputs(text, stdout);
    for (size_t i = render_letters(text); !last && i < width + 2; i++)
        fputc(' ', stdout);
    if (last)
        fputc('\n', stdout);
}

void mr_render_table(const mr_view *view, const json_t *items) {
    size_t widths[MR_RENDER_COLUMNS_MAX];
    char cell[MR_RENDER_CELL_BYTES];
    const size_t n = view->column_count;
    MR_ASSERT(n >= 1 && n <= MR_RENDER_COLUMNS_MAX);
    for (size_t c = 0; c < n; c++)
        widths[c] = strlen(view->columns[c].title);
    for (size_t i = 0; i < json_array_size(items); i++) {
        for (size_t c = 0; c < n; c++) {
            render_cell(&view->columns[c], json_array_get(items, i), cell, sizeof(cell));
            size_t letters = render_letters(cell);
            widths[c] = letters > widths[c] ? letters : widths[c];
        }
    }
    for (size_t c = 0; c < n && json_array_size(items) > 0; c++)
        render_padded(view->columns[c].title, widths[c], c + 1 == n);
    for (size_t i = 0; i < json_array_size(items); i++) {
        for (size_t c = 0; c < n; c++) {
            render_cell(&view->columns[c], json_array_get(items, i), cell, sizeof(cell));
            render_padded(cell, widths[c], c + 1 == n);
        }
    }
}

/* One object: a line for each column, empty ones left out. */
static void render_lines(const mr_view *view, const json_t *item) {
    char cell[MR_RENDER_CELL_BYTES];
    for (size_t c = 0; c < view->column_count; c++) {
        render_cell(&view->columns[c], item, cell, sizeof(cell));
        if (strcmp(cell, "-") != 0 && cell[0] != '\0')
            printf("%-12s %s\n", view->columns[c].title, cell);
    }
}

static mr_status render_dump(const json_t *value, bool lines) {
    size_t flags = JSON_REAL_PRECISION(RENDER_REAL_DIGITS) | JSON_ENSURE_ASCII;
    flags |= lines ? JSON_INDENT(2) : JSON_COMPACT;
    char *text = json_dumps(value, flags);
    if (text == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to print JSON");
    puts(text);
    free(text); /* jansson's own memory */
    return MR_OK;
}

mr_status mr_render_plain(json_t *owned_value, bool lines) {
    mr_status status = owned_value ? render_dump(owned_value, lines)
                                   : MR_ERROR(RESOURCE_EXHAUSTED, "no memory to print JSON");
    json_decref(owned_value);
    return status;
}

mr_status mr_render_document(const mr_client *client, const char *key, json_t *owned_value) {
    json_t *document = json_pack("{s:s, s:o}", "schema", MR_CLIENT_SCHEMA, key, owned_value);
    if (document == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to print JSON");
    mr_status status = render_dump(document, client->output == MR_OUTPUT_JSON);
    json_decref(document);
    return status;
}

static mr_status render_json_lines(const json_t *items) {
    for (size_t i = 0; i < json_array_size(items); i++)
        MR_TRY(render_dump(json_array_get(items, i), false));
    return MR_OK;
}

static void render_name(const mr_view *view, const json_t *item) {
    const char *name = json_string_value(json_object_get(item, view->name_key));
    puts(name ? name : "-");
}

mr_status mr_render_list(const mr_client *client, const mr_view *view, json_t *owned_items) {
    mr_status status = MR_OK;
    if (owned_items == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the %s", view->plural);
    switch (client->output) {
    case MR_OUTPUT_JSON:
        return mr_render_document(client, view->plural, owned_items);
    case MR_OUTPUT_JSONL:
        status = render_json_lines(owned_items);
        break;
    case MR_OUTPUT_NAME:
        for (size_t i = 0; i < json_array_size(owned_items); i++)
            render_name(view, json_array_get(owned_items, i));
        break;
    default:
        mr_render_table(view, owned_items);
        break;
    }
    json_decref(owned_items);
    return status;
}

mr_status mr_render_item(const mr_client *client, const mr_view *view, json_t *owned_item) {
    if (owned_item == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the %s", view->singular);
    if (client->output == MR_OUTPUT_JSON || client->output == MR_OUTPUT_JSONL)
        return mr_render_document(client, view->singular, owned_item);
    if (client->output == MR_OUTPUT_NAME)
        render_name(view, owned_item);
    else
        render_lines(view, owned_item);
    json_decref(owned_item);
    return MR_OK;
}

json_t *mr_render_real(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

json_t *mr_render_string(const char *text) {
    if (text == NULL || text[0] == '\0')
        return json_null();
    return mr_render_text(text, strlen(text));
}

/* Bytes of the UTF-8 letter at text, of at most left; 0: none. Jansson is the judge. */
static size_t render_utf8(const char *text, size_t left) {
    for (size_t n = 1; n <= 4 && n <= left; n++) {
        json_t *letter = json_stringn(text, n);
        if (letter != NULL) {
            json_decref(letter);
            return n;
        }
    }
    return 0;
}

json_t *mr_render_text(const char *text, size_t bytes) {
    json_t *whole = json_stringn(text, bytes);
    if (whole != NULL)
        return whole;
    char *clean = mr_alloc_array(bytes + 1, 3);
    if (clean == NULL)
        return NULL;
    size_t n = 0;
    for (size_t i = 0; i < bytes;) {
        size_t letter = render_utf8(text + i, bytes - i);
        memcpy(clean + n, letter ? text + i : "\xef\xbf\xbd", letter ? letter : 3);
        n += letter ? letter : 3;
        i += letter ? letter : 1;
    }
    whole = json_stringn(clean, n);
    mr_free(clean);
    return whole;
}

void mr_render_time(int64_t wall_ms, char *out, size_t bytes) {
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm parts;
    if (wall_ms <= 0 || gmtime_r(&seconds, &parts) == NULL)
        snprintf(out, bytes, "-");
    else if (strftime(out, bytes, "%Y-%m-%dT%H:%M:%SZ", &parts) == 0)
        out[0] = '\0';
}

static void render_scaled(double value, double unit, const char *const *names, size_t count,
                          char *out, size_t bytes) {
    size_t power = 0;
    while (value >= unit && power + 1 < count) {
        value /= unit;
        power++;
    }
    snprintf(out, bytes, power == 0 ? "%.0f%s%s" : "%.4g%s%s", value, names[power][0] ? " " : "",
             names[power]);
}

void mr_render_bytes(double bytes, char *out, size_t out_bytes) {
    static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    render_scaled(bytes, 1024, names, sizeof(names) / sizeof(names[0]), out, out_bytes);
}

void mr_render_count(double count, char *out, size_t out_bytes) {
    static const char *const names[] = {"", "k", "M", "G", "T", "P"};
    render_scaled(count, 1000, names, sizeof(names) / sizeof(names[0]), out, out_bytes);
}
