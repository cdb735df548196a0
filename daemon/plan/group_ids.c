/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/plan/group_ids.h"

#include <string.h>

#include "daemon/base/alloc.h"

enum { GROUP_IDS_FIRST = 8 };

static mr_status ids_make_room(mr_group_ids *ids) {
    if (ids->count < ids->capacity)
        return MR_OK;
    size_t capacity = ids->capacity == 0 ? GROUP_IDS_FIRST : 2 * ids->capacity;
    mr_group_id *items =
        mr_realloc_array(ids->items, ids->capacity, capacity, sizeof(ids->items[0]));
    if (items == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu ids of groups", capacity);
    ids->items = items;
    ids->capacity = capacity;
    return MR_OK;
}

mr_status mr_group_ids_add(mr_group_ids *ids, const char *key, const void *bytes,
                           size_t byte_count) {
    size_t key_bytes = strlen(key);
    if (key_bytes == 0 || key_bytes >= MR_GROUP_KEY_BYTES)
        return MR_ERROR(INVALID_ARGUMENT, "group_ids.key has %zu bytes; 1 to %d are possible",
                        key_bytes, MR_GROUP_KEY_BYTES - 1);
    if (byte_count == 0 || byte_count > MR_GROUP_ID_BYTES)
        return MR_ERROR(INVALID_ARGUMENT, "group_ids.id of %s has %zu bytes; 1 to %d are possible",
                        key, byte_count, MR_GROUP_ID_BYTES);
    if (mr_group_ids_find(ids, key) != NULL)
        return MR_ERROR(ALREADY_EXISTS, "group_ids.key %s comes twice", key);
    if (ids->count == MR_GROUP_IDS_MAX)
        return MR_ERROR(RESOURCE_EXHAUSTED, "group_ids has more than %d entries",
                        MR_GROUP_IDS_MAX);
    MR_TRY(ids_make_room(ids));
    mr_group_id *id = &ids->items[ids->count++];
    *id = (mr_group_id){.byte_count = byte_count};
    memcpy(id->key, key, key_bytes + 1);
    memcpy(id->bytes, bytes, byte_count);
    return MR_OK;
}

const mr_group_id *mr_group_ids_find(const mr_group_ids *ids, const char *key) {
    for (size_t i = 0; i < ids->count; i++)
        if (strcmp(ids->items[i].key, key) == 0)
            return &ids->items[i];
    return NULL;
}

void mr_group_ids_clear(mr_group_ids *ids) {
    ids->count = 0;
}

void mr_group_ids_deinit(mr_group_ids *ids) {
    mr_free(ids->items);
    *ids = (mr_group_ids){0};
}
