/* SPDX-License-Identifier: Apache-2.0 */
/* engine.h: the state of the fake and what moves it. One lock guards all of it.
 * Owner: tests. Internal to this folder. */
#ifndef MR_GROUP_FAKE_NCCL_ENGINE_H
#define MR_GROUP_FAKE_NCCL_ENGINE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <nccl.h>

enum {
    FAKE_STREAMS_MAX = 64,
    FAKE_EVENTS_MAX = 512,
    FAKE_COMMS_MAX = 256,
    FAKE_OPS_MAX = 2048,
    FAKE_TRANSFERS_MAX = 16, /* calls in one group */
    FAKE_RANKS_MAX = 16,
    FAKE_BLOCKS_MAX = 64, /* of memory */
    FAKE_VIOLATIONS_MAX = 64,
    FAKE_TEXT_BYTES = 200,
    FAKE_BUSY_LOOKS = 2, /* looks at its state that a call stays in progress */
};

typedef struct fake_comm fake_comm;
typedef struct fake_stream fake_stream;

typedef struct fake_event {
    bool used;
    uint64_t set;    /* times recorded */
    uint64_t passed; /* of those, executed */
    size_t openers;  /* by IPC */
} fake_event;

typedef enum fake_kind { FAKE_SEND, FAKE_RECEIVE, FAKE_SUM, FAKE_BROADCAST } fake_kind;

/* One call of NCCL. */
typedef struct fake_transfer {
    fake_kind kind;
    fake_comm *comm;
    const void *from;
    void *to;
    size_t bytes;
    int peer;        /* root of a broadcast */
    uint64_t number; /* of its kind on this communicator and peer */
    bool done;
} fake_transfer;

typedef enum fake_op_kind { FAKE_SET, FAKE_WAIT, FAKE_COPY, FAKE_NCCL } fake_op_kind;

/* One entry of a stream. */
typedef struct fake_op {
    bool used;
    fake_op_kind kind;
    struct fake_op *next;
    fake_event *event;
    uint64_t ticket; /* of the event: which setting of it */
    void *to;
    const void *from;
    size_t bytes;
    size_t count;
    fake_transfer transfers[FAKE_TRANSFERS_MAX];
} fake_op;

struct fake_stream {
    bool used;
    fake_op *first;
    fake_op *last;
};

typedef enum fake_comm_state {
    FAKE_JOINED,
    FAKE_FINALIZED,
    FAKE_DESTROYED,
    FAKE_ABORTED
} fake_comm_state;

struct fake_comm {
    bool used;
    fake_comm_state state;
    uint64_t id;
    int rank;
    int rank_count;
    pthread_t thread;
    int busy; /* looks until the last call is taken in */
    fake_stream *busy_stream;
    ncclResult_t error;
    uint64_t sent[FAKE_RANKS_MAX];
    uint64_t received[FAKE_RANKS_MAX];
    uint64_t collectives;
    char name[FAKE_TEXT_BYTES];
};

typedef struct fake_block {
    bool used;
    void *memory;
    size_t openers;
} fake_block;

typedef struct fake_state {
    pthread_mutex_t lock;
    fake_stream streams[FAKE_STREAMS_MAX];
    fake_event events[FAKE_EVENTS_MAX];
    fake_comm comms[FAKE_COMMS_MAX];
    fake_op ops[FAKE_OPS_MAX];
    fake_block blocks[FAKE_BLOCKS_MAX];
    char violations[FAKE_VIOLATIONS_MAX][FAKE_TEXT_BYTES];
    size_t violation_count;
    uint64_t id_last;
    ncclResult_t fail_next;
    int fail_member;
    bool cycle_told;
} fake_state;

extern fake_state fake;

void fake_lock(void);
void fake_unlock(void);
/* Writes a violation down. */
void fake_violate(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A fresh entry at the stream's end; NULL and a violation: none left, or the stream must not be
 * used now. */
fake_op *fake_op_add(fake_stream *stream, fake_op_kind kind);
/* Executes what can be; then looks for cycles. */
void fake_progress(void);
/* The communicator's entries that wait leave their streams. */
void fake_comm_drop(const fake_comm *comm);
bool fake_comm_waits(const fake_comm *comm);
/* The member of the communicator with that rank; NULL: has not joined. */
fake_comm *fake_comm_peer(const fake_comm *comm, int rank);
/* Finds streams that wait for each other (waits.c) and writes the cycle down, once. */
void fake_find_cycle(void);

#endif
