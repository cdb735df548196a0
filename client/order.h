/* SPDX-License-Identifier: Apache-2.0 */
/* order.h: which sample of a data set row b of microbatch m of replica d takes at step s: a pure
 * function, so that a resumed run, another stage count or an outsider's script reads the same text.
 *
 * Position. n = ((s D + d) M + m) B + b counts the rows of the whole run. With N whole samples the
 * data's epoch is e = n / N and the position in it p = n mod N. Without shuffling sample p is
 * taken.
 *
 * Shuffling. Sample P(p) is taken, where P is a permutation of [0, N) made for (seed, e): a
 * balanced Feistel network over 2h bits with cycle walking (Black and Rogaway, "Ciphers with
 * arbitrary finite domains", CT-RSA 2002). h is the least number >= 1 with 4^h >= N. One pass on x
 * < 4^h: L = x >> h, R = x mod 2^h for i = 0 .. 7:  L, R = R, L xor (first word of Philox block (i
 * 2^32 + R) mod 2^h) x = L 2^h + R with the Philox key mr_random_key_make(seed, MR_RANDOM_SHUFFLE,
 * e, 0, 0). While x >= N another pass follows; as a pass is a permutation of [0, 4^h), and 4^h < 4
 * N (or N <= 4), that ends, after fewer than four passes on average. P needs no table: any position
 * of any epoch is computed alone. Owner: client. Pure, any thread. */
#ifndef MR_CLIENT_ORDER_H
#define MR_CLIENT_ORDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct mr_order {
    uint64_t samples;        /* N, at least 1 and at most 2^62 */
    uint64_t seed;           /* of the job */
    bool shuffle;            /* data.shuffle */
    size_t replicas;         /* D */
    size_t micro_batches;    /* M */
    size_t micro_batch_size; /* B */
} mr_order;

/* The sample, below samples, of a row. replica < replicas, index < micro_batches, row <
 * micro_batch_size (asserted). Cannot fail. */
uint64_t mr_order_sample(const mr_order *order, uint64_t step, size_t replica, size_t index,
                         size_t row);
/* P(position) of the data's epoch; position < samples. A permutation of [0, samples). */
uint64_t mr_order_permute(uint64_t samples, uint64_t seed, uint64_t epoch, uint64_t position);

#endif
