/* SPDX-License-Identifier: Apache-2.0 */
/* group.h: ranks that sum, broadcast or gather together. Sums run in rank order, and within a rank
 * in the order of its parts, so that the bits do not depend on the number of ranks (law 1).
 * Implementations: host over gRPC (grpc.h), in_process.h (tests). A group of one rank needs no
 * transport: mr_group_alone.
 * Owner: stage. Thread: EXEC; where any_thread, one at a time, the one that the user gives the
 * group to, as to the reducer of gradients (stage/gradient_reducer.h); a hand-over is ordered by a
 * queue. Operations of different groups go on at the same time. Interrupt: any.
 * Every member calls the same operations in the same order; a different one is ABORTED and names
 * both. Every wait has a bound and names the rank awaited; timeout_ms < 0 is the idle wait between
 * steps, which only interrupt or a lost peer ends. */
#ifndef MR_GROUP_GROUP_H
#define MR_GROUP_GROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/base/status.h"

typedef struct mr_group mr_group;

typedef struct mr_group_ops {
    const char *name;
    bool any_thread; /* may be worked by another thread than EXEC */
    /* out [n] on every member = sum of all members' parts, f32: ((rank 0's part 0 + part 1) + rank
     * 1's part 0) + ...; out may be parts[0]. Members may have different part counts, 0
     * included. */
    mr_status (*sum)(mr_group *group, const float *const *parts, size_t part_count, float *out,
                     size_t n, int64_t timeout_ms);
    /* data of member root_index goes to every member. */
    mr_status (*broadcast)(mr_group *group, void *data, size_t bytes, size_t root_index,
                           int64_t timeout_ms);
    /* Concatenates in rank order: member i gives bytes[i] bytes (all members know all sizes). all
     * has room for their sum; mine may lie at its own place in it, or outside. */
    mr_status (*gather)(mr_group *group, const void *mine, const size_t *bytes, void *all,
                        int64_t timeout_ms);
    /* Any thread: every present and later wait returns CANCELLED with this reason. */
    void (*interrupt)(mr_group *group, const char *reason);
    void (*close)(mr_group *group);
} mr_group_ops;

struct mr_group {
    const mr_group_ops *ops;
    size_t member_count;
    size_t member_index; /* own place among the ranks, ascending */
};

typedef struct mr_group_options {
    const char *job_id;
    uint64_t epoch;
    const char *group_id; /* "tied/embed", "pipe/0"; the same on every member */
    const uint32_t *ranks;
    size_t rank_count;
    uint32_t rank;         /* own */
    size_t bytes_max;      /* of one operation's vector; buffers are sized from it */
    size_t parts_max;      /* over all members together */
} mr_group_options;

/* A group whose only member is this rank. */
MR_MUST_CHECK mr_status mr_group_alone(const mr_group_options *options, mr_group **out_group);

static inline mr_status mr_group_sum(mr_group *group, const float *const *parts, size_t part_count,
                                     float *out, size_t n, int64_t timeout_ms) {
    return group->ops->sum(group, parts, part_count, out, n, timeout_ms);
}
static inline mr_status mr_group_broadcast(mr_group *group, void *data, size_t bytes,
                                           size_t root_index, int64_t timeout_ms) {
    return group->ops->broadcast(group, data, bytes, root_index, timeout_ms);
}
static inline mr_status mr_group_gather(mr_group *group, const void *mine, const size_t *bytes,
                                        void *all, int64_t timeout_ms) {
    return group->ops->gather(group, mine, bytes, all, timeout_ms);
}
static inline void mr_group_interrupt(mr_group *group, const char *reason) {
    group->ops->interrupt(group, reason);
}
static inline void mr_group_close(mr_group *group) {
    if (group != NULL)
        group->ops->close(group);
}

#endif
