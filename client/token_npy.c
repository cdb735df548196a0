/* SPDX-License-Identifier: Apache-2.0 */
/* token_npy.c: the header of a NumPy array file: "\x93NUMPY", version, length of what follows, and
 * that is a Python literal such as
 *     {'descr': '<u2', 'fortran_order': False, 'shape': (1000,), }
 * padded with blanks to a line feed. The three keys are read, in any order; others are refused. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/path_text.h"
#include "client/token_layout_parts.h"
#include "client/token_read.h"
#include "daemon/base/alloc.h"

enum { NPY_FIXED_BYTES = 8, NPY_WORD_BYTES = 32 };

/* The literal, and what has been read of it. */
typedef struct npy_header {
    const char *path;
    const char *at;
    bool has_descr;
    bool has_order;
    bool has_shape;
} npy_header;

static mr_status npy_bad(const npy_header *header, const char *wanted) {
    return MR_ERROR(INVALID_ARGUMENT, "%s: the header has \"%.16s\" where %s must stand",
                    mr_path_shorten(header->path).text, header->at, wanted);
}

static void npy_skip(npy_header *header) {
    while (isspace((unsigned char)*header->at))
        header->at++;
}

/* Takes that one letter, with blanks before it. */
static bool npy_take(npy_header *header, char letter) {
    npy_skip(header);
    if (*header->at != letter)
        return false;
    header->at++;
    return true;
}

/* A Python string without escapes. */
static mr_status npy_string(npy_header *header, char out[NPY_WORD_BYTES]) {
    npy_skip(header);
    const char quote = *header->at;
    const char *end = quote == '\'' || quote == '"' ? strchr(header->at + 1, quote) : NULL;
    if (end == NULL || end - header->at - 1 >= NPY_WORD_BYTES)
        return npy_bad(header, "a text in quotes");
    size_t length = (size_t)(end - header->at - 1);
    memcpy(out, header->at + 1, length);
    out[length] = '\0';
    header->at = end + 1;
    return MR_OK;
}

static mr_status npy_descr(npy_header *header, mr_token_layout *layout) {
    static const struct {
        const char *descr;
        uint32_t width;
        bool is_signed;
    } types[] = {{"|u1", 1, false}, {"<u1", 1, false}, {"<u2", 2, false}, {"<u4", 4, false},
                 {"<i2", 2, true},  {"<i4", 4, true},  {"<i8", 8, true}};
    char descr[NPY_WORD_BYTES];
    if (npy_take(header, '['))
        return MR_ERROR(INVALID_ARGUMENT,
                        "%s: descr is a list of fields; it must be one type of whole numbers",
                        mr_path_shorten(header->path).text);
    MR_TRY(npy_string(header, descr));
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (strcmp(types[i].descr, descr) == 0) {
            layout->width = types[i].width;
            layout->is_signed = types[i].is_signed;
            header->has_descr = true;
            return MR_OK;
        }
    }
    return MR_ERROR(INVALID_ARGUMENT,
                    "%s: descr is %s; it must be |u1, <u2, <u4, <i2, <i4 or <i8",
                    mr_path_shorten(header->path).text, descr);
}

static mr_status npy_order(npy_header *header) {
    npy_skip(header);
    if (strncmp(header->at, "True", 4) == 0)
        return MR_ERROR(INVALID_ARGUMENT, "%s: fortran_order is True; it must be False",
                        mr_path_shorten(header->path).text);
    if (strncmp(header->at, "False", 5) != 0)
        return npy_bad(header, "True or False");
    header->at += 5;
    header->has_order = true;
    return MR_OK;
}

/* (N,) */
static mr_status npy_shape(npy_header *header, mr_token_layout *layout) {
    unsigned dimensions = 0;
    if (!npy_take(header, '('))
        return npy_bad(header, "a shape in parentheses");
    while (!npy_take(header, ')')) {
        char *end = NULL;
        npy_skip(header);
        errno = 0;
        unsigned long long size = strtoull(header->at, &end, 10);
        if (end == header->at || *header->at == '-' || errno != 0)
            return npy_bad(header, "a size");
        header->at = end;
        layout->tokens = size;
        dimensions++;
        if (!npy_take(header, ',') && *header->at != ')')
            return npy_bad(header, "',' or ')'");
    }
    if (dimensions != 1)
        return MR_ERROR(INVALID_ARGUMENT, "%s: shape has %u dimensions; it must have 1",
                        mr_path_shorten(header->path).text, dimensions);
    header->has_shape = true;
    return MR_OK;
}

