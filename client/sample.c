/* SPDX-License-Identifier: Apache-2.0 */
#include "client/sample.h"

#include <math.h>

#include "daemon/base/random.h"

/* Is token a likelier than token b? A total order, so that equal scores give one result. */
static bool sample_likelier(const float *logits, uint32_t a, uint32_t b) {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
}

/* Restores the heap below parent: the least likely of order[0, count) on top. */
static void sample_sink(const float *logits, uint32_t *order, size_t count, size_t parent) {
    for (;;) {
        size_t least = parent;
        for (size_t child = 2 * parent + 1; child <= 2 * parent + 2 && child < count; child++) {
            if (sample_likelier(logits, order[least], order[child]))
                least = child;
        }
        if (least == parent)
            return;
        uint32_t swap = order[least];
        order[least] = order[parent];
        order[parent] = swap;
        parent = least;
    }
}

/* Leaves the k likeliest of V tokens in order[0, k), likeliest first: a heap of k and its sort. */
static void sample_select(const float *logits, size_t V, size_t k, uint32_t *order) {
    for (size_t i = 0; i < k; i++)
        order[i] = (uint32_t)i;
    for (size_t i = k / 2; i > 0; i--)
        sample_sink(logits, order, k, i - 1);
    for (size_t i = k; i < V; i++) {
        if (sample_likelier(logits, (uint32_t)i, order[0])) {
            order[0] = (uint32_t)i;
            sample_sink(logits, order, k, 0);
        }
    }
    for (size_t left = k; left > 1; left--) {
        uint32_t least = order[0];
        order[0] = order[left - 1];
        order[left - 1] = least;
        sample_sink(logits, order, left - 1, 0);
    }
}

mr_status mr_sample_token(const mr_sample_settings *settings, const float *logits, size_t V,
                          uint64_t index, uint32_t *order, uint32_t *out_token) {
    MR_ASSERT(V >= 1);
    MR_ASSERT(settings->temperature >= 0);
    for (size_t i = 0; i < V; i++) {
        if (!isfinite(logits[i]))
            return MR_ERROR(INVALID_ARGUMENT,
                            "the model's score of token %zu is %g; it must be "
                            "finite",
                            i, (double)logits[i]);
    }
    size_t k = settings->top_k == 0 || settings->top_k > V ? V : settings->top_k;
    if (settings->temperature <= 0)
        k = 1;
    sample_select(logits, V, k, order);
    if (k == 1) {
        *out_token = order[0];
        return MR_OK;
    }
    double sum = 0;
    for (size_t i = 0; i < k; i++)
        sum += exp(((double)logits[order[i]] - (double)logits[order[0]]) / settings->temperature);
    mr_random_key key = mr_random_key_make(settings->seed, MR_RANDOM_SAMPLE, 0, 0, 0);
    uint32_t words[4];
    mr_random_block(&key, index, words);
    uint64_t bits = (uint64_t)words[0] << 32 | words[1];
    double target = (double)(bits >> 11) * 0x1p-53 * sum; /* uniform in [0, sum) */
    double reached = 0;
    size_t chosen = k - 1;
    for (size_t i = 0; i < k; i++) {
        reached +=
            exp(((double)logits[order[i]] - (double)logits[order[0]]) / settings->temperature);
        if (target < reached) {
            chosen = i;
            break;
        }
    }
    *out_token = order[chosen];
    return MR_OK;
}
