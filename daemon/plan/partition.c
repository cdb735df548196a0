/* SPDX-License-Identifier: Apache-2.0 */
/* The exact balanced cut of n items into p contiguous, non-empty parts, in two searches.
 *
 * Loads. S is the running sum of the weights, load(i, j) = S[j] - S[i] for i < j. Weights are not
 * negative and rounding is monotone, so S never falls and load never falls when a part grows at
 * either end, in double arithmetic as it is computed. Everything below uses only this, and compares
 * only computed loads, so it is exact for what it is given: there is no epsilon anywhere.
 *
 * First search: B, the smallest possible largest load. For a candidate B the greedy cut (every part
 * as long as B allows) needs the fewest parts, and B is possible iff that is at most p: a cut into
 * fewer parts can always be refined to p <= n parts, which only lowers loads. Doubles that are not
 * negative are ordered as their bit patterns read as integers, so bisection over the 64-bit pattern
 * ends, after at most 64 greedy passes, at the smallest possible double; a load equals it, since
 * otherwise the next smaller double would do as well.
 *
 * Second search: given B, every cut within B has largest load exactly B, so the smallest range
 * means the largest possible smallest load L. L is possible iff there is a cut into exactly p parts
 * with every load in [L, B]. As a graph, node i has an edge to j > i when L <= load(i, j) <= B,
 * and a path from 0 to n with exactly p edges is asked for. Following all counts costs O(n p) per
 * candidate. But the edges cross well: take edges (i, j') and (i', j) with i <= i' < j <= j'.
 * Then (i, j) and (i', j') are edges too, since load(i', j) <= load(i, j) <= load(i, j') and
 * likewise for (i', j'), and neither is empty. With that exchange a path of a edges and one of b
 * edges, a < b, give a path of every count between: somewhere an edge of the shorter path spans one
 * of the longer path, at any wished difference of their positions from 1 to b - a - 1, and swapping
 * the tails there changes the counts by just this difference (the argument of Aggarwal, Schieber
 * and Tokuyama, "Finding a minimum-weight k-link path in graphs with the concave Monge property",
 * 1994). So the possible counts from a node to n are all numbers from a fewest to a most, and the
 * two are enough. Both come from one pass from n down to 0: the successors of i form a window
 * [low(i), high(i)] whose ends never rise as i falls, so a monotone queue of each gives the fewest
 * and the most over the window in O(n) together. The same bisection over bit patterns, now for the
 * largest possible double, ends after at most 64 such passes.
 *
 * Last, the cut itself: from 0, always to the farthest j of the window whose counts still allow
 * what is left. That makes the result unique: earlier parts take the most items. */
#include "daemon/plan/partition.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/limits.h"

size_t mr_partition_start(size_t items, size_t parts, size_t part) {
    MR_ASSERT(parts > 0);
    MR_ASSERT(part <= parts);
    size_t rest = items % parts;
    return items / parts * part + (part < rest ? part : rest);
}

void mr_partition_uniform(size_t items, size_t parts, size_t *out_bounds) {
    for (size_t part = 0; part <= parts; part++)
        out_bounds[part] = mr_partition_start(items, parts, part);
}

/* Counts of edges to the end from one node; none at all when fewest > most. */
typedef struct partition_counts {
    uint32_t fewest;
    uint32_t most;
} partition_counts;

static const partition_counts partition_unreachable = {.fewest = UINT32_MAX, .most = 0};

/* A queue of nodes, kept monotone in one of the two counts. */
typedef struct partition_queue {
    size_t *nodes;
    size_t head;
    size_t tail;
} partition_queue;

typedef struct partition_work {
    size_t items;
    size_t parts;
    double *sums;             /* items + 1: S above */
    partition_counts *counts; /* items + 1, of the last candidate L */
    partition_queue fewest;
    partition_queue most;
} partition_work;

static double partition_load(const partition_work *work, size_t first, size_t end) {
    return work->sums[end] - work->sums[first];
}

