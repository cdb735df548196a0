/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: --devices means what devices.h says, ports are counted up within their bounds, a stage's
 * command line has what it needs, and people are told the first thing that is wrong. Method: the
 * pure functions over good and bad values. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/node/stages.h"

static mr_node_devices choose(const char *text, unsigned cards, unsigned processors,
                              unsigned threads) {
    mr_node_devices devices;
    mr_status status = mr_node_devices_choose(text, cards, processors, threads, &devices);
    assert_string_equal(status.text, "");
    assert_int_equal(status.code, MR_CODE_OK);
    return devices;
}

static void test_auto_takes_every_card_or_else_all_processors(void **state) {
    (void)state;
    mr_node_devices devices = choose("auto", 2, 8, 0);
    assert_int_equal(devices.count, 2);
    assert_string_equal(devices.items[0].kind, "cuda:0");
    assert_string_equal(devices.items[1].kind, "cuda:1");
    assert_string_equal(devices.items[1].name, "cuda:1");
    devices = choose("auto", 0, 8, 0);
    assert_int_equal(devices.count, 1);
    assert_string_equal(devices.items[0].kind, "cpu");
    assert_string_equal(devices.items[0].name, "cpu:0");
    assert_int_equal(devices.items[0].threads, 8);
}

static void test_cpu_devices_share_the_processors(void **state) {
    (void)state;
    mr_node_devices devices = choose("cpu:3", 4, 8, 0);
    assert_int_equal(devices.count, 3);
    assert_int_equal(devices.items[0].threads, 3);
    assert_int_equal(devices.items[1].threads, 3);
    assert_int_equal(devices.items[2].threads, 2);
    assert_string_equal(devices.items[2].name, "cpu:2");
    devices = choose("cpu:3", 0, 2, 0); /* more devices than processors */
    assert_int_equal(devices.items[2].threads, 1);
    devices = choose("cpu:2", 0, 8, 5);
    assert_int_equal(devices.items[1].threads, 5);
}

static void test_a_list_is_taken_as_written(void **state) {
    (void)state;
    mr_node_devices devices = choose("cuda:7,cpu,cuda:0,cpu", 0, 6, 0);
    assert_int_equal(devices.count, 4);
    assert_string_equal(devices.items[0].kind, "cuda:7");
    assert_string_equal(devices.items[3].name, "cpu:1");
    assert_int_equal(devices.items[1].threads, 3);
    assert_int_equal(devices.items[2].threads, 0);
}

static void test_bad_devices_are_refused_by_name(void **state) {
    (void)state;
    static const char *const bad[][2] = {
        {"", "\"\""},         {"gpu", "\"gpu\""},     {"cpu:0", "cpu:0"},
        {"cpu:65", "64"},     {"cuda:", "\"cuda:\""}, {"cuda:1,", "\"\""},
        {"cuda:1,cuda:1", "cuda:1 twice"},            {"cpu,cuda:x", "\"cuda:x\""},
        {"cpu:1000", "\"cpu:1000\""},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        mr_node_devices devices;
        mr_status status = mr_node_devices_choose(bad[i][0], 0, 4, 0, &devices);
        assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
        assert_non_null(strstr(status.text, "--devices"));
        assert_non_null(strstr(status.text, bad[i][1]));
    }
}

static void test_ports_count_up_and_zero_stays(void **state) {
    (void)state;
    char address[MR_NOTICE_ADDRESS_BYTES];
    mr_status status = mr_node_address_nth("listen", "10.0.0.1:9701", 3, address);
    assert_int_equal(status.code, MR_CODE_OK);
    assert_string_equal(address, "10.0.0.1:9704");
    status = mr_node_address_nth("listen", "[::1]:0", 3, address);
    assert_int_equal(status.code, MR_CODE_OK);
    assert_string_equal(address, "[::1]:0");
    static const char *const bad[] = {"10.0.0.1", ":80",          "a:", "a:x", "a:65536",
                                      "a:65534",  "unix:/run/one", ""};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        status = mr_node_address_nth("listen", bad[i], 3, address);
        assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
        assert_non_null(strstr(status.text, "--listen"));
    }
}

