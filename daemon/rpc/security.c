/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/rpc/security.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/base/alloc.h"

enum { SECURITY_PEM_BYTES_MAX = 1 << 20 };

/* What was read from the files; NULL where no file is named. */
typedef struct security_pems {
    char *ca;
    char *certificate;
    char *key;
} security_pems;

static void pems_deinit(security_pems *pems) {
    if (pems->key != NULL)
        explicit_bzero(pems->key, strlen(pems->key));
    mr_free(pems->ca);
    mr_free(pems->certificate);
    mr_free(pems->key);
}

static mr_status pem_open_error(const char *path) {
    if (errno == ENOENT)
        return MR_ERROR(NOT_FOUND, "%s: no such file", path);
    return MR_ERROR(PERMISSION_DENIED, "%s cannot be read: %s", path, strerror(errno));
}

/* What the mode of a key may not grant. A key of root's that this process reads through its group
 * is how a cluster's secret volumes and the service manager's credentials come; nobody in the group
 * can write it. */
static mode_t key_mode_refused(const struct stat *file) {
    return file->st_uid == 0 && geteuid() != 0 ? 037 : 077;
}

static mr_status pem_check(const char *path, const struct stat *file, bool secret) {
    if (!S_ISREG(file->st_mode))
        return MR_ERROR(INVALID_ARGUMENT, "%s is not a regular file", path);
    if (file->st_size <= 0 || file->st_size > SECURITY_PEM_BYTES_MAX)
        return MR_ERROR(INVALID_ARGUMENT, "%s has %lld bytes; a PEM file has 1 to %d", path,
                        (long long)file->st_size, SECURITY_PEM_BYTES_MAX);
    if (secret && (file->st_mode & key_mode_refused(file)) != 0)
        return MR_ERROR(PERMISSION_DENIED,
                        "%s has mode %04o; a key must be for its owner alone (0600 or 0400; 0440 "
                        "where it is root's)", path,
                        (unsigned)(file->st_mode & 07777));
    return MR_OK;
}

static mr_status pem_read_fd(int fd, const char *path, bool secret, char **out_text) {
    struct stat file;
    if (fstat(fd, &file) != 0)
        return pem_open_error(path);
    MR_TRY(pem_check(path, &file, secret));
    size_t bytes = (size_t)file.st_size;
    char *text = mr_alloc(bytes + 1);
    if (text == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to read %s", path);
    size_t at = 0;
    while (at < bytes) {
        ssize_t n = read(fd, text + at, bytes - at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            mr_free(text);
            return MR_ERROR(UNAVAILABLE, "%s ends at byte %zu of %zu", path, at, bytes);
        }
        at += (size_t)n;
    }
    *out_text = text;
    return MR_OK;
}

static mr_status pem_read(const char *path, bool secret, char **out_text) {
    if (path == NULL)
        return MR_OK;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return pem_open_error(path);
    mr_status status = pem_read_fd(fd, path, secret, out_text);
    (void)close(fd);
    return status;
}

static mr_status pems_read(const mr_rpc_credentials *credentials, security_pems *pems) {
    if ((credentials->certificate_file == NULL) != (credentials->key_file == NULL))
        return MR_ERROR(INVALID_ARGUMENT, "TLS has a %s without a %s; give both",
                        credentials->key_file == NULL ? "certificate" : "key",
                        credentials->key_file == NULL ? "key" : "certificate");
    MR_TRY(pem_read(credentials->ca_file, false, &pems->ca));
    MR_TRY(pem_read(credentials->certificate_file, false, &pems->certificate));
    return pem_read(credentials->key_file, true, &pems->key);
}

/* Is TLS asked for? A Unix socket needs none: the file's mode says who may. */
static bool security_is_tls(const mr_rpc_credentials *credentials, const mr_rpc_address *address) {
    return address->kind != MR_RPC_ADDRESS_UNIX &&
           (credentials->ca_file != NULL || credentials->certificate_file != NULL ||
            credentials->key_file != NULL);
}

static mr_status security_plain_check(const mr_rpc_credentials *credentials,
                                      const mr_rpc_address *address) {
    if (address->local || credentials->insecure)
        return MR_OK;
    return MR_ERROR(INVALID_ARGUMENT,
                    "%.80s is not a loopback address: give TLS certificates, or --insecure to talk "
                    "in plain text",
                    address->text);
}

mr_status mr_rpc_security_server(const mr_rpc_credentials *credentials,
                                 const mr_rpc_address *address, grpc_server_credentials **out) {
    if (!security_is_tls(credentials, address)) {
        MR_TRY(security_plain_check(credentials, address));
        *out = grpc_insecure_server_credentials_create();
        return MR_OK;
    }
    if (credentials->certificate_file == NULL && credentials->key_file == NULL)
        return MR_ERROR(INVALID_ARGUMENT,
                        "a TLS server needs a certificate and a key beside the CA");
    security_pems pems = {NULL, NULL, NULL};
    mr_status status = pems_read(credentials, &pems);
    if (mr_status_is_ok(status)) {
        grpc_ssl_pem_key_cert_pair pair = {.private_key = pems.key,
                                           .cert_chain = pems.certificate};
        *out = grpc_ssl_server_credentials_create_ex(
            pems.ca, &pair, 1,
            pems.ca != NULL ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                            : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE,
            NULL);
        if (*out == NULL)
            status = MR_ERROR(INVALID_ARGUMENT, "%s or %s holds no PEM that TLS can use",
                              credentials->certificate_file, credentials->key_file);
    }
    pems_deinit(&pems);
    return status;
}

mr_status mr_rpc_security_channel(const mr_rpc_credentials *credentials,
                                  const mr_rpc_address *address, grpc_channel_credentials **out) {
    if (!security_is_tls(credentials, address)) {
        MR_TRY(security_plain_check(credentials, address));
        *out = grpc_insecure_credentials_create();
        return MR_OK;
    }
    security_pems pems = {NULL, NULL, NULL};
    mr_status status = pems_read(credentials, &pems);
    if (mr_status_is_ok(status)) {
        grpc_ssl_pem_key_cert_pair pair = {.private_key = pems.key,
                                           .cert_chain = pems.certificate};
        *out = grpc_ssl_credentials_create_ex(pems.ca, pems.key != NULL ? &pair : NULL, NULL,
                                              NULL);
        if (*out == NULL)
            status = MR_ERROR(INVALID_ARGUMENT, "the TLS files hold no PEM that TLS can use");
    }
    pems_deinit(&pems);
    return status;
}
