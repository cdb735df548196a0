/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a fuzz target survives its seed corpus and many small damages of it, in every test run
 * and under the sanitizers.
 * Method: each file named on the command line goes in as it is, cut at every length up to a
 * bound, and with bytes changed by a counted generator, so that a failure repeats. Linked with
 * one target's LLVMFuzzerTestOneInput. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SEED_BYTES_MAX = 1 << 16, CUTS_MAX = 512, CHANGES = 3000 };

/* The same numbers in every run (a linear congruential generator, upper bits used). */
static uint32_t next_word(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

/* A copy of exactly size bytes, so that a sanitizer sees a read past the end. */
static void run_copy(const uint8_t *data, size_t size) {
    uint8_t *copy = malloc(size == 0 ? 1 : size);
    if (copy == NULL)
        abort();
    memcpy(copy, data, size);
    (void)LLVMFuzzerTestOneInput(copy, size); /* always 0 */
    free(copy);
}

static void run_changed(const uint8_t *seed, size_t size, uint64_t *state) {
    uint8_t changed[SEED_BYTES_MAX];
    memcpy(changed, seed, size);
    uint32_t count = 1 + next_word(state) % 4;
    for (uint32_t i = 0; i < count; i++) {
        size_t at = next_word(state) % size;
        switch (next_word(state) % 4) {
        case 0:
            changed[at] ^= (uint8_t)(1u << (next_word(state) % 8));
            break;
        case 1:
            changed[at] = (uint8_t)next_word(state);
            break;
        case 2: /* a digit becomes another */
            changed[at] = (uint8_t)('0' + next_word(state) % 10);
            break;
        default: /* a piece is copied over another */
            memmove(changed + at, seed + next_word(state) % size / 2, (size - at) / 2);
            break;
        }
    }
    run_copy(changed, size);
}

static int run_file(const char *path) {
    static uint8_t seed[SEED_BYTES_MAX];
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        (void)fprintf(stderr, "cannot open %s\n", path);
        return 1;
    }
    size_t size = fread(seed, 1, sizeof(seed), file);
    (void)fclose(file); /* opened for reading */
    run_copy(seed, size);
    for (size_t cut = 0; cut < size && cut < CUTS_MAX; cut++)
        run_copy(seed, cut);
    uint64_t state = size;
    for (int i = 0; size > 0 && i < CHANGES; i++)
        run_changed(seed, size, &state);
    return 0;
}

int main(int argument_count, char **arguments) {
    int failed = argument_count < 2;
    for (int i = 1; i < argument_count; i++)
        failed |= run_file(arguments[i]);
    (void)printf("%d seeds\n", argument_count - 1);
    return failed;
}
