/* SPDX-License-Identifier: Apache-2.0 */
#include "client/order.h"

#include "daemon/base/random.h"
#include "daemon/base/status.h"

enum { ORDER_ROUNDS = 8 };

/* One pass of the Feistel network over 2 x half_bits bits. */
static uint64_t order_pass(const mr_random_key *key, unsigned half_bits, uint64_t x) {
    uint64_t mask = ((uint64_t)1 << half_bits) - 1;
    uint64_t left = x >> half_bits;
    uint64_t right = x & mask;
    for (uint64_t round = 0; round < ORDER_ROUNDS; round++) {
        uint32_t words[4];
        mr_random_block(key, (round << 32) + right, words);
        uint64_t mixed = left ^ (words[0] & mask);
        left = right;
        right = mixed;
    }
    return left << half_bits | right;
}

uint64_t mr_order_permute(uint64_t samples, uint64_t seed, uint64_t epoch, uint64_t position) {
    MR_ASSERT(samples >= 1 && samples <= (uint64_t)1 << 62);
    MR_ASSERT(position < samples);
    unsigned half_bits = 1;
    while (half_bits < 31 && (uint64_t)1 << (2 * half_bits) < samples)
        half_bits++;
    mr_random_key key = mr_random_key_make(seed, MR_RANDOM_SHUFFLE, epoch, 0, 0);
    uint64_t x = position;
    do {
        x = order_pass(&key, half_bits, x);
    } while (x >= samples);
    return x;
}

uint64_t mr_order_sample(const mr_order *order, uint64_t step, size_t replica, size_t index,
                         size_t row) {
    MR_ASSERT(replica < order->replicas);
    MR_ASSERT(index < order->micro_batches);
    MR_ASSERT(row < order->micro_batch_size);
    uint64_t n = step * order->replicas + replica;
    n = n * order->micro_batches + index;
    n = n * order->micro_batch_size + row;
    uint64_t position = n % order->samples;
    if (!order->shuffle)
        return position;
    return mr_order_permute(order->samples, order->seed, n / order->samples, position);
}
