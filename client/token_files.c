/* SPDX-License-Identifier: Apache-2.0 */
#include "client/token_files.h"

#include <fcntl.h>
#include <fnmatch.h>
#include <glob.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/path_text.h"
#include "client/token_layout.h"
#include "client/token_read.h"
#include "daemon/base/alloc.h"
#include "daemon/base/limits.h"

enum { TOKEN_PIECE_BYTES = 16384 }; /* read at once, on the stack */

typedef struct token_file {
    uint64_t first; /* its first token's place in the whole sequence */
    mr_token_layout layout;
} token_file;

struct mr_token_files {
    size_t count;
    token_file *files;
    uint64_t tokens;
    /* the file that was read last stays open: sequential readers and single files open once */
    size_t open_index;
    int open_fd;
};

/* Adds one file: checked, closed again. */
static mr_status token_files_add(mr_token_files *files, mr_data_format format, const char *path) {
    token_file *file = &files->files[files->count];
    MR_TRY(mr_token_layout_read(path, format, &file->layout));
    files->count++;
    file->first = files->tokens;
    files->tokens += file->layout.tokens;
    return MR_OK;
}

/* Is path the index of a Megatron pair whose other half matches the pattern, too? Then that stands
 * for both. */
static bool token_files_is_second(const char *pattern, mr_data_format format, const char *path) {
    char bin[MR_CHECKPOINT_PATH_BYTES];
    size_t length = strlen(path);
    if (format != MR_DATA_MEGATRON || length < 4 || length >= sizeof(bin) ||
        strcmp(path + length - 4, ".idx") != 0)
        return false;
    memcpy(bin, path, length + 1);
    memcpy(bin + length - 4, ".bin", 4);
    return fnmatch(pattern, bin, FNM_PATHNAME | FNM_PERIOD) == 0 && access(bin, F_OK) == 0;
}

