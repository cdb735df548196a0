/* SPDX-License-Identifier: Apache-2.0 */
#include "client/http_page.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/base/alloc.h"
#include "daemon/base/clock.h"

enum { PAGE_HOST_BYTES = 256, PAGE_PORT_BYTES = 8, PAGE_FIRST_BYTES = 65536 };

/* A request on its way. */
typedef struct page {
    const char *address;
    int64_t end_ms;
    int fd; /* -1: not connected */
    char *text;
    size_t bytes;
    size_t capacity;
} page;

static mr_status page_error(const page *self, const char *what) {
    return MR_ERROR(UNAVAILABLE, "%.100s: cannot %s: %s", self->address, what, strerror(errno));
}

/* Waits until the socket can do that. */
static mr_status page_wait(const page *self, short events) {
    for (;;) {
        struct pollfd fd = {.fd = self->fd, .events = events};
        int64_t left_ms = self->end_ms - mr_clock_now_ms();
        int ready = left_ms > 0 ? poll(&fd, 1, (int)left_ms) : 0;
        if (ready > 0)
            return MR_OK;
        if (ready == 0)
            return MR_ERROR(DEADLINE_EXCEEDED, "%.100s did not answer in time", self->address);
        if (errno != EINTR)
            return page_error(self, "wait");
    }
}

