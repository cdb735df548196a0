/* SPDX-License-Identifier: Apache-2.0 */
#include "client/token_layout.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/path_text.h"
#include "client/token_layout_parts.h"
#include "client/token_read.h"
#include "daemon/base/alloc.h"
#include "daemon/base/limits.h"

static const char *const layout_formats[MR_DATA_FORMAT_COUNT] = {
    [MR_DATA_BYTES] = "bytes",
    [MR_DATA_LLMC] = "llmc",
    [MR_DATA_MEGATRON] = "megatron",
    [MR_DATA_NPY] = "npy",
};

const char *mr_token_format_name(mr_data_format format) {
    MR_ASSERT(format < MR_DATA_FORMAT_COUNT);
    return layout_formats[format];
}

mr_data_format mr_token_format_find(const char *name) {
    size_t format = 0;
    while (format < MR_DATA_FORMAT_COUNT && strcmp(layout_formats[format], name) != 0)
        format++;
    return (mr_data_format)format;
}

const char *mr_token_layout_type(const mr_token_layout *layout) {
    static const char *const names[2][9] = {
        {"", "uint8", "uint16", "", "uint32", "", "", "", "uint64"},
        {"", "int8", "int16", "", "int32", "", "", "", "int64"},
    };
    MR_ASSERT(layout->width >= 1 && layout->width <= 8);
    return names[layout->is_signed][layout->width];
}

/* What an llm.c header says, checked against the file's size. */
static mr_status layout_read_llmc(int fd, mr_token_layout *layout) {
    const char *path = layout->path;
    unsigned char header[12];
    if (layout->bytes < MR_TOKEN_LLMC_HEADER_BYTES)
        return MR_ERROR(INVALID_ARGUMENT,
                        "%s: size is %llu bytes; an llm.c file has a header of %d bytes",
                        mr_path_shorten(path).text, (unsigned long long)layout->bytes,
                        (int)MR_TOKEN_LLMC_HEADER_BYTES);
    MR_TRY(mr_token_read_exact(fd, path, header, sizeof(header), 0));
    int32_t magic = (int32_t)mr_token_read_signed(header, 4);
    int32_t version = (int32_t)mr_token_read_signed(header + 4, 4);
    int32_t tokens = (int32_t)mr_token_read_signed(header + 8, 4);
    if (magic != MR_TOKEN_LLMC_MAGIC_U16 && magic != MR_TOKEN_LLMC_MAGIC_U32)
        return MR_ERROR(INVALID_ARGUMENT,
                        "%s: header[0] (magic) is %d; it must be %d (16-bit tokens) or %d (32-bit "
                        "tokens)",
                        mr_path_shorten(path).text, (int)magic, (int)MR_TOKEN_LLMC_MAGIC_U16,
                        (int)MR_TOKEN_LLMC_MAGIC_U32);
    bool narrow = magic == MR_TOKEN_LLMC_MAGIC_U16;
    int32_t wanted = narrow ? MR_TOKEN_LLMC_VERSION_U16 : MR_TOKEN_LLMC_VERSION_U32;
    if (version != wanted)
        return MR_ERROR(INVALID_ARGUMENT,
                        "%s: header[1] (version) is %d; with magic %d it must be %d",
                        mr_path_shorten(path).text, (int)version, (int)magic, (int)wanted);
    if (tokens <= 0)
        return MR_ERROR(INVALID_ARGUMENT,
                        "%s: header[2] (token count) is %d; it must be at least 1",
                        mr_path_shorten(path).text, (int)tokens);
    layout->width = narrow ? 2 : 4;
    uint64_t right = MR_TOKEN_LLMC_HEADER_BYTES + (uint64_t)tokens * layout->width;
    if (layout->bytes != right)
        return MR_ERROR(INVALID_ARGUMENT,
                        "%s: size is %llu bytes; header[2] (token count) is %d, so it must be %llu",
                        mr_path_shorten(path).text, (unsigned long long)layout->bytes, (int)tokens,
                        (unsigned long long)right);
    layout->version = (uint32_t)version;
    layout->tokens = (uint64_t)tokens;
    layout->offset = MR_TOKEN_LLMC_HEADER_BYTES;
    return MR_OK;
}

