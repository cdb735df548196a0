/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a server starts only where it may and can, says why not, and stops within its grace
 * whatever its clients do; all of it many times in one process. Method: real sockets on loopback
 * and in a temporary folder; the sanitizer build of this test is the leak check. */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/base/clock.h"
#include "tests/unit/rpc/rig.h"

static void test_open_streams_end_within_the_grace(void **state) {
    (void)state;
    rig test;
    rig_start(&test, "127.0.0.1:0");
    rig_client feed = {.greedy = true};
    rig_feed_open(&test, &feed, 0);
    mr_rpc_stream_receive(feed.stream);
    rig_latch_wait("feed-open", 1);
    int64_t start_ms = mr_clock_now_ms();
    mr_rpc_server_stop(test.server, 200);
    assert_in_range(mr_clock_now_ms() - start_ms, 190, 3000);
    rig_latch_wait("client-end", 1);
    assert_int_not_equal(feed.end.code, MR_CODE_OK);
    rig_latch_wait("server-end", 1);
    rig_fails(rig_server_end(), MR_CODE_CANCELLED, "");
    Millrace__V1__Job *job;
    mr_status status = rig_get(&test, "x", 3000, &job);
    assert_int_equal(status.code, MR_CODE_UNAVAILABLE);
    mr_rpc_stream_unref(feed.stream);
    test.server = NULL;
    rig_stop(&test);
}

static void test_idle_server_stops_at_once(void **state) {
    (void)state;
    rig test;
    rig_start(&test, "127.0.0.1:0");
    Millrace__V1__Job *job;
    rig_ok(rig_get(&test, "x", 5000, &job)); /* a connection that stays open */
    protobuf_c_message_free_unpacked(&job->base, NULL);
    int64_t start_ms = mr_clock_now_ms();
    mr_rpc_server_stop(test.server, 5000);
    assert_in_range(mr_clock_now_ms() - start_ms, 0, 2000);
    test.server = NULL;
    rig_stop(&test);
}

static void test_many_cycles_start_and_stop(void **state) {
    (void)state;
    for (int i = 0; i < 15; i++) {
        rig test;
        rig_start(&test, "localhost:0");
        Millrace__V1__Job *job;
        rig_ok(rig_get(&test, "x", 5000, &job));
        protobuf_c_message_free_unpacked(&job->base, NULL);
        rig_client feed = {.greedy = true};
        rig_feed_open(&test, &feed, 0);
        if (i % 3 == 0)
            mr_rpc_stream_receive(feed.stream);
        if (i % 3 == 1)
            mr_rpc_stream_cancel(feed.stream);
        mr_rpc_server_stop(test.server, 0);
        rig_latch_wait("client-end", 1);
        mr_rpc_stream_unref(feed.stream);
        test.server = NULL;
        rig_stop(&test);
    }
}

static void test_port_in_use_is_named(void **state) {
    (void)state;
    rig test;
    rig_start(&test, "127.0.0.1:0");
    mr_rpc_server *second;
    mr_status status = rig_server(mr_rpc_server_address(test.server), NULL, &second);
    rig_fails(status, MR_CODE_UNAVAILABLE, mr_rpc_server_address(test.server));
    rig_fails(status, MR_CODE_UNAVAILABLE, "the port is in use");
    rig_stop(&test);
}

static void test_unix_socket_serves_its_owner_only(void **state) {
    (void)state;
    char folder[] = "/tmp/mr-rpc-XXXXXX"; /* a socket's path is short: not TEST_TMPDIR */
    char listen[128];
    assert_non_null(mkdtemp(folder));
    (void)snprintf(listen, sizeof(listen), "unix:%s/socket", folder);
    rig test;
    rig_start(&test, listen);
    assert_string_equal(mr_rpc_server_address(test.server), listen);
    struct stat file;
    assert_int_equal(stat(listen + 5, &file), 0);
    assert_int_equal(file.st_mode & 0777, 0600);
    Millrace__V1__Job *job;
    rig_ok(rig_get(&test, "over a socket", 5000, &job));
    assert_string_equal(job->name, "over a socket");
    protobuf_c_message_free_unpacked(&job->base, NULL);
    mr_rpc_server *second;
    rig_fails(rig_server(listen, NULL, &second), MR_CODE_UNAVAILABLE, "the address is in use");
    rig_stop(&test);
    (void)unlink(listen + 5);
    assert_int_equal(rmdir(folder), 0);
}

static void test_address_beyond_the_machine_needs_insecure(void **state) {
    (void)state;
    rig_ok(mr_rpc_start());
    mr_rpc_server *server = NULL;
    rig_fails(rig_server("0.0.0.0:0", NULL, &server), MR_CODE_INVALID_ARGUMENT, "--insecure");
    const mr_rpc_credentials said = {.insecure = true};
    rig_ok(rig_server("0.0.0.0:0", &said, &server));
    assert_int_equal(strncmp(mr_rpc_server_address(server), "0.0.0.0:", 8), 0);
    mr_rpc_server_stop(server, 0);
    const mr_rpc_credentials plain = {.insecure = false};
    mr_rpc_channel *channel;
    rig_fails(mr_rpc_channel_create("10.0.0.1:9000", &plain, &channel), MR_CODE_INVALID_ARGUMENT,
              "10.0.0.1:9000 is not a loopback address");
    rig_ok(mr_rpc_channel_create("10.0.0.1:9000", &said, &channel));
    mr_rpc_channel_destroy(channel);
    mr_rpc_stop();
}

static void test_ipv6_loopback_serves(void **state) {
    (void)state;
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    bool has_v6 = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
    if (fd >= 0)
        (void)close(fd);
    if (!has_v6)
        skip();
    rig test;
    rig_start(&test, "[::1]:0");
    assert_int_equal(strncmp(mr_rpc_server_address(test.server), "[::1]:", 6), 0);
    Millrace__V1__Job *job;
    rig_ok(rig_get(&test, "six", 5000, &job));
    protobuf_c_message_free_unpacked(&job->base, NULL);
    rig_stop(&test);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open_streams_end_within_the_grace),
        cmocka_unit_test(test_idle_server_stops_at_once),
        cmocka_unit_test(test_many_cycles_start_and_stop),
        cmocka_unit_test(test_port_in_use_is_named),
        cmocka_unit_test(test_unix_socket_serves_its_owner_only),
        cmocka_unit_test(test_address_beyond_the_machine_needs_insecure),
        cmocka_unit_test(test_ipv6_loopback_serves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
