/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the raw tail is found and kept wherever the network cuts the message, and what is not such
 * a message is refused by name. Method: the same packed message as one slice, and cut at every
 * byte; messages that only a foreign or hostile client would send are written by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/limits.h"
#include "daemon/rpc/codec.h"
#include "daemon/rpc/wire.h"
#include "millrace/v1/link.pb-c.h"
#include "tests/unit/rpc/rig.h"

static const mr_rpc_codec_form frame_form = {
    .type = &millrace__v1__link_frame__descriptor,
    .bytes_max = MR_RPC_MESSAGE_BYTES_MAX,
    .tail = true,
};

static int start(void **state) {
    (void)state;
    rig_ok(mr_rpc_start());
    return 0;
}

static int stop(void **state) {
    (void)state;
    mr_rpc_stop();
    return 0;
}

/* bytes as a received buffer, cut into two slices at cut. */
static grpc_byte_buffer *buffer_of(const uint8_t *bytes, size_t length, size_t cut) {
    grpc_slice slices[] = {grpc_slice_from_copied_buffer((const char *)bytes, cut),
                           grpc_slice_from_copied_buffer((const char *)bytes + cut, length - cut)};
    grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(slices, 2);
    grpc_slice_unref(slices[0]);
    grpc_slice_unref(slices[1]);
    return buffer;
}

static mr_status unpack(const uint8_t *bytes, size_t length, size_t cut,
                        Millrace__V1__LinkFrame **out_frame, mr_rpc_tail **out_tail) {
    ProtobufCMessage *message = NULL;
    MR_TRY(mr_rpc_codec_unpack(buffer_of(bytes, length, cut), &frame_form, &message, out_tail));
    *out_frame = (Millrace__V1__LinkFrame *)message;
    return MR_OK;
}

/* Unpacks what must be refused. */
static mr_status refusal(const uint8_t *bytes, size_t length) {
    Millrace__V1__LinkFrame *frame = NULL;
    mr_rpc_tail *tail = NULL;
    mr_status status = unpack(bytes, length, length / 2, &frame, &tail);
    assert_null(frame);
    assert_null(tail);
    return status;
}

enum { RAW_BYTES = 40 };

static size_t frame_pack(uint8_t *out, const uint8_t *raw) {
    Millrace__V1__Tensor tensor = MILLRACE__V1__TENSOR__INIT;
    uint64_t dims[] = {8, 256, 384};
    tensor.name = (char *)(uintptr_t)"hidden";
    tensor.dims = dims;
    tensor.n_dims = 3;
    Millrace__V1__Tensor *tensors[] = {&tensor};
    Millrace__V1__LinkFrame frame = MILLRACE__V1__LINK_FRAME__INIT;
    frame.job_id = (char *)(uintptr_t)"j1";
    frame.step = 300;
    frame.tensors = tensors;
    frame.n_tensors = 1;
    frame.payload = (ProtobufCBinaryData){RAW_BYTES, (uint8_t *)(uintptr_t)raw};
    return protobuf_c_message_pack(&frame.base, out);
}

static void test_tail_is_found_at_every_cut(void **state) {
    (void)state;
    uint8_t raw[RAW_BYTES];
    for (size_t i = 0; i < RAW_BYTES; i++)
        raw[i] = (uint8_t)(200 + i);
    uint8_t bytes[256];
    size_t length = frame_pack(bytes, raw);
    for (size_t cut = 0; cut <= length; cut++) {
        Millrace__V1__LinkFrame *frame = NULL;
        mr_rpc_tail *tail = NULL;
        rig_ok(unpack(bytes, length, cut, &frame, &tail));
        assert_int_equal(frame->step, 300);
        assert_string_equal(frame->tensors[0]->name, "hidden");
        assert_int_equal(frame->payload.len, 0);
        assert_int_equal(mr_rpc_tail_bytes(tail), RAW_BYTES);
        for (size_t from = 0; from < RAW_BYTES; from += 7) {
            uint8_t part[RAW_BYTES] = {0};
            rig_ok(mr_rpc_tail_copy(tail, from, RAW_BYTES - from, part));
            assert_memory_equal(part, raw + from, RAW_BYTES - from);
        }
        uint8_t none;
        rig_ok(mr_rpc_tail_copy(tail, RAW_BYTES, 0, &none));
        rig_fails(mr_rpc_tail_copy(tail, 1, RAW_BYTES, &none), MR_CODE_OUT_OF_RANGE,
                  "40 bytes from offset 1 are asked of a payload of 40");
        rig_fails(mr_rpc_tail_copy(tail, SIZE_MAX, 2, &none), MR_CODE_OUT_OF_RANGE, "");
        mr_rpc_tail_destroy(tail);
        protobuf_c_message_free_unpacked(&frame->base, NULL);
    }
}

