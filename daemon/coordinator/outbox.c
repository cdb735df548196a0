/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/coordinator/outbox.h"

#include "daemon/base/alloc.h"
#include "daemon/coordinator/message_copy.h"

enum { OUTBOX_FIRST_ENTRIES = 64 };

/* An item that waits, or a barrier (ticket > 0). */
typedef struct outbox_entry {
    mr_outbox_item item;
    uint64_t ticket;
    int64_t since_ms;
} outbox_entry;

struct mr_outbox {
    outbox_entry *entries; /* a ring */
    size_t capacity;
    size_t first;
    size_t count;
    uint64_t ticket_last;
    uint64_t released; /* tickets up to this one have fallen */
    bool running;      /* an item runs: what it adds waits its turn */
};

mr_status mr_outbox_create(mr_outbox **out_outbox) {
    mr_outbox *outbox = mr_alloc(sizeof(*outbox));
    if (outbox == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the outbox");
    *out_outbox = outbox;
    return MR_OK;
}

static outbox_entry *outbox_at(const mr_outbox *outbox, size_t index) {
    return &outbox->entries[(outbox->first + index) % outbox->capacity];
}

static void entry_release(outbox_entry *entry) {
    if (entry->item.message != NULL)
        protobuf_c_message_free_unpacked(entry->item.message, NULL);
    mr_rpc_stream_unref(entry->item.stream);
}

/* Runs from the front until a barrier stands in the way. */
static void outbox_drain(mr_outbox *outbox) {
    if (outbox->running)
        return;
    outbox->running = true;
    while (outbox->count > 0) {
        outbox_entry entry = *outbox_at(outbox, 0);
        if (entry.ticket > outbox->released)
            break;
        outbox->first = (outbox->first + 1) % outbox->capacity;
        outbox->count--;
        if (entry.ticket > 0)
            continue;
        entry.item.run(&entry.item);
        entry_release(&entry);
    }
    outbox->running = false;
}

static bool outbox_grow(mr_outbox *outbox) {
    if (outbox->count < outbox->capacity)
        return true;
    size_t capacity = outbox->capacity == 0 ? OUTBOX_FIRST_ENTRIES : outbox->capacity * 2;
    outbox_entry *entries = mr_alloc_array(capacity, sizeof(*entries));
    if (entries == NULL)
        return false;
    for (size_t i = 0; i < outbox->count; i++)
        entries[i] = *outbox_at(outbox, i);
    mr_free(outbox->entries);
    outbox->entries = entries;
    outbox->capacity = capacity;
    outbox->first = 0;
    return true;
}

static void outbox_fell(mr_outbox *outbox, uint64_t ticket) {
    if (outbox->released < ticket)
        outbox->released = ticket;
    outbox_drain(outbox);
}

void mr_outbox_add(mr_outbox *outbox, const mr_outbox_item *item) {
    bool wait = outbox->count > 0 || outbox->running;
    if (wait && outbox->count >= MR_OUTBOX_ITEMS_MAX)
        outbox_fell(outbox, outbox->ticket_last);
    if (!wait || !outbox_grow(outbox)) {
        item->run(item);
        return;
    }
    outbox_entry entry = {.item = *item};
    if (item->message != NULL) {
        entry.item.message = mr_message_copy(item->message);
        if (entry.item.message == NULL) {
            item->run(item);
            return;
        }
    }
    if (item->stream != NULL)
        (void)mr_rpc_stream_ref(item->stream);
    outbox->count++;
    *outbox_at(outbox, outbox->count - 1) = entry;
    outbox_drain(outbox);
}

uint64_t mr_outbox_barrier(mr_outbox *outbox, int64_t now_ms) {
    uint64_t ticket = ++outbox->ticket_last;
    if (!outbox_grow(outbox))
        return ticket; /* no memory: nothing waits for this one */
    outbox->count++;
    *outbox_at(outbox, outbox->count - 1) = (outbox_entry){.ticket = ticket, .since_ms = now_ms};
    return ticket;
}

void mr_outbox_release(mr_outbox *outbox, uint64_t ticket) {
    outbox_fell(outbox, ticket);
}

void mr_outbox_flush(mr_outbox *outbox) {
    outbox_fell(outbox, outbox->ticket_last);
}

bool mr_outbox_tick(mr_outbox *outbox, int64_t now_ms) {
    if (outbox->count == 0)
        return false;
    const outbox_entry *entry = outbox_at(outbox, 0);
    if (entry->ticket <= outbox->released || now_ms - entry->since_ms < MR_OUTBOX_WAIT_MS)
        return false;
    outbox_fell(outbox, entry->ticket);
    return true;
}

void mr_outbox_destroy(mr_outbox *outbox) {
    if (outbox == NULL)
        return;
    mr_outbox_flush(outbox);
    MR_ASSERT(outbox->count == 0);
    mr_free(outbox->entries);
    mr_free(outbox);
}
