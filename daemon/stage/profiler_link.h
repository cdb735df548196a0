/* SPDX-License-Identifier: Apache-2.0 */
/* profiler_link.h: what a message costs on this stage's transport: sent to its own address and
 * received by its own hub, through the same gRPC, framing and queues as between two stages. It is a
 * loopback: a wire between two machines adds its own.
 * Owner: stage/profiler. Thread: EXEC. Internal to the profiler's files. */
#ifndef MR_STAGE_PROFILER_LINK_H
#define MR_STAGE_PROFILER_LINK_H

#include "daemon/stage/profiler.h"

/* Seconds of a small message, and of each byte of one of large_bytes (at most
 * MR_PROFILER_LINK_BYTES_MAX are sent at once). UNAVAILABLE and others: as the link says. */
enum { MR_PROFILER_LINK_BYTES_MAX = 8 << 20 };
MR_MUST_CHECK mr_status mr_profiler_link(const mr_profiler_options *options, size_t large_bytes,
                                         double *out_message, double *out_byte);

#endif
