/* SPDX-License-Identifier: Apache-2.0 */
/* The only place that knows which kinds of device exist. */
#include "daemon/device/kind.h"

#include <stdio.h>
#include <string.h>

#include "daemon/device/cpu/create.h"
#include "daemon/device/cuda/load.h"

static const mr_device_kind *registered[MR_DEVICE_KINDS_MAX];
static size_t registered_count;

void mr_device_kind_register(const mr_device_kind *kind) {
    MR_ASSERT(registered_count < MR_DEVICE_KINDS_MAX);
    registered[registered_count++] = kind;
}

/* "cuda:" and a decimal number, nothing after it. */
static bool kind_is_cuda(const char *kind, unsigned *out_number) {
    int used = 0;
    return sscanf(kind, "cuda:%3u%n", out_number, &used) == 1 && kind[used] == '\0' &&
           kind[5] >= '0' && kind[5] <= '9'; /* scanf takes a sign, too */
}

mr_status mr_device_create(const mr_device_options *options, mr_device **out_device) {
    unsigned number = 0;
    MR_ASSERT(options != NULL && out_device != NULL);
    if (options->kind == NULL)
        return MR_ERROR(INVALID_ARGUMENT, "no device is named; it must be cpu or cuda:N");
    if (strcmp(options->kind, "cpu") == 0)
        return mr_device_cpu_create(options, out_device);
    if (kind_is_cuda(options->kind, &number))
        return mr_device_cuda_create(options, number, out_device);
    for (size_t i = 0; i < registered_count; i++)
        if (strcmp(options->kind, registered[i]->name) == 0)
            return registered[i]->create(options, out_device);
    return MR_ERROR(INVALID_ARGUMENT, "device is \"%.40s\"; it must be cpu or cuda:N",
                    options->kind);
}

void mr_device_destroy(mr_device *device) {
    if (device != NULL)
        device->ops->destroy(device);
}
