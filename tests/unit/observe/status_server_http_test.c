/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the status port answers what it promises, to good and bad clients, on loopback only, and
 * ends at once.
 * Method: a client that is nothing but a socket, so that every byte sent and received is seen
 * here. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/base/clock.h"
#include "daemon/observe/status_server.h"

enum { ANSWER_BYTES = 1 << 16 };

static mr_status_page *page;
static mr_metrics *metrics;
static mr_trace *trace;
static mr_status_server *server;
static char reply[ANSWER_BYTES];

static void ok(mr_status status) {
    if (!mr_status_is_ok(status))
        fail_msg("%s: %s", mr_code_name(status.code), status.text);
}

static void fails(mr_status status, mr_code code, const char *text) {
    if (status.code != code || strstr(status.text, text) == NULL)
        fail_msg("wanted %s '%s', got %s '%s'", mr_code_name(code), text, mr_code_name(status.code),
                 status.text);
}

static int setup(void **state) {
    (void)state;
    ok(mr_status_page_create(&page));
    ok(mr_metrics_create(&metrics));
    ok(mr_trace_create("test", &trace));
    const mr_status_server_options options = {.address = "127.0.0.1:0",
                                              .version = "0.1.0",
                                              .commit = "abc",
                                              .page = page,
                                              .metrics = metrics,
                                              .trace = trace};
    ok(mr_status_server_start(&options, &server));
    return 0;
}

static int teardown(void **state) {
    (void)state;
    mr_status_server_stop(server);
    server = NULL;
    mr_trace_destroy(trace);
    mr_metrics_destroy(metrics);
    mr_status_page_destroy(page);
    return 0;
}

static int connect_to(const char *address) {
    const char *colon = strrchr(address, ':');
    assert_non_null(colon);
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    const struct timeval bound = {.tv_sec = 10};
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &bound, sizeof(bound)), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    return fd;
}

/* Reads until the server closes. */
static void read_all(int fd) {
    size_t used = 0;
    ssize_t n;
    while ((n = recv(fd, reply + used, sizeof(reply) - 1 - used, 0)) > 0)
        used += (size_t)n;
    reply[used] = '\0';
    (void)close(fd);
}

/* Sends a request as it is, and reads all that comes until the server closes; in reply. */
static void talk(const char *request) {
    int fd = connect_to(mr_status_server_address(server));
    (void)send(fd, request, strlen(request), MSG_NOSIGNAL); /* the server may close early */
    read_all(fd);
}

static const char *body(void) {
    const char *end = strstr(reply, "\r\n\r\n");
    assert_non_null(end);
    return end + 4;
}

static void get(const char *path, int code, const char *headers) {
    char request[512];
    char first[32];
    (void)snprintf(request, sizeof(request),
                   "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n", path, headers);
    talk(request);
    (void)snprintf(first, sizeof(first), "HTTP/1.1 %d ", code);
    if (strncmp(reply, first, strlen(first)) != 0)
        fail_msg("%s: wanted %d, got: %s", path, code, reply);
}

static void test_new_page_is_alive_but_not_ready(void **state) {
    (void)state;
    get("/livez", 200, "");
    assert_string_equal(body(), "ok\n");
    get("/startupz", 503, "");
    get("/readyz", 503, "");
    assert_string_equal(body(), "not ready: starting\n");
    get("/status", 200, "");
    assert_string_equal(body(), "{}");
}

static void test_page_tells_what_was_published(void **state) {
    (void)state;
    mr_status_page_started_set(page, true);
    mr_status_page_ready_set(page, true, NULL);
    mr_status_page_beat(page);
    ok(mr_status_page_publish(page, "{\"jobs\":[]}"));
    get("/livez", 200, "");
    get("/startupz", 200, "");
    get("/readyz", 200, "");
    assert_string_equal(body(), "ok\n");
    get("/readyz?verbose", 200, "");
    assert_string_equal(body(), "[+]loop ok\n[+]role ok\nreadyz check passed\n");
    get("/status", 200, "");
    assert_string_equal(body(), "{\"jobs\":[]}");
    assert_non_null(strstr(reply, "Content-Type: application/json\r\n"));
    assert_non_null(strstr(reply, "Cache-Control: no-store\r\n"));
    assert_non_null(strstr(reply, "Content-Security-Policy: default-src 'self'\r\n"));
    mr_status_page_ready_set(page, false, "draining: 2 jobs");
    get("/readyz", 503, "");
    assert_string_equal(body(), "not ready: draining: 2 jobs\n");
    get("/version", 200, "");
    assert_string_equal(body(), "{\"version\":\"0.1.0\",\"commit\":\"abc\"}\n");
}

