/* SPDX-License-Identifier: Apache-2.0 */
/* Nothing runs by itself: whoever looks (at an event, a state, a queue) moves all streams as far as
 * they go. So a test's outcome does not hang on a scheduler, and a stream that stands has a
 * reason. */
#include "daemon/group/fake_nccl/engine.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/group/fake_nccl/fake_nccl.h"

fake_state fake = {.lock = PTHREAD_MUTEX_INITIALIZER};

void fake_lock(void) {
    (void)pthread_mutex_lock(&fake.lock); /* cannot fail: initialised, not recursive */
}

void fake_unlock(void) {
    (void)pthread_mutex_unlock(&fake.lock);
}

void fake_violate(const char *format, ...) {
    if (fake.violation_count == FAKE_VIOLATIONS_MAX)
        return;
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(fake.violations[fake.violation_count++], FAKE_TEXT_BYTES, format,
                    arguments); /* cut on purpose */
    va_end(arguments);
}

/* ---- streams ---- */

fake_op *fake_op_add(fake_stream *stream, fake_op_kind kind) {
    for (size_t i = 0; i < FAKE_COMMS_MAX; i++)
        if (fake.comms[i].used && fake.comms[i].busy > 0 && fake.comms[i].busy_stream == stream)
            fake_violate("a stream is used while a call of %s is in progress", fake.comms[i].name);
    for (size_t i = 0; i < FAKE_OPS_MAX; i++) {
        fake_op *op = &fake.ops[i];
        if (op->used)
            continue;
        *op = (fake_op){.used = true, .kind = kind};
        if (stream->last != NULL)
            stream->last->next = op;
        else
            stream->first = op;
        stream->last = op;
        return op;
    }
    fake_violate("more than %d operations wait", FAKE_OPS_MAX);
    return NULL;
}

static void stream_pop(fake_stream *stream) {
    fake_op *op = stream->first;
    stream->first = op->next;
    if (stream->first == NULL)
        stream->last = NULL;
    op->used = false;
}

static bool op_is_of(const fake_op *op, const fake_comm *comm) {
    for (size_t i = 0; op->kind == FAKE_NCCL && i < op->count; i++)
        if (op->transfers[i].comm == comm)
            return true;
    return false;
}

void fake_comm_drop(const fake_comm *comm) {
    for (size_t s = 0; s < FAKE_STREAMS_MAX; s++) {
        fake_stream *stream = &fake.streams[s];
        fake_op *kept = NULL;
        fake_op *last = NULL;
        for (fake_op *op = stream->first, *next = NULL; op != NULL; op = next) {
            next = op->next;
            op->next = NULL;
            if (op_is_of(op, comm)) {
                op->used = false;
                continue;
            }
            if (last != NULL)
                last->next = op;
            else
                kept = op;
            last = op;
        }
        stream->first = kept;
        stream->last = last;
    }
}

bool fake_comm_waits(const fake_comm *comm) {
    for (size_t s = 0; s < FAKE_STREAMS_MAX; s++)
        for (const fake_op *op = fake.streams[s].first; op != NULL; op = op->next)
            if (op_is_of(op, comm))
                return true;
    return false;
}

fake_comm *fake_comm_peer(const fake_comm *comm, int rank) {
    for (size_t i = 0; i < FAKE_COMMS_MAX; i++)
        if (fake.comms[i].used && fake.comms[i].id == comm->id && fake.comms[i].rank == rank)
            return &fake.comms[i];
    return NULL;
}

/* ---- NCCL's calls ---- */

/* The transfer at some stream's head that fits: of that communicator, kind, peer and number. */
static fake_transfer *head_find(const fake_comm *comm, fake_kind kind, int peer, uint64_t number) {
    for (size_t s = 0; s < FAKE_STREAMS_MAX; s++) {
        fake_op *op = fake.streams[s].first;
        for (size_t i = 0; op != NULL && op->kind == FAKE_NCCL && i < op->count; i++) {
            fake_transfer *at = &op->transfers[i];
            bool pairs = kind == FAKE_SEND || kind == FAKE_RECEIVE;
            bool same = pairs ? at->kind == kind && at->peer == peer
                              : at->kind == FAKE_SUM || at->kind == FAKE_BROADCAST;
            if (at->comm == comm && same && at->number == number && !at->done)
                return at;
        }
    }
    return NULL;
}

static void transfers_fail(fake_transfer *a, fake_transfer *b) {
    a->done = b->done = true;
    a->comm->error = b->comm->error = ncclInvalidUsage;
}

static bool pair_move(fake_transfer *receive) {
    const fake_comm *from = fake_comm_peer(receive->comm, receive->peer);
    fake_transfer *send =
        from == NULL ? NULL : head_find(from, FAKE_SEND, receive->comm->rank, receive->number);
    if (send == NULL)
        return false;
    if (send->bytes != receive->bytes) {
        fake_violate("%s: rank %d sends %zu bytes and rank %d receives %zu", receive->comm->name,
                     receive->peer, send->bytes, receive->comm->rank, receive->bytes);
        transfers_fail(send, receive);
        return true;
    }
    memcpy(receive->to, send->from, send->bytes);
    send->done = receive->done = true;
    return true;
}