/* The order of non-negative doubles is the order of these numbers. */
static uint64_t double_to_order(double value) {
    uint64_t order;
    memcpy(&order, &value, sizeof(order));
    return order;
}

static double double_from_order(uint64_t order) {
    double value;
    memcpy(&value, &order, sizeof(value));
    return value;
}

/* Does the greedy cut within bound need at most parts parts? */
static bool partition_fits(const partition_work *work, double bound) {
    size_t used = 0;
    size_t first = 0;
    while (first < work->items) {
        size_t end = first;
        while (end < work->items && partition_load(work, first, end + 1) <= bound)
            end++;
        if (end == first || ++used > work->parts)
            return false;
        first = end;
    }
    return true;
}

static double partition_smallest_bound(const partition_work *work) {
    uint64_t low = double_to_order(0.0);
    uint64_t high = double_to_order(work->sums[work->items]);
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (partition_fits(work, double_from_order(middle)))
            high = middle;
        else
            low = middle + 1;
    }
    return double_from_order(low);
}

/* Nodes enter with falling number, so the best of a window [low, high] is at the head once those
 * above high are gone. */
static void queue_drop_above(partition_queue *queue, size_t high) {
    while (queue->head < queue->tail && queue->nodes[queue->head] > high)
        queue->head++;
}

static void queue_push_fewest(partition_work *work, size_t node) {
    partition_queue *queue = &work->fewest;
    uint32_t value = work->counts[node].fewest;
    while (queue->tail > queue->head && work->counts[queue->nodes[queue->tail - 1]].fewest >= value)
        queue->tail--;
    queue->nodes[queue->tail++] = node;
}

static void queue_push_most(partition_work *work, size_t node) {
    partition_queue *queue = &work->most;
    uint32_t value = work->counts[node].most;
    while (queue->tail > queue->head && work->counts[queue->nodes[queue->tail - 1]].most <= value)
        queue->tail--;
    queue->nodes[queue->tail++] = node;
}

/* Fills counts for loads within [smallest, bound]. Can exactly parts parts be cut? */
static bool partition_counts_fill(partition_work *work, double smallest, double bound) {
    size_t items = work->items;
    work->fewest.head = work->fewest.tail = 0;
    work->most.head = work->most.tail = 0;
    work->counts[items] = (partition_counts){.fewest = 0, .most = 0};
    size_t low = items + 1; /* nodes from low on are in the queues */
    size_t high = items;
    for (size_t node = items; node-- > 0;) {
        while (high > node && partition_load(work, node, high) > bound)
            high--;
        while (low > node + 1 && partition_load(work, node, low - 1) >= smallest) {
            low--;
            if (work->counts[low].fewest > work->counts[low].most)
                continue; /* no way to the end from there */
            queue_push_fewest(work, low);
            queue_push_most(work, low);
        }
        queue_drop_above(&work->fewest, high);
        queue_drop_above(&work->most, high);
        work->counts[node] = partition_unreachable;
        if (work->fewest.head < work->fewest.tail) {
            size_t near = work->fewest.nodes[work->fewest.head];
            size_t far = work->most.nodes[work->most.head];
            work->counts[node].fewest = work->counts[near].fewest + 1;
            work->counts[node].most = work->counts[far].most + 1;
        }
    }
    return work->counts[0].fewest <= work->parts && work->parts <= work->counts[0].most;
}

/* The largest possible smallest load; leaves its counts in work. */
static double partition_largest_floor(partition_work *work, double bound) {
    uint64_t low = double_to_order(0.0); /* always possible: the cut within bound exists */
    uint64_t high = double_to_order(bound);
    while (low < high) {
        uint64_t middle = low + (high - low + 1) / 2;
        if (partition_counts_fill(work, double_from_order(middle), bound))
            low = middle;
        else
            high = middle - 1;
    }
    double smallest = double_from_order(low);
    bool possible = partition_counts_fill(work, smallest, bound);
    MR_ASSERT(possible);
    return smallest;
}

