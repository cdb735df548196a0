/* SPDX-License-Identifier: Apache-2.0 */
#include "client/render.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "client/terminal.h"
#include "daemon/base/alloc.h"

enum {
    RENDER_REAL_DIGITS = 15,
    RENDER_LAST_LETTERS = 12, /* a last column is not cut below this */
};

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

/* A table that is being printed: columns of the view, then its wide ones. */
typedef struct render_table {
    const mr_view *view;
    size_t count;
    bool wide;
    size_t widths[MR_RENDER_COLUMNS_MAX];
} render_table;

static const mr_column *render_column(const render_table *table, size_t index) {
    const mr_view *view = table->view;
    return index < view->column_count ? &view->columns[index]
                                      : &view->wide_columns[index - view->column_count];
}

static render_table render_table_of(const mr_view *view, bool wide) {
    render_table table = {.view = view, .count = view->column_count, .wide = wide};
    if (wide)
        table.count += view->wide_count;
    MR_ASSERT(table.count >= 1 && table.count <= MR_RENDER_COLUMNS_MAX);
    return table;
}

/* The colour of a word that says how something is; NULL: none. */
static const char *render_tint(const mr_column *column, const char *text) {
    static const struct {
        const char *colour;
        const char *words;
    } tints[] = {
        {"\033[32m", " RUNNING SUCCEEDED running idle ok yes "},
        {"\033[31m", " FAILED lost fail no "},
        {"\033[33m", " QUEUED STARTING PAUSED CHECKPOINTING DRAINING preparing releasing draining "
                     "drained warn "},
    };
    char word[MR_RENDER_CELL_BYTES + 2];
    if (!mr_terminal_colour() || column->key == NULL ||
        (strcmp(column->key, "state") != 0 && strcmp(column->key, "sound") != 0))
        return NULL;
    snprintf(word, sizeof(word), " %s ", text);
    for (size_t i = 0; i < sizeof(tints) / sizeof(tints[0]); i++) {
        if (strstr(tints[i].words, word) != NULL)
            return tints[i].colour;
    }
    return NULL;
}

/* Pads all but the last column. */
static void render_padded(const char *text, const char *tint, size_t width, bool last) {
    printf("%s%s%s", tint ? tint : "", text, tint ? "\033[0m" : "");
    for (size_t i = render_letters(text); !last && i < width + 2; i++)
        fputc(' ', stdout);
    if (last)
        fputc('\n', stdout);
}

static void render_measure(render_table *table, const json_t *items) {
    char cell[MR_RENDER_CELL_BYTES];
    for (size_t c = 0; c < table->count; c++) {
        const mr_column *column = render_column(table, c);
        table->widths[c] = strlen(column->title);
        for (size_t i = 0; i < json_array_size(items); i++) {
            render_cell(column, json_array_get(items, i), cell, sizeof(cell));
            size_t letters = render_letters(cell);
            table->widths[c] = letters > table->widths[c] ? letters : table->widths[c];
        }
    }
}

/* Letters that the last column may have; 0: the table does not fit at all. */
static size_t render_room(const render_table *table) {
    const size_t columns = mr_terminal_columns();
    const size_t last = table->widths[table->count - 1];
    size_t before = 0;
    if (columns == 0 || table->wide)
        return SIZE_MAX;
    for (size_t c = 0; c + 1 < table->count; c++)
        before += table->widths[c] + 2;
    if (before + last <= columns)
        return SIZE_MAX;
    return before + RENDER_LAST_LETTERS <= columns ? columns - before : 0;
}

/* Cuts text to so many letters, the last of them an ellipsis. */
static void render_cut(char *text, size_t bytes, size_t room) {
    static const char ellipsis[] = "\xe2\x80\xa6";
    size_t letters = 0;
    size_t at = 0;
    if (render_letters(text) <= room)
        return;
    for (; text[at] != '\0'; at++) {
        letters += ((unsigned char)text[at] & 0xc0u) != 0x80u;
        if (letters == room)
            break;
    }
    if (at + sizeof(ellipsis) <= bytes)
        memcpy(text + at, ellipsis, sizeof(ellipsis));
    else
        text[at] = '\0';
}

/* One object: a line for each column, empty ones left out. */
static void render_lines(const render_table *table, const json_t *item) {
    char cell[MR_RENDER_CELL_BYTES];
    for (size_t c = 0; c < table->count; c++) {
        const mr_column *column = render_column(table, c);
        render_cell(column, item, cell, sizeof(cell));
        const char *tint = render_tint(column, cell);
        if (strcmp(cell, "-") != 0 && cell[0] != '\0')
            printf("%-12s %s%s%s\n", column->title, tint ? tint : "", cell, tint ? "\033[0m" : "");
    }
}

static void render_table_print(render_table *table, const json_t *items) {
    char cell[MR_RENDER_CELL_BYTES];
    const size_t n = table->count;
    render_measure(table, items);
    const size_t room = render_room(table);
    for (size_t i = 0; i < json_array_size(items) && room == 0; i++) {
        if (i > 0)
            fputc('\n', stdout);
        render_lines(table, json_array_get(items, i));
    }
    if (room == 0)
        return;
    for (size_t c = 0; c < n && json_array_size(items) > 0; c++)
        render_padded(render_column(table, c)->title, NULL, table->widths[c], c + 1 == n);
    for (size_t i = 0; i < json_array_size(items); i++) {
        for (size_t c = 0; c < n; c++) {
            const mr_column *column = render_column(table, c);
            render_cell(column, json_array_get(items, i), cell, sizeof(cell));
            if (c + 1 == n)
                render_cut(cell, sizeof(cell), room);
            render_padded(cell, render_tint(column, cell), table->widths[c], c + 1 == n);
        }
    }
}

void mr_render_table(const mr_view *view, const json_t *items) {
    render_table table = render_table_of(view, false);
    render_table_print(&table, items);
}

void mr_render_rows(const mr_client *client, const mr_view *view, const json_t *items) {
    render_table table = render_table_of(view, client->wide);
    render_table_print(&table, items);
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
        mr_render_rows(client, view, owned_items);
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
    if (client->output == MR_OUTPUT_NAME) {
        render_name(view, owned_item);
    } else {
        const render_table table = render_table_of(view, client->wide);
        render_lines(&table, owned_item);
    }
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
