/* SPDX-License-Identifier: Apache-2.0 */
#include "client/token_files.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/path_text.h"
#include "daemon/base/alloc.h"

/* llm.c's header (reference: its dataloader). */
enum {
    LLMC_HEADER_INTS = 256,
    LLMC_HEADER_BYTES = LLMC_HEADER_INTS * 4,
    LLMC_MAGIC_GPT2 = 20240520,
    LLMC_VERSION_GPT2 = 1,
    LLMC_MAGIC_LLAMA3 = 20240801,
    LLMC_VERSION_LLAMA3 = 7,
};

enum { TOKEN_PIECE_BYTES = 16384 }; /* read at once, on the stack */

typedef struct token_file {
    char *path;
    uint64_t first;  /* its first token's place in the whole sequence */
    uint64_t tokens; /* in this file */
    uint64_t offset; /* of its first token, bytes */
    uint32_t width;  /* bytes of one token */
} token_file;

struct mr_token_files {
    size_t count;
    token_file *files;
    uint64_t tokens;
    /* the file that was read last stays open: sequential readers and single files open once */
    size_t open_index;
    int open_fd;
};

static uint32_t token_little_endian(const unsigned char *bytes, uint32_t width) {
    uint32_t value = 0;
    for (uint32_t i = width; i > 0; i--)
        value = value << 8 | bytes[i - 1];
    return value;
}

static mr_status token_system_error(const char *path, const char *what) {
    int error = errno;
    switch (error) {
    case ENOENT:
    case ENOTDIR:
        return MR_ERROR(NOT_FOUND, "data.train: %s: no such file", mr_path_shorten(path).text);
    case EACCES:
    case EPERM:
        return MR_ERROR(PERMISSION_DENIED, "data.train: %s: %s", mr_path_shorten(path).text,
                        strerror(error));
    default:
        return MR_ERROR(DATA_LOSS, "data.train: %s: cannot %s: %s", mr_path_shorten(path).text,
                        what, strerror(error));
    }
}

