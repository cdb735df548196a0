/* SPDX-License-Identifier: Apache-2.0 */
/* token_megatron.c: the .idx file of a Megatron indexed dataset, little-endian:
 *     "MMIDIDX\0\0", u64 version 1, u8 type of the tokens, u64 sequences, u64 documents + 1,
 *     i32 length of each sequence, i64 its first byte in the .bin,
 *     i64 first sequence of each document and, last, the number of sequences,
 *     perhaps i8 mode of each sequence
 * The tables are read in pieces: they may be larger than memory. */
#include <string.h>
#include <unistd.h>

#include "client/path_text.h"
#include "client/token_layout_parts.h"
#include "client/token_read.h"

enum {
    MEGATRON_HEADER_BYTES = 34,
    MEGATRON_VERSION = 1,
    MEGATRON_PIECE = 1024, /* entries read at once */
    MEGATRON_ENTRY_BYTES = 12, /* length and first byte of a sequence */
};

/* Bytes of a token and its sign, by the type's number; 0: no whole number. */
static const struct {
    uint32_t width;
    bool is_signed;
} megatron_types[] = {{0, false}, {1, false}, {1, true}, {2, true}, {4, true},
                      {8, true},  {0, false}, {0, false}, {2, false}};

/* An index that is being read. */
typedef struct megatron_index {
    int fd;
    const char *path;
    uint64_t size;
    uint64_t sequences;
    uint64_t documents; /* entries of the table: one more than there are documents */
} megatron_index;

static mr_status megatron_read_header(megatron_index *index, mr_token_layout *layout) {
    unsigned char header[MEGATRON_HEADER_BYTES];
    const char *path = index->path;
    if (index->size < sizeof(header))
        return MR_ERROR(INVALID_ARGUMENT,
                        "%s: size is %llu bytes; an index has a header of %d bytes",
                        mr_path_shorten(path).text, (unsigned long long)index->size,
                        (int)MEGATRON_HEADER_BYTES);
    MR_TRY(mr_token_read_exact(index->fd, path, header, sizeof(header), 0));
    if (memcmp(header, "MMIDIDX\0\0", 9) != 0)
        return MR_ERROR(INVALID_ARGUMENT, "%s: magic is not MMIDIDX; it is no Megatron index",
                        mr_path_shorten(path).text);
    uint64_t version = mr_token_read_number(header + 9, 8);
    if (version != MEGATRON_VERSION)
        return MR_ERROR(INVALID_ARGUMENT, "%s: version is %llu; it must be %d",
                        mr_path_shorten(path).text, (unsigned long long)version, MEGATRON_VERSION);
    unsigned type = header[17];
    if (type >= sizeof(megatron_types) / sizeof(megatron_types[0]) ||
        megatron_types[type].width == 0)
        return MR_ERROR(INVALID_ARGUMENT,
                        "%s: dtype is %u; it must be 1 (uint8), 2 (int8), 3 (int16), 4 (int32), 5 "
                        "(int64) or 8 (uint16)",
                        mr_path_shorten(path).text, type);
    index->sequences = mr_token_read_number(header + 18, 8);
    index->documents = mr_token_read_number(header + 26, 8);
    layout->version = MEGATRON_VERSION;
    layout->width = megatron_types[type].width;
    layout->is_signed = megatron_types[type].is_signed;
    return MR_OK;
}

/* Do the tables, and perhaps the modes, fill the file? */
static mr_status megatron_check_size(const megatron_index *index) {
    const uint64_t most = index->size / MEGATRON_ENTRY_BYTES;
    if (index->sequences == 0 || index->sequences > most)
        return MR_ERROR(INVALID_ARGUMENT,
                        "%s: sequence count is %llu; %llu bytes have room for 1 to %llu",
                        mr_path_shorten(index->path).text, (unsigned long long)index->sequences,
                        (unsigned long long)index->size, (unsigned long long)most);
    if (index->documents < 2 || index->documents > index->sequences + 1)
        return MR_ERROR(INVALID_ARGUMENT,
                        "%s: document count is %llu; with %llu sequences it must be 2 to %llu",
                        mr_path_shorten(index->path).text, (unsigned long long)index->documents,
                        (unsigned long long)index->sequences,
                        (unsigned long long)index->sequences + 1);
    uint64_t right = MEGATRON_HEADER_BYTES + index->sequences * MEGATRON_ENTRY_BYTES +
                     index->documents * 8;
    if (index->size != right && index->size != right + index->sequences)
        return MR_ERROR(INVALID_ARGUMENT,
                        "%s: size is %llu bytes; %llu sequences and %llu documents need %llu, or "
                        "%llu with modes",
                        mr_path_shorten(index->path).text, (unsigned long long)index->size,
                        (unsigned long long)index->sequences, (unsigned long long)index->documents,
                        (unsigned long long)right, (unsigned long long)(right + index->sequences));
    return MR_OK;
}

