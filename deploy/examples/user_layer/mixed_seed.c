/* SPDX-License-Identifier: Apache-2.0 */
/* A seed function of one's own, as an example: model.seed_fn mixed. It gets a layer's seed, base +
 * layer when the layer is built and base (call + 1) + layer in a call (daemon/model/seed.h), and
 * says what keys the layer's random numbers. This one spreads neighbouring seeds over all 64 bits:
 * two rounds of multiplying by odd constants and folding the upper half back. */
#include "daemon/model/seed.h"

static uint64_t mixed_seed(uint64_t seed) {
    uint64_t mixed = seed;
    mixed = (mixed ^ (mixed >> 31)) * UINT64_C(0x9e3779b97f4a7c15);
    mixed = (mixed ^ (mixed >> 29)) * UINT64_C(0xd1b54a32d192ed03);
    return mixed ^ (mixed >> 32);
}
MR_SEED_FUNCTION_REGISTER(mixed, mixed_seed)
