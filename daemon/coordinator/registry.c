/* SPDX-License-Identifier: Apache-2.0 */
/* Members lie in an array in order of their numbers: numbers only grow, so adding is appending and
 * finding is a binary search. */
#include "daemon/coordinator/registry.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"

/* Copies text, cut at MR_MEMBER_TEXT_BYTES; it comes from a peer and may be missing. */
static void member_text(char out[MR_MEMBER_TEXT_BYTES], const char *text) {
    (void)snprintf(out, MR_MEMBER_TEXT_BYTES, "%s", text == NULL ? "" : text); /* cut on purpose */
}

static mr_status registry_grow(mr_registry *registry) {
    if (registry->count < registry->capacity)
        return MR_OK;
    if (registry->count >= MR_MEMBERS_MAX)
        return MR_ERROR(RESOURCE_EXHAUSTED, "%zu stages are attached; the limit is %d",
                        registry->count, MR_MEMBERS_MAX);
    size_t capacity = registry->capacity == 0 ? 16 : registry->capacity * 2;
    mr_member **members =
        mr_realloc_array(registry->members, registry->capacity, capacity, sizeof(*members));
    if (members == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu stages", capacity);
    registry->members = members;
    registry->capacity = capacity;
    return MR_OK;
}

mr_status mr_registry_add(mr_registry *registry, uint64_t number, const mr_member_info *info,
                          int64_t now_ms, mr_member **out_member) {
    MR_ASSERT(registry->count == 0 || registry->members[registry->count - 1]->number < number);
    MR_TRY(registry_grow(registry));
    mr_member *member = mr_alloc(sizeof(*member));
    if (member == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for one more stage");
    member->number = number;
    (void)snprintf(member->id, sizeof(member->id), "m%" PRIu64, number); /* always fits */
    member_text(member->instance_id, info->instance_id);
    member_text(member->device, info->device);
    member_text(member->address, info->address);
    member_text(member->status_address, info->status_address);
    member_text(member->version, info->version);
    member->threads = info->threads;
    member->memory_bytes = info->memory_bytes;
    member->process_id = info->process_id;
    member->state = MR_MEMBER_IDLE;
    member->heard_ms = now_ms;
    registry->members[registry->count++] = member;
    *out_member = member;
    return MR_OK;
}

/* Position of the first member with at least this number. */
static size_t registry_position(const mr_registry *registry, uint64_t number) {
    size_t low = 0;
    size_t high = registry->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (registry->members[middle]->number < number)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

mr_member *mr_registry_find(const mr_registry *registry, uint64_t number) {
    size_t position = registry_position(registry, number);
    if (position == registry->count || registry->members[position]->number != number)
        return NULL;
    return registry->members[position];
}

void mr_registry_remove(mr_registry *registry, uint64_t number) {
    size_t position = registry_position(registry, number);
    MR_ASSERT(position < registry->count && registry->members[position]->number == number);
    mr_free(registry->members[position]);
    registry->count--;
    memmove(&registry->members[position], &registry->members[position + 1],
            (registry->count - position) * sizeof(registry->members[0]));
}

mr_member *mr_registry_find_id(const mr_registry *registry, const char *id) {
    for (size_t i = 0; i < registry->count; i++)
        if (strcmp(registry->members[i]->id, id) == 0)
            return registry->members[i];
    return NULL;
}

mr_member *mr_registry_find_instance(const mr_registry *registry, const char *instance_id) {
    for (size_t i = 0; i < registry->count; i++) {
        mr_member *member = registry->members[i];
        if (member->state != MR_MEMBER_LOST && strcmp(member->instance_id, instance_id) == 0)
            return member;
    }
    return NULL;
}

bool mr_member_is_idle(const mr_member *member) {
    return member->state == MR_MEMBER_IDLE && !member->draining;
}

size_t mr_registry_idle_count(const mr_registry *registry) {
    size_t count = 0;
    for (size_t i = 0; i < registry->count; i++)
        if (mr_member_is_idle(registry->members[i]))
            count++;
    return count;
}

const char *mr_member_state_name(const mr_member *member) {
    static const char *const names[MR_MEMBER_STATE_COUNT] = {
        [MR_MEMBER_IDLE] = "idle",         [MR_MEMBER_PREPARING] = "preparing",
        [MR_MEMBER_RUNNING] = "running",   [MR_MEMBER_RELEASING] = "releasing",
        [MR_MEMBER_DRAINING] = "draining", [MR_MEMBER_LOST] = "lost",
    };
    if (member->draining)
        return member->state == MR_MEMBER_LOST ? "drained" : names[MR_MEMBER_DRAINING];
    return names[member->state];
}

void mr_registry_deinit(mr_registry *registry) {
    for (size_t i = 0; i < registry->count; i++)
        mr_free(registry->members[i]);
    mr_free(registry->members);
    *registry = (mr_registry){0};
}