/* Sequences number first on, as many as a piece has: each begins where the last ended. */
static mr_status megatron_check_piece(const megatron_index *index, uint64_t first, size_t count,
                                      uint32_t width, uint64_t *end) {
    unsigned char lengths[MEGATRON_PIECE * 4];
    unsigned char starts[MEGATRON_PIECE * 8];
    uint64_t lengths_at = MEGATRON_HEADER_BYTES + first * 4;
    uint64_t starts_at = MEGATRON_HEADER_BYTES + index->sequences * 4 + first * 8;
    MR_TRY(mr_token_read_exact(index->fd, index->path, lengths, count * 4, lengths_at));
    MR_TRY(mr_token_read_exact(index->fd, index->path, starts, count * 8, starts_at));
    for (size_t i = 0; i < count; i++) {
        int64_t length = mr_token_read_signed(lengths + i * 4, 4);
        int64_t start = mr_token_read_signed(starts + i * 8, 8);
        if (length < 0)
            return MR_ERROR(INVALID_ARGUMENT, "%s: length[%llu] is %lld; it must be at least 0",
                            mr_path_shorten(index->path).text, (unsigned long long)(first + i),
                            (long long)length);
        if (start < 0 || (uint64_t)start != *end)
            return MR_ERROR(INVALID_ARGUMENT,
                            "%s: byte_ptr[%llu] is %lld; it must be %llu, where the sequence "
                            "before ends",
                            mr_path_shorten(index->path).text, (unsigned long long)(first + i),
                            (long long)start, (unsigned long long)*end);
        *end += (uint64_t)length * width;
    }
    return MR_OK;
}

static mr_status megatron_check_sequences(const megatron_index *index,
                                          const mr_token_layout *layout) {
    uint64_t end = 0;
    for (uint64_t first = 0; first < index->sequences;) {
        uint64_t left = index->sequences - first;
        size_t count = left < MEGATRON_PIECE ? (size_t)left : MEGATRON_PIECE;
        MR_TRY(megatron_check_piece(index, first, count, layout->width, &end));
        first += count;
    }
    if (end != layout->bytes)
        return MR_ERROR(INVALID_ARGUMENT,
                        "%s: size is %llu bytes; the sequences of its index end at %llu",
                        mr_path_shorten(layout->path).text, (unsigned long long)layout->bytes,
                        (unsigned long long)end);
    return MR_OK;
}

/* Documents begin with sequence 0, go up and end with the last sequence. */
static mr_status megatron_check_documents(const megatron_index *index) {
    unsigned char entries[MEGATRON_PIECE * 8];
    const uint64_t table = MEGATRON_HEADER_BYTES + index->sequences * MEGATRON_ENTRY_BYTES;
    int64_t before = 0;
    for (uint64_t first = 0; first < index->documents; first += MEGATRON_PIECE) {
        uint64_t left = index->documents - first;
        size_t count = left < MEGATRON_PIECE ? (size_t)left : MEGATRON_PIECE;
        MR_TRY(mr_token_read_exact(index->fd, index->path, entries, count * 8, table + first * 8));
        for (size_t i = 0; i < count; i++) {
            int64_t sequence = mr_token_read_signed(entries + i * 8, 8);
            bool last = first + i + 1 == index->documents;
            int64_t least = last ? (int64_t)index->sequences : before;
            int64_t most = first + i == 0 ? 0 : (int64_t)index->sequences;
            if (sequence < least || sequence > most)
                return MR_ERROR(INVALID_ARGUMENT,
                                "%s: document[%llu] is %lld; it must be %lld to %lld",
                                mr_path_shorten(index->path).text, (unsigned long long)(first + i),
                                (long long)sequence, (long long)least, (long long)most);
            before = sequence;
        }
    }
    return MR_OK;
}

mr_status mr_token_megatron_read(const char *index_path, mr_token_layout *layout) {
    megatron_index index = {.fd = -1, .path = index_path};
    MR_TRY(mr_token_read_open(index_path, &index.fd, &index.size));
    mr_status status = megatron_read_header(&index, layout);
    if (mr_status_is_ok(status))
        status = megatron_check_size(&index);
    if (mr_status_is_ok(status))
        status = megatron_check_sequences(&index, layout);
    if (mr_status_is_ok(status))
        status = megatron_check_documents(&index);
    (void)close(index.fd); /* read-only */
    MR_TRY(status);
    layout->tokens = layout->bytes / layout->width;
    layout->sequences = index.sequences;
    layout->documents = index.documents - 1;
    return MR_OK;
}
