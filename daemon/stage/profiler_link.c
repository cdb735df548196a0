/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/stage/profiler_link.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemon/base/alloc.h"
#include "daemon/base/clock.h"

enum { LINK_SMALL_BYTES = 64, LINK_ROUNDS = 9, LINK_WARM_UP = 3 };

typedef struct link_probe {
    mr_link *sender;
    mr_link *receiver;
    unsigned char *bytes;
    uint32_t count; /* messages so far: their microbatch number */
} link_probe;

/* One message there; its time. */
static mr_status probe_once(link_probe *probe, size_t bytes, double *out_seconds) {
    mr_message message = {.micro_batch = probe->count, .tensor_count = 1};
    mr_message received = {0};
    (void)snprintf(message.tensors[0].name, MR_TENSOR_NAME_BYTES, "probe");
    message.tensors[0].tensor = (mr_tensor){
        .data = probe->bytes,
        .shape = {.dtype = MR_DTYPE_U8, .dim_count = 1, .dims = {bytes}},
    };
    int64_t start_ns = mr_clock_now_ns();
    MR_TRY(mr_link_send(probe->sender, &message));
    MR_TRY(mr_link_receive(probe->receiver, 0, probe->count, 0, MR_CONNECT_TIMEOUT_MS, &received));
    *out_seconds = (double)(mr_clock_now_ns() - start_ns) * 1e-9;
    mr_link_release(probe->receiver, &received);
    probe->count++;
    return mr_link_wait_sent(probe->sender, 0, MR_CONNECT_TIMEOUT_MS);
}

static int double_order(const void *a, const void *b) {
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static mr_status probe_median(link_probe *probe, size_t bytes, double *out_seconds) {
    double seconds[LINK_ROUNDS];
    for (int i = 0; i < LINK_WARM_UP; i++)
        MR_TRY(probe_once(probe, bytes, &seconds[0]));
    for (int i = 0; i < LINK_ROUNDS; i++)
        MR_TRY(probe_once(probe, bytes, &seconds[i]));
    qsort(seconds, LINK_ROUNDS, sizeof(seconds[0]), double_order);
    *out_seconds = seconds[LINK_ROUNDS / 2];
    return MR_OK;
}

mr_status mr_profiler_link(const mr_profiler_options *options, size_t large_bytes,
                           double *out_message, double *out_byte) {
    size_t large = large_bytes < MR_PROFILER_LINK_BYTES_MAX ? large_bytes
                                                            : MR_PROFILER_LINK_BYTES_MAX;
    large = large < 2 * LINK_SMALL_BYTES ? 2 * LINK_SMALL_BYTES : large;
    const mr_link_options link_options = {
        .job_id = options->order->job_id,
        .epoch = options->order->epoch,
        .kind = MR_LINK_ACTIVATION,
        .slots = 2,
        .message_bytes_max = large,
    };
    link_probe probe = {.bytes = mr_alloc(large)};
    double small_seconds = 0;
    double large_seconds = 0;
    mr_status status = MR_OK;
    if (probe.bytes == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a message of %zu bytes", large);
    MR_TRY_GOTO(status, mr_link_grpc_receiver(options->links, &link_options, &probe.receiver), out);
    MR_TRY_GOTO(status,
                mr_link_grpc_sender(options->order->address, options->credentials, &link_options,
                                    MR_CONNECT_TIMEOUT_MS, &probe.sender),
                out);
    MR_TRY_GOTO(status, probe_median(&probe, LINK_SMALL_BYTES, &small_seconds), out);
    MR_TRY_GOTO(status, probe_median(&probe, large, &large_seconds), out);
    *out_message = small_seconds;
    *out_byte = fmax(0, large_seconds - small_seconds) / (double)large;
out:
    mr_link_close(probe.sender);
    mr_link_close(probe.receiver);
    mr_free(probe.bytes);
    return status;
}
