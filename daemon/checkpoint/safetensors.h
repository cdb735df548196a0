/* SPDX-License-Identifier: Apache-2.0 */
/* safetensors.h: one file of named tensors, written once and checked whole when opened.
 * Format: 8 bytes little-endian header length, a JSON object padded with spaces to a multiple of 8,
 * then the tensors' bytes, little-endian, C order, packed without a hole up to the file's end.
 *
 * Writing: the file appears under its name only when every byte is on the disk: temporary name,
 * write, fsync, rename, fsync of the folder. The SHA-256 of the whole file is computed on the way.
 * Reading: nothing of the header is believed before it is checked; errors are DATA_LOSS with one of
 *   E_CKPT_TRUNC want=N have=N   the file is shorter than its header says
 *   E_CKPT_HDR                   length, JSON or an entry's form
 *   E_CKPT_LAYOUT                hole, overlap, reversed, size against shape, bytes left over
 *   E_CKPT_DTYPE                 unknown, or not the wanted one
 *   E_CKPT_SHAPE                 not the wanted one
 *   E_CKPT_DUP                   a name twice
 *   E_CKPT_OVERFLOW              a size that does not fit 64 bits
 *   E_CKPT_MISSING               no such tensor
 * and PERMISSION_DENIED "E_CKPT_FILE reason=symlink|type" for what is not a plain file.
 * Owner: checkpoint. Thread: one at a time per object (DISK in a daemon).
 * Limits: MR_SAFETENSORS_*, MR_TENSOR_DIMS_MAX.
 * Not here: what a checkpoint consists of (manifest.h); any interpretation of the numbers. */
#ifndef MR_CHECKPOINT_SAFETENSORS_H
#define MR_CHECKPOINT_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/base/limits.h"
#include "daemon/base/status.h"
#include "daemon/checkpoint/layout.h"

/* The types of the format that Millrace stores or imports: name in the file, bytes. */
#define MR_SAFETENSORS_DTYPES(X)                                                                   \
    X(F32, 4)                                                                                      \
    X(BF16, 2)                                                                                     \
    X(F16, 2)                                                                                      \
    X(I32, 4)                                                                                      \
    X(I64, 8)                                                                                      \
    X(U8, 1)                                                                                       \
    X(F64, 8)                                                                                      \
    X(I8, 1)                                                                                       \
    X(I16, 2)                                                                                      \
    X(U16, 2)                                                                                      \
    X(U32, 4)                                                                                      \
    X(U64, 8)                                                                                      \
    X(BOOL, 1)

typedef enum mr_safetensors_dtype {
#define MR_SAFETENSORS_ENUM(name, bytes) MR_SAFETENSORS_##name,
    MR_SAFETENSORS_DTYPES(MR_SAFETENSORS_ENUM)
#undef MR_SAFETENSORS_ENUM
        MR_SAFETENSORS_DTYPE_COUNT
} mr_safetensors_dtype;

/* "F32"; bytes of one element. */
const char *mr_safetensors_dtype_name(mr_safetensors_dtype dtype);
size_t mr_safetensors_dtype_bytes(mr_safetensors_dtype dtype);

/* Metadata key of how tensor NAME is cut over model ranks: the prefix and the name. */
#define MR_SAFETENSORS_CUT_PREFIX "cut."

/* One tensor. Writing: name and cut are borrowed, data is host memory of the tensor's size (NULL is
 * fine where the bytes are appended by hand, and for a tensor without elements); cut (NULL: nothing
 * is said) goes to the metadata under "cut.NAME", see slice.h. Reading: name lives as long as the
 * reader, data and cut are NULL; the offsets are relative to the first data byte.
 * dims 0 is one element. */
typedef struct mr_safetensors_tensor {
    const char *name;
    mr_safetensors_dtype dtype;
    uint32_t dims;
    uint64_t shape[MR_TENSOR_DIMS_MAX];
    const void *data;
    const char *cut;
    uint64_t begin;
    uint64_t end;
} mr_safetensors_tensor;

/* Bytes of a tensor from its dtype and shape; INVALID_ARGUMENT "E_CKPT_OVERFLOW". */
MR_MUST_CHECK mr_status mr_safetensors_tensor_bytes(const mr_safetensors_tensor *tensor,
                                                    uint64_t *out_bytes);

/* ---- writing ---- */