/* Reads exactly bytes at offset. */
static mr_status token_read_exact(int fd, const char *path, void *out, size_t bytes,
                                  uint64_t offset) {
    size_t done = 0;
    while (done < bytes) {
        ssize_t got = pread(fd, (char *)out + done, bytes - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return token_system_error(path, "read");
        if (got == 0)
            return MR_ERROR(DATA_LOSS,
                            "data.train: %s: the file ends at byte %llu; it became "
                            "shorter while in use",
                            mr_path_shorten(path).text, (unsigned long long)(offset + done));
        done += (size_t)got;
    }
    return MR_OK;
}

/* What an llm.c header says, checked against the file's size. */
static mr_status token_file_read_llmc(int fd, uint64_t size, token_file *file) {
    if (size < LLMC_HEADER_BYTES)
        return MR_ERROR(INVALID_ARGUMENT,
                        "data.train: %s: size is %llu bytes; an llm.c file has a "
                        "header of %d bytes",
                        mr_path_shorten(file->path).text, (unsigned long long)size,
                        LLMC_HEADER_BYTES);
    unsigned char header[12];
    MR_TRY(token_read_exact(fd, file->path, header, sizeof(header), 0));
    int32_t magic = (int32_t)token_little_endian(header, 4);
    int32_t version = (int32_t)token_little_endian(header + 4, 4);
    int32_t tokens = (int32_t)token_little_endian(header + 8, 4);
    if (magic != LLMC_MAGIC_GPT2 && magic != LLMC_MAGIC_LLAMA3)
        return MR_ERROR(INVALID_ARGUMENT,
                        "data.train: %s: header[0] (magic) is %d; it must be %d "
                        "(16-bit tokens) or %d (32-bit tokens)",
                        mr_path_shorten(file->path).text, (int)magic, LLMC_MAGIC_GPT2,
                        LLMC_MAGIC_LLAMA3);
    int32_t wanted = magic == LLMC_MAGIC_GPT2 ? LLMC_VERSION_GPT2 : LLMC_VERSION_LLAMA3;
    file->width = magic == LLMC_MAGIC_GPT2 ? 2 : 4;
    if (version != wanted)
        return MR_ERROR(INVALID_ARGUMENT,
                        "data.train: %s: header[1] (version) is %d; with magic "
                        "%d it must be %d",
                        mr_path_shorten(file->path).text, (int)version, (int)magic, (int)wanted);
    if (tokens <= 0)
        return MR_ERROR(INVALID_ARGUMENT,
                        "data.train: %s: header[2] (token count) is %d; it must "
                        "be at least 1",
                        mr_path_shorten(file->path).text, (int)tokens);
    uint64_t right_size = LLMC_HEADER_BYTES + (uint64_t)tokens * file->width;
    if (size != right_size)
        return MR_ERROR(INVALID_ARGUMENT,
                        "data.train: %s: size is %llu bytes; header[2] (token "
                        "count) is %d, so it must be %llu",
                        mr_path_shorten(file->path).text, (unsigned long long)size, (int)tokens,
                        (unsigned long long)right_size);
    file->tokens = (uint64_t)tokens;
    file->offset = LLMC_HEADER_BYTES;
    return MR_OK;
}

static mr_status token_file_check(int fd, mr_data_format format, token_file *file) {
    struct stat info;
    if (fstat(fd, &info) != 0)
        return token_system_error(file->path, "stat");
    if (!S_ISREG(info.st_mode))
        return MR_ERROR(INVALID_ARGUMENT, "data.train: %s is %s; it must be a plain file",
                        mr_path_shorten(file->path).text,
                        S_ISDIR(info.st_mode) ? "a folder" : "not a plain file");
    if (info.st_size <= 0)
        return MR_ERROR(INVALID_ARGUMENT, "data.train: %s is empty",
                        mr_path_shorten(file->path).text);
    if (format == MR_DATA_LLMC)
        return token_file_read_llmc(fd, (uint64_t)info.st_size, file);
    file->tokens = (uint64_t)info.st_size;
    file->offset = 0;
    file->width = 1;
    return MR_OK;
}

/* Adds one file: checked, closed again. */
static mr_status token_files_add(mr_token_files *files, mr_data_format format, const char *path) {
    token_file *file = &files->files[files->count];
    file->path = mr_strdup(path);
    if (file->path == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the list of data files");
    files->count++;
    /* Non-blocking, so that a FIFO is refused below instead of waited for. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return token_system_error(path, "open");
    mr_status status = token_file_check(fd, format, file);
    (void)close(fd); /* read-only: nothing can be lost */
    MR_TRY(status);
    file->first = files->tokens;
    files->tokens += file->tokens;
    return MR_OK;
}

static mr_status token_files_add_all(mr_token_files *files, mr_data_format format,
                                     char *const *paths, size_t count) {
    if (count > MR_TOKEN_FILES_MAX)
        return MR_ERROR(INVALID_ARGUMENT, "data.train matches %zu files; at most %d are read",
                        count, (int)MR_TOKEN_FILES_MAX);
    files->files = mr_alloc_array(count, sizeof(*files->files));
    if (files->files == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the list of %zu data files", count);
    for (size_t i = 0; i < count; i++)
        MR_TRY(token_files_add(files, format, paths[i]));
    return MR_OK;
}

/* A path that exists is that file, whatever letters it has; else it is a pattern. */
static mr_status token_files_find(mr_token_files *files, const char *pattern,
                                  mr_data_format format) {
    struct stat info;
    if (stat(pattern, &info) == 0) {
        char *path = (char *)(uintptr_t)pattern; /* only read */
        return token_files_add_all(files, format, &path, 1);
    }
    glob_t found = {0};
    int result = glob(pattern, GLOB_ERR, NULL, &found);
    mr_status status = MR_OK;
    if (result == 0)
        status = token_files_add_all(files, format, found.gl_pathv, found.gl_pathc);
    else if (result == GLOB_NOMATCH)
        status = MR_ERROR(NOT_FOUND, "data.train: %s: no such file", mr_path_shorten(pattern).text);
    else
        status = MR_ERROR(PERMISSION_DENIED, "data.train: %s: a folder in it cannot be read",
                          mr_path_shorten(pattern).text);
    globfree(&found);
    return status;
}

mr_status mr_token_files_open(const char *pattern, mr_data_format format,
                              mr_token_files **out_files) {
    if (pattern[0] == '\0')
        return MR_ERROR(INVALID_ARGUMENT, "data.train is empty; it must name a file");
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

void mr_token_files_close(mr_token_files *files) {
    if (files == NULL)
        return;
    if (files->open_fd >= 0)
        (void)close(files->open_fd); /* read-only */
    for (size_t i = 0; i < files->count; i++)
        mr_free(files->files[i].path);
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
    files->open_fd = open(files->files[index].path, O_RDONLY | O_CLOEXEC);
    files->open_index = index;
    return files->open_fd >= 0 ? MR_OK : token_system_error(files->files[index].path, "open");
}

static mr_status token_files_convert(const token_file *file, uint64_t position,
                                     const unsigned char *bytes, size_t count, uint32_t vocab,
                                     int32_t *out) {
    for (size_t i = 0; i < count; i++) {
        uint32_t token = token_little_endian(bytes + i * file->width, file->width);
        if (token >= vocab)
            return MR_ERROR(INVALID_ARGUMENT,
                            "data.train: %s: token %llu is %u; the model's "
                            "vocabulary ends at %u",
                            mr_path_shorten(file->path).text, (unsigned long long)(position + i),
                            token, vocab - 1);
        out[i] = (int32_t)token;
    }
    return MR_OK;
}

/* Reads count tokens of one file from position on, in pieces. */
static mr_status token_files_read_piecewise(mr_token_files *files, const token_file *file,
                                            uint64_t position, size_t count, uint32_t vocab,
                                            int32_t *out) {
    unsigned char piece[TOKEN_PIECE_BYTES];
    size_t room = sizeof(piece) / file->width;
    for (size_t done = 0; done < count;) {
        size_t take = count - done < room ? count - done : room;
        MR_TRY(token_read_exact(files->open_fd, file->path, piece, take * file->width,
                                file->offset + (position + done) * file->width));
        MR_TRY(token_files_convert(file, position + done, piece, take, vocab, out + done));
        done += take;
    }
    return MR_OK;
}

mr_status mr_token_files_read(mr_token_files *files, uint64_t first, size_t count, uint32_t vocab,
                              int32_t *out) {
    MR_ASSERT(vocab >= 1 && vocab <= (uint32_t)INT32_MAX);
    if (first > files->tokens || count > files->tokens - first)
        return MR_ERROR(OUT_OF_RANGE, "tokens %llu to %llu of the data are wanted; it has %llu",
                        (unsigned long long)first, (unsigned long long)(first + count),
                        (unsigned long long)files->tokens);
    size_t index = token_files_locate(files, first);
    for (size_t done = 0; done < count; index++) {
        const token_file *file = &files->files[index];
        uint64_t position = first + done - file->first;
        uint64_t left = file->tokens - position;
        size_t take = count - done < left ? count - done : (size_t)left;
        MR_TRY(token_files_switch(files, index));
        MR_TRY(token_files_read_piecewise(files, file, position, take, vocab, out + done));
        done += take;
    }
    return MR_OK;
}