static mr_status token_files_add_all(mr_token_files *files, mr_data_format format,
                                     const char *pattern, char *const *paths, size_t count) {
    if (count > MR_TOKEN_FILES_MAX)
        return MR_ERROR(INVALID_ARGUMENT, "%zu files match; at most %d are read", count,
                        (int)MR_TOKEN_FILES_MAX);
    files->files = mr_alloc_array(count, sizeof(*files->files));
    if (files->files == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the list of %zu data files", count);
    for (size_t i = 0; i < count; i++) {
        if (!token_files_is_second(pattern, format, paths[i]))
            MR_TRY(token_files_add(files, format, paths[i]));
    }
    return MR_OK;
}

/* A path that exists is that file, whatever letters it has; else it is a pattern. */
static mr_status token_files_find(mr_token_files *files, const char *pattern,
                                  mr_data_format format) {
    struct stat info;
    bool prefix = format == MR_DATA_MEGATRON && strpbrk(pattern, "*?[") == NULL;
    if (prefix || stat(pattern, &info) == 0) {
        char *path = (char *)(uintptr_t)pattern; /* only read */
        return token_files_add_all(files, format, "", &path, 1);
    }
    glob_t found = {0};
    int result = glob(pattern, GLOB_ERR, NULL, &found);
    mr_status status = MR_OK;
    if (result == 0)
        status = token_files_add_all(files, format, pattern, found.gl_pathv, found.gl_pathc);
    else if (result == GLOB_NOMATCH)
        status = MR_ERROR(NOT_FOUND, "%s: no such file", mr_path_shorten(pattern).text);
    else
        status = MR_ERROR(PERMISSION_DENIED, "%s: a folder in it cannot be read",
                          mr_path_shorten(pattern).text);
    globfree(&found);
    return status;
}

mr_status mr_token_files_open(const char *pattern, mr_data_format format,
                              mr_token_files **out_files) {
    if (pattern[0] == '\0')
        return MR_ERROR(INVALID_ARGUMENT, "the path is empty; it must name a file");
    mr_token_files *files = mr_alloc(sizeof(*files));
    if (files == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to open the data");
    files->open_fd = -1;
    mr_status status = token_files_find(files, pattern, format);
    if (!mr_status_is_ok(status)) {
        mr_token_files_close(files);
        return status;
    }
    *out_files = files;
    return MR_OK;
}

mr_status mr_token_files_guess(const char *pattern, mr_data_format *out_format) {
    glob_t found = {0};
    mr_status status = MR_OK;
    if (glob(pattern, 0, NULL, &found) == 0)
        status = mr_token_layout_guess(found.gl_pathv[0], out_format);
    else
        status = MR_ERROR(NOT_FOUND, "%s: no such file", mr_path_shorten(pattern).text);
    globfree(&found);
    return status;
}

void mr_token_files_close(mr_token_files *files) {
    if (files == NULL)
        return;
    if (files->open_fd >= 0)
        (void)close(files->open_fd); /* read-only */
    for (size_t i = 0; i < files->count; i++)
        mr_free(files->files[i].layout.path);
    mr_free(files->files);
    mr_free(files);
}

uint64_t mr_token_files_count(const mr_token_files *files) {
    return files->tokens;
}

/* The file that holds a token, by bisection. */
static size_t token_files_locate(const mr_token_files *files, uint64_t token) {
    size_t low = 0;
    size_t high = files->count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (files->files[middle].first <= token)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static mr_status token_files_switch(mr_token_files *files, size_t index) {
    if (files->open_fd >= 0 && files->open_index == index)
        return MR_OK;
    if (files->open_fd >= 0)
        (void)close(files->open_fd); /* read-only */
    const char *path = files->files[index].layout.path;
    files->open_fd = open(path, O_RDONLY | O_CLOEXEC);
    files->open_index = index;
    return files->open_fd >= 0 ? MR_OK : mr_token_read_error(path, "open");
}

static mr_status token_files_convert(const mr_token_layout *layout, uint64_t position,
                                     const unsigned char *bytes, size_t count, uint32_t vocab,
                                     int32_t *out) {
    for (size_t i = 0; i < count; i++) {
        const unsigned char *at = bytes + i * layout->width;
        int64_t token = layout->is_signed ? mr_token_read_signed(at, layout->width)
                                          : (int64_t)mr_token_read_number(at, layout->width);
        if (token < 0 || token >= (int64_t)vocab)
            return MR_ERROR(INVALID_ARGUMENT,
                            "%s: token %llu is %lld; the vocabulary goes from 0 to %u",
                            mr_path_shorten(layout->path).text,
                            (unsigned long long)(position + i), (long long)token, vocab - 1);
        out[i] = (int32_t)token;
    }
    return MR_OK;
}

/* Reads count tokens of one file from position on, in pieces. */
static mr_status token_files_read_piecewise(mr_token_files *files, const mr_token_layout *layout,
                                            uint64_t position, size_t count, uint32_t vocab,
                                            int32_t *out) {
    unsigned char piece[TOKEN_PIECE_BYTES];
    size_t room = sizeof(piece) / layout->width;
    for (size_t done = 0; done < count;) {
        size_t take = count - done < room ? count - done : room;
        MR_TRY(mr_token_read_exact(files->open_fd, layout->path, piece, take * layout->width,
                                   layout->offset + (position + done) * layout->width));
        MR_TRY(token_files_convert(layout, position + done, piece, take, vocab, out + done));
        done += take;
    }
    return MR_OK;
}

mr_status mr_token_files_read(mr_token_files *files, uint64_t first, size_t count, uint32_t vocab,
                              int32_t *out) {
    MR_ASSERT(vocab >= 1 && vocab <= MR_TOKEN_VOCABULARY_MAX);
    if (first > files->tokens || count > files->tokens - first)
        return MR_ERROR(OUT_OF_RANGE, "tokens %llu to %llu of the data are wanted; it has %llu",
                        (unsigned long long)first, (unsigned long long)(first + count),
                        (unsigned long long)files->tokens);
    size_t index = token_files_locate(files, first);
    for (size_t done = 0; done < count; index++) {
        const token_file *file = &files->files[index];
        uint64_t position = first + done - file->first;
        uint64_t left = file->layout.tokens - position;
        size_t take = count - done < left ? count - done : (size_t)left;
        MR_TRY(token_files_switch(files, index));
        MR_TRY(token_files_read_piecewise(files, &file->layout, position, take, vocab,
                                          out + done));
        done += take;
    }
    return MR_OK;
}

size_t mr_token_files_file_count(const mr_token_files *files) {
    return files->count;
}

const mr_token_layout *mr_token_files_layout(const mr_token_files *files, size_t index) {
    MR_ASSERT(index < files->count);
    return &files->files[index].layout;
}
