/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: with certificates both ends prove themselves, a client without one is not served, and what
 * is wrong with the files is said by name. Method: a CA and two certificates are made here with
 * libcrypto, written to a temporary folder, and used over loopback. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <cmocka.h>

#include "tests/unit/rpc/rig.h"

enum { PATH_BYTES = 512 };

static char folder[PATH_BYTES - 32];
static char ca_file[PATH_BYTES], server_file[PATH_BYTES], server_key[PATH_BYTES];
static char client_file[PATH_BYTES], client_key[PATH_BYTES], loose_key[PATH_BYTES];

typedef struct identity {
    EVP_PKEY *key;
    X509 *certificate;
} identity;

static void extension_add(X509 *certificate, int nid, const char *value) {
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, nid, value);
    assert_non_null(extension);
    assert_int_equal(X509_add_ext(certificate, extension, -1), 1);
    X509_EXTENSION_free(extension);
}

/* A certificate for name, signed by issuer (NULL: by itself, as a CA). */
static identity identity_make(const char *name, const identity *issuer) {
    identity made = {EVP_EC_gen("P-256"), X509_new()};
    assert_non_null(made.key);
    assert_int_equal(X509_set_version(made.certificate, 2), 1);
    ASN1_INTEGER_set(X509_get_serialNumber(made.certificate), issuer == NULL ? 1 : 2);
    X509_gmtime_adj(X509_getm_notBefore(made.certificate), -3600);
    X509_gmtime_adj(X509_getm_notAfter(made.certificate), 3600);
    X509_NAME *subject = X509_get_subject_name(made.certificate);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(made.certificate,
                         issuer == NULL ? subject : X509_get_subject_name(issuer->certificate));
    X509_set_pubkey(made.certificate, made.key);
    if (issuer == NULL)
        extension_add(made.certificate, NID_basic_constraints, "critical,CA:TRUE");
    else
        extension_add(made.certificate, NID_subject_alt_name, "IP:127.0.0.1");
    assert_true(X509_sign(made.certificate, issuer == NULL ? made.key : issuer->key,
                          EVP_sha256()) > 0);
    return made;
}

static void identity_write(const identity *made, const char *file, const char *key) {
    FILE *out = fopen(file, "w");
    assert_non_null(out);
    assert_int_equal(PEM_write_X509(out, made->certificate), 1);
    (void)fclose(out);
    if (key == NULL)
        return;
    out = fopen(key, "w");
    assert_non_null(out);
    assert_int_equal(fchmod(fileno(out), 0600), 0);
    assert_int_equal(PEM_write_PrivateKey(out, made->key, NULL, NULL, 0, NULL, NULL), 1);
    (void)fclose(out);
}

static void identity_free(identity *made) {
    EVP_PKEY_free(made->key);
    X509_free(made->certificate);
}

static int start(void **state) {
    (void)state;
    const char *base = getenv("TEST_TMPDIR");
    (void)snprintf(folder, sizeof(folder), "%s/tls-XXXXXX", base != NULL ? base : "/tmp");
    assert_non_null(mkdtemp(folder));
    (void)snprintf(ca_file, PATH_BYTES, "%s/ca.pem", folder);
    (void)snprintf(server_file, PATH_BYTES, "%s/server.pem", folder);
    (void)snprintf(server_key, PATH_BYTES, "%s/server.key", folder);
    (void)snprintf(client_file, PATH_BYTES, "%s/client.pem", folder);
    (void)snprintf(client_key, PATH_BYTES, "%s/client.key", folder);
    (void)snprintf(loose_key, PATH_BYTES, "%s/loose.key", folder);
    identity ca = identity_make("mill CA", NULL);
    identity server = identity_make("stage", &ca);
    identity client = identity_make("client", &ca);
    identity_write(&ca, ca_file, NULL);
    identity_write(&server, server_file, server_key);
    identity_write(&server, server_file, loose_key);
    assert_int_equal(chmod(loose_key, 0644), 0);
    identity_write(&client, client_file, client_key);
    identity_free(&ca);
    identity_free(&server);
    identity_free(&client);
    return 0;
}

static int stop(void **state) {
    (void)state;
    const char *const files[] = {ca_file,     server_file, server_key,
                                 client_file, client_key,  loose_key};
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
        (void)unlink(files[i]);
    return rmdir(folder);
}

static void test_both_ends_prove_themselves(void **state) {
    (void)state;
    const mr_rpc_credentials served = {ca_file, server_file, server_key, false};
    const mr_rpc_credentials known = {ca_file, client_file, client_key, false};
    const mr_rpc_credentials nameless = {.ca_file = ca_file};
    const mr_rpc_credentials plain = {.insecure = false};
    rig_ok(mr_rpc_start());
    rig test;
    rig_ok(rig_server("127.0.0.1:0", &served, &test.server));
    Millrace__V1__Job *job;
    rig_ok(mr_rpc_channel_create(mr_rpc_server_address(test.server), &known, &test.channel));
    rig_ok(rig_get(&test, "secret", 5000, &job));
    assert_string_equal(job->name, "secret");
    protobuf_c_message_free_unpacked(&job->base, NULL);
    mr_rpc_channel_destroy(test.channel);
    unsigned handled = rig_latch_count("get");
    rig_ok(mr_rpc_channel_create(mr_rpc_server_address(test.server), &nameless, &test.channel));
    rig_fails(rig_get(&test, "secret", 5000, &job), MR_CODE_UNAVAILABLE, "127.0.0.1:");
    mr_rpc_channel_destroy(test.channel);
    rig_ok(mr_rpc_channel_create(mr_rpc_server_address(test.server), &plain, &test.channel));
    rig_fails(rig_get(&test, "secret", 5000, &job), MR_CODE_UNAVAILABLE, "127.0.0.1:");
    assert_int_equal(rig_latch_count("get"), handled);
    rig_stop(&test);
}

static void test_wrong_files_are_named(void **state) {
    (void)state;
    rig_ok(mr_rpc_start());
    mr_rpc_server *server;
    mr_rpc_credentials wrong = {ca_file, server_file, "/nowhere/server.key", false};
    rig_fails(rig_server("127.0.0.1:0", &wrong, &server), MR_CODE_NOT_FOUND,
              "/nowhere/server.key: no such file");
    wrong.key_file = loose_key;
    rig_fails(rig_server("127.0.0.1:0", &wrong, &server), MR_CODE_PERMISSION_DENIED,
              "loose.key has mode 0644");
    wrong.key_file = NULL;
    rig_fails(rig_server("127.0.0.1:0", &wrong, &server), MR_CODE_INVALID_ARGUMENT,
              "a certificate without a key");
    wrong.certificate_file = NULL;
    rig_fails(rig_server("127.0.0.1:0", &wrong, &server), MR_CODE_INVALID_ARGUMENT,
              "needs a certificate and a key");
    /* A key is no certificate. */
    wrong = (mr_rpc_credentials){ca_file, server_key, server_key, false};
    rig_fails(rig_server("127.0.0.1:0", &wrong, &server), MR_CODE_UNAVAILABLE, "certificate");
    wrong = (mr_rpc_credentials){.ca_file = folder};
    mr_rpc_channel *channel;
    rig_fails(mr_rpc_channel_create("127.0.0.1:9", &wrong, &channel), MR_CODE_INVALID_ARGUMENT,
              "is not a regular file");
    mr_rpc_stop();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_ends_prove_themselves),
        cmocka_unit_test(test_wrong_files_are_named),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
