/* SPDX-License-Identifier: Apache-2.0 */
/* One 64-bit word, the ticket, holds the number of the run (upper half) and the next task (lower).
 * A thread takes a task by raising the ticket with compare-and-swap; success says that the run it
 * read the function of is still the present one, because a run ends only when each of its tasks,
 * this one too, is done. While the next run is written down the ticket is closed (no task has the
 * number UINT32_MAX), so a thread that comes late finds nothing to take and touches nothing.
 * Sleeping: a worker raises `sleepers`, then waits while `signal` has the value it saw; mr_pool_run
 * changes `signal`, then reads `sleepers`. All four are sequentially consistent, so one of the two
 * sees the other. */
#include "daemon/device/cpu/pool.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/base/alloc.h"
#include "daemon/base/clock.h"
#include "daemon/base/limits.h"

typedef struct pool_worker {
    mr_pool *pool;
    pthread_t thread;
    int number;
    int processor; /* -1: not bound */
} pool_worker;

struct mr_pool {
    /* The present run. Written by EXEC only between runs. */
    _Atomic(mr_pool_task) function;
    _Atomic(void *) context;
    _Atomic uint32_t tasks;
    unsigned char apart_1[64]; /* words that different threads write lie on different lines */
    _Atomic uint64_t ticket;
    unsigned char apart_2[64];
    _Atomic uint32_t done;
    _Atomic uint32_t waiting; /* EXEC sleeps on done */
    unsigned char apart_3[64];
    _Atomic uint32_t signal;
    _Atomic uint32_t sleepers;
    _Atomic bool stop;
    void (*start)(void);
    bool spin;
    bool bound;
    cpu_set_t caller_set; /* of EXEC before it was bound */
    int threads;
    int started;
    pool_worker workers[];
};

static void pool_futex_wait(_Atomic uint32_t *word, uint32_t value) {
    /* A spurious return only makes the caller look again. */
    (void)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void pool_futex_wake(_Atomic uint32_t *word, int count) {
    (void)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0); /* cannot fail */
}

static void pool_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

/* Looks at word for a short while; true when it is no longer value. */
static bool pool_spin(const mr_pool *pool, _Atomic uint32_t *word, uint32_t value) {
    if (!pool->spin)
        return atomic_load(word) != value;
    int64_t end = mr_clock_now_ns() + MR_DEVICE_SPIN_NS;
    do {
        for (int i = 0; i < 32; i++) {
            if (atomic_load_explicit(word, memory_order_acquire) != value)
                return true;
            pool_pause();
        }
    } while (mr_clock_now_ns() < end);
    return false;
}

/* Takes and runs tasks of the present run until none is left. */
static void pool_work(mr_pool *pool, int thread) {
    uint64_t ticket = atomic_load(&pool->ticket);
    for (;;) {
        mr_pool_task function = atomic_load(&pool->function);
        void *context = atomic_load(&pool->context);
        uint32_t tasks = atomic_load(&pool->tasks);
        uint32_t task = (uint32_t)ticket;
        if (task >= tasks)
            return;
        if (!atomic_compare_exchange_weak(&pool->ticket, &ticket, ticket + 1))
            continue;
        function(context, task, thread);
        if (atomic_fetch_add(&pool->done, 1) + 1 == tasks && atomic_load(&pool->waiting) != 0)
            pool_futex_wake(&pool->done, 1);
        ticket = atomic_load(&pool->ticket);
    }
}

static void *pool_worker_main(void *argument) {
    pool_worker *worker = argument;
    mr_pool *pool = worker->pool;
    char name[16];
    (void)snprintf(name, sizeof(name), "exec-%d", worker->number);
    (void)pthread_setname_np(pthread_self(), name); /* for people only */
    if (pool->start != NULL)
        pool->start();
    uint32_t seen = 0;
    while (!atomic_load(&pool->stop)) {
        if (!pool_spin(pool, &pool->signal, seen)) {
            atomic_fetch_add(&pool->sleepers, 1);
            pool_futex_wait(&pool->signal, seen);
            atomic_fetch_sub(&pool->sleepers, 1);
        }
        seen = atomic_load(&pool->signal);
        pool_work(pool, worker->number);
    }
    return NULL;
}