static void test_packed_tail_is_the_callers_memory(void **state) {
    (void)state;
    rig_latch_reset();
    uint8_t raw[RAW_BYTES] = {1, 2, 3};
    uint8_t whole[256];
    Millrace__V1__LinkFrame frame = MILLRACE__V1__LINK_FRAME__INIT;
    frame.sequence = 9;
    const mr_rpc_raw tail = {
        .data = raw, .bytes = sizeof(raw), .sent = rig_sent, .context = "sent"};
    grpc_byte_buffer *buffer;
    rig_ok(mr_rpc_codec_pack(&frame.base, &tail, &buffer));
    const grpc_slice_buffer *slices = &buffer->data.raw.slice_buffer;
    assert_int_equal(slices->count, 2);
    assert_ptr_equal(GRPC_SLICE_START_PTR(slices->slices[1]), raw);
    frame.payload = (ProtobufCBinaryData){sizeof(raw), raw}; /* what protobuf-c alone would write */
    assert_int_equal(protobuf_c_message_pack(&frame.base, whole), slices->length);
    assert_memory_equal(whole, GRPC_SLICE_START_PTR(slices->slices[0]),
                        slices->length - sizeof(raw));
    assert_int_equal(rig_latch_count("sent"), 0);
    grpc_byte_buffer_destroy(buffer);
    rig_latch_wait("sent", 1);
}

static void test_payload_that_is_not_last_is_refused(void **state) {
    (void)state;
    const uint8_t bytes[] = {15 << 3 | 2, 2, 'a', 'b', 6 << 3, 1};
    rig_fails(refusal(bytes, sizeof(bytes)), MR_CODE_INVALID_ARGUMENT,
              "millrace.v1.LinkFrame.payload ends at byte 4 of 6; it must be the message's last "
              "field");
}

