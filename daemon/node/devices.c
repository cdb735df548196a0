/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/node/devices.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/base/clock.h"
#include "daemon/device/cuda/driver.h"
#include "daemon/device/cuda/load.h"

/* ---- what is asked for ---- */

static mr_status devices_add(mr_node_devices *devices, const char *kind) {
    if (devices->count == MR_NODE_STAGES_MAX)
        return MR_ERROR(INVALID_ARGUMENT, "--devices names more than %d devices",
                        MR_NODE_STAGES_MAX);
    mr_node_device *device = &devices->items[devices->count++];
    (void)snprintf(device->kind, sizeof(device->kind), "%s", kind);
    return MR_OK;
}

/* A decimal number of one to three digits after the prefix; -1 where text is none of the kind. */
static int devices_number(const char *text, size_t bytes, const char *prefix) {
    size_t begin = strlen(prefix);
    if (bytes <= begin || bytes > begin + 3 || strncmp(text, prefix, begin) != 0)
        return -1;
    int number = 0;
    for (size_t i = begin; i < bytes; i++) {
        if (text[i] < '0' || text[i] > '9')
            return -1;
        number = number * 10 + (text[i] - '0');
    }
    return number;
}

static mr_status devices_add_cards(mr_node_devices *devices, unsigned cards) {
    for (unsigned i = 0; i < cards; i++) {
        char kind[MR_NODE_DEVICE_BYTES];
        (void)snprintf(kind, sizeof(kind), "cuda:%u", i);
        MR_TRY(devices_add(devices, kind));
    }
    return MR_OK;
}

static mr_status devices_add_list(mr_node_devices *devices, const char *text) {
    for (const char *word = text;;) {
        size_t bytes = strcspn(word, ",");
        int card = devices_number(word, bytes, "cuda:");
        char kind[MR_NODE_DEVICE_BYTES];
        if (card < 0 && (bytes != 3 || strncmp(word, "cpu", 3) != 0))
            return MR_ERROR(INVALID_ARGUMENT,
                            "--devices has \"%.*s\"; it must be auto, cpu:N, or a list of cpu and "
                            "cuda:N",
                            bytes > 40 ? 40 : (int)bytes, word);
        (void)snprintf(kind, sizeof(kind), "%.*s", (int)bytes, word);
        for (size_t i = 0; card >= 0 && i < devices->count; i++)
            if (strcmp(devices->items[i].kind, kind) == 0)
                return MR_ERROR(INVALID_ARGUMENT, "--devices names %s twice", kind);
        MR_TRY(devices_add(devices, kind));
        if (word[bytes] == '\0')
            return MR_OK;
        word += bytes + 1;
    }
}

static mr_status devices_read(const char *text, unsigned cards, mr_node_devices *devices) {
    if (strcmp(text, "auto") == 0)
        return cards > 0 ? devices_add_cards(devices, cards) : devices_add(devices, "cpu");
    int count = devices_number(text, strlen(text), "cpu:");
    if (count < 0)
        return devices_add_list(devices, text);
    if (count == 0)
        return MR_ERROR(INVALID_ARGUMENT, "--devices is cpu:0; it must be at least cpu:1");
    for (int i = 0; i < count; i++)
        MR_TRY(devices_add(devices, "cpu"));
    return MR_OK;
}

mr_status mr_node_devices_choose(const char *text, unsigned cards, unsigned processors,
                                 unsigned threads, mr_node_devices *out_devices) {
    mr_node_devices devices = {0};
    unsigned shares = 0;
    unsigned number = 0;
    MR_TRY(devices_read(text, cards, &devices));
    for (size_t i = 0; i < devices.count; i++)
        shares += strcmp(devices.items[i].kind, "cpu") == 0;
    for (size_t i = 0; i < devices.count; i++) {
        mr_node_device *device = &devices.items[i];
        if (strcmp(device->kind, "cpu") != 0) {
            memcpy(device->name, device->kind, sizeof(device->name));
            continue;
        }
        /* The first ones take what does not divide. */
        unsigned share = processors / shares + (number < processors % shares ? 1 : 0);
        device->threads = threads > 0 ? threads : share > 0 ? share : 1;
        (void)snprintf(device->name, sizeof(device->name), "cpu:%u", number++);
    }
    *out_devices = devices;
    return MR_OK;
}

/* ---- what there is ---- */

/* The asking process's answer. */
typedef struct devices_answer {
    unsigned cards;
    char reason[MR_STATUS_TEXT_BYTES];
} devices_answer;

static _Noreturn void devices_probe(int fd) {
    devices_answer answer = {0};
    mr_status status = mr_device_cuda_present();
    if (mr_status_is_ok(status))
        status = mr_cuda_driver_count(&answer.cards);
    if (!mr_status_is_ok(status))
        memcpy(answer.reason, status.text, sizeof(answer.reason));
    ssize_t written = write(fd, &answer, sizeof(answer)); /* less than a pipe's atomic size */
    _exit(written == (ssize_t)sizeof(answer) ? 0 : 1);
}

/* false: no whole answer in time. */
static bool devices_await(int fd, devices_answer *answer) {
    int64_t end_ms = mr_clock_now_ms() + MR_NODE_PROBE_TIMEOUT_MS;
    struct pollfd waits = {.fd = fd, .events = POLLIN};
    int ready = 0;
    do {
        int64_t left_ms = end_ms - mr_clock_now_ms();
        ready = poll(&waits, 1, left_ms > 0 ? (int)left_ms : 0);
    } while (ready < 0 && errno == EINTR);
    return ready == 1 && read(fd, answer, sizeof(*answer)) == (ssize_t)sizeof(*answer);
}

unsigned mr_node_devices_count_cards(char out_reason[MR_STATUS_TEXT_BYTES]) {
    devices_answer answer = {.reason = "the process that asks the driver could not be made"};
    int ends[2];
    if (pipe(ends) == 0) {
        pid_t process = fork();
        if (process == 0)
            devices_probe(ends[1]);
        (void)close(ends[1]);
        bool answered = process > 0 && devices_await(ends[0], &answer);
        (void)close(ends[0]);
        if (process > 0 && !answered) {
            answer = (devices_answer){.reason = "the driver did not answer in time"};
            (void)kill(process, SIGKILL);
        }
        if (process > 0) /* one that hangs in the kernel is not waited for */
            (void)waitpid(process, NULL, answered ? 0 : WNOHANG);
    }
    memcpy(out_reason, answer.reason, sizeof(answer.reason));
    return answer.cards;
}
