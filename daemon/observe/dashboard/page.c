/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/observe/dashboard/page.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { PAGE_COMMAND_BYTES = 4096 + 256 };

void mr_page_add_escaped(mr_text *text, const char *value) {
    for (const char *c = value == NULL ? "" : value; *c != '\0'; c++) {
        switch (*c) {
        case '&':
            mr_text_add(text, "&amp;");
            break;
        case '<':
            mr_text_add(text, "&lt;");
            break;
        case '>':
            mr_text_add(text, "&gt;");
            break;
        case '"':
            mr_text_add(text, "&quot;");
            break;
        case '\'':
            mr_text_add(text, "&#39;");
            break;
        default:
            mr_text_add(text, "%c", *c);
        }
    }
}

void mr_page_add_url(mr_text *text, const char *value) {
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~";
    for (const char *c = value; *c != '\0'; c++)
        if (strchr(plain, *c) != NULL)
            mr_text_add(text, "%c", *c);
        else
            mr_text_add(text, "%%%02X", (unsigned)(unsigned char)*c);
}

void mr_page_add_number(mr_text *text, double value) {
    if (isnan(value))
        mr_text_add(text, "not a number");
    else if (isinf(value))
        mr_text_add(text, value > 0 ? "infinite" : "minus infinite");
    else
        mr_text_add(text, fabs(value) >= 10000 && fabs(value) < 1e15 ? "%.0f" : "%.4g", value);
}

void mr_page_add_bytes(mr_text *text, double bytes) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    size_t unit = 0;
    while (bytes >= 1024 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        bytes /= 1024;
        unit++;
    }
    mr_text_add(text, unit == 0 ? "%.0f %s" : "%.1f %s", bytes, units[unit]);
}

void mr_page_add_seconds(mr_text *text, double seconds) {
    if (!isfinite(seconds) || seconds < 0) {
        mr_text_add(text, "–");
    } else if (seconds < 1) {
        mr_text_add(text, "%.1f ms", seconds * 1000);
    } else if (seconds < 60) {
        mr_text_add(text, "%.1f s", seconds);
    } else {
        int64_t minutes = (int64_t)fmin(seconds / 60, 1e12);
        if (minutes < 60)
            mr_text_add(text, "%" PRId64 " min %02d s", minutes, (int)fmod(seconds, 60));
        else
            mr_text_add(text, "%" PRId64 " h %02d min", minutes / 60, (int)(minutes % 60));
    }
}

void mr_page_add_time(mr_text *text, int64_t wall_ms) {
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm parts;
    char machine[32];
    char date[32];
    char people[32];
    if (wall_ms <= 0 || gmtime_r(&seconds, &parts) == NULL) {
        mr_text_add(text, "–");
        return;
    }
    (void)strftime(machine, sizeof(machine), "%Y-%m-%dT%H:%M:%SZ", &parts);
    (void)strftime(date, sizeof(date), "%Y-%m-%d", &parts);
    (void)strftime(people, sizeof(people), "%H:%M:%S", &parts);
    mr_text_add(text, "<time datetime=\"%s\"><span class=\"date\">%s </span>%s</time>", machine,
                date, people);
}

static void page_add_cell(mr_text *text, const char *opening, const char *value) {
    mr_text_add(text, "%s", opening);
    if (value == NULL || value[0] == '\0')
        mr_text_add(text, "–");
    else
        mr_page_add_escaped(text, value);
    mr_text_add(text, "</td>");
}

void mr_page_add_cell(mr_text *text, const char *value) {
    page_add_cell(text, "<td>", value);
}

void mr_page_add_long_cell(mr_text *text, const char *value) {
    page_add_cell(text, "<td class=\"long\">", value);
}

void mr_page_add_command(mr_text *text, const char *id, const char *format, ...) {
    char command[PAGE_COMMAND_BYTES];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(command, sizeof(command), format, arguments); /* paths and ids fit */
    va_end(arguments);
    mr_text_add(text, "<span class=\"command\"><code id=\"");
    mr_page_add_escaped(text, id);
    mr_text_add(text, "\">");
    mr_page_add_escaped(text, command);
    mr_text_add(text, "</code></span>");
}

void mr_page_open_panel(mr_text *text, const char *name, const char *title) {
    mr_text_add(text,
                "<section data-panel=\"%s\" id=\"%s\" aria-labelledby=\"%s-title\">\n"
                "<h2 id=\"%s-title\">%s</h2>\n",
                name, name, name, name, title);
}

void mr_page_close_panel(mr_text *text) {
    mr_text_add(text, "</section>\n");
}

void mr_page_open_table(mr_text *text, const char *label, const char *heads) {
    mr_text_add(text,
                "<div class=\"scroll\" role=\"region\" aria-label=\"%s\" tabindex=\"0\">"
                "<table><thead><tr>",
                label);
    while (heads != NULL && heads[0] != '\0') {
        const char *end = strchrnul(heads, '|');
        mr_text_add(text, "<th scope=\"col\">%.*s</th>", (int)(end - heads), heads);
        heads = *end == '|' ? end + 1 : end;
    }
    mr_text_add(text, "</tr></thead><tbody>\n");
}

void mr_page_close_table(mr_text *text) {
    mr_text_add(text, "</tbody></table></div>\n");
}

const char *mr_page_string(const json_t *object, const char *key) {
    const char *value = json_string_value(json_object_get(object, key));
    return value == NULL ? "" : value;
}

double mr_page_number(const json_t *object, const char *key) {
    return json_number_value(json_object_get(object, key));
}

int64_t mr_page_integer(const json_t *object, const char *key) {
    return (int64_t)json_integer_value(json_object_get(object, key));
}