static void pool_signal(mr_pool *pool, uint32_t count) {
    atomic_fetch_add(&pool->signal, 1);
    uint32_t sleepers = atomic_load(&pool->sleepers);
    if (sleepers > 0)
        pool_futex_wake(&pool->signal, (int)(count < sleepers ? count : sleepers));
}

void mr_pool_run(mr_pool *pool, size_t tasks, mr_pool_task function, void *context) {
    MR_ASSERT(tasks <= UINT32_MAX);
    if (pool->threads == 1 || tasks <= 1) {
        for (size_t task = 0; task < tasks; task++)
            function(context, task, 0);
        return;
    }
    uint32_t count = (uint32_t)tasks;
    uint64_t run = (atomic_load(&pool->ticket) >> 32) + 1;
    /* Closed first: who still holds the old ticket can no longer raise it, whatever it reads. */
    atomic_store(&pool->ticket, run << 32 | UINT32_MAX);
    atomic_store(&pool->done, 0);
    atomic_store(&pool->function, function);
    atomic_store(&pool->context, context);
    atomic_store(&pool->tasks, count);
    atomic_store(&pool->ticket, run << 32);
    pool_signal(pool, count - 1);
    pool_work(pool, 0);
    for (uint32_t done = atomic_load(&pool->done); done != count;
         done = atomic_load(&pool->done)) {
        if (pool_spin(pool, &pool->done, done))
            continue;
        atomic_store(&pool->waiting, 1);
        pool_futex_wait(&pool->done, done);
        atomic_store(&pool->waiting, 0);
    }
}

static bool pool_bind(pthread_t thread, int processor) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)processor, &set);
    return pthread_setaffinity_np(thread, sizeof(set), &set) == 0;
}

static mr_status pool_start_workers(mr_pool *pool, const int *processors) {
    for (int i = 1; i < pool->threads; i++) {
        pool_worker *worker = &pool->workers[i - 1];
        *worker = (pool_worker){.pool = pool, .number = i};
        int error = pthread_create(&worker->thread, NULL, pool_worker_main, worker);
        if (error != 0)
            return MR_ERROR(RESOURCE_EXHAUSTED, "thread %d of %d does not start: %s", i + 1,
                            pool->threads, strerror(error));
        pool->started++;
        if (processors != NULL)
            (void)pool_bind(worker->thread, processors[i]); /* binding is a wish */
    }
    return MR_OK;
}

mr_status mr_pool_create(int threads, const int *processors, void (*start)(void),
                         mr_pool **out_pool) {
    MR_ASSERT(threads >= 1 && threads <= MR_DEVICE_THREADS_MAX);
    cpu_set_t allowed;
    mr_pool *pool = mr_alloc(sizeof(mr_pool) + (size_t)threads * sizeof(pool_worker));
    if (pool == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a pool of %d threads", threads);
    pool->threads = threads;
    pool->start = start;
    bool known = sched_getaffinity(0, sizeof(allowed), &allowed) == 0;
    /* Looking around on a processor that another thread needs would only hold that one up. */
    pool->spin = known && threads <= CPU_COUNT(&allowed);
    mr_status status = pool_start_workers(pool, processors);
    if (!mr_status_is_ok(status)) {
        mr_pool_destroy(pool);
        return status;
    }
    if (processors != NULL && known) {
        pool->caller_set = allowed;
        pool->bound = pool_bind(pthread_self(), processors[0]);
    }
    *out_pool = pool;
    return MR_OK;
}

void mr_pool_destroy(mr_pool *pool) {
    if (pool == NULL)
        return;
    atomic_store(&pool->stop, true);
    pool_signal(pool, UINT32_MAX);
    for (int i = 0; i < pool->started; i++)
        (void)pthread_join(pool->workers[i].thread, NULL); /* ours, joined once */
    if (pool->bound)
        (void)sched_setaffinity(0, sizeof(pool->caller_set), &pool->caller_set);
    mr_free(pool);
}

int mr_pool_threads(const mr_pool *pool) {
    return pool->threads;
}
