/* SPDX-License-Identifier: Apache-2.0 */
/* waits.c: cycles of streams. A stream that stands waits for its head; the head waits for an entry
 * that lies behind the head of another stream, or of its own. Following that from stream to stream
 * comes to an end where somebody may still queue what is missing, or back to where it began: then
 * nobody can.
 * Owner: tests. */
#include "daemon/group/fake_nccl/engine.h"

#include <stdio.h>

enum { WAITS_EDGES_MAX = FAKE_STREAMS_MAX };

/* Does the entry hold the transfer that t waits for? rank: whose, of a collective. */
static bool op_answers(const fake_op *op, const fake_transfer *t, int rank) {
    for (size_t i = 0; op->kind == FAKE_NCCL && i < op->count; i++) {
        const fake_transfer *at = &op->transfers[i];
        bool pairs = t->kind == FAKE_SEND || t->kind == FAKE_RECEIVE;
        bool same = pairs ? (at->kind == FAKE_SEND) != (t->kind == FAKE_SEND) &&
                                at->kind <= FAKE_RECEIVE && at->peer == t->comm->rank
                          : at->kind > FAKE_RECEIVE;
        if (same && at->comm->id == t->comm->id && at->comm->rank == rank &&
            at->number == t->number && !at->done)
            return true;
    }
    return false;
}

/* The stream in which an entry for t lies behind the head; -1: in none. */
static int behind_find(const fake_transfer *t, int rank) {
    for (int s = 0; s < FAKE_STREAMS_MAX; s++) {
        const fake_op *head = fake.streams[s].first;
        for (const fake_op *op = head == NULL ? NULL : head->next; op != NULL; op = op->next)
            if (op_answers(op, t, rank))
                return s;
    }
    return -1;
}

static int setting_find(const fake_event *event, uint64_t ticket) {
    for (int s = 0; s < FAKE_STREAMS_MAX; s++)
        for (const fake_op *op = fake.streams[s].first; op != NULL; op = op->next)
            if (op->kind == FAKE_SET && op->event == event && op->ticket == ticket)
                return s;
    return -1;
}

/* The streams that the head of stream s waits for. */
static size_t stream_edges(int s, int edges[WAITS_EDGES_MAX]) {
    const fake_op *op = fake.streams[s].first;
    size_t count = 0;
    if (op == NULL)
        return 0;
    if (op->kind == FAKE_WAIT) {
        int to = setting_find(op->event, op->ticket);
        if (to >= 0)
            edges[count++] = to;
    }
    for (size_t i = 0; op->kind == FAKE_NCCL && i < op->count; i++) {
        const fake_transfer *t = &op->transfers[i];
        bool pairs = t->kind == FAKE_SEND || t->kind == FAKE_RECEIVE;
        for (int rank = 0; rank < t->comm->rank_count && !t->done; rank++) {
            int to = !pairs || rank == t->peer ? behind_find(t, rank) : -1;
            if (to >= 0 && count < WAITS_EDGES_MAX)
                edges[count++] = to;
        }
    }
    return count;
}

/* Depth first; state 1: on the way, 2: left. True: came back to one on the way. */
static bool stream_visit(int s, unsigned char state[FAKE_STREAMS_MAX]) {
    int edges[WAITS_EDGES_MAX];
    state[s] = 1;
    size_t count = stream_edges(s, edges);
    for (size_t i = 0; i < count; i++)
        if (state[edges[i]] == 1 || (state[edges[i]] == 0 && stream_visit(edges[i], state)))
            return true;
    state[s] = 2;
    return false;
}

static const char *stream_name(int s) {
    const fake_op *op = fake.streams[s].first;
    return op->kind == FAKE_NCCL ? op->transfers[0].comm->name : "an event";
}

void fake_find_cycle(void) {
    unsigned char state[FAKE_STREAMS_MAX] = {0};
    bool found = false;
    for (int s = 0; s < FAKE_STREAMS_MAX && !found; s++)
        found = state[s] == 0 && fake.streams[s].first != NULL && stream_visit(s, state);
    if (!found || fake.cycle_told)
        return;
    fake.cycle_told = true;
    char text[FAKE_TEXT_BYTES] = "";
    size_t at = 0;
    for (int s = 0; s < FAKE_STREAMS_MAX; s++)
        if (state[s] == 1 && at + 40 < sizeof(text))
            at += (size_t)snprintf(text + at, sizeof(text) - at, " [%d] %.24s", s, stream_name(s));
    fake_violate("cycle: streams wait for each other:%.150s", text);
}
