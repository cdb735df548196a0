/* SPDX-License-Identifier: Apache-2.0 */
/* NCCL's part of the fake: communicators, their rules, and calls that become entries of streams. A
 * call answers ncclInProgress, and the state says so for some looks more, as the real one does when
 * it is slow. */
#include "daemon/group/fake_nccl/fake_nccl.h"

#include <stdio.h>
#include <string.h>

#include "daemon/group/fake_nccl/engine.h"

enum { FAKE_VERSION = NCCL_VERSION_CODE, FAKE_ID_MAGIC = 0x6d724e };

typedef struct fake_id {
    uint64_t magic;
    uint64_t number;
} fake_id;

/* A thread's open group. */
static _Thread_local struct {
    int depth;
    size_t count;
    fake_stream *streams[FAKE_TRANSFERS_MAX];
    fake_transfer transfers[FAKE_TRANSFERS_MAX];
} open_group;

/* ---- making ---- */

ncclResult_t ncclGetVersion(int *version) {
    *version = FAKE_VERSION;
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result) {
    static const char *const texts[ncclNumResults] = {
        "no error",         "unhandled cuda error", "unhandled system error", "internal error",
        "invalid argument", "invalid usage",        "remote process exited",  "in progress",
    };
    return result >= 0 && result < ncclNumResults ? texts[result] : "unknown";
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *out_id) {
    fake_lock();
    const fake_id id = {FAKE_ID_MAGIC, ++fake.id_last};
    fake_unlock();
    memset(out_id, 0, sizeof(*out_id));
    memcpy(out_id, &id, sizeof(id));
    return ncclSuccess;
}

static bool config_is_right(const ncclConfig_t *config) {
    const ncclConfig_t right = NCCL_CONFIG_INITIALIZER;
    return config != NULL && config->magic == right.magic && config->size == right.size &&
           config->version == right.version && config->blocking == 0 && config->commName != NULL;
}

static bool join_is_right(const fake_id *id, int rank_count, int rank, const ncclConfig_t *config) {
    if (id->magic != FAKE_ID_MAGIC) {
        fake_violate("a communicator is made from what is no id");
        return false;
    }
    if (!config_is_right(config)) {
        fake_violate("a communicator blocks, or has no name: its config is not set");
        return false;
    }
    if (rank_count < 1 || rank_count > FAKE_RANKS_MAX || rank < 0 || rank >= rank_count)
        return false;
    for (size_t i = 0; i < FAKE_COMMS_MAX; i++) {
        const fake_comm *other = &fake.comms[i];
        if (!other->used || other->id != id->number)
            continue;
        if (other->rank == rank || other->rank_count != rank_count) {
            fake_violate("%s: id %llu is used twice by rank %d, or for %d and %d ranks",
                         config->commName, (unsigned long long)id->number, rank, other->rank_count,
                         rank_count);
            return false;
        }
    }
    return true;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *out_comm, int rank_count, ncclUniqueId unique,
                                    int rank, ncclConfig_t *config) {
    fake_id id;
    ncclResult_t result = ncclInvalidArgument;
    memcpy(&id, unique.internal, sizeof(id));
    fake_lock();
    bool right = join_is_right(&id, rank_count, rank, config);
    for (size_t i = 0; right && i < FAKE_COMMS_MAX && result != ncclInProgress; i++) {
        fake_comm *comm = &fake.comms[i];
        if (comm->used)
            continue;
        *comm = (fake_comm){.used = true,
                            .id = id.number,
                            .rank = rank,
                            .rank_count = rank_count,
                            .thread = pthread_self(),
                            .busy = FAKE_BUSY_LOOKS};
        (void)snprintf(comm->name, sizeof(comm->name), "%.150s", config->commName);
        *out_comm = (ncclComm_t)(void *)comm;
        result = ncclInProgress;
    }
    fake_unlock();
    return result;
}

/* ---- state ---- */

