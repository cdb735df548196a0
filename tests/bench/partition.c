/* SPDX-License-Identifier: Apache-2.0 */
/* partition: how long the exact balanced cut takes. Prints, for 10,000 layers over 64 stages with
 * four kinds of weights, the fastest of a few runs and the loads; no pass or fail. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemon/base/clock.h"
#include "daemon/base/random.h"
#include "daemon/plan/partition.h"

enum { LAYERS = 10000, STAGES = 64, RUNS = 5 };

static double weight(const mr_random_key *key, uint64_t index, int kind) {
    uint32_t word = mr_random_word(key, index);
    switch (kind) {
    case 0:
        return 7087872; /* equal layers */
    case 1:
        return word % 100000000;
    case 2:
        return word % 8 == 0 ? 0 : 1 + word % 3;
    default:
        return exp(word * 0x1p-29); /* a few heavy ones; fractions */
    }
}

int main(void) {
    static const char *const names[] = {"equal", "random whole", "small whole", "heavy fractions"};
    static double weights[LAYERS];
    static size_t bounds[STAGES + 1];
    mr_random_key key = mr_random_key_make(1, MR_RANDOM_SAMPLE, 0, 0, 0);
    for (int kind = 0; kind < 4; kind++) {
        for (size_t i = 0; i < LAYERS; i++)
            weights[i] = weight(&key, i, kind);
        int64_t fastest_ns = INT64_MAX;
        for (int run = 0; run < RUNS; run++) {
            int64_t start_ns = mr_clock_now_ns();
            mr_status status = mr_partition_balanced(weights, LAYERS, STAGES, bounds);
            int64_t taken_ns = mr_clock_now_ns() - start_ns;
            if (!mr_status_is_ok(status)) {
                fprintf(stderr, "%s\n", status.text);
                return EXIT_FAILURE;
            }
            fastest_ns = taken_ns < fastest_ns ? taken_ns : fastest_ns;
        }
        double largest = 0.0;
        double smallest = INFINITY;
        for (size_t stage = 0; stage < STAGES; stage++) {
            double load = 0.0;
            for (size_t i = bounds[stage]; i < bounds[stage + 1]; i++)
                load += weights[i];
            largest = fmax(largest, load);
            smallest = fmin(smallest, load);
        }
        printf("%d layers, %d stages, %-15s %7.2f ms, load %.6g to %.6g\n", LAYERS, STAGES,
               names[kind], (double)fastest_ns * 1e-6, smallest, largest);
    }
    return EXIT_SUCCESS;
}
