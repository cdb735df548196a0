/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/observe/status_socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/base/limits.h"

/* "HOST:PORT" or "[V6]:PORT" into its parts. */
static mr_status socket_split(const char *address, char host[MR_STATUS_ADDRESS_BYTES],
                              char port[8]) {
    const char *colon = strrchr(address, ':');
    size_t host_bytes = colon == NULL ? 0 : (size_t)(colon - address);
    bool bracketed = host_bytes >= 2 && address[0] == '[' && address[host_bytes - 1] == ']';
    const char *host_start = bracketed ? address + 1 : address;
    if (bracketed)
        host_bytes -= 2;
    if (host_bytes == 0 || host_bytes >= MR_STATUS_ADDRESS_BYTES ||
        (!bracketed && memchr(host_start, ':', host_bytes) != NULL))
        return MR_ERROR(INVALID_ARGUMENT, "status address '%s' is not HOST:PORT", address);
    size_t port_bytes = strlen(colon + 1);
    if (port_bytes == 0 || port_bytes > 5 || strspn(colon + 1, "0123456789") != port_bytes ||
        strtoul(colon + 1, NULL, 10) > 65535)
        return MR_ERROR(INVALID_ARGUMENT, "the port of status address '%s' must be 0 to 65535",
                        address);
    memcpy(host, host_start, host_bytes);
    host[host_bytes] = '\0';
    memcpy(port, colon + 1, port_bytes + 1);
    return MR_OK;
}

static bool socket_is_loopback(const struct sockaddr *address) {
    if (address->sa_family == AF_INET) {
        struct sockaddr_in v4;
        memcpy(&v4, address, sizeof(v4));
        return ntohl(v4.sin_addr.s_addr) >> 24 == 127;
    }
    struct sockaddr_in6 v6;
    memcpy(&v6, address, sizeof(v6));
    return address->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr);
}

static mr_status socket_error(int error, const char *action, const char *address) {
    mr_code code = error == EADDRINUSE                  ? MR_CODE_ALREADY_EXISTS
                   : error == EACCES                    ? MR_CODE_PERMISSION_DENIED
                   : error == EADDRNOTAVAIL             ? MR_CODE_INVALID_ARGUMENT
                   : error == EMFILE || error == ENFILE ? MR_CODE_RESOURCE_EXHAUSTED
                                                        : MR_CODE_UNAVAILABLE;
    char reason[128];
    return mr_status_make(code, __FILE__, __LINE__, "%s status address %s: %s", action, address,
                          strerror_r(error, reason, sizeof(reason)));
}

/* One candidate of the host's name. */
static mr_status socket_try(const struct addrinfo *candidate, const char *address, int *out_fd) {
    int fd = socket(candidate->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return socket_error(errno, "open", address);
    int on = 1;
    /* A port whose last owner is gone may be taken at once; SO_REUSEPORT, which would let two
     * daemons share one, stays off. */
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, candidate->ai_addr, candidate->ai_addrlen) != 0 ||
        listen(fd, MR_STATUS_CONNECTIONS_MAX) != 0) {
        mr_status status = socket_error(errno, "listen on", address);
        (void)close(fd);
        return status;
    }
    *out_fd = fd;
    return MR_OK;
}

/* The address that the socket really has. */
static mr_status socket_name(int fd, char out_address[MR_STATUS_ADDRESS_BYTES]) {
    struct sockaddr_storage storage = {0};
    socklen_t bytes = sizeof(storage);
    char host[INET6_ADDRSTRLEN];
    char port[8];
    if (getsockname(fd, (struct sockaddr *)&storage, &bytes) != 0 ||
        getnameinfo((struct sockaddr *)&storage, bytes, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return MR_ERROR(UNAVAILABLE, "cannot read back the status port's address");
    (void)snprintf(out_address, MR_STATUS_ADDRESS_BYTES,
                   storage.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
    return MR_OK;
}

mr_status mr_status_socket_listen(const char *address, bool any_address, int *out_fd,
                                  char out_address[MR_STATUS_ADDRESS_BYTES]) {
    char host[MR_STATUS_ADDRESS_BYTES];
    char port[8];
    struct addrinfo *found = NULL;
    MR_TRY(socket_split(address, host, port));
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    int failed = getaddrinfo(host, port, &hints, &found);
    if (failed != 0)
        return MR_ERROR(INVALID_ARGUMENT, "status address %s: %s", address, gai_strerror(failed));
    mr_status status = MR_ERROR(INVALID_ARGUMENT, "status address %s names no address", address);
    int fd = -1;
    for (const struct addrinfo *one = found; one != NULL && fd < 0; one = one->ai_next) {
        if (!any_address && !socket_is_loopback(one->ai_addr))
            status = MR_ERROR(INVALID_ARGUMENT,
                              "status address %s is not loopback; the status port "
                              "has no TLS, so that needs --insecure",
                              address);
        else
            status = socket_try(one, address, &fd);
    }
    freeaddrinfo(found);
    if (mr_status_is_ok(status))
        status = socket_name(fd, out_address);
    if (!mr_status_is_ok(status) && fd >= 0)
        (void)close(fd);
    else if (mr_status_is_ok(status))
        *out_fd = fd;
    return status;
}
