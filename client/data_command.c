/* SPDX-License-Identifier: Apache-2.0 */
/* data_command.c: looks at token files and converts them, without a server. Converting reads twice:
 * once to know the largest token, which decides the width, and once to write. */
#include <stdio.h>
#include <string.h>

#include "client/interrupt.h"
#include "client/nouns.h"
#include "client/path_text.h"
#include "client/render.h"
#include "client/terminal.h"
#include "client/token_files.h"
#include "client/token_writer.h"
#include "daemon/base/alloc.h"

enum { DATA_PIECE_TOKENS = 65536 };

/* ---- common to both -------------------------------------------------------------------------- */

/* What the tokens of a range are. */
typedef struct data_range {
    uint64_t first;
    uint64_t count;
    int32_t smallest;
    int32_t largest;
} data_range;

/* Does something with tokens as they are read; NULL: nothing. */
typedef mr_status (*data_visit)(void *context, const int32_t *tokens, size_t count);

static mr_status data_visit_range(const mr_client *client, mr_token_files *files, data_range *range,
                                  data_visit visit, void *context) {
    int32_t *tokens = mr_alloc_array(DATA_PIECE_TOKENS, sizeof(*tokens));
    mr_status status = tokens ? MR_OK : MR_ERROR(RESOURCE_EXHAUSTED, "no memory to read tokens");
    range->smallest = INT32_MAX;
    range->largest = 0;
    for (uint64_t done = 0; mr_status_is_ok(status) && done < range->count;) {
        uint64_t left = range->count - done;
        size_t take = left < DATA_PIECE_TOKENS ? (size_t)left : DATA_PIECE_TOKENS;
        status = mr_token_files_read(files, range->first + done, take, MR_TOKEN_VOCABULARY_MAX,
                                     tokens);
        for (size_t i = 0; mr_status_is_ok(status) && i < take; i++) {
            range->smallest = tokens[i] < range->smallest ? tokens[i] : range->smallest;
            range->largest = tokens[i] > range->largest ? tokens[i] : range->largest;
        }
        if (mr_status_is_ok(status) && visit != NULL)
            status = visit(context, tokens, take);
        done += take;
        if (mr_status_is_ok(status) && mr_interrupt_came())
            status = MR_ERROR(CANCELLED, "interrupted after %llu tokens", (unsigned long long)done);
        if (!client->quiet && mr_terminal_live() && range->count > 64 * (uint64_t)take) {
            char text[64];
            snprintf(text, sizeof(text), "%llu%% of %llu tokens",
                     (unsigned long long)(done * 100 / range->count),
                     (unsigned long long)range->count);
            mr_terminal_live_set(text);
        }
    }
    mr_terminal_live_end();
    mr_free(tokens);
    return status;
}

/* An interrupted command ends with 130. */
static mr_status data_end(mr_client *client, mr_status status) {
    if (status.code != MR_CODE_CANCELLED || !mr_interrupt_came())
        return status;
    mr_client_warn("millrace: %s", status.text);
    client->exit_code = MR_EXIT_CODE_INTERRUPTED;
    return MR_OK;
}

/* The format that an option names, or that the first file has. */
static mr_status data_format_of(const char *named, const char *path, mr_data_format *out_format) {
    if (named != NULL) {
        *out_format = mr_token_format_find(named);
        MR_ASSERT(*out_format < MR_DATA_FORMAT_COUNT); /* commands.def lists the choices */
        return MR_OK;
    }
    mr_status status = mr_token_layout_guess(path, out_format);
    if (status.code != MR_CODE_NOT_FOUND || strpbrk(path, "*?[") == NULL)
        return status;
    return mr_token_files_guess(path, out_format);
}

/* A count that only some formats have. */
static json_t *data_count(uint64_t count) {
    return count > 0 ? json_integer((json_int_t)count) : json_null();
}

static json_t *data_json(const mr_token_layout *layout) {
    return json_pack("{s:o, s:s, s:o, s:s, s:I, s:I, s:o, s:o}", "file",
                     mr_render_string(layout->path), "format",
                     mr_token_format_name(layout->format), "version", data_count(layout->version),
                     "dtype", mr_token_layout_type(layout), "tokens", (json_int_t)layout->tokens,
                     "bytes", (json_int_t)layout->bytes, "sequences",
                     data_count(layout->sequences), "documents", data_count(layout->documents));
}

static void cell_size(const json_t *item, char *out, size_t bytes) {
    mr_render_bytes((double)json_integer_value(json_object_get(item, "bytes")), out, bytes);
}

static const mr_column data_columns[] = {
    {"FILE", "file", NULL},           {"FORMAT", "format", NULL}, {"DTYPE", "dtype", NULL},
    {"TOKENS", "tokens", NULL},       {"SIZE", NULL, cell_size},  {"DOCUMENTS", "documents", NULL},
    {"SMALLEST", "smallest", NULL},   {"LARGEST", "largest", NULL},
};
static const mr_column data_wide_columns[] = {
    {"VERSION", "version", NULL},
    {"SEQUENCES", "sequences", NULL},
    {"BYTES", "bytes", NULL},
};
/* The last two columns are those of --scan. */
static mr_view data_view(bool scanned) {
    const size_t count = sizeof(data_columns) / sizeof(data_columns[0]);
    return (mr_view){
        .singular = "file",
        .plural = "files",
        .name_key = "file",
        .columns = data_columns,
        .column_count = scanned ? count : count - 2,
        .wide_columns = data_wide_columns,
        .wide_count = sizeof(data_wide_columns) / sizeof(data_wide_columns[0]),
    };
}

