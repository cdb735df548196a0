/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a profile has a time for everything that a step does, a slower layer has a longer one, and
 * what forward saves is what the layer's description says; measuring can be stopped; a link is
 * probed where there is one to probe.
 * Method: a small model on one CPU thread; relations that hold under any load are checked, never a
 * time itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/rpc/runtime.h"
#include "daemon/stage/profiler.h"

static const char job_text[] =
    "schema: millrace.job/v1\n"
    "name: measured\n"
    "model:\n"
    "  layers:\n"
    "    - {type: embedding, tie: embed, vocab: 512, dim: 64, positions: 32}\n"
    "    - {type: transformer_block, repeat: 3, dim: 64, heads: 2}\n"
    "    - {type: layernorm, dim: 64}\n"
    "    - {type: lm_head, tie: embed}\n"
    "batch: {micro_batch_size: 4, sequence_length: 32}\n"
    "lr_schedule: {total_steps: 3}\n"
    "precision: %s\n";

typedef struct bench {
    mr_device *device;
    mr_profiler_order *order;
    _Atomic bool stop;
    mr_profiler_options options;
} bench;

static void good(mr_status status) {
    if (!mr_status_is_ok(status))
        fail_msg("%s", status.text);
}

static void bench_init(bench *b, const char *precision, const char *address) {
    char text[1024];
    const mr_device_options device = {.kind = "cpu", .threads = 1};
    *b = (bench){0};
    (void)snprintf(text, sizeof(text), job_text, precision);
    Millrace__V1__Profile message = MILLRACE__V1__PROFILE__INIT;
    message.job_id = "measured-1";
    message.epoch = 1;
    message.job_file = text;
    good(mr_device_create(&device, &b->device));
    good(mr_profiler_order_make(&message, address, &b->order));
    b->options = (mr_profiler_options){
        .device = b->device, .order = b->order, .stop = &b->stop};
}

static void bench_deinit(bench *b) {
    mr_profiler_order_destroy(b->order);
    mr_device_destroy(b->device);
}

static void check_numbers(const char *precision) {
    bench b;
    mr_profile_device *found = NULL;
    mr_status link = MR_OK;
    bench_init(&b, precision, "");
    good(mr_profiler_run(&b.options, &found, &link));
    good(mr_profile_device_check(found));
    assert_int_equal(found->class_count, 4); /* embedding, block, layernorm, head */
    for (size_t i = 0; i < found->class_count; i++)
        assert_true(found->costs[i].forward > 0 && found->costs[i].backward_weight > 0);
    const mr_profile_cost *block = &found->costs[1];
    assert_true(block->forward > found->costs[2].forward); /* dozens of times the work */
    assert_true(block->backward_input > found->costs[2].backward_input);
    assert_true(found->loss > 0 && found->zero > 0 && found->norm > 0 && found->optimizer > 0);
    assert_true(found->link == 0 && found->link_byte == 0); /* nobody to send to */
    mr_layer_description layers[6];
    good(mr_job_describe(b.order->job, layers));
    /* Saved to the last byte, but for the padding behind the last tensor. */
    assert_in_range(block->saved_bytes, layers[1].saved_bytes - 256, layers[1].saved_bytes);
    assert_int_equal(found->costs[0].saved_bytes, layers[0].saved_bytes);
    mr_profile_device_destroy(found);
    bench_deinit(&b);
}

static void test_every_part_of_a_step_has_a_time(void **state) {
    (void)state;
    check_numbers("fp32");
    check_numbers("bf16");
}

static void test_a_stop_ends_it(void **state) {
    (void)state;
    bench b;
    mr_profile_device *found = NULL;
    mr_status link = MR_OK;
    bench_init(&b, "fp32", "");
    atomic_store(&b.stop, true);
    assert_int_equal(mr_profiler_run(&b.options, &found, &link).code, MR_CODE_CANCELLED);
    assert_null(found);
    bench_deinit(&b);
}

static void test_the_link_is_probed_through_its_own_server(void **state) {
    (void)state;
    bench b;
    mr_profile_device *found = NULL;
    mr_status link = MR_OK;
    mr_link_hub *hub = NULL;
    mr_rpc_server *server = NULL;
    const mr_rpc_credentials none = {0};
    good(mr_rpc_start());
    good(mr_link_hub_create(&hub));
    const mr_rpc_service service = mr_link_hub_service(hub);
    const mr_rpc_server_options options = {
        .listen = "127.0.0.1:0", .services = &service, .service_count = 1};
    good(mr_rpc_server_start(&options, &server));
    bench_init(&b, "fp32", mr_rpc_server_address(server));
    b.options.links = hub;
    b.options.credentials = &none;
    good(mr_profiler_run(&b.options, &found, &link));
    good(link);
    assert_true(found->link > 0);
    mr_profile_device_destroy(found);
    bench_deinit(&b);
    mr_rpc_server_stop(server, 1000);
    mr_rpc_stop();
    mr_link_hub_destroy(hub);
}

static void test_an_address_that_nobody_serves_is_no_failure(void **state) {
    (void)state;
    bench b;
    mr_profile_device *found = NULL;
    mr_status link = MR_OK;
    mr_link_hub *hub = NULL;
    const mr_rpc_credentials none = {0};
    good(mr_rpc_start());
    good(mr_link_hub_create(&hub));
    bench_init(&b, "fp32", "unix:/nowhere/at/all");
    b.options.links = hub;
    b.options.credentials = &none;
    good(mr_profiler_run(&b.options, &found, &link));
    assert_false(mr_status_is_ok(link));
    assert_true(found->link == 0);
    mr_profile_device_destroy(found);
    bench_deinit(&b);
    mr_rpc_stop();
    mr_link_hub_destroy(hub);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_part_of_a_step_has_a_time),
        cmocka_unit_test(test_a_stop_ends_it),
        cmocka_unit_test(test_the_link_is_probed_through_its_own_server),
        cmocka_unit_test(test_an_address_that_nobody_serves_is_no_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