static mr_status npy_entry(npy_header *header, mr_token_layout *layout) {
    char key[NPY_WORD_BYTES];
    MR_TRY(npy_string(header, key));
    if (!npy_take(header, ':'))
        return npy_bad(header, "':'");
    if (strcmp(key, "descr") == 0)
        return npy_descr(header, layout);
    if (strcmp(key, "fortran_order") == 0)
        return npy_order(header);
    if (strcmp(key, "shape") == 0)
        return npy_shape(header, layout);
    return MR_ERROR(INVALID_ARGUMENT,
                    "%s: the header has key %s; it must have descr, fortran_order and shape",
                    mr_path_shorten(header->path).text, key);
}

static mr_status npy_parse(npy_header *header, mr_token_layout *layout) {
    if (!npy_take(header, '{'))
        return npy_bad(header, "'{'");
    while (!npy_take(header, '}')) {
        MR_TRY(npy_entry(header, layout));
        if (!npy_take(header, ',') && *header->at != '}')
            return npy_bad(header, "',' or '}'");
    }
    npy_skip(header);
    if (*header->at != '\0')
        return npy_bad(header, "the end");
    if (!header->has_descr || !header->has_order || !header->has_shape)
        return MR_ERROR(INVALID_ARGUMENT, "%s: the header lacks %s",
                        mr_path_shorten(header->path).text,
                        !header->has_descr   ? "descr"
                        : !header->has_order ? "fortran_order"
                                             : "shape");
    return MR_OK;
}

static mr_status npy_check_size(const mr_token_layout *layout) {
    const uint64_t room = (layout->bytes - layout->offset) / layout->width;
    if (layout->tokens == 0)
        return MR_ERROR(INVALID_ARGUMENT, "%s: shape is (0,); it must be at least 1",
                        mr_path_shorten(layout->path).text);
    if (layout->tokens != room ||
        layout->bytes != layout->offset + layout->tokens * layout->width)
        return MR_ERROR(INVALID_ARGUMENT,
                        "%s: size is %llu bytes; shape is (%llu,), and that many %s behind a "
                        "header of %llu do not fill it",
                        mr_path_shorten(layout->path).text, (unsigned long long)layout->bytes,
                        (unsigned long long)layout->tokens, mr_token_layout_type(layout),
                        (unsigned long long)layout->offset);
    return MR_OK;
}

mr_status mr_token_npy_read(int fd, mr_token_layout *layout) {
    unsigned char fixed[NPY_FIXED_BYTES + 4];
    const char *path = layout->path;
    if (layout->bytes < sizeof(fixed))
        return MR_ERROR(INVALID_ARGUMENT, "%s: size is %llu bytes; a .npy file has a header",
                        mr_path_shorten(path).text, (unsigned long long)layout->bytes);
    MR_TRY(mr_token_read_exact(fd, path, fixed, sizeof(fixed), 0));
    if (memcmp(fixed, "\x93NUMPY", 6) != 0)
        return MR_ERROR(INVALID_ARGUMENT, "%s: magic is not \\x93NUMPY; it is no .npy file",
                        mr_path_shorten(path).text);
    if (fixed[6] < 1 || fixed[6] > 3)
        return MR_ERROR(INVALID_ARGUMENT, "%s: version is %u.%u; it must be 1.0, 2.0 or 3.0",
                        mr_path_shorten(path).text, fixed[6], fixed[7]);
    uint32_t width = fixed[6] == 1 ? 2 : 4;
    uint64_t bytes = mr_token_read_number(fixed + NPY_FIXED_BYTES, width);
    layout->version = fixed[6];
    layout->offset = NPY_FIXED_BYTES + width + bytes;
    if (bytes == 0 || bytes > MR_TOKEN_NPY_HEADER_MAX || layout->offset > layout->bytes)
        return MR_ERROR(INVALID_ARGUMENT,
                        "%s: header length is %llu; it must be 1 to %d and within the file",
                        mr_path_shorten(path).text, (unsigned long long)bytes,
                        (int)MR_TOKEN_NPY_HEADER_MAX);
    char *text = mr_alloc((size_t)bytes + 1);
    if (text == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the header of %s",
                        mr_path_shorten(path).text);
    mr_status status =
        mr_token_read_exact(fd, path, text, (size_t)bytes, NPY_FIXED_BYTES + width);
    npy_header header = {.path = path, .at = text};
    if (mr_status_is_ok(status) && memchr(text, '\0', (size_t)bytes) != NULL)
        status = MR_ERROR(INVALID_ARGUMENT, "%s: the header has a zero byte",
                          mr_path_shorten(path).text);
    if (mr_status_is_ok(status))
        status = npy_parse(&header, layout);
    mr_free(text);
    MR_TRY(status);
    return npy_check_size(layout);
}
