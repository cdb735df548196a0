/* SPDX-License-Identifier: Apache-2.0 */
/* mask.h: dropout masks in vectors: the words of base/random.h's generator, V_LANES / 2 blocks of
 * four at once, turned into factors 0 or 1/(1 - p).
 * Owner: device/cpu/kernels; not for others. */
#ifndef MR_DEVICE_CPU_KERNELS_MASK_H
#define MR_DEVICE_CPU_KERNELS_MASK_H

#include <math.h>

#include "daemon/device/cpu/kernels/kernels.h"
#include "daemon/device/cpu/kernels/vector.h"

enum {
    MASK_CHUNK = 256,                /* elements asked for at once, at most */
    MASK_STEP = V_LANES * 2,         /* words made in one round */
    MASK_FLOATS = MASK_CHUNK + MASK_STEP + V_LANES,
};

V_INLINE bool mask_is_needed(const mr_dropout *dropout) {
    return dropout != NULL && dropout->probability > 0.0f;
}

/* Ten rounds on counters block, block + 1, ..., one per 64-bit lane; c[k] is word k of each. */
V_INLINE void mask_words(const mr_random_key *key, uint64_t block, vw c[4]) {
    vw count = {0};
    for (size_t i = 0; i < V_LANES / 2; i++)
        count[i] = block + i;
    c[0] = count & 0xffffffffu;
    c[1] = count >> 32;
    c[2] = (vw){0} + key->stream[0];
    c[3] = (vw){0} + key->stream[1];
    uint32_t k0 = key->k[0];
    uint32_t k1 = key->k[1];
    const vw m0 = (vw){0} + 0xd2511f53u;
    const vw m1 = (vw){0} + 0xcd9e8d57u;
    for (int round = 0; round < 10; round++) {
        vw p0 = v_mul_low(m0, c[0]);
        vw p1 = v_mul_low(m1, c[2]);
        c[0] = (p1 >> 32) ^ c[1] ^ (uint64_t)k0;
        c[1] = p1 & 0xffffffffu;
        c[2] = (p0 >> 32) ^ c[3] ^ (uint64_t)k1;
        c[3] = p0 & 0xffffffffu;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
}

/* Factors of elements [first, first + n), n <= MASK_CHUNK, written into buffer [MASK_FLOATS];
 * returns where the first of them is. */
V_INLINE const float *mask_fill(const mr_dropout *dropout, uint64_t first, size_t n,
                                float *buffer) {
    double bound = ceil((double)dropout->probability * 4294967296.0);
    uint32_t threshold = bound >= 4294967295.0 ? 0xffffffffu : (uint32_t)bound;
    vf factor = v_set(1.0f / (1.0f - dropout->probability));
    size_t skip = (size_t)(first % 4);
    uint64_t block = first / 4;
    for (size_t i = 0; i < skip + n; i += MASK_STEP, block += V_LANES / 2) {
        vw c[4];
        mask_words(&dropout->key, block, c);
        union {
            uint64_t pairs[V_LANES];
            float factors[MASK_STEP];
            vu words[2];
        } out;
        vw low = c[0] | c[1] << 32;
        vw high = c[2] | c[3] << 32;
        for (size_t lane = 0; lane < V_LANES / 2; lane++) {
            out.pairs[2 * lane] = low[lane];
            out.pairs[2 * lane + 1] = high[lane];
        }
        for (int half = 0; half < 2; half++) {
            vu word = out.words[half];
            v_store(buffer + i + (size_t)half * V_LANES,
                    v_select((vi)(word >= threshold), factor, v_set(0.0f)));
        }
    }
    return buffer + skip;
}

#endif
