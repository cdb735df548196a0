/* SPDX-License-Identifier: Apache-2.0 */
/* group_ids.h: what the members of a communicator meet by: for a group or an edge of the plan, by
 * key, some bytes that only the library which carries it understands (an NCCL unique id). One
 * member makes them while it prepares; the coordinator hands all of them out with the epoch.
 * Owner: plan. Pure, any thread. Limits: MR_GROUP_IDS_MAX. */
#ifndef MR_PLAN_GROUP_IDS_H
#define MR_PLAN_GROUP_IDS_H

#include <stddef.h>

#include "daemon/base/limits.h"
#include "daemon/base/status.h"

enum { MR_GROUP_KEY_BYTES = 96, MR_GROUP_ID_BYTES = 128 };

typedef struct mr_group_id {
    char key[MR_GROUP_KEY_BYTES]; /* "tied/embed/0", "link/0-1/activation" */
    size_t byte_count;
    unsigned char bytes[MR_GROUP_ID_BYTES];
} mr_group_id;

/* Zero is an empty list. */
typedef struct mr_group_ids {
    mr_group_id *items;
    size_t count;
    size_t capacity;
} mr_group_ids;

/* INVALID_ARGUMENT: an empty or long key, or no or many bytes; ALREADY_EXISTS: the key has an id;
 * RESOURCE_EXHAUSTED: too many, or no memory. */
MR_MUST_CHECK mr_status mr_group_ids_add(mr_group_ids *ids, const char *key, const void *bytes,
                                         size_t byte_count);
/* NULL: the key has none. */
const mr_group_id *mr_group_ids_find(const mr_group_ids *ids, const char *key);
/* Keeps the memory. */
void mr_group_ids_clear(mr_group_ids *ids);
/* Zero is fine. */
void mr_group_ids_deinit(mr_group_ids *ids);

#endif