/* Under the lock. Every call's rules: not after the end, and always from one thread. */
static bool comm_is_usable(const fake_comm *comm, const char *what, fake_comm_state state_max) {
    if (comm == NULL || !comm->used) {
        fake_violate("%s: on no communicator", what);
        return false;
    }
    if (comm->state > state_max) {
        fake_violate("%s: %s after its %s", comm->name, what,
                     comm->state == FAKE_ABORTED ? "abort" : "end");
        return false;
    }
    if (!pthread_equal(comm->thread, pthread_self()))
        fake_violate("%s: %s from a second thread", comm->name, what);
    return true;
}

/* How many members have joined so far, and has one gone? */
static int comm_joined(const fake_comm *comm, bool *out_gone) {
    int joined = 0;
    *out_gone = false;
    for (int rank = 0; rank < comm->rank_count; rank++) {
        const fake_comm *peer = fake_comm_peer(comm, rank);
        joined += peer != NULL;
        *out_gone |= peer != NULL && peer->state >= FAKE_DESTROYED;
    }
    return joined;
}

static ncclResult_t comm_state(fake_comm *comm) {
    bool gone = false;
    if (fake.fail_next != ncclSuccess && fake.fail_member == comm->rank) {
        comm->error = fake.fail_next;
        fake.fail_next = ncclSuccess;
    }
    fake_progress();
    if (comm->error != ncclSuccess)
        return comm->error;
    bool whole = comm_joined(comm, &gone) == comm->rank_count;
    if (gone && comm->state == FAKE_JOINED && (!whole || fake_comm_waits(comm)))
        return ncclRemoteError;
    if (!whole)
        return ncclInProgress;
    if (comm->busy > 0)
        comm->busy--;
    return comm->busy > 0 ? ncclInProgress : ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t handle, ncclResult_t *out_state) {
    fake_comm *comm = (fake_comm *)(void *)handle;
    fake_lock();
    bool usable = comm_is_usable(comm, "a look at its state", FAKE_FINALIZED);
    if (usable)
        *out_state = comm_state(comm);
    fake_unlock();
    return usable ? ncclSuccess : ncclInvalidArgument;
}

ncclResult_t ncclCommFinalize(ncclComm_t handle) {
    fake_comm *comm = (fake_comm *)(void *)handle;
    fake_lock();
    bool usable = comm_is_usable(comm, "its finalization", FAKE_JOINED);
    if (usable && fake_comm_waits(comm))
        fake_violate("%s: finalized while operations wait", comm->name);
    if (usable) {
        comm->state = FAKE_FINALIZED;
        comm->busy = FAKE_BUSY_LOOKS;
        comm->busy_stream = NULL;
    }
    fake_unlock();
    return usable ? ncclInProgress : ncclInvalidArgument;
}

ncclResult_t ncclCommDestroy(ncclComm_t handle) {
    fake_comm *comm = (fake_comm *)(void *)handle;
    fake_lock();
    bool usable = comm_is_usable(comm, "its destruction", FAKE_FINALIZED);
    if (usable && (comm->state != FAKE_FINALIZED || comm->busy > 0))
        fake_violate("%s: destroyed before it was finalized", comm->name);
    if (usable)
        comm->state = FAKE_DESTROYED;
    fake_unlock();
    return usable ? ncclSuccess : ncclInvalidArgument;
}

ncclResult_t ncclCommAbort(ncclComm_t handle) {
    fake_comm *comm = (fake_comm *)(void *)handle;
    fake_lock();
    bool usable = comm_is_usable(comm, "its abort", FAKE_FINALIZED);
    if (usable) {
        comm->state = FAKE_ABORTED;
        comm->busy = 0;
        fake_comm_drop(comm);
    }
    fake_unlock();
    return usable ? ncclSuccess : ncclInvalidArgument;
}

/* ---- calls ---- */

