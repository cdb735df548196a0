/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/device/cpu/processors.h"

#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/base/status.h"

int mr_processors_allowed(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) != 0 || CPU_COUNT(&set) < 1)
        return 1;
    return CPU_COUNT(&set);
}

/* The first process namespace of a Linux machine has this fixed inode number (PROC_PID_INIT_INO of
 * the kernel's proc_ns.h). */
static bool processors_is_container(void) {
    char link[64] = {0};
    ssize_t length = readlink("/proc/self/ns/pid", link, sizeof(link) - 1);
    return length <= 0 || strcmp(link, "pid:[4026531836]") != 0;
}

/* May this process's set be taken for its own? */
static bool processors_are_ours(const cpu_set_t *set) {
    return !processors_is_container() || CPU_COUNT(set) < (int)sysconf(_SC_NPROCESSORS_ONLN);
}

/* Is it the lowest-numbered thread of its core? Unknown counts as yes. */
static bool processors_is_first_sibling(int processor) {
    char path[96];
    int first = processor;
    (void)snprintf(path, sizeof(path),
                   "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", processor);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return true;
    if (fscanf(file, "%d", &first) != 1)
        first = processor;
    (void)fclose(file); /* only read from */
    return first == processor;
}

/* A socket that holds the processor's name; -1 when somebody else does. */
static int processors_claim_one(int processor) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int length = snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1,
                          "millrace.processor.%d", processor);
    int claim = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (claim < 0)
        return -1;
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
    if (bind(claim, (const struct sockaddr *)&address, size) != 0) {
        (void)close(claim); /* bound to nothing */
        return -1;
    }
    return claim;
}

bool mr_processors_claim(int count, mr_processors *out_processors) {
    mr_processors taken = {0};
    cpu_set_t set;
    MR_ASSERT(count >= 1 && count <= MR_DEVICE_THREADS_MAX);
    if (sched_getaffinity(0, sizeof(set), &set) != 0 || !processors_are_ours(&set))
        return false;
    for (int later = 0; later <= 1 && taken.count < count; later++)
        for (int i = 0; i < CPU_SETSIZE && taken.count < count; i++) {
            if (!CPU_ISSET((size_t)i, &set) || processors_is_first_sibling(i) == (later == 1))
                continue;
            int claim = processors_claim_one(i);
            if (claim < 0)
                continue;
            taken.number[taken.count] = i;
            taken.claim[taken.count++] = claim;
        }
    if (taken.count < count) {
        mr_processors_release(&taken);
        return false;
    }
    *out_processors = taken;
    return true;
}

void mr_processors_release(mr_processors *processors) {
    for (int i = 0; i < processors->count; i++)
        (void)close(processors->claim[i]); /* our own */
    processors->count = 0;
}