static bool command_has(const mr_stage_command *command, const char *name, const char *value) {
    for (size_t i = 0; command->arguments[i] != NULL; i++)
        if (strcmp(command->arguments[i], name) == 0)
            return value == NULL || strcmp(command->arguments[i + 1], value) == 0;
    return false;
}

static mr_node_options node_options(void) {
    return (mr_node_options){
        .devices = "auto",
        .coordinator = "10.0.0.9:9700",
        .listen = "10.0.0.1:9701",
        .advertise = "gpu-a:9701",
        .status_listen = "10.0.0.1:9790",
        .drain_seconds = 25,
        .log_level = "warn",
        .pin = true,
        .credentials = {.ca_file = "ca", .certificate_file = "cert", .key_file = "key"},
    };
}

static void test_the_second_stage_gets_the_next_ports_and_everything_else_alike(void **state) {
    (void)state;
    mr_node_options options = node_options();
    mr_node_devices devices = choose("cuda:0,cuda:4", 0, 1, 0);
    static mr_node_stages stages;
    mr_status status = mr_node_stages_make(&options, &devices, 0, &stages);
    assert_int_equal(status.code, MR_CODE_OK);
    mr_stage_command command = mr_node_stage_command(&options, &stages.items[1]);
    assert_string_equal(command.arguments[1], "stage");
    assert_true(command_has(&command, "--device", "cuda:4"));
    assert_true(command_has(&command, "--listen", "10.0.0.1:9702"));
    assert_true(command_has(&command, "--status", "10.0.0.1:9792"));
    assert_true(command_has(&command, "--advertise", "gpu-a:9702"));
    assert_true(command_has(&command, "--coordinator", "10.0.0.9:9700"));
    assert_true(command_has(&command, "--tls-ca", "ca"));
    assert_true(command_has(&command, "--tls-cert", "cert"));
    assert_true(command_has(&command, "--tls-key", "key"));
    assert_true(command_has(&command, "--log-level", "warn"));
    assert_true(command_has(&command, "--drain", "20"));
    assert_true(command_has(&command, "--pin", NULL));
    assert_false(command_has(&command, "--insecure", NULL));
}

static void test_people_are_told_the_first_thing_that_is_wrong(void **state) {
    (void)state;
    mr_node_options options = node_options();
    mr_node_devices devices = choose("cpu:3", 0, 1, 0);
    static mr_node_stages stages;
    char text[160];
    mr_status status = mr_node_stages_make(&options, &devices, 0, &stages);
    assert_int_equal(status.code, MR_CODE_OK);
    for (size_t i = 0; i < 3; i++)
        stages.items[i].ward.state = MR_WARD_READY;
    mr_node_stages_describe(&stages, 0, text, sizeof(text));
    assert_string_equal(text, "3 of 3 stages ready");
    stages.items[1].ward = (mr_ward){.state = MR_WARD_WAITING,
                                     .reason = MR_WARD_REASON_EXIT,
                                     .last_exit = 70,
                                     .deadline_ms = 7500};
    stages.items[2].ward.state = MR_WARD_STARTING;
    mr_node_stages_describe(&stages, 0, text, sizeof(text));
    assert_string_equal(text, "1 of 3 stages ready; cpu:1 waits 8 s after exit code 70");
    stages.items[1].ward = (mr_ward){
        .state = MR_WARD_REFUSED, .reason = MR_WARD_REASON_EXIT, .last_exit = 78};
    mr_node_stages_describe(&stages, 0, text, sizeof(text));
    assert_string_equal(text,
                        "1 of 3 stages ready; cpu:1 is not started again after exit code 78");
    mr_node_stages_describe(&stages, 0, text, 12); /* cut, never past its end */
    assert_string_equal(text, "1 of 3 stag");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_auto_takes_every_card_or_else_all_processors),
        cmocka_unit_test(test_cpu_devices_share_the_processors),
        cmocka_unit_test(test_a_list_is_taken_as_written),
        cmocka_unit_test(test_bad_devices_are_refused_by_name),
        cmocka_unit_test(test_ports_count_up_and_zero_stays),
        cmocka_unit_test(test_the_second_stage_gets_the_next_ports_and_everything_else_alike),
        cmocka_unit_test(test_people_are_told_the_first_thing_that_is_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
