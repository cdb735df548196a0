/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/rpc/address.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { ADDRESS_PORT_MAX = 65535, ADDRESS_NAME_BYTES_MAX = 253 };

static mr_status address_parse_unix(const char *path, mr_rpc_address *address) {
    struct sockaddr_un *un = (struct sockaddr_un *)&address->socket;
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof(un->sun_path))
        return MR_ERROR(INVALID_ARGUMENT,
                        "the path of unix:%.100s has %zu bytes; a socket's has 1 to %zu", path,
                        length, sizeof(un->sun_path) - 1);
    address->kind = MR_RPC_ADDRESS_UNIX;
    address->local = true;
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path, path, length + 1);
    address->socket_bytes = sizeof(*un);
    memcpy(address->host, path, length + 1);
    (void)snprintf(address->text, sizeof(address->text), "unix:%s", un->sun_path);
    (void)snprintf(address->core, sizeof(address->core), "unix:%s", un->sun_path);
    return MR_OK;
}

static bool address_port_parse(const char *text, uint16_t *out_port) {
    unsigned long port = 0;
    size_t digits = 0;
    for (; isdigit((unsigned char)text[digits]); digits++) {
        port = port * 10 + (unsigned long)(text[digits] - '0');
        if (port > ADDRESS_PORT_MAX)
            return false;
    }
    if (digits == 0 || text[digits] != '\0')
        return false;
    *out_port = (uint16_t)port;
    return true;
}

/* An IPv4 or IPv6 address in host fills in socket. */
static bool address_ip_parse(mr_rpc_address *address, bool bracketed) {
    struct sockaddr_in *v4 = (struct sockaddr_in *)&address->socket;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&address->socket;
    if (!bracketed && inet_pton(AF_INET, address->host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        address->socket_bytes = sizeof(*v4);
        address->local = ntohl(v4->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
        return true;
    }
    if (bracketed && inet_pton(AF_INET6, address->host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        address->socket_bytes = sizeof(*v6);
        address->local = IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
        return true;
    }
    return false;
}

/* A DNS name; four numbers or less with dots are a mistyped address, not a name. */
static bool address_name_valid(const char *host) {
    size_t length = strlen(host);
    bool letter = false;
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)host[i];
        if (!isalnum(c) && c != '-' && c != '.' && c != '_')
            return false;
        letter = letter || isalpha(c);
    }
    return letter && length <= ADDRESS_NAME_BYTES_MAX;
}

void mr_rpc_address_port_set(mr_rpc_address *address, uint16_t port) {
    MR_ASSERT(address->kind != MR_RPC_ADDRESS_UNIX);
    address->port = port;
    bool v6 = address->kind == MR_RPC_ADDRESS_IP && address->socket.ss_family == AF_INET6;
    if (v6)
        ((struct sockaddr_in6 *)&address->socket)->sin6_port = htons(port);
    else if (address->kind == MR_RPC_ADDRESS_IP)
        ((struct sockaddr_in *)&address->socket)->sin_port = htons(port);
    const char *scheme = address->kind == MR_RPC_ADDRESS_NAME ? "dns:///" : v6 ? "ipv6:" : "ipv4:";
    const char *open = v6 ? "[" : "";
    const char *close = v6 ? "]" : "";
    char text[MR_RPC_ADDRESS_BYTES - 8]; /* a host has at most 253 characters */
    (void)snprintf(text, sizeof(text), "%s%.*s%s:%u", open, ADDRESS_NAME_BYTES_MAX, address->host,
                   close, (unsigned)port);
    (void)snprintf(address->text, sizeof(address->text), "%s", text);
    (void)snprintf(address->core, sizeof(address->core), "%s%s", scheme, text);
}

/* Splits HOST:PORT or [HOST]:PORT; an unbracketed host has no colon. */
static bool address_split(const char *text, mr_rpc_address *address, bool *out_bracketed) {
    *out_bracketed = text[0] == '[';
    const char *host = *out_bracketed ? text + 1 : text;
    const char *end = strchr(host, *out_bracketed ? ']' : ':');
    if (end == NULL || end == host || (size_t)(end - host) > ADDRESS_NAME_BYTES_MAX)
        return false;
    const char *colon = *out_bracketed ? end + 1 : end;
    memcpy(address->host, host, (size_t)(end - host));
    return *colon == ':' && address_port_parse(colon + 1, &address->port);
}

mr_status mr_rpc_address_parse(const char *text, mr_rpc_address *out_address) {
    mr_rpc_address address = {.kind = MR_RPC_ADDRESS_IP};
    if (strncmp(text, "unix:", 5) == 0) {
        MR_TRY(address_parse_unix(text + 5, &address));
        *out_address = address;
        return MR_OK;
    }
    bool bracketed;
    bool good = address_split(text, &address, &bracketed);
    if (good && strcmp(address.host, "localhost") == 0)
        (void)snprintf(address.host, sizeof(address.host), "127.0.0.1"); /* and never ::1 too */
    if (good && !address_ip_parse(&address, bracketed)) {
        address.kind = MR_RPC_ADDRESS_NAME;
        good = !bracketed && address_name_valid(address.host);
    }
    if (!good)
        return MR_ERROR(INVALID_ARGUMENT,
                        "%.100s is not an address; write HOST:PORT with a port up to %d, "
                        "[IPV6]:PORT or unix:PATH",
                        text, ADDRESS_PORT_MAX);
    mr_rpc_address_port_set(&address, address.port);
    *out_address = address;
    return MR_OK;
}

/* A Unix socket is taken when somebody answers on it. */
static mr_status address_probe_unix(const mr_rpc_address *address, int fd) {
    struct stat file;
    if (lstat(address->host, &file) != 0)
        return MR_OK;
    if (!S_ISSOCK(file.st_mode))
        return MR_ERROR(UNAVAILABLE, "cannot listen on %s: a file of that name is no socket",
                        address->text);
    if (connect(fd, (const struct sockaddr *)&address->socket, address->socket_bytes) == 0)
        return MR_ERROR(UNAVAILABLE, "cannot listen on %s: the address is in use", address->text);
    return MR_OK;
}

mr_status mr_rpc_address_probe(const mr_rpc_address *address) {
    MR_ASSERT(address->kind != MR_RPC_ADDRESS_NAME);
    int fd = socket(address->socket.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return MR_ERROR(UNAVAILABLE, "cannot listen on %s: %s", address->text, strerror(errno));
    mr_status status = MR_OK;
    if (address->kind == MR_RPC_ADDRESS_UNIX) {
        status = address_probe_unix(address, fd);
    } else {
        int on = 1; /* as gRPC binds: connections of an earlier server may linger */
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
        if (bind(fd, (const struct sockaddr *)&address->socket, address->socket_bytes) != 0)
            status = MR_ERROR(UNAVAILABLE, "cannot listen on %s: %s", address->text,
                              errno == EADDRINUSE ? "the port is in use" : strerror(errno));
    }
    (void)close(fd);
    return status;
}
