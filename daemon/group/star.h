/* SPDX-License-Identifier: Apache-2.0 */
/* star.h: the operations of a group whose first member has a wire to each other member. The first
 * combines strictly in rank order and sends the result to all; a small vector is one frame each
 * way.
 * Owner: group. Thread: as group.h says. Internal to this folder. */
#ifndef MR_GROUP_STAR_H
#define MR_GROUP_STAR_H

#include "daemon/group/group.h"
#include "daemon/group/wire.h"

enum { MR_GROUP_ID_BYTES = 96, MR_GROUP_JOB_BYTES = 64 };

typedef struct mr_group_star {
    mr_group group; /* first member: what callers see */
    char job_id[MR_GROUP_JOB_BYTES];
    char group_id[MR_GROUP_ID_BYTES];
    uint64_t epoch;
    uint32_t rank;
    uint64_t sequence; /* operations begun */
    size_t bytes_max;
    size_t wire_count;
    mr_group_wire **wires; /* first member: to members 1, 2, ...; others: to the first */
    unsigned char *staging; /* first member: one frame's payload */
    void *owner;            /* grpc.c's: the hub of a first member, the channel of another */
    void (*closing)(struct mr_group_star *star); /* before the wires go; may be NULL */
    void (*closed)(struct mr_group_star *star);  /* after they went; may be NULL */
    struct mr_group_star *next;                  /* in the hub's list */
} mr_group_star;

/* Copies the options, makes the wires. Owner frees with the group's close. */
MR_MUST_CHECK mr_status mr_group_star_create(const mr_group_options *options,
                                             mr_group_star **out_star);
/* A frame of this rank with operation and sequence 0. */
void mr_group_star_frame(const mr_group_star *star, Millrace__V1__GroupFrame *out_frame);

#endif
