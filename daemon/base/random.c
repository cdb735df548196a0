/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/base/random.h"

#include <math.h>

/* Finaliser of splitmix64: spreads every input bit over the word. */
static uint64_t random_mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

mr_random_key mr_random_key_make(uint64_t seed, mr_random_use use, uint64_t a, uint64_t b,
                                 uint64_t c) {
    uint64_t key = random_mix(random_mix(seed) ^ ((uint64_t)use << 56) ^ a);
    uint64_t stream = random_mix(random_mix(key ^ b) ^ c);
    return (mr_random_key){
        .k = {(uint32_t)key, (uint32_t)(key >> 32)},
        .stream = {(uint32_t)stream, (uint32_t)(stream >> 32)},
    };
}

void mr_random_block(const mr_random_key *key, uint64_t block, uint32_t out[4]) {
    uint32_t c0 = (uint32_t)block;
    uint32_t c1 = (uint32_t)(block >> 32);
    uint32_t c2 = key->stream[0];
    uint32_t c3 = key->stream[1];
    uint32_t k0 = key->k[0];
    uint32_t k1 = key->k[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xd2511f53u * c0;
        uint64_t p1 = (uint64_t)0xcd9e8d57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

uint32_t mr_random_word(const mr_random_key *key, uint64_t index) {
    uint32_t block[4];
    mr_random_block(key, index / 4, block);
    return block[index % 4];
}

/* Two normal numbers from two words (Box and Muller 1958). The half added keeps u in (0, 1). */
static void random_normal_pair(uint32_t a, uint32_t b, double out[2]) {
    const double scale = 1.0 / 4294967296.0;
    const double two_pi = 6.283185307179586476925;
    double radius = sqrt(-2.0 * log(((double)a + 0.5) * scale));
    double angle = two_pi * (((double)b + 0.5) * scale);
    out[0] = radius * cos(angle);
    out[1] = radius * sin(angle);
}

void mr_random_normal(const mr_random_key *key, uint64_t first, size_t n, float deviation,
                      float *out) {
    uint64_t end = first + n;
    for (uint64_t block = first / 4; block * 4 < end; block++) {
        uint32_t words[4];
        double normal[4];
        mr_random_block(key, block, words);
        random_normal_pair(words[0], words[1], normal);
        random_normal_pair(words[2], words[3], normal + 2);
        for (uint64_t i = 0; i < 4; i++) {
            uint64_t element = block * 4 + i;
            if (element >= first && element < end)
                out[element - first] = (float)(normal[i] * (double)deviation);
        }
    }
}