static void test_cut_and_stray_bytes_are_refused_with_their_place(void **state) {
    (void)state;
    uint8_t raw[RAW_BYTES] = {0};
    uint8_t bytes[256];
    size_t length = frame_pack(bytes, raw);
    for (size_t cut = 0; cut < length; cut++) { /* a prefix is a message only between two fields */
        Millrace__V1__LinkFrame *frame = NULL;
        mr_rpc_tail *tail = NULL;
        mr_status status = unpack(bytes, cut, cut / 2, &frame, &tail);
        if (mr_status_is_ok(status)) {
            assert_null(tail);
            protobuf_c_message_free_unpacked(&frame->base, NULL);
        } else {
            rig_fails(status, MR_CODE_INVALID_ARGUMENT, "millrace.v1.LinkFrame of");
        }
    }
    const uint8_t group[] = {6 << 3, 1, 6 << 3 | 3};
    rig_fails(refusal(group, sizeof(group)), MR_CODE_INVALID_ARGUMENT,
              "millrace.v1.LinkFrame of 3 bytes cannot be decoded: no protobuf field at offset 2");
    const uint8_t endless[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    rig_fails(refusal(endless, sizeof(endless)), MR_CODE_INVALID_ARGUMENT, "offset 0");
    const uint8_t huge[] = {1 << 3 | 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1};
    rig_fails(refusal(huge, sizeof(huge)), MR_CODE_INVALID_ARGUMENT, "offset 0");
}

static void test_header_over_its_limit_is_refused(void **state) {
    (void)state;
    size_t length = MR_RPC_HEADER_BYTES_MAX + 16;
    uint8_t *bytes = calloc(1, length);
    assert_non_null(bytes);
    bytes[0] = 1 << 3 | 2; /* job_id, longer than any header */
    size_t at = 1 + mr_rpc_wire_varint_put(MR_RPC_HEADER_BYTES_MAX, bytes + 1);
    memset(bytes + at, 'j', MR_RPC_HEADER_BYTES_MAX);
    at += MR_RPC_HEADER_BYTES_MAX;
    bytes[at++] = 15 << 3 | 2;
    bytes[at++] = 1;
    at++;
    rig_fails(refusal(bytes, at), MR_CODE_RESOURCE_EXHAUSTED,
              "millrace.v1.LinkFrame has over 65536 bytes before its payload");
    free(bytes);
}

static void test_bytes_made_to_expand_are_refused(void **state) {
    (void)state;
    /* A list of two million empty jobs: 4 MB on the wire, over half a gigabyte in memory. */
    size_t length = 4 << 20;
    uint8_t *bytes = malloc(length);
    assert_non_null(bytes);
    for (size_t i = 0; i < length; i += 2) {
        bytes[i] = 1 << 3 | 2;
        bytes[i + 1] = 0;
    }
    const mr_rpc_codec_form form = {.type = &millrace__v1__list_response__descriptor,
                                    .bytes_max = MR_RPC_CONTROL_BYTES_MAX};
    ProtobufCMessage *message = NULL;
    mr_rpc_tail *tail = NULL;
    rig_fails(mr_rpc_codec_unpack(buffer_of(bytes, length, 1), &form, &message, &tail),
              MR_CODE_RESOURCE_EXHAUSTED,
              "millrace.v1.ListResponse of 4194304 bytes takes more than");
    assert_null(message);
    free(bytes);
}

static void check(const char *job, mr_code code, const char *text) {
    uint8_t bytes[64] = {1 << 3 | 2, (uint8_t)strlen(job)};
    memcpy(bytes + 2, job, strlen(job));
    mr_status status =
        mr_rpc_wire_check(&millrace__v1__job_request__descriptor, bytes, 2 + strlen(job));
    if (code == MR_CODE_OK)
        rig_ok(status);
    else
        rig_fails(status, code, text);
}

static void test_strings_are_utf8(void **state) {
    (void)state;
    check("", MR_CODE_OK, "");
    check("tiny-gpt", MR_CODE_OK, "");
    check("\x7f \xc2\x80 \xdf\xbf \xe0\xa0\x80 \xed\x9f\xbf", MR_CODE_OK, "");
    check("\xee\x80\x80 \xef\xbf\xbf", MR_CODE_OK, "");
    check("\xf0\x90\x80\x80 \xf4\x8f\xbf\xbf", MR_CODE_OK, "");
    check("a\x80", MR_CODE_INVALID_ARGUMENT, "offset 1 of 2");         /* no first byte */
    check("\xc0\x80", MR_CODE_INVALID_ARGUMENT, "offset 0");           /* overlong */
    check("\xc1\xbf", MR_CODE_INVALID_ARGUMENT, "offset 0");
    check("\xe0\x9f\xbf", MR_CODE_INVALID_ARGUMENT, "offset 0");
    check("\xf0\x8f\xbf\xbf", MR_CODE_INVALID_ARGUMENT, "offset 0");
    check("\xed\xa0\x80", MR_CODE_INVALID_ARGUMENT, "offset 0");       /* surrogate */
    check("\xf4\x90\x80\x80", MR_CODE_INVALID_ARGUMENT, "offset 0");   /* past 10FFFF */
    check("\xf5\x80\x80\x80", MR_CODE_INVALID_ARGUMENT, "offset 0");
    check("ab\xe2\x82", MR_CODE_INVALID_ARGUMENT, "offset 2 of 4");    /* cut */
    check("\xe2\x82z", MR_CODE_INVALID_ARGUMENT, "offset 0");
}

static void test_strings_of_inner_messages_are_checked(void **state) {
    (void)state;
    const uint8_t frame[] = {10 << 3 | 2, 4, 1 << 3 | 2, 2, 'a', 0xff};
    rig_fails(mr_rpc_wire_check(&millrace__v1__link_frame__descriptor, frame, sizeof(frame)),
              MR_CODE_INVALID_ARGUMENT, "millrace.v1.Tensor.name is not UTF-8 at offset 1 of 2");
    const uint8_t unknown[] = {0xa2, 0x06, 1, 0xff}; /* field 100: of a newer peer */
    rig_ok(mr_rpc_wire_check(&millrace__v1__link_frame__descriptor, unknown, sizeof(unknown)));
    const uint8_t packed[] = {3 << 3 | 2, 2, 1, 2}; /* Tensor.dims, as proto3 packs it */
    rig_ok(mr_rpc_wire_check(&millrace__v1__tensor__descriptor, packed, sizeof(packed)));
    const uint8_t single[] = {3 << 3, 1};
    rig_ok(mr_rpc_wire_check(&millrace__v1__tensor__descriptor, single, sizeof(single)));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tail_is_found_at_every_cut),
        cmocka_unit_test(test_packed_tail_is_the_callers_memory),
        cmocka_unit_test(test_payload_that_is_not_last_is_refused),
        cmocka_unit_test(test_cut_and_stray_bytes_are_refused_with_their_place),
        cmocka_unit_test(test_header_over_its_limit_is_refused),
        cmocka_unit_test(test_bytes_made_to_expand_are_refused),
        cmocka_unit_test(test_strings_are_utf8),
        cmocka_unit_test(test_strings_of_inner_messages_are_checked),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
