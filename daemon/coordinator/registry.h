/* SPDX-License-Identifier: Apache-2.0 */
/* registry.h: the members: every stage daemon that is attached, and for a while those that were
 * lost. A table and nothing else; who does what is decided in decide.h.
 * Owner: coordinator. Thread: LOOP. Limits: MR_MEMBERS_MAX. */
#ifndef MR_COORDINATOR_REGISTRY_H
#define MR_COORDINATOR_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/base/limits.h"
#include "daemon/base/status.h"

enum {
    MR_MEMBER_ID_BYTES = 24,
    MR_MEMBER_TEXT_BYTES = 128,       /* an address, a device's name, an instance id */
    MR_MEMBER_INSTRUCTION_BYTES = 32,
    MR_COORDINATOR_ID_BYTES = 64, /* a job's id with the terminator */
};

/* RELEASING: told to let go of its job, not yet free. DRAINING: told to exit. LOST: its stream has
 * ended or it was silent for too long; shown for a while, never used. */
typedef enum mr_member_state {
    MR_MEMBER_IDLE,
    MR_MEMBER_PREPARING,
    MR_MEMBER_RUNNING,
    MR_MEMBER_RELEASING,
    MR_MEMBER_DRAINING,
    MR_MEMBER_LOST,
    MR_MEMBER_STATE_COUNT
} mr_member_state;

/* What a stage says of itself when it attaches. Borrowed. */
typedef struct mr_member_info {
    const char *instance_id;
    const char *device;
    const char *address;
    const char *status_address;
    const char *version;
    uint32_t threads;
    uint64_t memory_bytes;
    uint64_t process_id;
} mr_member_info;

typedef struct mr_member {
    uint64_t number; /* grows with each attachment, never used twice */
    char id[MR_MEMBER_ID_BYTES];
    char instance_id[MR_MEMBER_TEXT_BYTES];
    char device[MR_MEMBER_TEXT_BYTES];
    char address[MR_MEMBER_TEXT_BYTES];
    char status_address[MR_MEMBER_TEXT_BYTES];
    char version[MR_MEMBER_TEXT_BYTES];
    uint32_t threads;
    uint64_t memory_bytes;
    uint64_t process_id;
    mr_member_state state;
    bool draining; /* exits as soon as it is idle */
    bool counted;  /* its attachment is in the metrics */
    /* The job it belongs to while PREPARING, RUNNING or RELEASING; else 0 and "". */
    uint64_t job;
    char job_id[MR_COORDINATOR_ID_BYTES];
    uint32_t rank;
    uint64_t epoch; /* in which it was given the job */
    int64_t heard_ms;
    int64_t deadline_ms; /* RELEASING, DRAINING: closed then; LOST: forgotten then */
    /* From its newest heartbeat. */
    uint64_t step;
    char instruction[MR_MEMBER_INSTRUCTION_BYTES];
    uint64_t instruction_age_ms;
} mr_member;

typedef struct mr_registry {
    mr_member **members; /* ascending numbers */
    size_t count;
    size_t capacity;
} mr_registry;

/* Adds a member. RESOURCE_EXHAUSTED: MR_MEMBERS_MAX or no memory; nothing has changed then. */
MR_MUST_CHECK mr_status mr_registry_add(mr_registry *registry, uint64_t number,
                                        const mr_member_info *info, int64_t now_ms,
                                        mr_member **out_member);
/* Frees it. */
void mr_registry_remove(mr_registry *registry, uint64_t number);
/* NULL: no such member. */
mr_member *mr_registry_find(const mr_registry *registry, uint64_t number);
mr_member *mr_registry_find_id(const mr_registry *registry, const char *id);
/* The attached (not lost) member of this instance; NULL where there is none. */
mr_member *mr_registry_find_instance(const mr_registry *registry, const char *instance_id);
/* Members that a job could have now. */
size_t mr_registry_idle_count(const mr_registry *registry);
bool mr_member_is_idle(const mr_member *member);
/* As ListStages shows it: "idle", "draining", ... */
const char *mr_member_state_name(const mr_member *member);
void mr_registry_deinit(mr_registry *registry);

#endif
