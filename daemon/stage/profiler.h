/* SPDX-License-Identifier: Apache-2.0 */
/* profiler.h: what the layers of a job cost on this stage's own device, with its own threads:
 * seconds of forward, backward-input and backward-weight of each class of equal layers
 * (plan/profile.h), what forward leaves for the backward, the loss, the optimizer's element, and a
 * message over this stage's own address.
 *
 * A class is built alone, as a stage would build it, and let go of before the next one, so the most
 * memory that is needed is that of the largest layer. Its first two rounds are thrown away: they
 * touch memory, make plans of matrix products and warm caches. Then rounds of F, I and W in the
 * order of a step are timed until the class has had its share of MR_PROFILE_AIM_MS, at least three
 * and at most thirty; short operations are repeated within a round so that the clock does not
 * matter. Medians count.
 *
 * In a step a layer finds in the caches what its neighbour has just written, and of its own weights
 * and saved bytes only what the rest of its stage has left there. So before each timed F and I, and
 * before what the optimizer does, as many bytes are read as the rest of a stage of average size
 * works on (up to PROFILER_EVICT_BYTES_MAX), and then the layer's input or output gradient. Without
 * this a model of many small layers is timed some ten percent too fast.
 * Owner: stage. Thread: EXEC, while no session stands. Limits: MR_PROFILE_AIM_MS,
 * MR_PROFILE_TIMEOUT_MS.
 * Not here: cutting (plan/profile_cut.h), orders (stage.c). */
#ifndef MR_STAGE_PROFILER_H
#define MR_STAGE_PROFILER_H

#include <stdatomic.h>

#include "daemon/device/device.h"
#include "daemon/link/grpc.h"
#include "daemon/plan/profile.h"
#include "daemon/stage/assignment.h"

/* What a Profile order asks. Immutable; LOOP makes it and frees it when EXEC has let go of it. */
typedef struct mr_profiler_order {
    char job_id[MR_JOB_ID_BYTES];
    uint64_t epoch;
    char address[MR_ADDRESS_BYTES]; /* this stage's own, for the link's probe */
    mr_job *job;
} mr_profiler_order;

/* INVALID_ARGUMENT: a job file that cannot be. */
MR_MUST_CHECK mr_status mr_profiler_order_make(const Millrace__V1__Profile *message,
                                               const char *address, mr_profiler_order **out_order);
/* NULL is fine. */
void mr_profiler_order_destroy(mr_profiler_order *order);

/* Everything borrowed for the call. */
typedef struct mr_profiler_options {
    mr_device *device;
    const mr_profiler_order *order;
    mr_link_hub *links; /* NULL: no probe, link and link_byte are 0 */
    const mr_rpc_credentials *credentials;
    _Atomic bool *stop; /* true: give up before the next operation */
} mr_profiler_options;

/* Measures. The caller fills in who it is; the owner frees the result with
 * mr_profile_device_destroy. CANCELLED: stopped; DEADLINE_EXCEEDED: MR_PROFILE_TIMEOUT_MS were not
 * enough, with how far it came; errors of layers, memory and device. A link that could not be
 * probed is no error; out_link says why. */
MR_MUST_CHECK mr_status mr_profiler_run(const mr_profiler_options *options,
                                        mr_profile_device **out_device, mr_status *out_link);

#endif