/* PREFIX, PREFIX.bin or PREFIX.idx: the other two. False: too long. */
static bool layout_pair(const char *path, char *out_bin, char *out_index, size_t bytes) {
    size_t length = strlen(path);
    if (length > 4 &&
        (strcmp(path + length - 4, ".bin") == 0 || strcmp(path + length - 4, ".idx") == 0))
        length -= 4;
    if (length + 5 > bytes)
        return false;
    snprintf(out_bin, bytes, "%.*s.bin", (int)length, path);
    snprintf(out_index, bytes, "%.*s.idx", (int)length, path);
    return true;
}

static mr_status layout_read_file(const char *path, const char *index_path,
                                  mr_token_layout *layout) {
    int fd = -1;
    layout->path = mr_strdup(path);
    if (layout->path == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the list of data files");
    MR_TRY(mr_token_read_open(path, &fd, &layout->bytes));
    mr_status status = MR_OK;
    switch (layout->format) {
    case MR_DATA_LLMC:
        status = layout_read_llmc(fd, layout);
        break;
    case MR_DATA_MEGATRON:
        status = mr_token_megatron_read(index_path, layout);
        break;
    case MR_DATA_NPY:
        status = mr_token_npy_read(fd, layout);
        break;
    default:
        layout->tokens = layout->bytes;
        layout->width = 1;
        break;
    }
    (void)close(fd); /* read-only */
    return status;
}

mr_status mr_token_layout_read(const char *path, mr_data_format format,
                               mr_token_layout *out_layout) {
    char bin[MR_CHECKPOINT_PATH_BYTES];
    char index[MR_CHECKPOINT_PATH_BYTES];
    mr_token_layout layout = {.format = format};
    if (format == MR_DATA_MEGATRON && !layout_pair(path, bin, index, sizeof(bin)))
        return MR_ERROR(INVALID_ARGUMENT, "%s: the path has %zu bytes; at most %zu are allowed",
                        mr_path_shorten(path).text, strlen(path), sizeof(bin) - 5);
    mr_status status = layout_read_file(format == MR_DATA_MEGATRON ? bin : path, index, &layout);
    if (mr_status_is_ok(status))
        *out_layout = layout;
    else
        mr_free(layout.path);
    return status;
}

/* The first bytes of a file that can be read, zeros where it ends; false: it cannot. */
static bool layout_head(const char *path, unsigned char *out, size_t bytes) {
    int fd = -1;
    uint64_t size = 0;
    memset(out, 0, bytes);
    if (!mr_status_is_ok(mr_token_read_open(path, &fd, &size)))
        return false;
    size_t take = size < bytes ? (size_t)size : bytes;
    bool good = mr_status_is_ok(mr_token_read_exact(fd, path, out, take, 0));
    (void)close(fd); /* read-only */
    return good;
}

mr_status mr_token_layout_guess(const char *path, mr_data_format *out_format) {
    char bin[MR_CHECKPOINT_PATH_BYTES];
    char index[MR_CHECKPOINT_PATH_BYTES];
    unsigned char head[8];
    if (layout_pair(path, bin, index, sizeof(bin)) && layout_head(index, head, sizeof(head)) &&
        memcmp(head, "MMIDIDX", 7) == 0) {
        *out_format = MR_DATA_MEGATRON;
        return MR_OK;
    }
    int fd = -1;
    uint64_t size = 0;
    MR_TRY(mr_token_read_open(path, &fd, &size));
    (void)close(fd); /* it can be read */
    uint64_t magic = layout_head(path, head, sizeof(head)) ? mr_token_read_number(head, 4) : 0;
    *out_format = MR_DATA_BYTES;
    if (memcmp(head, "\x93NUMPY", 6) == 0)
        *out_format = MR_DATA_NPY;
    else if (magic == MR_TOKEN_LLMC_MAGIC_U16 || magic == MR_TOKEN_LLMC_MAGIC_U32)
        *out_format = MR_DATA_LLMC;
    return MR_OK;
}