static void test_failed_check_is_named(void **state) {
    (void)state;
    mr_status_page_ready_set(page, true, NULL);
    mr_status_page_check_set(page, "store", NULL);
    mr_status_page_check_set(page, "disk", "it is full");
    get("/readyz", 503, "");
    assert_string_equal(body(), "not ready: it is full\n");
    get("/readyz?verbose=1", 503, "");
    assert_string_equal(body(), "[+]loop ok\n[+]role ok\n[+]store ok\n[-]disk failed: it is "
                                "full\nreadyz check failed\n");
    mr_status_page_check_set(page, "disk", NULL);
    get("/readyz?verbose", 200, "");
}

static void test_metrics_come_in_the_format_that_is_asked_for(void **state) {
    (void)state;
    mr_series_set(mr_metrics_series(metrics, MR_METRIC_STAGE_UP, "0"), 1);
    get("/metrics", 200, "");
    assert_non_null(strstr(reply, "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    assert_non_null(strstr(body(), "\nmillrace_stage_up{stage=\"0\"} 1\n"));
    get("/metrics", 200,
        "Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5\r\n");
    assert_non_null(strstr(
        reply, "Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"));
    assert_string_equal(body() + strlen(body()) - 6, "# EOF\n");
}

static void test_trace_takes_a_number_of_steps(void **state) {
    (void)state;
    get("/trace", 200, "");
    assert_non_null(strstr(body(), "\"traceEvents\""));
    get("/trace?steps=5", 200, "");
    get("/trace?steps=x", 400, "");
    get("/trace?steps=", 400, "");
}

static void test_head_has_no_body(void **state) {
    (void)state;
    talk("HEAD /status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_int_equal(strncmp(reply, "HTTP/1.1 200 ", 13), 0);
    assert_non_null(strstr(reply, "Content-Length: 2\r\n"));
    assert_string_equal(body(), "");
}

static void test_other_page_is_404_and_other_method_405(void **state) {
    (void)state;
    static const char *const methods[] = {"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"};
    get("/favicon.ico", 404, "");
    assert_non_null(strstr(body(), "there are /livez"));
    get("/livez/", 404, "");
    get("/jobs", 404, ""); /* of a role without jobs */
    get("/jobs/1/history", 404, "");
    get("/events", 404, "");
    get("/config", 404, "");
    get("/../etc/passwd", 404, "");
    get("/%2e%2e/livez", 404, "");
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        char request[128];
        (void)snprintf(request, sizeof(request),
                       "%s /status HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: "
                       "3\r\n\r\nabc",
                       methods[i]);
        talk(request);
        assert_int_equal(strncmp(reply, "HTTP/1.1 405 ", 13), 0);
        assert_non_null(strstr(reply, "Allow: GET, HEAD\r\n"));
    }
}

static void test_bad_request_does_not_harm(void **state) {
    (void)state;
    static char huge[40000];
    memset(huge, 'x', sizeof(huge) - 1);
    memcpy(huge, "GET /livez HTTP/1.1\r\nA: ", 24);
    talk("\r\n\x01\x02\x03 nonsense\r\n\r\n");
    talk(huge); /* one header far above the bound */
    assert_true(reply[0] == '\0' || strncmp(reply, "HTTP/1.1 4", 10) == 0);
    get("/livez", 200, "");
}

static void test_headers_are_bounded(void **state) {
    (void)state;
    static char headers[MR_STATUS_HEADER_BYTES_MAX + 1];
    memset(headers, 'x', sizeof(headers) - 1);
    memcpy(headers, "A: ", 3);
    static char request[sizeof(headers) + 128];
    (void)snprintf(request, sizeof(request),
                   "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n\r\n", headers);
    talk(request);
    assert_int_equal(strncmp(reply, "HTTP/1.1 431 ", 13), 0);
    headers[sizeof(headers) - 200] = '\0';
    (void)snprintf(request, sizeof(request),
                   "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n\r\n", headers);
    talk(request);
    assert_int_equal(strncmp(reply, "HTTP/1.1 200 ", 13), 0);
}

/* A byte now and then is not silence, and yet no reason to keep a place. */
static void test_slow_headers_lose_their_connection(void **state) {
    (void)state;
    int fd = connect_to(mr_status_server_address(server));
    const struct timeval pause = {.tv_usec = 100000};
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &pause, sizeof(pause)), 0);
    char byte = 'G';
    int64_t begun_ms = mr_clock_now_ms();
    ssize_t got = -1;
    while (got != 0 && mr_clock_now_ms() - begun_ms < 20000) {
        (void)send(fd, &byte, 1, MSG_NOSIGNAL); /* the server may have closed */
        got = recv(fd, reply, sizeof(reply), 0);
        if (got < 0 && errno == ECONNRESET)
            got = 0;
        mr_status_server_tick(server, mr_clock_now_ms());
    }
    assert_int_equal(got, 0);
    assert_true(mr_clock_now_ms() - begun_ms >= MR_STATUS_HEADER_TIMEOUT_MS);
    (void)close(fd);
    get("/livez", 200, "");
}

