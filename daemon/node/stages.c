/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/node/stages.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PORT_MAX = 65535, REASON_BYTES = 96 };

mr_status mr_node_address_nth(const char *option, const char *address, size_t n,
                              char out_address[MR_NOTICE_ADDRESS_BYTES]) {
    const char *colon = strrchr(address, ':');
    char *end = NULL;
    unsigned long port = colon == NULL ? 0 : strtoul(colon + 1, &end, 10);
    if (colon == NULL || colon[1] < '0' || colon[1] > '9' || *end != '\0' || port > PORT_MAX ||
        colon == address || strlen(address) >= MR_NOTICE_ADDRESS_BYTES - sizeof("65535"))
        return MR_ERROR(INVALID_ARGUMENT, "--%s is %.80s; a node's must be HOST:PORT", option,
                        address);
    if (port > 0 && port + n > PORT_MAX)
        return MR_ERROR(INVALID_ARGUMENT,
                        "--%s is %.80s; port %lu has no %zu ports above it for the stages", option,
                        address, port, n);
    (void)snprintf(out_address, MR_NOTICE_ADDRESS_BYTES, "%.*s:%zu", (int)(colon - address),
                   address, port > 0 ? (size_t)port + n : 0);
    return MR_OK;
}

static mr_status stage_make(const mr_node_options *options, const mr_node_device *device, size_t n,
                            mr_node_stage *stage) {
    stage->device = *device;
    (void)snprintf(stage->threads, sizeof(stage->threads), "%u", device->threads);
    /* It saves its job in that time, and needs some more to end. */
    unsigned ending = MR_SHUTDOWN_TIMEOUT_MS / 1000 + 1;
    (void)snprintf(stage->drain, sizeof(stage->drain), "%u",
                   options->drain_seconds > ending ? options->drain_seconds - ending : 0);
    MR_TRY(mr_node_address_nth("listen", options->listen, n, stage->listen));
    MR_TRY(mr_node_address_nth("status", options->status_listen, n + 1, stage->status_listen));
    if (options->advertise == NULL)
        return MR_OK;
    return mr_node_address_nth("advertise", options->advertise, n, stage->advertise);
}

mr_status mr_node_stages_make(const mr_node_options *options, const mr_node_devices *devices,
                              int64_t now_ms, mr_node_stages *out_stages) {
    *out_stages = (mr_node_stages){.count = devices->count};
    for (size_t i = 0; i < devices->count; i++) {
        MR_TRY(stage_make(options, &devices->items[i], i, &out_stages->items[i]));
        out_stages->items[i].ward = mr_ward_make(now_ms);
    }
    return MR_OK;
}

/* ---- the command line ---- */

static void command_add(mr_stage_command *command, size_t *used, const char *name,
                        const char *value) {
    MR_ASSERT(*used + 2 < MR_CHILD_ARGUMENTS_MAX);
    command->arguments[(*used)++] = name;
    if (value != NULL)
        command->arguments[(*used)++] = value;
}

mr_stage_command mr_node_stage_command(const mr_node_options *options,
                                       const mr_node_stage *stage) {
    mr_stage_command command = {{"millraced", "stage"}};
    size_t used = 2;
    const mr_rpc_credentials *credentials = &options->credentials;
    command_add(&command, &used, "--coordinator", options->coordinator);
    command_add(&command, &used, "--device", stage->device.kind);
    command_add(&command, &used, "--threads", stage->threads);
    command_add(&command, &used, "--listen", stage->listen);
    command_add(&command, &used, "--status", stage->status_listen);
    command_add(&command, &used, "--drain", stage->drain);
    command_add(&command, &used, "--log-level", options->log_level);
    if (stage->advertise[0] != '\0')
        command_add(&command, &used, "--advertise", stage->advertise);
    if (options->pin)
        command_add(&command, &used, "--pin", NULL);
    if (credentials->ca_file != NULL)
        command_add(&command, &used, "--tls-ca", credentials->ca_file);
    if (credentials->certificate_file != NULL)
        command_add(&command, &used, "--tls-cert", credentials->certificate_file);
    if (credentials->key_file != NULL)
        command_add(&command, &used, "--tls-key", credentials->key_file);
    if (credentials->insecure)
        command_add(&command, &used, "--insecure", NULL);
    return command;
}

/* ---- words ---- */

size_t mr_node_stages_count(const mr_node_stages *stages, mr_ward_state state) {
    size_t count = 0;
    for (size_t i = 0; i < stages->count; i++)
        count += stages->items[i].ward.state == state;
    return count;
}

static void stage_cause(const mr_ward *ward, char out_text[REASON_BYTES]) {
    switch (ward->reason) {
    case MR_WARD_REASON_LATE:
        (void)snprintf(out_text, REASON_BYTES, "it was late and killed");
        break;
    case MR_WARD_REASON_SILENT:
        (void)snprintf(out_text, REASON_BYTES, "it made no progress and was killed");
        break;
    case MR_WARD_REASON_SPAWN:
        (void)snprintf(out_text, REASON_BYTES, "no process could be made");
        break;
    case MR_WARD_REASON_EXIT:
        if (ward->last_signal != 0)
            (void)snprintf(out_text, REASON_BYTES, "signal %d", ward->last_signal);
        else
            (void)snprintf(out_text, REASON_BYTES, "exit code %d", ward->last_exit);
        break;
    case MR_WARD_REASON_NONE:
        (void)snprintf(out_text, REASON_BYTES, "the start");
        break;
    }
}

void mr_node_stage_describe(const mr_node_stage *stage, int64_t now_ms, char *out_text,
                            size_t bytes) {
    const mr_ward *ward = &stage->ward;
    char cause[REASON_BYTES];
    stage_cause(ward, cause);
    if (ward->state == MR_WARD_WAITING) {
        int64_t left_ms = ward->deadline_ms > now_ms ? ward->deadline_ms - now_ms : 0;
        (void)snprintf(out_text, bytes, "waits %" PRId64 " s after %s", (left_ms + 999) / 1000,
                       cause);
    } else if (ward->state == MR_WARD_REFUSED || ward->state == MR_WARD_ENDED) {
        (void)snprintf(out_text, bytes, "is not started again after %s", cause);
    } else {
        (void)snprintf(out_text, bytes, "is %s", mr_ward_state_name(ward->state));
    }
}

void mr_node_stages_describe(const mr_node_stages *stages, int64_t now_ms, char *out_text,
                             size_t bytes) {
    size_t ready = mr_node_stages_count(stages, MR_WARD_READY);
    int used = snprintf(out_text, bytes, "%zu of %zu stages ready", ready, stages->count);
    for (size_t i = 0; i < stages->count; i++) {
        const mr_node_stage *stage = &stages->items[i];
        char why[2 * REASON_BYTES];
        if (stage->ward.state == MR_WARD_READY || used < 0 || (size_t)used >= bytes)
            continue;
        mr_node_stage_describe(stage, now_ms, why, sizeof(why));
        (void)snprintf(out_text + used, bytes - (size_t)used, "; %s %s", stage->device.name, why);
        return;
    }
}
