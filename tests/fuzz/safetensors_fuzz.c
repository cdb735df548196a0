/* SPDX-License-Identifier: Apache-2.0 */
/* safetensors_fuzz.c: any bytes at all go into the safetensors reader. What it accepts must be
 * consistent: tensors cover the data without a hole, each is found by its name, and every byte of
 * it can be read; what it says of a tensor's cut is refused, or reads back and moves every
 * element exactly once. Build with clang -fsanitize=fuzzer,address,undefined for a long run;
 * corpus_test.c drives the same entry point in the ordinary test run. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemon/checkpoint/safetensors.h"
#include "daemon/checkpoint/slice.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_tensor(const mr_safetensors_reader *reader, size_t index, size_t size) {
    const mr_safetensors_tensor *tensor = mr_safetensors_at(reader, index);
    uint64_t bytes = 0;
    MR_ASSERT(mr_status_is_ok(mr_safetensors_tensor_bytes(tensor, &bytes)));
    MR_ASSERT(bytes == tensor->end - tensor->begin);
    MR_ASSERT(bytes <= size);
    MR_ASSERT(index == 0 || mr_safetensors_at(reader, index - 1)->end == tensor->begin);
    MR_ASSERT(mr_safetensors_find(reader, tensor->name) == tensor);
    unsigned char *out = malloc((size_t)bytes + 1);
    MR_ASSERT(out != NULL);
    MR_ASSERT(mr_status_is_ok(mr_safetensors_load(reader, tensor, out)));
    free(out);
}

static mr_status count_elements(void *context, const mr_slice_move *move) {
    *(size_t *)context += move->rows * move->columns;
    return MR_OK;
}

/* All shards of a width together have every element once, out of any other width. */
static void check_moves(const mr_parameter *cut, size_t from, size_t to) {
    size_t whole = 0;
    MR_ASSERT(mr_shape_elements(&cut->whole, &whole));
    for (size_t rank = 0; rank < to; rank++) {
        mr_shard shard;
        size_t wanted = 0;
        size_t moved = 0;
        if (!mr_status_is_ok(mr_shard_make(cut, rank, to, &shard)))
            return; /* fewer blocks than ranks */
        MR_ASSERT(mr_shape_elements(&shard.shape, &wanted));
        mr_status status = mr_slice_moves(cut, from, cut, rank, to, count_elements, &moved);
        MR_ASSERT(!mr_status_is_ok(status) || moved == wanted);
        MR_ASSERT(wanted <= whole);
    }
}

static void check_cut(const mr_safetensors_reader *reader, const mr_safetensors_tensor *tensor) {
    char key[sizeof(MR_SAFETENSORS_CUT_PREFIX) + MR_SAFETENSORS_NAME_BYTES_MAX];
    char again[MR_SLICE_TEXT_BYTES];
    mr_parameter cut;
    mr_parameter second;
    (void)snprintf(key, sizeof(key), MR_SAFETENSORS_CUT_PREFIX "%s", tensor->name);
    const char *text = mr_safetensors_metadata(reader, key);
    if (text == NULL || !mr_status_is_ok(mr_slice_parse(text, tensor->name, tensor->dims,
                                                        tensor->shape, &cut)))
        return;
    mr_slice_text(&cut, again);
    MR_ASSERT(mr_status_is_ok(
        mr_slice_parse(again, tensor->name, tensor->dims, tensor->shape, &second)));
    MR_ASSERT(mr_shape_equal(&cut.whole, &second.whole));
    for (size_t from = 1; from <= 3; from++)
        for (size_t to = 1; to <= 3; to++)
            check_moves(&cut, from, to);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    mr_safetensors_reader *reader = NULL;
    mr_status status = mr_safetensors_open_memory(data, size, "input", &reader);
    if (!mr_status_is_ok(status)) {
        MR_ASSERT(reader == NULL);
        MR_ASSERT(status.code == MR_CODE_DATA_LOSS);
        return 0;
    }
    for (size_t i = 0; i < mr_safetensors_count(reader); i++)
        check_tensor(reader, i, size);
    for (size_t i = 0; i < mr_safetensors_count(reader); i++)
        check_cut(reader, mr_safetensors_at(reader, i));
    (void)mr_safetensors_metadata(reader, "format");
    mr_safetensors_close(reader);
    return 0;
}