static mr_status page_connect_one(page *self, const struct addrinfo *place) {
    int error = 0;
    socklen_t size = sizeof(error);
    self->fd = socket(place->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (self->fd < 0)
        return page_error(self, "make a socket");
    if (connect(self->fd, place->ai_addr, place->ai_addrlen) == 0)
        return MR_OK;
    if (errno != EINPROGRESS)
        return page_error(self, "connect");
    MR_TRY(page_wait(self, POLLOUT));
    if (getsockopt(self->fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0)
        return page_error(self, "connect");
    errno = error;
    return error == 0 ? MR_OK : page_error(self, "connect");
}

/* "host:port", "[::1]:port". */
static mr_status page_split(const char *address, char host[PAGE_HOST_BYTES],
                            char port[PAGE_PORT_BYTES]) {
    const char *colon = strrchr(address, ':');
    size_t length = colon ? (size_t)(colon - address) : 0;
    bool brackets = length > 2 && address[0] == '[' && address[length - 1] == ']';
    if (colon == NULL || length == 0 || length >= PAGE_HOST_BYTES ||
        strlen(colon + 1) >= PAGE_PORT_BYTES)
        return MR_ERROR(UNAVAILABLE, "%.100s is no address of a status port", address);
    snprintf(host, PAGE_HOST_BYTES, "%.*s", (int)(brackets ? length - 2 : length),
             brackets ? address + 1 : address);
    snprintf(port, PAGE_PORT_BYTES, "%s", colon + 1);
    return MR_OK;
}

static mr_status page_connect(page *self) {
    char host[PAGE_HOST_BYTES];
    char port[PAGE_PORT_BYTES];
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_family = AF_UNSPEC};
    struct addrinfo *places = NULL;
    MR_TRY(page_split(self->address, host, port));
    int error = getaddrinfo(host, port, &hints, &places);
    if (error != 0)
        return MR_ERROR(UNAVAILABLE, "%.100s: %s", self->address, gai_strerror(error));
    mr_status status = MR_ERROR(UNAVAILABLE, "%.100s: no address", self->address);
    for (const struct addrinfo *at = places; at != NULL; at = at->ai_next) {
        status = page_connect_one(self, at);
        if (mr_status_is_ok(status))
            break;
        if (self->fd >= 0)
            (void)close(self->fd); /* nothing was sent */
        self->fd = -1;
    }
    freeaddrinfo(places);
    return status;
}

static mr_status page_send(const page *self, const char *path) {
    char request[1024];
    int length = snprintf(request, sizeof(request),
                          "GET /%s HTTP/1.0\r\nHost: %s\r\nAccept-Encoding: identity\r\n\r\n", path,
                          self->address);
    MR_ASSERT(length > 0 && (size_t)length < sizeof(request));
    for (size_t done = 0; done < (size_t)length;) {
        MR_TRY(page_wait(self, POLLOUT));
        ssize_t sent = send(self->fd, request + done, (size_t)length - done, MSG_NOSIGNAL);
        if (sent < 0 && errno != EINTR && errno != EAGAIN)
            return page_error(self, "send");
        done += sent > 0 ? (size_t)sent : 0;
    }
    return MR_OK;
}

static mr_status page_grow(page *self) {
    size_t capacity = self->capacity == 0 ? PAGE_FIRST_BYTES : self->capacity * 2;
    if (self->bytes + 1 < self->capacity)
        return MR_OK;
    if (capacity > MR_HTTP_PAGE_BYTES_MAX)
        return MR_ERROR(RESOURCE_EXHAUSTED, "%.100s answers with more than %d bytes",
                        self->address, (int)MR_HTTP_PAGE_BYTES_MAX);
    char *text = mr_alloc(capacity);
    if (text == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the answer of %.100s", self->address);
    if (self->bytes > 0)
        memcpy(text, self->text, self->bytes);
    mr_free(self->text);
    self->text = text;
    self->capacity = capacity;
    return MR_OK;
}

/* To the end of the connection, which HTTP/1.0 has for the end of the page. */
static mr_status page_receive(page *self) {
    for (;;) {
        MR_TRY(page_grow(self));
        MR_TRY(page_wait(self, POLLIN));
        ssize_t got =
            recv(self->fd, self->text + self->bytes, self->capacity - 1 - self->bytes, 0);
        if (got == 0)
            break;
        if (got < 0 && errno != EINTR && errno != EAGAIN)
            return page_error(self, "read the answer");
        self->bytes += got > 0 ? (size_t)got : 0;
    }
    self->text[self->bytes] = '\0';
    return MR_OK;
}

/* Leaves the body in text. A length that the header promises must be there. */
static mr_status page_strip(page *self) {
    static const char length_name[] = "\r\ncontent-length:";
    char *end = strstr(self->text, "\r\n\r\n");
    unsigned code = 0;
    if (end == NULL || end - self->text > MR_HTTP_PAGE_HEADER_MAX ||
        sscanf(self->text, "HTTP/1.%*1u %3u", &code) != 1)
        return MR_ERROR(UNAVAILABLE, "%.100s does not answer in HTTP", self->address);
    if (code != 200)
        return MR_ERROR(UNAVAILABLE, "%.100s answers with %u", self->address, code);
    size_t header = (size_t)(end - self->text) + 4;
    size_t body = self->bytes - header;
    end[2] = '\0';
    const char *promised = strcasestr(self->text, length_name);
    if (promised != NULL && strtoull(promised + sizeof(length_name) - 1, NULL, 10) != body)
        return MR_ERROR(UNAVAILABLE, "%.100s broke off its answer after %zu bytes", self->address,
                        body);
    memmove(self->text, self->text + header, body + 1);
    self->bytes = body;
    return MR_OK;
}

mr_status mr_http_page_get(const char *address, const char *path, int64_t timeout_ms,
                           char **out_text, size_t *out_bytes) {
    page self = {.address = address, .end_ms = mr_clock_now_ms() + timeout_ms, .fd = -1};
    mr_status status = page_connect(&self);
    if (mr_status_is_ok(status))
        status = page_send(&self, path);
    if (mr_status_is_ok(status))
        status = page_receive(&self);
    if (mr_status_is_ok(status))
        status = page_strip(&self);
    if (self.fd >= 0)
        (void)close(self.fd); /* all is read */
    if (!mr_status_is_ok(status)) {
        mr_free(self.text);
        return status;
    }
    *out_text = self.text;
    *out_bytes = self.bytes;
    return MR_OK;
}
