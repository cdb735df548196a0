/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/coordinator/actions.h"

#include <string.h>

#include "daemon/base/alloc.h"

mr_status mr_actions_reset(mr_actions *actions, size_t count) {
    actions->count = 0;
    if (count <= actions->capacity)
        return MR_OK;
    mr_action *items = mr_realloc_array(actions->items, actions->capacity, count, sizeof(*items));
    if (items == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu actions", count);
    actions->items = items;
    actions->capacity = count;
    return MR_OK;
}

mr_action *mr_actions_add(mr_actions *actions, mr_action_kind kind) {
    MR_ASSERT(actions->count < actions->capacity);
    mr_action *action = &actions->items[actions->count++];
    *action = (mr_action){.kind = kind};
    return action;
}

void mr_actions_deinit(mr_actions *actions) {
    mr_free(actions->items);
    *actions = (mr_actions){0};
}
