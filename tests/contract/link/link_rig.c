/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/contract/link/link_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/arena.h"
#include "daemon/rpc/runtime.h"

void link_ok(mr_status status) {
    if (!mr_status_is_ok(status))
        fail_msg("%s: %s", mr_code_name(status.code), status.text);
}

void link_fails(mr_status status, mr_code code, const char *text) {
    if (status.code != code || strstr(status.text, text) == NULL)
        fail_msg("got %s: %s; wanted %s with \"%s\"", mr_code_name(status.code), status.text,
                 mr_code_name(code), text);
}

/* ---- implementations
 * ---------------------------------------------------------------------------- */

static struct {
    mr_link_hub *hub;
    mr_rpc_server *server;
} over_grpc;

static void grpc_start(void) {
    link_ok(mr_rpc_start());
    link_ok(mr_link_hub_create(&over_grpc.hub));
    const mr_rpc_service services[] = {mr_link_hub_service(over_grpc.hub)};
    const mr_rpc_server_options options = {
        .listen = "127.0.0.1:0", .services = services, .service_count = 1};
    link_ok(mr_rpc_server_start(&options, &over_grpc.server));
}

static void grpc_stop(void) {
    mr_rpc_server_stop(over_grpc.server, LINK_SOON_MS);
    mr_rpc_stop();
    mr_link_hub_destroy(over_grpc.hub);
}

static void grpc_open(const mr_link_options *options, mr_link **out_sender,
                      mr_link **out_receiver) {
    const mr_rpc_credentials credentials = {0};
    link_ok(mr_link_grpc_receiver(over_grpc.hub, options, out_receiver));
    link_ok(mr_link_grpc_sender(link_rig_address(), &credentials, options, LINK_LONG_MS,
                                out_sender));
}

mr_link_hub *link_rig_hub(void) {
    return over_grpc.hub;
}

const char *link_rig_address(void) {
    return mr_rpc_server_address(over_grpc.server);
}

static void in_process_nothing(void) {
}

static void in_process_open(const mr_link_options *options, mr_link **out_sender,
                            mr_link **out_receiver) {
    link_ok(mr_link_in_process(options, out_sender, out_receiver));
}

const link_maker link_makers[2] = {
    {"in process", in_process_nothing, in_process_nothing, in_process_open},
    {"grpc", grpc_start, grpc_stop, grpc_open},
};

mr_link_options link_options(void) {
    return (mr_link_options){
        .job_id = "job-a",
        .epoch = 7,
        .from_rank = LINK_FROM,
        .to_rank = LINK_TO,
        .kind = MR_LINK_ACTIVATION,
        .slots = LINK_SLOTS,
        .message_bytes_max = LINK_BYTES,
    };
}

/* ---- messages
 * ----------------------------------------------------------------------------------- */

void link_parcel_add(link_parcel *parcel, const char *name, mr_dtype dtype, size_t dim_count,
                     const size_t *dims) {
    mr_message *message = &parcel->message;
    size_t i = message->tensor_count++;
    (void)snprintf(message->tensors[i].name, MR_TENSOR_NAME_BYTES, "%s", name);
    mr_shape *shape = &message->tensors[i].tensor.shape;
    *shape = (mr_shape){.dtype = dtype, .dim_count = dim_count, .needs_gradient = i % 2 == 0};
    for (size_t d = 0; d < dim_count; d++)
        shape->dims[d] = dims[d];
}

/* Bytes change with the place and differ between neighbouring tags, tensors and places. */
static unsigned char pattern(const mr_message *message, size_t tensor, size_t place) {
    uint64_t mix = (message->step * 31 + message->micro_batch * 7 + tensor * 3 + 1) *
                   0x9E3779B97F4A7C15u;
    mix = (mix ^ place) * 0xD1B54A32D192ED03u;
    return (unsigned char)(mix >> 56);
}

static size_t tensor_bytes(const mr_message *message, size_t tensor) {
    size_t bytes = 0;
    assert_true(mr_shape_bytes(&message->tensors[tensor].tensor.shape, &bytes));
    return bytes;
}

void link_parcel_fill(link_parcel *parcel) {
    mr_message *message = &parcel->message;
    size_t total = 0;
    for (size_t i = 0; i < message->tensor_count; i++)
        total += tensor_bytes(message, i);
    parcel->memory = malloc(total + 1);
    assert_non_null(parcel->memory);
    unsigned char *at = parcel->memory;
    for (size_t i = 0; i < message->tensor_count; i++) {
        size_t bytes = tensor_bytes(message, i);
        message->tensors[i].tensor.data = at;
        for (size_t b = 0; b < bytes; b++)
            at[b] = pattern(message, i, b);
        at += bytes;
    }
}

void link_parcel_free(link_parcel *parcel) {
    free(parcel->memory);
    parcel->memory = NULL;
}

link_parcel link_parcel_make(uint64_t step, uint32_t micro_batch, size_t elements) {
    link_parcel parcel = {.message = {.step = step, .micro_batch = micro_batch}};
    link_parcel_add(&parcel, "activation", MR_DTYPE_F32, 1, &elements);
    link_parcel_fill(&parcel);
    return parcel;
}

void link_parcel_check(const link_parcel *sent, const mr_message *received) {
    const mr_message *message = &sent->message;
    assert_int_equal(received->step, message->step);
    assert_int_equal(received->micro_batch, message->micro_batch);
    assert_int_equal(received->chunk, message->chunk);
    assert_int_equal(received->tensor_count, message->tensor_count);
    for (size_t i = 0; i < message->tensor_count; i++) {
        const mr_tensor *want = &message->tensors[i].tensor;
        const mr_tensor *got = &received->tensors[i].tensor;
        assert_string_equal(received->tensors[i].name, message->tensors[i].name);
        assert_true(mr_shape_equal(&want->shape, &got->shape));
        assert_int_equal(got->shape.needs_gradient, want->shape.needs_gradient);
        assert_int_equal((uintptr_t)got->data % MR_ARENA_ALIGN, 0);
        if (memcmp(want->data, got->data, tensor_bytes(message, i)) != 0)
            fail_msg("bytes of tensor %zu of microbatch %u are others", i, message->micro_batch);
    }
}

void link_pass(mr_link *sender, mr_link *receiver, const link_parcel *parcel) {
    const mr_message *message = &parcel->message;
    mr_message received = {0};
    link_ok(mr_link_send(sender, message));
    link_ok(mr_link_receive(receiver, message->step, message->micro_batch, message->chunk,
                            LINK_LONG_MS, &received));
    link_parcel_check(parcel, &received);
    mr_link_release(receiver, &received);
    link_ok(mr_link_wait_sent(sender, 0, LINK_LONG_MS));
}
