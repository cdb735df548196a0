/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/observe/tensorboard.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/base/alloc.h"
#include "daemon/base/crc32c.h"

enum {
    BOARD_PATH_BYTES = 1280,
    BOARD_HOST_BYTES = 65,
    BOARD_RECORD_HEAD = 12, /* length and its checksum */
    BOARD_RECORD_TAIL = 4,
    /* A scalar: its tag's and its value's fields, and the lengths around them. */
    BOARD_SCALAR_BYTES = MR_NAME_BYTES + 24,
    BOARD_EVENT_BYTES = MR_TENSORBOARD_SCALARS_MAX * BOARD_SCALAR_BYTES + 64,
    BOARD_BUFFER_BYTES = 64 << 10,
    BOARD_NAMES_MAX = 1000, /* tried for a new file */
};

/* Fields of Event, Summary, Summary.Value and SessionLog. */
enum {
    EVENT_WALL_TIME = 1,
    EVENT_STEP = 2,
    EVENT_FILE_VERSION = 3,
    EVENT_SUMMARY = 5,
    EVENT_SESSION_LOG = 7,
    SUMMARY_VALUE = 1,
    VALUE_TAG = 1,
    VALUE_SIMPLE = 2,
    SESSION_STATUS = 1,
    SESSION_START = 1,
};

enum { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

static_assert((int)BOARD_BUFFER_BYTES >
                  (int)BOARD_EVENT_BYTES + (int)BOARD_RECORD_HEAD + (int)BOARD_RECORD_TAIL,
              "an event fits the empty buffer");

struct mr_tensorboard {
    int fd;
    char path[BOARD_PATH_BYTES];
    size_t used;
    unsigned char buffer[BOARD_BUFFER_BYTES];
};

/* A message under construction; its size is known to fit. */
typedef struct board_message {
    unsigned char bytes[BOARD_EVENT_BYTES];
    size_t used;
} board_message;

/* ---- protocol buffers ---- */

static void message_byte(board_message *message, unsigned byte) {
    MR_ASSERT(message->used < sizeof(message->bytes));
    message->bytes[message->used++] = (unsigned char)byte;
}

static void message_varint(board_message *message, uint64_t value) {
    for (; value >= 0x80; value >>= 7)
        message_byte(message, (unsigned)(value & 0x7f) | 0x80);
    message_byte(message, (unsigned)value);
}

static void message_key(board_message *message, unsigned field, unsigned wire) {
    message_varint(message, field << 3 | wire);
}

static void message_little(board_message *message, uint64_t value, size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        message_byte(message, (unsigned)(value >> (8 * i)) & 0xff);
}

static void message_double(board_message *message, unsigned field, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof(bits));
    message_key(message, field, WIRE_FIXED64);
    message_little(message, bits, sizeof(bits));
}

static void message_float(board_message *message, unsigned field, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    message_key(message, field, WIRE_FIXED32);
    message_little(message, bits, sizeof(bits));
}

static void message_integer(board_message *message, unsigned field, uint64_t value) {
    message_key(message, field, WIRE_VARINT);
    message_varint(message, value);
}

static void message_bytes(board_message *message, unsigned field, const void *bytes,
                          size_t count) {
    message_key(message, field, WIRE_BYTES);
    message_varint(message, count);
    MR_ASSERT(count <= sizeof(message->bytes) - message->used);
    memcpy(message->bytes + message->used, bytes, count);
    message->used += count;
}

static void message_scalar(board_message *summary, const mr_tensorboard_scalar *scalar) {
    board_message value = {.used = 0};
    size_t tag_bytes = strlen(scalar->tag);
    MR_ASSERT(tag_bytes < MR_NAME_BYTES);
    message_bytes(&value, VALUE_TAG, scalar->tag, tag_bytes);
    message_float(&value, VALUE_SIMPLE, scalar->value);
    message_bytes(summary, SUMMARY_VALUE, value.bytes, value.used);
}

/* ---- records ---- */

static void little_put(unsigned char *out, uint64_t value, size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        out[i] = (unsigned char)(value >> (8 * i));
}

