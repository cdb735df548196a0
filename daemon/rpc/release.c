/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/rpc/release.h"

#include <pthread.h>
#include <stdbool.h>
#include <time.h>

#include "daemon/base/alloc.h"
#include "daemon/base/limits.h"

/* Core is down when the thread is asked to end, so nothing it holds can be far away. */
enum { RELEASE_STOP_SECONDS = 20 };
/* Made at start, so that the sends of a step allocate nothing however late the thread is: some
 * frames of each link and group of a stage. */
enum { RELEASE_SPARES = 4 * MR_RPC_SEND_QUEUE_MAX };

struct mr_rpc_release {
    mr_rpc_release *next;
    void (*fn)(void *context);
    void *context;
};

/* One per process, as gRPC itself. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
    mr_rpc_release *first; /* handed over, oldest first */
    mr_rpc_release *last;
    mr_rpc_release *spare;
    size_t outstanding; /* taken and not yet run */
    bool stopping;
} releaser = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void *releaser_run(void *context) {
    (void)pthread_mutex_lock(&releaser.lock);
    while (!releaser.stopping || releaser.outstanding > 0) {
        mr_rpc_release *node = releaser.first;
        if (node == NULL) {
            (void)pthread_cond_wait(&releaser.changed, &releaser.lock);
            continue;
        }
        releaser.first = node->next;
        if (releaser.first == NULL)
            releaser.last = NULL;
        (void)pthread_mutex_unlock(&releaser.lock);
        node->fn(node->context);
        (void)pthread_mutex_lock(&releaser.lock);
        node->next = releaser.spare;
        releaser.spare = node;
        releaser.outstanding--;
    }
    (void)pthread_mutex_unlock(&releaser.lock);
    return context;
}

static void releaser_spares_free(void) {
    while (releaser.spare != NULL) {
        mr_rpc_release *next = releaser.spare->next;
        mr_free(releaser.spare);
        releaser.spare = next;
    }
}

static bool releaser_spares_make(void) {
    for (int i = 0; i < RELEASE_SPARES; i++) {
        mr_rpc_release *node = mr_alloc(sizeof(*node));
        if (node == NULL)
            return false;
        node->next = releaser.spare;
        releaser.spare = node;
    }
    return true;
}

mr_status mr_rpc_release_start(void) {
    releaser.stopping = false;
    if (!releaser_spares_make()) {
        releaser_spares_free();
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for RPCs");
    }
    int error = pthread_create(&releaser.thread, NULL, releaser_run, NULL);
    if (error != 0) {
        releaser_spares_free();
        return MR_ERROR(RESOURCE_EXHAUSTED, "no thread for RPCs (error %d)", error);
    }
    (void)pthread_setname_np(releaser.thread, "rpc-release"); /* only for people */
    return MR_OK;
}

void mr_rpc_release_stop(void) {
    (void)pthread_mutex_lock(&releaser.lock);
    releaser.stopping = true;
    (void)pthread_cond_signal(&releaser.changed);
    (void)pthread_mutex_unlock(&releaser.lock);
    struct timespec limit;
    (void)clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += RELEASE_STOP_SECONDS;
    MR_ASSERT(pthread_timedjoin_np(releaser.thread, NULL, &limit) == 0);
    releaser_spares_free();
}

mr_rpc_release *mr_rpc_release_take(void (*fn)(void *context), void *context) {
    (void)pthread_mutex_lock(&releaser.lock);
    mr_rpc_release *node = releaser.spare;
    if (node != NULL)
        releaser.spare = node->next;
    else
        node = mr_alloc(sizeof(*node));
    if (node != NULL) {
        *node = (mr_rpc_release){.fn = fn, .context = context};
        releaser.outstanding++;
    }
    (void)pthread_mutex_unlock(&releaser.lock);
    return node;
}

void mr_rpc_release_run(void *handed) {
    mr_rpc_release *node = handed;
    (void)pthread_mutex_lock(&releaser.lock);
    node->next = NULL;
    if (releaser.last != NULL)
        releaser.last->next = node;
    else
        releaser.first = node;
    releaser.last = node;
    (void)pthread_cond_signal(&releaser.changed);
    (void)pthread_mutex_unlock(&releaser.lock);
}