/* Writes folder/name with these tensors in this order (list wide dtypes first to keep them
 * aligned). folder and what is missing above it are made (mode 0700); a file of that name is
 * replaced. On success *out_file is what the manifest wants. On an error no file of that name
 * appeared (or, in the folder's own fsync, it may not stay) and the temporary one is gone. Only a
 * process that died leaves a `.tmp-*`, which is never read.
 * INVALID_ARGUMENT: a name twice or not printable, a limit passed. RESOURCE_EXHAUSTED: no space.
 * PERMISSION_DENIED, DATA_LOSS (EIO), UNAVAILABLE: path and strerror. A failed fsync is final. */
MR_MUST_CHECK mr_status mr_safetensors_write(const char *folder, const char *name,
                                             const mr_safetensors_tensor *tensors, size_t count,
                                             mr_checkpoint_file *out_file);

/* The same in pieces, for tensors whose bytes come from a device: open writes the header, append
 * takes the data of all tensors in list order in any cuts, finish makes the file appear. */
typedef struct mr_safetensors_writer mr_safetensors_writer;
MR_MUST_CHECK mr_status mr_safetensors_writer_open(const char *folder, const char *name,
                                                   const mr_safetensors_tensor *tensors,
                                                   size_t count,
                                                   mr_safetensors_writer **out_writer);
/* OUT_OF_RANGE: more bytes than the tensors have. After an error only close is left. */
MR_MUST_CHECK mr_status mr_safetensors_writer_append(mr_safetensors_writer *writer,
                                                     const void *data, size_t bytes);
/* FAILED_PRECONDITION: bytes are missing. */
MR_MUST_CHECK mr_status mr_safetensors_writer_finish(mr_safetensors_writer *writer,
                                                     mr_checkpoint_file *out_file);
/* Frees; removes the temporary file where finish did not succeed. NULL is fine. */
void mr_safetensors_writer_close(mr_safetensors_writer *writer);

/* ---- reading ---- */

typedef struct mr_safetensors_reader mr_safetensors_reader;

/* Opens path (a symlink is refused) and checks the whole header against the file's size.
 * NOT_FOUND, PERMISSION_DENIED, DATA_LOSS as above. */
MR_MUST_CHECK mr_status mr_safetensors_open(const char *path, mr_safetensors_reader **out_reader);
/* The same over an open plain file; owned_fd is consumed in every outcome. label names the file in
 * errors; copied. */
MR_MUST_CHECK mr_status mr_safetensors_open_fd(int owned_fd, const char *label,
                                               mr_safetensors_reader **out_reader);
/* The same over memory, borrowed until close. */
MR_MUST_CHECK mr_status mr_safetensors_open_memory(const void *bytes, size_t size,
                                                   const char *label,
                                                   mr_safetensors_reader **out_reader);
void mr_safetensors_close(mr_safetensors_reader *reader);

/* Tensors in the order of their bytes in the file; index < count. Borrowed from the reader. */
size_t mr_safetensors_count(const mr_safetensors_reader *reader);
const mr_safetensors_tensor *mr_safetensors_at(const mr_safetensors_reader *reader, size_t index);
/* By name; NULL where there is none. */
const mr_safetensors_tensor *mr_safetensors_find(const mr_safetensors_reader *reader,
                                                 const char *name);
/* A string of __metadata__; NULL where there is none. */
const char *mr_safetensors_metadata(const mr_safetensors_reader *reader, const char *key);

/* Reads bytes from offset of the tensor's data into out. OUT_OF_RANGE past its end. */
MR_MUST_CHECK mr_status mr_safetensors_read(const mr_safetensors_reader *reader,
                                            const mr_safetensors_tensor *tensor, uint64_t offset,
                                            void *out, size_t bytes);
/* The tensor wanted->name, which must have exactly wanted's dtype and shape; borrowed from the
 * reader. DATA_LOSS E_CKPT_MISSING, E_CKPT_DTYPE, E_CKPT_SHAPE. */
MR_MUST_CHECK mr_status mr_safetensors_expect(const mr_safetensors_reader *reader,
                                              const mr_safetensors_tensor *wanted,
                                              const mr_safetensors_tensor **out_tensor);
/* Reads it whole into out (as many bytes as wanted has). */
MR_MUST_CHECK mr_status mr_safetensors_load(const mr_safetensors_reader *reader,
                                            const mr_safetensors_tensor *wanted, void *out);

#endif