static void partition_trace(const partition_work *work, double smallest, double bound,
                            size_t *out_bounds) {
    size_t node = 0;
    out_bounds[0] = 0;
    for (size_t part = 0; part < work->parts; part++) {
        size_t left = work->parts - part - 1;
        size_t best = node;
        for (size_t end = node + 1; end <= work->items; end++) {
            double load = partition_load(work, node, end);
            if (load > bound)
                break;
            if (load >= smallest && work->counts[end].fewest <= left &&
                left <= work->counts[end].most)
                best = end;
        }
        MR_ASSERT(best > node);
        node = out_bounds[part + 1] = best;
    }
    MR_ASSERT(node == work->items);
}

static mr_status partition_sum(const double *weights, partition_work *work) {
    work->sums[0] = 0.0;
    for (size_t i = 0; i < work->items; i++) {
        if (!isfinite(weights[i]) || weights[i] < 0.0)
            return MR_ERROR(INVALID_ARGUMENT, "weight %zu is %g; it must be finite and at least 0",
                            i, weights[i]);
        work->sums[i + 1] = work->sums[i] + weights[i];
    }
    if (!isfinite(work->sums[work->items]))
        return MR_ERROR(INVALID_ARGUMENT, "the sum of %zu weights is not finite", work->items);
    return MR_OK;
}

mr_status mr_partition_balanced(const double *weights, size_t items, size_t parts,
                                size_t *out_bounds) {
    if (parts == 0 || items > UINT32_MAX - 1)
        return MR_ERROR(INVALID_ARGUMENT, "%zu items cannot be cut into %zu parts", items, parts);
    partition_work work = {.items = items, .parts = parts};
    mr_status status = MR_OK;
    work.sums = mr_alloc_array(items + 1, sizeof(*work.sums));
    work.counts = mr_alloc_array(items + 1, sizeof(*work.counts));
    work.fewest.nodes = mr_alloc_array(items + 1, sizeof(*work.fewest.nodes));
    work.most.nodes = mr_alloc_array(items + 1, sizeof(*work.most.nodes));
    if (work.sums == NULL || work.counts == NULL || work.fewest.nodes == NULL ||
        work.most.nodes == NULL) {
        status = MR_ERROR(RESOURCE_EXHAUSTED, "no memory to cut %zu items", items);
        goto out;
    }
    MR_TRY_GOTO(status, partition_sum(weights, &work), out);
    if (items < parts) {
        mr_partition_uniform(items, parts, out_bounds);
        goto out;
    }
    double bound = partition_smallest_bound(&work);
    double smallest = partition_largest_floor(&work, bound);
    partition_trace(&work, smallest, bound, out_bounds);
out:
    mr_free(work.most.nodes);
    mr_free(work.fewest.nodes);
    mr_free(work.counts);
    mr_free(work.sums);
    return status;
}

mr_status mr_partition_check(const size_t *bounds, size_t bound_count, size_t items, size_t parts) {
    if (bound_count != parts + 1)
        return MR_ERROR(INVALID_ARGUMENT, "pipeline.partition has %zu bounds; %zu stages need %zu",
                        bound_count, parts, parts + 1);
    if (bounds[0] != 0)
        return MR_ERROR(INVALID_ARGUMENT, "pipeline.partition[0] is %zu; it must be 0", bounds[0]);
    for (size_t i = 1; i < bound_count; i++)
        if (bounds[i] <= bounds[i - 1])
            return MR_ERROR(INVALID_ARGUMENT,
                            "pipeline.partition[%zu] is %zu; it must be above pipeline.partition"
                            "[%zu], which is %zu, so that no stage is empty",
                            i, bounds[i], i - 1, bounds[i - 1]);
    if (bounds[parts] != items)
        return MR_ERROR(INVALID_ARGUMENT,
                        "pipeline.partition[%zu] is %zu; it must be %zu, the number of layers",
                        parts, bounds[parts], items);
    return MR_OK;
}
