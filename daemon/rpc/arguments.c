/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/rpc/arguments.h"

#include <assert.h>

#include <grpc/compression.h>

#include "daemon/base/limits.h"
#include "daemon/base/status.h"

enum {
    /* A silent peer is gone after time + timeout. A server takes pings at half that distance
     * without calling them too many. */
    ARGUMENTS_KEEPALIVE_TIME_MS = 2000,
    ARGUMENTS_KEEPALIVE_TIMEOUT_MS = 2000,
    ARGUMENTS_PING_DISTANCE_MIN_MS = 1000,
    ARGUMENTS_PING_STRIKES_MAX = 2,
    ARGUMENTS_METADATA_BYTES_MAX = 8 << 10,
    ARGUMENTS_STREAMS_MAX = 64, /* of one connection at once */
    ARGUMENTS_HANDSHAKE_TIMEOUT_MS = 5000,
    ARGUMENTS_CONNECTION_IDLE_MS = 600000,
    ARGUMENTS_RECONNECT_MIN_MS = 200,
    ARGUMENTS_RECONNECT_MAX_MS = 2000,
    ARGUMENTS_FRAME_BYTES_MAX = 1 << 20, /* fewer, larger HTTP/2 frames for tensors */
};
static_assert(ARGUMENTS_PING_DISTANCE_MIN_MS < ARGUMENTS_KEEPALIVE_TIME_MS,
              "our own pings are no strikes");
static_assert(ARGUMENTS_KEEPALIVE_TIME_MS + ARGUMENTS_KEEPALIVE_TIMEOUT_MS <
                  MR_HEARTBEAT_TIMEOUT_MS,
              "a dead connection is noticed before its member is lost");

static void arguments_add(mr_rpc_arguments *arguments, const char *key, int value) {
    MR_ASSERT(arguments->args.num_args < MR_RPC_ARGUMENTS_MAX);
    arguments->list[arguments->args.num_args++] = (grpc_arg){
        .type = GRPC_ARG_INTEGER, .key = (char *)(uintptr_t)key, .value.integer = value};
}

static void arguments_add_both(mr_rpc_arguments *arguments, size_t receive_bytes_max) {
    *arguments = (mr_rpc_arguments){.args.args = arguments->list};
    arguments_add(arguments, GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, (int)receive_bytes_max);
    arguments_add(arguments, GRPC_ARG_MAX_SEND_MESSAGE_LENGTH, MR_RPC_MESSAGE_BYTES_MAX);
    arguments_add(arguments, GRPC_ARG_MAX_METADATA_SIZE, ARGUMENTS_METADATA_BYTES_MAX);
    arguments_add(arguments, GRPC_ARG_HTTP2_MAX_FRAME_SIZE, ARGUMENTS_FRAME_BYTES_MAX);
    arguments_add(arguments, GRPC_ARG_KEEPALIVE_TIME_MS, ARGUMENTS_KEEPALIVE_TIME_MS);
    arguments_add(arguments, GRPC_ARG_KEEPALIVE_TIMEOUT_MS, ARGUMENTS_KEEPALIVE_TIMEOUT_MS);
    arguments_add(arguments, GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
    arguments_add(arguments, GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
    /* Nothing is compressed: tensors do not shrink, and a small message cannot blow up. */
    arguments_add(arguments, GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET,
                  1 << GRPC_COMPRESS_NONE);
}

void mr_rpc_arguments_server(mr_rpc_arguments *arguments, size_t receive_bytes_max) {
    arguments_add_both(arguments, receive_bytes_max);
    arguments_add(arguments, GRPC_ARG_ALLOW_REUSEPORT, 0);
    arguments_add(arguments, GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                  ARGUMENTS_PING_DISTANCE_MIN_MS);
    arguments_add(arguments, GRPC_ARG_HTTP2_MAX_PING_STRIKES, ARGUMENTS_PING_STRIKES_MAX);
    arguments_add(arguments, GRPC_ARG_MAX_CONCURRENT_STREAMS, ARGUMENTS_STREAMS_MAX);
    arguments_add(arguments, GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, ARGUMENTS_HANDSHAKE_TIMEOUT_MS);
    arguments_add(arguments, GRPC_ARG_MAX_CONNECTION_IDLE_MS, ARGUMENTS_CONNECTION_IDLE_MS);
    arguments_add(arguments, GRPC_ARG_ENABLE_CHANNELZ, 0);
}

void mr_rpc_arguments_channel(mr_rpc_arguments *arguments) {
    arguments_add_both(arguments, MR_RPC_MESSAGE_BYTES_MAX);
    arguments_add(arguments, GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments_add(arguments, GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    arguments_add(arguments, GRPC_ARG_ENABLE_RETRIES, 0);
    arguments_add(arguments, GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
    arguments_add(arguments, GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, ARGUMENTS_RECONNECT_MIN_MS);
    arguments_add(arguments, GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, ARGUMENTS_RECONNECT_MAX_MS);
    arguments_add(arguments, GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, ARGUMENTS_RECONNECT_MAX_MS);
    arguments_add(arguments, GRPC_ARG_ENABLE_CHANNELZ, 0);
}