/* out = sum of all members' vectors in rank order; out may be a member's own. */
static void members_sum(fake_transfer *members[], int count) {
    size_t n = members[0]->bytes / sizeof(float);
    for (size_t i = 0; i < n; i++) {
        float sum = ((const float *)members[0]->from)[i];
        for (int m = 1; m < count; m++)
            sum += ((const float *)members[m]->from)[i];
        for (int m = 0; m < count; m++)
            ((float *)members[m]->to)[i] = sum;
    }
}

static bool members_agree(fake_transfer *members[], int count) {
    static const char *const names[] = {"send", "receive", "sum", "broadcast"};
    for (int m = 1; m < count; m++) {
        const fake_transfer *a = members[0];
        const fake_transfer *b = members[m];
        if (a->kind == b->kind && a->bytes == b->bytes && a->peer == b->peer)
            continue;
        fake_violate("%s: rank 0 does %s of %zu bytes with root %d and rank %d %s of %zu with %d",
                     a->comm->name, names[a->kind], a->bytes, a->peer, m, names[b->kind], b->bytes,
                     b->peer);
        return false;
    }
    return true;
}

static bool collective_move(fake_transfer *own) {
    fake_transfer *members[FAKE_RANKS_MAX] = {NULL};
    int count = own->comm->rank_count;
    for (int m = 0; m < count; m++) {
        const fake_comm *comm = fake_comm_peer(own->comm, m);
        members[m] = comm == NULL ? NULL : head_find(comm, own->kind, own->peer, own->number);
        if (members[m] == NULL)
            return false;
    }
    bool agree = members_agree(members, count);
    if (agree && own->kind == FAKE_SUM)
        members_sum(members, count);
    for (int m = 0; m < count; m++) {
        const fake_transfer *root = members[own->kind == FAKE_BROADCAST ? own->peer : 0];
        if (agree && own->kind == FAKE_BROADCAST && members[m]->to != root->from)
            memmove(members[m]->to, root->from, root->bytes);
        members[m]->done = true;
        if (!agree)
            members[m]->comm->error = ncclInvalidUsage;
    }
    return true;
}

static bool nccl_move(fake_op *op, bool *out_done) {
    bool moved = false;
    *out_done = true;
    for (size_t i = 0; i < op->count; i++) {
        fake_transfer *at = &op->transfers[i];
        if (!at->done && at->kind == FAKE_RECEIVE)
            moved |= pair_move(at);
        else if (!at->done && at->kind != FAKE_SEND) /* a send is moved by its receive */
            moved |= collective_move(at);
        *out_done &= at->done;
    }
    return moved;
}

/* ---- progress ---- */

static bool stream_move(fake_stream *stream) {
    fake_op *op = stream->first;
    bool done = false;
    bool moved = false;
    switch (op->kind) {
    case FAKE_SET:
        op->event->passed = op->ticket > op->event->passed ? op->ticket : op->event->passed;
        done = true;
        break;
    case FAKE_WAIT:
        done = op->event->passed >= op->ticket;
        break;
    case FAKE_COPY:
        memcpy(op->to, op->from, op->bytes);
        done = true;
        break;
    case FAKE_NCCL:
        moved = nccl_move(op, &done);
        break;
    }
    if (done)
        stream_pop(stream);
    return done || moved;
}

void fake_progress(void) {
    for (bool moved = true; moved;) {
        moved = false;
        for (size_t s = 0; s < FAKE_STREAMS_MAX; s++)
            while (fake.streams[s].first != NULL && stream_move(&fake.streams[s]))
                moved = true;
    }
    fake_find_cycle();
}

/* ---- what tests ask ---- */

void mr_fake_nccl_reset(void) {
    fake_lock();
    uint64_t id_last = fake.id_last; /* ids stay unique over tests */
    pthread_mutex_t lock = fake.lock;
    for (size_t i = 0; i < FAKE_BLOCKS_MAX; i++)
        if (fake.blocks[i].used)
            free(fake.blocks[i].memory); /* left to a peer that is gone with its test */
    fake = (fake_state){.lock = lock, .id_last = id_last};
    fake_unlock();
}

size_t mr_fake_nccl_violations(void) {
    fake_lock();
    size_t count = fake.violation_count;
    fake_unlock();
    return count;
}

const char *mr_fake_nccl_violation(size_t index) {
    return index < mr_fake_nccl_violations() ? fake.violations[index] : "";
}

size_t mr_fake_nccl_live(void) {
    size_t live = 0;
    fake_lock();
    for (size_t i = 0; i < FAKE_COMMS_MAX; i++)
        live += fake.comms[i].used && fake.comms[i].state < FAKE_DESTROYED;
    for (size_t i = 0; i < FAKE_STREAMS_MAX; i++)
        live += fake.streams[i].used;
    for (size_t i = 0; i < FAKE_EVENTS_MAX; i++)
        live += fake.events[i].used;
    for (size_t i = 0; i < FAKE_BLOCKS_MAX; i++)
        live += fake.blocks[i].used;
    fake_unlock();
    return live;
}

size_t mr_fake_nccl_waiting(void) {
    size_t waiting = 0;
    fake_lock();
    fake_progress();
    for (size_t i = 0; i < FAKE_OPS_MAX; i++)
        waiting += fake.ops[i].used;
    fake_unlock();
    return waiting;
}

void mr_fake_nccl_fail_next(int member, int result) {
    fake_lock();
    fake.fail_member = member;
    fake.fail_next = (ncclResult_t)result;
    fake_unlock();
}
