/* SPDX-License-Identifier: Apache-2.0 */
/* safetensors_fuzz.c: any bytes at all go into the safetensors reader. What it accepts must be
 * consistent: tensors cover the data without a hole, each is found by its name, and every byte of
 * it can be read. Build with clang -fsanitize=fuzzer,address,undefined for a long run;
 * corpus_test.c drives the same entry point in the ordinary test run. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "daemon/checkpoint/safetensors.h"

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
    (void)mr_safetensors_metadata(reader, "format");
    mr_safetensors_close(reader);
    return 0;
}
