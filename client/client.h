/* SPDX-License-Identifier: Apache-2.0 */
/* client.h: what every command shares: the options of the command line, the connection to the
 * coordinator (made at the first call) and the way to speak to the user.
 * Owner: client. Thread: main.
 * Not here: the forms of output (render.h), streams (watch.h, lane.h). */
#ifndef MR_CLIENT_CLIENT_H
#define MR_CLIENT_CLIENT_H

#include <protobuf-c/protobuf-c.h>

#include "client/commands.h"
#include "client/exit_code.h"
#include "daemon/base/status.h"
#include "daemon/rpc/channel.h"

#define MR_CLIENT_SCHEMA "millrace.cli/v1"

typedef enum mr_output {
    MR_OUTPUT_TABLE, /* for people; columns may change */
    MR_OUTPUT_JSON,  /* one document */
    MR_OUTPUT_JSONL, /* one object a line */
    MR_OUTPUT_NAME,  /* ids only */
    MR_OUTPUT_COUNT
} mr_output;

typedef struct mr_config mr_config; /* client/config.h */

typedef struct mr_client {
    const mr_invocation *invocation;
    mr_config *config; /* where the options' values come from */
    mr_output output;
    bool wide; /* a table with more columns */
    bool quiet;
    bool verbose;
    const char *server;
    int64_t timeout_ms;
    mr_rpc_credentials credentials;
    bool runtime_started;
    mr_rpc_channel *channel; /* NULL until the first call */
    mr_exit_code exit_code;  /* where a command ends well but not with DONE */
} mr_client;

/* Reads the options of every command; connects to nothing. INVALID_ARGUMENT: half of a TLS pair,
 * or quiet and verbose at once. config is borrowed. */
MR_MUST_CHECK mr_status mr_client_init(mr_client *client, const mr_invocation *invocation,
                                       mr_config *config);
/* Ends the connection; its streams must have ended. */
void mr_client_deinit(mr_client *client);

/* Starts gRPC and the channel if that has not been done. */
MR_MUST_CHECK mr_status mr_client_connect(mr_client *client);
/* One call of the Jobs service, at most --timeout long. Owner frees *out_response with
 * protobuf_c_message_free_unpacked. UNAVAILABLE names the coordinator's address. */
MR_MUST_CHECK mr_status mr_client_call(mr_client *client, const char *method,
                                       const ProtobufCMessage *request,
                                       ProtobufCMessage **out_response);
/* The same with a bound of its own, where --timeout was not given. */
MR_MUST_CHECK mr_status mr_client_call_within(mr_client *client, const char *method,
                                              const ProtobufCMessage *request, int64_t timeout_ms,
                                              ProtobufCMessage **out_response);
/* Makes an error of the coordinator's connection say who does not answer. */
MR_MUST_CHECK mr_status mr_client_explain(const mr_client *client, mr_status status);

/* One line on stderr, unless --quiet. */
void mr_client_say(const mr_client *client, const char *format, ...) MR_PRINTF(2, 3);
/* One line on stderr, always. */
void mr_client_warn(const char *format, ...) MR_PRINTF(1, 2);

#endif
