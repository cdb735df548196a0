/* SPDX-License-Identifier: Apache-2.0 */
/* random.h: counter-based random numbers. A number is a pure function of (key, counter), so that
 * any element can be drawn by any thread, on any stage, in any order, with the same bits (law 1).
 * Philox 4x32 with 10 rounds, after Salmon et al., "Parallel random numbers: as easy as 1, 2, 3"
 * (SC 2011).
 * Owner: base. Thread: any; no state. */
#ifndef MR_BASE_RANDOM_H
#define MR_BASE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

/* What a stream of numbers is for; part of the key, so that streams never meet. */
typedef enum mr_random_use {
    MR_RANDOM_INIT = 1,    /* initial weights: index = (layer, parameter), element */
    MR_RANDOM_DROPOUT = 2, /* dropout masks: (step, microbatch, layer, site), element */
    MR_RANDOM_SHUFFLE = 3, /* the data permutation: epoch of the data */
    MR_RANDOM_SAMPLE = 4,  /* token sampling: position */
} mr_random_use;

typedef struct mr_random_key {
    uint32_t k[2];
    uint32_t stream[2]; /* upper half of the counter; the lower half counts blocks of four */
} mr_random_key;

/* The key of one stream: seed, its use, and up to three numbers that name it. */
mr_random_key mr_random_key_make(uint64_t seed, mr_random_use use, uint64_t a, uint64_t b,
                                 uint64_t c);
/* Block number block of the stream: four independent uniform 32-bit words. */
void mr_random_block(const mr_random_key *key, uint64_t block, uint32_t out[4]);
/* The word of element index: word index % 4 of block index / 4. */
uint32_t mr_random_word(const mr_random_key *key, uint64_t index);
/* Fills out[0..n) with normal(mean 0, given deviation) numbers, element first + i from the
 * stream's position first + i (Box-Muller in double precision, pairs of elements per block). */
void mr_random_normal(const mr_random_key *key, uint64_t first, size_t n, float deviation,
                      float *out);

#endif
