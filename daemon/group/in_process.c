/* SPDX-License-Identifier: Apache-2.0 */
/* Members meet at a shared table: each lays down what it gives, the last to come combines in rank
 * order, and each takes the result away before the next operation begins. */
#include "daemon/group/in_process.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/monitor.h"
#include "daemon/group/combine.h"

enum { TABLE_REASON_BYTES = 160 };

typedef enum table_kind { TABLE_SUM, TABLE_BROADCAST, TABLE_GATHER } table_kind;

static const char *const table_kind_names[] = {"sum", "broadcast", "gather"};

/* What one member asks for; pointers stay valid while it waits. */
typedef struct table_seat {
    bool taken;
    table_kind kind;
    size_t bytes;
    size_t root;
    const float *const *parts;
    size_t part_count;
    const void *give;
    void *take;
    const size_t *sizes;
} table_seat;

typedef struct table {
    mr_monitor monitor;
    size_t members;
    size_t open; /* ends not closed; the last frees the table */
    const uint32_t *ranks;
    table_seat *seats;
    unsigned char *result;
    size_t bytes_max;
    size_t arrived;
    size_t left;
    uint64_t round; /* operations completed */
    bool broken;    /* interrupted, a member gone, or a mismatch */
    mr_status why;
} table;

typedef struct table_end {
    mr_group group;
    table *table;
    uint32_t rank;
} table_end;

/* Combines what lies on the seats into result; under the monitor, by the last to come. */
static void table_combine(table *t) {
    const table_seat *first = &t->seats[0];
    size_t offset = 0;
    mr_group_combine combine = {.out = (float *)(void *)t->result,
                                .n = first->bytes / sizeof(float)};
    for (size_t i = 0; i < t->members; i++) {
        const table_seat *seat = &t->seats[i];
        for (size_t p = 0; first->kind == TABLE_SUM && p < seat->part_count; p++)
            mr_group_combine_part(&combine, seat->parts[p], 0, combine.n);
        if (first->kind == TABLE_GATHER) {
            memcpy(t->result + offset, seat->give, seat->sizes[i]);
            offset += seat->sizes[i];
        }
    }
    if (first->kind == TABLE_SUM)
        mr_group_combine_end(&combine);
    else if (first->kind == TABLE_BROADCAST)
        memcpy(t->result, t->seats[first->root].give, first->bytes);
}

/* Under the monitor: does this seat ask for what the others do? */
static mr_status table_compare(const table *t, const table_seat *seat) {
    for (size_t i = 0; i < t->members; i++) {
        const table_seat *other = &t->seats[i];
        if (other->taken && (other->kind != seat->kind || other->bytes != seat->bytes ||
                             other->root != seat->root))
            return MR_ERROR(ABORTED, "this rank does %s of %zu bytes and rank %u does %s of %zu",
                            table_kind_names[seat->kind], seat->bytes, t->ranks[i],
                            table_kind_names[other->kind], other->bytes);
    }
    return MR_OK;
}

static uint32_t table_missing(const table *t) {
    for (size_t i = 0; i < t->members; i++)
        if (!t->seats[i].taken)
            return t->ranks[i];
    return t->ranks[0];
}

static void table_break(table *t, mr_status why) {
    if (!t->broken)
        t->why = why;
    t->broken = true;
    mr_monitor_notify(&t->monitor);
}

/* Under the monitor: sits down, waits for all, takes the result. */
static mr_status table_sit(table *t, size_t index, const table_seat *seat, int64_t deadline) {
    bool in_time = true;
    while (!t->broken && in_time && t->left > 0) /* the operation before is being taken away */
        in_time = mr_monitor_wait(&t->monitor, deadline);
    if (!t->broken && in_time) {
        mr_status same = table_compare(t, seat);
        if (!mr_status_is_ok(same))
            table_break(t, same);
    }
    if (t->broken)
        return t->why;
    uint64_t round = t->round;
    t->seats[index] = *seat;
    t->seats[index].taken = true;
    if (++t->arrived == t->members) {
        table_combine(t);
        t->round++;
        t->left = t->members;
        mr_monitor_notify(&t->monitor);
    }
    while (!t->broken && in_time && t->round == round)
        in_time = mr_monitor_wait(&t->monitor, deadline);
    if (t->round == round) {
        if (!t->broken) /* what lies on the seat is the caller's again: nobody may use it later */
            table_break(t, MR_ERROR(DEADLINE_EXCEEDED, "rank %u did not answer in time",
                                    table_missing(t)));
        return t->why;
    }
    memcpy(seat->take, t->result, seat->bytes);
    t->seats[index].taken = false;
    if (--t->left == 0) {
        t->arrived = 0;
        mr_monitor_notify(&t->monitor);
    }
    return MR_OK;
}

