/* SPDX-License-Identifier: Apache-2.0 */
/* rig.h: what the rpc tests share: a server on a free loopback port that answers Jobs (unary and
 * server stream) and Feed (bidi), a channel to it, and latches to wait on with a bound.
 * Jobs.Get: by the request's job: "status" is refused with a text, "silent" is never answered,
 * anything else comes back as the job's name. Jobs.List has no handler. Jobs.Watch sends three
 * events and succeeds; "forever" sends one and stays open. Feed echoes step, index and payload.
 * Owner: tests. Thread: one test thread; latches any. */
#ifndef MR_TESTS_UNIT_RPC_RIG_H
#define MR_TESTS_UNIT_RPC_RIG_H

#include <stdint.h>

#include "daemon/base/status.h"
#include "daemon/rpc/channel.h"
#include "daemon/rpc/runtime.h"
#include "daemon/rpc/server.h"
#include "millrace/v1/feed.pb-c.h"
#include "millrace/v1/jobs.pb-c.h"

enum { RIG_WAIT_MS = 8000, RIG_GRACE_MS = 2000 };

/* Counts events; waits for them at most RIG_WAIT_MS. */
void rig_latch_reset(void);
void rig_latch_hit(const char *name);
/* Fails the test when the n-th hit of name does not come. */
void rig_latch_wait(const char *name, unsigned n);
unsigned rig_latch_count(const char *name);

typedef struct rig {
    mr_rpc_server *server;
    mr_rpc_channel *channel;
} rig;

/* Starts gRPC, the server on listen, and the channel. */
void rig_start(rig *test, const char *listen);
/* Stops all of it. */
void rig_stop(rig *test);
/* The server alone, without gRPC's start. */
mr_status rig_server(const char *listen, const mr_rpc_credentials *credentials,
                     mr_rpc_server **out_server);

/* What the client side of a stream has seen; on_end hits "client-end", on_message
 * "client-message". */
typedef struct rig_client {
    mr_rpc_stream *stream;
    mr_status end;
    unsigned messages;
    uint64_t last_step;
    size_t last_bytes;
    unsigned char *copy_to; /* NULL: payloads are dropped */
    bool greedy;            /* ask for the next message at each message */
} rig_client;
extern const mr_rpc_stream_events rig_client_events;

/* Opens Feed for client. */
void rig_feed_open(rig *test, rig_client *client, int64_t timeout_ms);
/* Calls Jobs.Get. */
mr_status rig_get(rig *test, const char *job, int64_t timeout_ms, Millrace__V1__Job **out_job);
/* sent of a raw tail: hits the latch named by context. */
void rig_sent(void *context);

/* How the server's Feed streams ended last; they hit "server-end". */
mr_status rig_server_end(void);

/* cmocka assertions with the status' text in the output. */
void rig_ok(mr_status status);
void rig_fails(mr_status status, mr_code code, const char *text);

#endif
