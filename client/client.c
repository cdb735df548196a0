/* SPDX-License-Identifier: Apache-2.0 */
#include "client/client.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "client/terminal.h"
#include "daemon/base/clock.h"
#include "daemon/rpc/runtime.h"
#include "millrace/v1/jobs.pb-c.h"

/* "wide" is a table, too. */
static mr_output client_output(const char *name) {
    static const char *const names[MR_OUTPUT_COUNT] = {"table", "json", "jsonl", "name"};
    for (size_t i = 0; i < MR_OUTPUT_COUNT; i++) {
        if (strcmp(names[i], name) == 0)
            return (mr_output)i;
    }
    return MR_OUTPUT_TABLE;
}

mr_status mr_client_init(mr_client *client, const mr_invocation *invocation, mr_config *config) {
    *client = (mr_client){
        .invocation = invocation,
        .config = config,
        .output = client_output(mr_invocation_text(invocation, "output")),
        .wide = strcmp(mr_invocation_text(invocation, "output"), "wide") == 0,
        .quiet = mr_invocation_given(invocation, "quiet"),
        .verbose = mr_invocation_given(invocation, "verbose"),
        .server = mr_invocation_text(invocation, "server"),
        .timeout_ms = (int64_t)(mr_invocation_number(invocation, "timeout") * 1000),
        .credentials =
            {
                .ca_file = mr_invocation_text(invocation, "tls-ca"),
                .certificate_file = mr_invocation_text(invocation, "tls-cert"),
                .key_file = mr_invocation_text(invocation, "tls-key"),
                .insecure = mr_invocation_flag(invocation, "insecure"),
            },
    };
    if (mr_invocation_flag(invocation, "no-color"))
        mr_terminal_plain();
    if (client->quiet && client->verbose)
        return MR_ERROR(INVALID_ARGUMENT, "--quiet and --verbose exclude each other");
    if ((client->credentials.certificate_file == NULL) != (client->credentials.key_file == NULL))
        return MR_ERROR(INVALID_ARGUMENT, "--tls-cert and --tls-key go together; only %s is given",
                        client->credentials.key_file ? "--tls-key" : "--tls-cert");
    return MR_OK;
}

void mr_client_deinit(mr_client *client) {
    mr_rpc_channel_destroy(client->channel);
    client->channel = NULL;
    if (client->runtime_started)
        mr_rpc_stop();
    client->runtime_started = false;
}

mr_status mr_client_connect(mr_client *client) {
    if (!client->runtime_started) {
        MR_TRY(mr_rpc_start());
        client->runtime_started = true;
    }
    if (client->channel != NULL)
        return MR_OK;
    return mr_status_prefix(
        mr_rpc_channel_create(client->server, &client->credentials, &client->channel), "server %s",
        client->server);
}

mr_status mr_client_explain(const mr_client *client, mr_status status) {
    if (status.code == MR_CODE_UNAVAILABLE)
        return mr_status_prefix(status, "the coordinator at %s does not answer", client->server);
    if (status.code == MR_CODE_DEADLINE_EXCEEDED)
        return mr_status_prefix(status, "the coordinator at %s took too long", client->server);
    return status;
}

mr_status mr_client_call_within(mr_client *client, const char *method,
                                const ProtobufCMessage *request, int64_t timeout_ms,
                                ProtobufCMessage **out_response) {
    int64_t bound_ms = client->timeout_ms;
    if (!mr_invocation_set(client->invocation, "timeout"))
        bound_ms = timeout_ms;
    MR_TRY(mr_client_connect(client));
    int64_t start_ms = mr_clock_now_ms();
    mr_status status = mr_rpc_channel_call(client->channel, &millrace__v1__jobs__descriptor, method,
                                           request, bound_ms, out_response);
    if (client->verbose)
        mr_client_say(client, "Jobs.%s at %s: %s after %lld ms", method, client->server,
                      mr_code_name(status.code), (long long)(mr_clock_now_ms() - start_ms));
    return mr_client_explain(client, status);
}

mr_status mr_client_call(mr_client *client, const char *method, const ProtobufCMessage *request,
                         ProtobufCMessage **out_response) {
    return mr_client_call_within(client, method, request, client->timeout_ms, out_response);
}

void mr_client_say(const mr_client *client, const char *format, ...) {
    if (client->quiet)
        return;
    va_list arguments;
    va_start(arguments, format);
    mr_terminal_line(format, arguments);
    va_end(arguments);
}

void mr_client_warn(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    mr_terminal_line(format, arguments);
    va_end(arguments);
}
