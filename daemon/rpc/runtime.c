/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/rpc/runtime.h"

#include <signal.h>
#include <time.h>

#include <grpc/grpc.h>
#include <grpc/support/log.h>

#include "daemon/base/log.h"
#include "daemon/rpc/core.h"
#include "daemon/rpc/release.h"
#include "daemon/rpc/tail.h"

/* Above the 20 s that core gives a connection attempt: one that waits for the peer's settings ends
 * at no earlier time, whatever becomes of its channel. */
enum { RUNTIME_DOWN_MS_MAX = 30000 };

static mr_rpc_queue *runtime_queue; /* of every channel; written by main only */

/* Core reports what we return as a status anyway; its own words help only when debugging it. */
static void core_logged(gpr_log_func_args *line) {
    MR_LOG(DEBUG, "gRPC core", MR_S("text", line->message), MR_S("file", line->file),
           MR_I("line", line->line));
}

void mr_rpc_signals_block(sigset_t *out_previous) {
    sigset_t all;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_BLOCK, &all, out_previous); /* its arguments are right */
}

void mr_rpc_signals_restore(const sigset_t *previous) {
    (void)pthread_sigmask(SIG_SETMASK, previous, NULL);
}

mr_status mr_rpc_start(void) {
    MR_ASSERT(runtime_queue == NULL);
    sigset_t previous;
    mr_rpc_signals_block(&previous);
    gpr_set_log_function(core_logged);
    grpc_init();
    mr_status status = mr_rpc_release_start();
    if (mr_status_is_ok(status)) {
        status = mr_rpc_queue_create("rpc-channels", &runtime_queue);
        if (!mr_status_is_ok(status))
            mr_rpc_release_stop();
    }
    if (!mr_status_is_ok(status))
        grpc_shutdown();
    mr_rpc_signals_restore(&previous);
    return status;
}

/* Core is down at once, unless a channel that we have destroyed lets go of its last connection only
 * later; core then ends on a thread of its own and offers no event for that. */
static void runtime_down_wait(void) {
    const struct timespec pause = {.tv_nsec = 1000000};
    for (int i = 0; grpc_is_initialized() != 0; i++) {
        MR_ASSERT(i < RUNTIME_DOWN_MS_MAX);
        (void)nanosleep(&pause, NULL);
    }
}

void mr_rpc_stop(void) {
    MR_ASSERT(runtime_queue != NULL);
    mr_rpc_queue_destroy(runtime_queue);
    runtime_queue = NULL;
    grpc_shutdown();
    runtime_down_wait();
    mr_rpc_release_stop(); /* last: transports drop their slices on the way down */
    mr_rpc_tail_spares_free();
}

mr_rpc_queue *mr_rpc_core_queue(void) {
    MR_ASSERT(runtime_queue != NULL);
    return runtime_queue;
}

gpr_timespec mr_rpc_core_deadline(int64_t timeout_ms) {
    if (timeout_ms == 0)
        return gpr_inf_future(GPR_CLOCK_MONOTONIC);
    return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                        gpr_time_from_millis(timeout_ms, GPR_TIMESPAN));
}
