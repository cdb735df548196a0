/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: every form of address is read as written, and what is none is refused with the forms there
 * are. Method: a table of texts. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/rpc/address.h"

static void test_forms_are_read(void **state) {
    (void)state;
    static const struct {
        const char *text;
        mr_rpc_address_kind kind;
        bool local;
        unsigned port;
        const char *shown;
        const char *core;
    } rows[] = {
        {"127.0.0.1:9700", MR_RPC_ADDRESS_IP, true, 9700, "127.0.0.1:9700", "ipv4:127.0.0.1:9700"},
        {"127.9.8.7:0", MR_RPC_ADDRESS_IP, true, 0, "127.9.8.7:0", "ipv4:127.9.8.7:0"},
        {"localhost:1", MR_RPC_ADDRESS_IP, true, 1, "127.0.0.1:1", "ipv4:127.0.0.1:1"},
        {"0.0.0.0:65535", MR_RPC_ADDRESS_IP, false, 65535, "0.0.0.0:65535", "ipv4:0.0.0.0:65535"},
        {"10.1.2.3:80", MR_RPC_ADDRESS_IP, false, 80, "10.1.2.3:80", "ipv4:10.1.2.3:80"},
        {"[::1]:80", MR_RPC_ADDRESS_IP, true, 80, "[::1]:80", "ipv6:[::1]:80"},
        {"[::]:80", MR_RPC_ADDRESS_IP, false, 80, "[::]:80", "ipv6:[::]:80"},
        {"[2001:db8::7]:80", MR_RPC_ADDRESS_IP, false, 80, "[2001:db8::7]:80",
         "ipv6:[2001:db8::7]:80"},
        {"stage-0.mill.svc:80", MR_RPC_ADDRESS_NAME, false, 80, "stage-0.mill.svc:80",
         "dns:///stage-0.mill.svc:80"},
        {"unix:/run/millrace/socket", MR_RPC_ADDRESS_UNIX, true, 0, "unix:/run/millrace/socket",
         "unix:/run/millrace/socket"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        mr_rpc_address address;
        mr_status status = mr_rpc_address_parse(rows[i].text, &address);
        if (!mr_status_is_ok(status))
            fail_msg("%s: %s", rows[i].text, status.text);
        assert_int_equal(address.kind, rows[i].kind);
        assert_int_equal(address.local, rows[i].local);
        assert_int_equal(address.port, rows[i].port);
        assert_string_equal(address.text, rows[i].shown);
        assert_string_equal(address.core, rows[i].core);
    }
}

static void test_other_texts_are_refused(void **state) {
    (void)state;
    static const char *const texts[] = {
        "",         "9700",        ":9700",        "127.0.0.1",   "127.0.0.1:",  "127.0.0.1:65536",
        "a:b",      "1.2.3:80",    "1.2.3.4.5:80", "256.1.1.1:1", "::1:80",      "[::1]",
        "[::1]80",  "[1.2.3.4]:1", "[name]:80",    "a b:80",      "http://a:80", "host:8x",
        "host:-1",  "host: 80",    "[]:80",        "h\xff:80",    "unix:",       "-:80",
        "1.2:9999999999999999999"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        mr_rpc_address address;
        mr_status status = mr_rpc_address_parse(texts[i], &address);
        if (status.code != MR_CODE_INVALID_ARGUMENT)
            fail_msg("\"%s\" was taken", texts[i]);
    }
    char path[256] = "unix:/";
    memset(path + 6, 'x', 200);
    mr_rpc_address address;
    mr_status status = mr_rpc_address_parse(path, &address);
    assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
    assert_non_null(strstr(status.text, "1 to 107"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms_are_read),
        cmocka_unit_test(test_other_texts_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