static mr_status table_operate(mr_group *group, table_seat seat, int64_t timeout_ms) {
    table *t = ((table_end *)group)->table;
    if (seat.bytes > t->bytes_max)
        return MR_ERROR(RESOURCE_EXHAUSTED, "the group was made for %zu bytes; %zu are asked of it",
                        t->bytes_max, seat.bytes);
    mr_monitor_lock(&t->monitor);
    mr_status status =
        table_sit(t, group->member_index, &seat, mr_monitor_deadline(timeout_ms));
    mr_monitor_unlock(&t->monitor);
    return status;
}

static mr_status end_sum(mr_group *group, const float *const *parts, size_t part_count, float *out,
                         size_t n, int64_t timeout_ms) {
    return table_operate(group,
                         (table_seat){.kind = TABLE_SUM,
                                      .bytes = n * sizeof(float),
                                      .parts = parts,
                                      .part_count = part_count,
                                      .take = out},
                         timeout_ms);
}

static mr_status end_broadcast(mr_group *group, void *data, size_t bytes, size_t root_index,
                               int64_t timeout_ms) {
    return table_operate(group,
                         (table_seat){.kind = TABLE_BROADCAST,
                                      .bytes = bytes,
                                      .root = root_index,
                                      .give = data,
                                      .take = data},
                         timeout_ms);
}

static mr_status end_gather(mr_group *group, const void *mine, const size_t *bytes, void *all,
                            int64_t timeout_ms) {
    size_t total = 0;
    for (size_t i = 0; i < group->member_count; i++)
        total += bytes[i];
    return table_operate(
        group,
        (table_seat){
            .kind = TABLE_GATHER, .bytes = total, .give = mine, .take = all, .sizes = bytes},
        timeout_ms);
}

static void end_interrupt(mr_group *group, const char *reason) {
    table *t = ((table_end *)group)->table;
    mr_monitor_lock(&t->monitor);
    table_break(t, MR_ERROR(CANCELLED, "interrupted: %s", reason));
    mr_monitor_unlock(&t->monitor);
}

static void table_free(table *t) {
    mr_monitor_deinit(&t->monitor);
    mr_free(t->result);
    mr_free(t->seats);
    mr_free(t);
}

static void end_close(mr_group *group) {
    table_end *end = (table_end *)group;
    table *t = end->table;
    mr_monitor_lock(&t->monitor);
    table_break(t, MR_ERROR(UNAVAILABLE, "rank %u is lost: it has left the group", end->rank));
    bool last = --t->open == 0;
    mr_monitor_unlock(&t->monitor);
    if (last)
        table_free(t);
    mr_free(end);
}

static const mr_group_ops end_ops = {
    .name = "in_process",
    .any_thread = true,
    .sum = end_sum,
    .broadcast = end_broadcast,
    .gather = end_gather,
    .interrupt = end_interrupt,
    .close = end_close,
};

mr_status mr_group_in_process(const mr_group_options *options, mr_group **out_groups) {
    size_t members = options->rank_count;
    table *t = mr_alloc(sizeof(*t));
    if (t == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a group");
    mr_monitor_init(&t->monitor);
    t->members = members;
    t->ranks = options->ranks;
    t->seats = mr_alloc_array(members, sizeof(table_seat));
    t->result = mr_alloc(options->bytes_max);
    t->bytes_max = options->bytes_max;
    bool whole = t->seats != NULL && t->result != NULL;
    for (size_t i = 0; i < members && whole; i++) {
        table_end *end = mr_alloc(sizeof(*end));
        whole = end != NULL;
        if (!whole)
            break;
        *end = (table_end){
            .group = {.ops = &end_ops, .member_count = members, .member_index = i},
            .table = t,
            .rank = options->ranks[i],
        };
        t->open++;
        out_groups[i] = &end->group;
    }
    if (whole)
        return MR_OK;
    size_t made = t->open;
    if (made == 0)
        table_free(t);
    for (size_t i = 0; i < made; i++)
        end_close(out_groups[i]);
    return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a group of %zu", members);
}