/* ---- inspect --------------------------------------------------------------------------------- */

static mr_status inspect_all(mr_client *client, mr_token_files *files, bool scan, json_t *items) {
    data_range range = {0};
    for (size_t i = 0; i < mr_token_files_file_count(files); i++) {
        const mr_token_layout *layout = mr_token_files_layout(files, i);
        json_t *item = data_json(layout);
        (void)json_array_append_new(items, item);
        if (!scan)
            continue;
        range.count = layout->tokens;
        MR_TRY(data_visit_range(client, files, &range, NULL, NULL));
        range.first += range.count;
        (void)json_object_set_new(item, "smallest", json_integer(range.smallest));
        (void)json_object_set_new(item, "largest", json_integer(range.largest));
    }
    return MR_OK;
}

mr_status mr_command_data_inspect(mr_client *client) {
    const mr_invocation *invocation = client->invocation;
    const char *path = invocation->arguments[0];
    const bool scan = mr_invocation_given(invocation, "scan");
    mr_token_files *files = NULL;
    mr_data_format format = MR_DATA_BYTES;
    MR_TRY(data_format_of(mr_invocation_text(invocation, "format"), path, &format));
    MR_TRY(mr_token_files_open(path, format, &files));
    mr_interrupt_catch();
    json_t *items = json_array();
    mr_status status = inspect_all(client, files, scan, items);
    mr_token_files_close(files);
    if (!mr_status_is_ok(status)) {
        json_decref(items);
        return data_end(client, status);
    }
    const mr_view view = data_view(scan);
    return mr_render_list(client, &view, items);
}

/* ---- convert --------------------------------------------------------------------------------- */

static mr_status convert_put(void *context, const int32_t *tokens, size_t count) {
    return mr_token_writer_put(context, tokens, count);
}

static mr_status convert_files(mr_client *client, mr_token_files *files, const char *target,
                               mr_data_format format) {
    const mr_invocation *invocation = client->invocation;
    data_range range = {.count = mr_token_files_count(files)};
    mr_token_writer *writer = NULL;
    MR_TRY(data_visit_range(client, files, &range, NULL, NULL));
    const mr_token_writer_options options = {
        .path = target,
        .format = format,
        .tokens = range.count,
        .largest = range.largest,
        .document_end = mr_invocation_given(invocation, "document-end")
                            ? mr_invocation_integer(invocation, "document-end")
                            : -1,
        .replace = mr_invocation_given(invocation, "force"),
    };
    MR_TRY(mr_token_writer_open(&options, &writer));
    mr_status status = data_visit_range(client, files, &range, convert_put, writer);
    if (mr_status_is_ok(status) && range.largest > options.largest)
        status = MR_ERROR(DATA_LOSS, "the source changed while it was read");
    if (mr_status_is_ok(status))
        status = mr_token_writer_commit(writer);
    mr_token_writer_close(writer);
    return status;
}

/* What stands there now is read again: what is reported is what is there. */
static mr_status convert_report(const mr_client *client, const char *target,
                                mr_data_format format) {
    mr_token_layout layout;
    const mr_view view = data_view(false);
    MR_TRY(mr_token_layout_read(target, format, &layout));
    json_t *item = data_json(&layout);
    mr_free(layout.path);
    return mr_render_item(client, &view, item);
}

mr_status mr_command_data_convert(mr_client *client) {
    const mr_invocation *invocation = client->invocation;
    const char *source = invocation->arguments[0];
    const char *target = invocation->arguments[1];
    const char *to = mr_invocation_text(invocation, "to");
    const size_t length = strlen(target);
    mr_token_files *files = NULL;
    mr_data_format from = MR_DATA_BYTES;
    if (to == NULL && length > 4 && strcmp(target + length - 4, ".npy") == 0)
        to = "npy";
    if (to == NULL)
        return MR_ERROR(INVALID_ARGUMENT,
                        "--to is not given, and %s does not tell; it must be bytes, llmc, megatron "
                        "or npy",
                        mr_path_shorten(target).text);
    const mr_data_format format = mr_token_format_find(to);
    if (mr_invocation_given(invocation, "document-end") && format != MR_DATA_MEGATRON)
        return MR_ERROR(INVALID_ARGUMENT, "--document-end is given; only --to megatron knows "
                                          "documents, not %s",
                        to);
    MR_TRY(data_format_of(mr_invocation_text(invocation, "from"), source, &from));
    MR_TRY(mr_token_files_open(source, from, &files));
    mr_interrupt_catch();
    mr_status status = convert_files(client, files, target, format);
    mr_token_files_close(files);
    if (!mr_status_is_ok(status))
        return data_end(client, status);
    return convert_report(client, target, format);
}