static void comm_count(fake_transfer *transfer) {
    fake_comm *comm = transfer->comm;
    if (transfer->kind == FAKE_SEND)
        transfer->number = ++comm->sent[transfer->peer];
    else if (transfer->kind == FAKE_RECEIVE)
        transfer->number = ++comm->received[transfer->peer];
    else
        transfer->number = ++comm->collectives;
}

/* One entry for all of the group's calls on a stream. */
static void group_queue(fake_stream *stream) {
    fake_op *op = fake_op_add(stream, FAKE_NCCL);
    for (size_t i = 0; op != NULL && i < open_group.count; i++) {
        fake_transfer *transfer = &open_group.transfers[i];
        if (open_group.streams[i] != stream)
            continue;
        comm_count(transfer);
        op->transfers[op->count++] = *transfer;
        transfer->comm->busy = FAKE_BUSY_LOOKS;
        transfer->comm->busy_stream = stream;
        open_group.streams[i] = NULL;
    }
}

static ncclResult_t group_close(void) {
    fake_lock();
    for (size_t i = 0; i < open_group.count; i++)
        if (open_group.streams[i] != NULL)
            group_queue(open_group.streams[i]);
    fake_unlock();
    open_group.count = 0;
    return ncclInProgress;
}

ncclResult_t ncclGroupStart(void) {
    open_group.depth++;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void) {
    if (open_group.depth == 0) {
        fake_lock();
        fake_violate("a group ends that was not begun");
        fake_unlock();
        return ncclInvalidUsage;
    }
    return --open_group.depth > 0 ? ncclSuccess : group_close();
}

static ncclResult_t call(fake_transfer transfer, ncclComm_t handle, cudaStream_t stream) {
    transfer.comm = (fake_comm *)(void *)handle;
    fake_lock();
    bool usable = comm_is_usable(transfer.comm, "a call", FAKE_JOINED);
    if (usable && (transfer.peer < 0 || transfer.peer >= transfer.comm->rank_count)) {
        fake_violate("%s: rank %d of %d", transfer.comm->name, transfer.peer,
                     transfer.comm->rank_count);
        usable = false;
    }
    if (usable && transfer.comm->busy > 0)
        fake_violate("%s: a call while the last one is in progress", transfer.comm->name);
    if (usable && open_group.count == FAKE_TRANSFERS_MAX) {
        fake_violate("%s: more than %d calls in a group", transfer.comm->name, FAKE_TRANSFERS_MAX);
        usable = false;
    }
    fake_unlock();
    if (!usable)
        return ncclInvalidArgument;
    open_group.streams[open_group.count] = (fake_stream *)(void *)stream;
    open_group.transfers[open_group.count++] = transfer;
    return open_group.depth > 0 ? ncclSuccess : group_close();
}

ncclResult_t ncclSend(const void *from, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream) {
    if (type != ncclUint8)
        return ncclInvalidArgument;
    return call((fake_transfer){.kind = FAKE_SEND, .from = from, .bytes = count, .peer = peer},
                comm, stream);
}

ncclResult_t ncclRecv(void *to, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
    if (type != ncclUint8)
        return ncclInvalidArgument;
    return call((fake_transfer){.kind = FAKE_RECEIVE, .to = to, .bytes = count, .peer = peer},
                comm, stream);
}

ncclResult_t ncclBroadcast(const void *from, void *to, size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream) {
    if (type != ncclUint8)
        return ncclInvalidArgument;
    return call((fake_transfer){
                    .kind = FAKE_BROADCAST, .from = from, .to = to, .bytes = count, .peer = root},
                comm, stream);
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type,
                           ncclRedOp_t operation, ncclComm_t comm, cudaStream_t stream) {
    if (type != ncclFloat32 || operation != ncclSum)
        return ncclInvalidArgument;
    return call((fake_transfer){.kind = FAKE_SUM,
                                .from = from,
                                .to = to,
                                .bytes = count * sizeof(float)},
                comm, stream);
}