static void test_connections_are_bounded(void **state) {
    (void)state;
    int fds[MR_STATUS_CONNECTIONS_MAX + 8];
    size_t count = sizeof(fds) / sizeof(fds[0]);
    for (size_t i = 0; i < count; i++)
        fds[i] = connect_to(mr_status_server_address(server));
    for (size_t i = 0; i < count; i++)
        (void)close(fds[i]);
    get("/livez", 200, "");
}

static void test_two_requests_share_a_connection(void **state) {
    (void)state;
    talk("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
         "GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    const char *first = strstr(reply, "HTTP/1.1 200 ");
    assert_non_null(first);
    assert_non_null(strstr(first + 1, "HTTP/1.1 200 "));
    assert_non_null(strstr(reply, "\"version\":\"0.1.0\""));
}

static mr_status start(const char *address, bool any, mr_status_server **out) {
    const mr_status_server_options options = {.address = address, .any_address = any, .page = page};
    return mr_status_server_start(&options, out);
}

static void test_bad_address_is_named(void **state) {
    (void)state;
    mr_status_server *other = NULL;
    fails(start("127.0.0.1", false, &other), MR_CODE_INVALID_ARGUMENT, "is not HOST:PORT");
    fails(start(":80", false, &other), MR_CODE_INVALID_ARGUMENT, "is not HOST:PORT");
    fails(start("::1:80", false, &other), MR_CODE_INVALID_ARGUMENT, "is not HOST:PORT");
    fails(start("127.0.0.1:x", false, &other), MR_CODE_INVALID_ARGUMENT, "must be 0 to 65535");
    fails(start("127.0.0.1:65536", false, &other), MR_CODE_INVALID_ARGUMENT, "must be 0 to 65535");
    fails(start("0.0.0.0:0", false, &other), MR_CODE_INVALID_ARGUMENT,
          "is not loopback; the status port has no TLS, so that needs --insecure");
    assert_null(other);
}

static void test_port_in_use_is_named(void **state) {
    (void)state;
    mr_status_server *other = NULL;
    const char *address = mr_status_server_address(server);
    mr_status status = start(address, false, &other);
    fails(status, MR_CODE_ALREADY_EXISTS, address);
    fails(status, MR_CODE_ALREADY_EXISTS, "Address already in use");
    get("/livez", 200, "");
}

static void test_any_address_is_allowed_when_told(void **state) {
    (void)state;
    mr_status_server *other = NULL;
    ok(start("0.0.0.0:0", true, &other));
    assert_int_equal(strncmp(mr_status_server_address(other), "0.0.0.0:", 8), 0);
    int fd = connect_to(mr_status_server_address(other));
    const char request[] = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert_int_equal(send(fd, request, strlen(request), MSG_NOSIGNAL), strlen(request));
    read_all(fd);
    assert_int_equal(strncmp(reply, "HTTP/1.1 404 ", 13), 0); /* it has no metrics */
    mr_status_server_stop(other);
}

static void test_port_is_free_again_after_stop(void **state) {
    (void)state;
    char address[64];
    mr_status_server *other = NULL;
    ok(start("localhost:0", false, &other));
    (void)snprintf(address, sizeof(address), "%s", mr_status_server_address(other));
    int fd = address[0] == '[' ? -1 : connect_to(address); /* left open over the stop */
    int64_t before = mr_clock_now_ms();
    mr_status_server_stop(other);
    assert_true(mr_clock_now_ms() - before < 2000);
    ok(start(address, false, &other));
    assert_string_equal(mr_status_server_address(other), address);
    mr_status_server_stop(other);
    if (fd >= 0)
        (void)close(fd);
}

/* A listener that sleeps when the server stops must not hold it up. */
static void test_events_are_followed_until_the_stop(void **state) {
    (void)state;
    mr_status_server *other = NULL;
    mr_event_stream *events = NULL;
    ok(mr_event_stream_create(&events));
    const mr_status_server_options options = {
        .address = "127.0.0.1:0", .page = page, .events = events};
    ok(mr_status_server_start(&options, &other));
    int fd = connect_to(mr_status_server_address(other));
    reply[0] = '\0';
    const char request[] = "GET /events HTTP/1.1\r\nHost: x\r\nLast-Event-ID: 0\r\n\r\n";
    assert_int_equal(send(fd, request, strlen(request), MSG_NOSIGNAL), strlen(request));
    size_t used = 0;
    for (int told = 0; strstr(reply, "data: {\"n\":3}") == NULL; used = strlen(reply)) {
        if (told < 4 && strstr(reply, "retry: 2000") != NULL)
            assert_true(mr_event_stream_add(events, "job", "", "{\"n\":3}") && ++told > 0);
        ssize_t got = recv(fd, reply + used, sizeof(reply) - 1 - used, 0);
        assert_true(got > 0);
        reply[used + (size_t)got] = '\0';
    }
    assert_non_null(strstr(reply, "Content-Type: text/event-stream\r\n"));
    int64_t before = mr_clock_now_ms();
    mr_status_server_stop(other);
    assert_true(mr_clock_now_ms() - before < 2000);
    read_all(fd);
    mr_event_stream_destroy(events);
}

static void test_oversized_status_is_refused(void **state) {
    (void)state;
    char *huge = malloc(MR_STATUS_PAGE_BYTES_MAX + 2);
    assert_non_null(huge);
    memset(huge, ' ', MR_STATUS_PAGE_BYTES_MAX + 1);
    huge[MR_STATUS_PAGE_BYTES_MAX + 1] = '\0';
    fails(mr_status_page_publish(page, huge), MR_CODE_RESOURCE_EXHAUSTED, "the most is");
    free(huge);
    get("/status", 200, "");
    assert_string_equal(body(), "{}");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_new_page_is_alive_but_not_ready, setup, teardown),
        cmocka_unit_test_setup_teardown(test_page_tells_what_was_published, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failed_check_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(test_headers_are_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_slow_headers_lose_their_connection, setup, teardown),
        cmocka_unit_test_setup_teardown(test_metrics_come_in_the_format_that_is_asked_for, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_trace_takes_a_number_of_steps, setup, teardown),
        cmocka_unit_test_setup_teardown(test_head_has_no_body, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_page_is_404_and_other_method_405, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_bad_request_does_not_harm, setup, teardown),
        cmocka_unit_test_setup_teardown(test_connections_are_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_two_requests_share_a_connection, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_address_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(test_port_in_use_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(test_any_address_is_allowed_when_told, setup, teardown),
        cmocka_unit_test_setup_teardown(test_port_is_free_again_after_stop, setup, teardown),
        cmocka_unit_test_setup_teardown(test_events_are_followed_until_the_stop, setup, teardown),
        cmocka_unit_test_setup_teardown(test_oversized_status_is_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