/* The format's checksum: turned and shifted, so that a checksum of bytes that hold one is good. */
static uint32_t board_crc(const void *data, size_t bytes) {
    uint32_t crc = mr_crc32c(0, data, bytes);
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

static mr_status board_error(const mr_tensorboard *board, const char *what, int error) {
    if (error == ENOSPC || error == EDQUOT)
        return MR_ERROR(RESOURCE_EXHAUSTED, "%s %.60s: %s", what, board->path, strerror(error));
    return MR_ERROR(INTERNAL, "%s %.60s: %s", what, board->path, strerror(error));
}

mr_status mr_tensorboard_flush(mr_tensorboard *board) {
    size_t done = 0;
    while (done < board->used) {
        ssize_t written = write(board->fd, board->buffer + done, board->used - done);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return board_error(board, "cannot write", written < 0 ? errno : EIO);
        done += (size_t)written;
    }
    board->used = 0;
    return MR_OK;
}

static mr_status board_record(mr_tensorboard *board, const board_message *message) {
    size_t bytes = BOARD_RECORD_HEAD + message->used + BOARD_RECORD_TAIL;
    if (bytes > sizeof(board->buffer) - board->used)
        MR_TRY(mr_tensorboard_flush(board));
    unsigned char *at = board->buffer + board->used;
    little_put(at, message->used, 8);
    little_put(at + 8, board_crc(at, 8), 4);
    memcpy(at + BOARD_RECORD_HEAD, message->bytes, message->used);
    little_put(at + BOARD_RECORD_HEAD + message->used, board_crc(message->bytes, message->used), 4);
    board->used += bytes;
    return MR_OK;
}

/* ---- the file ---- */

/* mkdir -p. */
static mr_status board_make_folder(const char *directory) {
    char path[BOARD_PATH_BYTES];
    size_t bytes = strlen(directory);
    if (bytes >= sizeof(path))
        return MR_ERROR(INVALID_ARGUMENT, "a path has %zu bytes; it may have at most %zu", bytes,
                        sizeof(path) - 1);
    memcpy(path, directory, bytes + 1);
    for (size_t i = 1; i <= bytes; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        path[i] = '\0';
        int error = mkdir(path, 0777) == 0 || errno == EEXIST ? 0 : errno;
        if (error == EACCES || error == EROFS)
            return MR_ERROR(PERMISSION_DENIED, "cannot make folder %.70s: %s", path,
                            strerror(error));
        if (error != 0)
            return MR_ERROR(NOT_FOUND, "cannot make folder %.70s: %s", path, strerror(error));
        path[i] = directory[i];
    }
    return MR_OK;
}

/* The name that TensorBoard looks for. Names are read sorted: within one second and process the
 * microseconds of the first point keep the order of jobs, whichever file is made first. */
static mr_status board_make_file(mr_tensorboard *board, const char *directory,
                                 double wall_seconds) {
    char host[BOARD_HOST_BYTES] = "localhost";
    (void)gethostname(host, sizeof(host) - 1); /* only part of a name */
    long long seconds = (long long)wall_seconds;
    unsigned micros = (unsigned)((wall_seconds - (double)seconds) * 1e6);
    for (unsigned i = 0; i < BOARD_NAMES_MAX; i++) {
        int bytes =
            snprintf(board->path, sizeof(board->path), "%s/events.out.tfevents.%010lld.%s.%d.%07u",
                     directory, seconds, host, (int)getpid(), micros + i);
        if (bytes < 0 || (size_t)bytes >= sizeof(board->path))
            return MR_ERROR(INVALID_ARGUMENT, "the folder's path of %zu bytes is too long",
                            strlen(directory));
        board->fd = open(board->path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666);
        if (board->fd >= 0)
            return MR_OK;
        if (errno == EACCES || errno == EROFS)
            return MR_ERROR(PERMISSION_DENIED, "cannot make %.70s: %s", board->path,
                            strerror(errno));
        if (errno != EEXIST)
            return board_error(board, "cannot make", errno);
    }
    return MR_ERROR(RESOURCE_EXHAUSTED, "%d names of event files in %.60s are taken",
                    BOARD_NAMES_MAX, directory);
}

static mr_status board_begin(mr_tensorboard *board, double wall_seconds, uint64_t first_step) {
    static const char version[] = "brain.Event:2";
    board_message head = {.used = 0};
    message_double(&head, EVENT_WALL_TIME, wall_seconds);
    message_bytes(&head, EVENT_FILE_VERSION, version, sizeof(version) - 1);
    MR_TRY(board_record(board, &head));
    board_message log = {.used = 0};
    board_message start = {.used = 0};
    message_integer(&log, SESSION_STATUS, SESSION_START);
    message_double(&start, EVENT_WALL_TIME, wall_seconds);
    message_integer(&start, EVENT_STEP, first_step);
    message_bytes(&start, EVENT_SESSION_LOG, log.bytes, log.used);
    return board_record(board, &start);
}

mr_status mr_tensorboard_open(const char *directory, double wall_seconds, uint64_t first_step,
                              mr_tensorboard **out_board) {
    MR_TRY(board_make_folder(directory));
    mr_tensorboard *board = mr_alloc(sizeof(*board));
    if (board == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for an event file");
    board->fd = -1;
    mr_status status = board_make_file(board, directory, wall_seconds);
    if (mr_status_is_ok(status))
        status = board_begin(board, wall_seconds, first_step);
    if (!mr_status_is_ok(status)) {
        mr_tensorboard_close(board);
        return status;
    }
    *out_board = board;
    return MR_OK;
}

const char *mr_tensorboard_path(const mr_tensorboard *board) {
    return board->path;
}

mr_status mr_tensorboard_add(mr_tensorboard *board, double wall_seconds, uint64_t step,
                             const mr_tensorboard_scalar *scalars, size_t scalar_count) {
    board_message event = {.used = 0};
    board_message summary = {.used = 0};
    MR_ASSERT(scalar_count <= MR_TENSORBOARD_SCALARS_MAX);
    for (size_t i = 0; i < scalar_count; i++)
        message_scalar(&summary, &scalars[i]);
    message_double(&event, EVENT_WALL_TIME, wall_seconds);
    message_integer(&event, EVENT_STEP, step);
    message_bytes(&event, EVENT_SUMMARY, summary.bytes, summary.used);
    return board_record(board, &event);
}

void mr_tensorboard_close(mr_tensorboard *board) {
    if (board == NULL)
        return;
    if (board->fd >= 0)
        (void)close(board->fd); /* whatever it says, nothing more can be done */
    mr_free(board);
}
