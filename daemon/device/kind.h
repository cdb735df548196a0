/* SPDX-License-Identifier: Apache-2.0 */
/* kind.h: devices of a program's own, beside cpu and cuda:N: a library that is linked whole into
 * millraced gives one a name, by which --device chooses it:
 *
 *     static const mr_device_kind near_kind = {.name = "near", .create = near_create};
 *     MR_DEVICE_KIND_REGISTER(near_kind)
 *
 * Owner: device. Thread: registered before main; read by any thread after. */
#ifndef MR_DEVICE_KIND_H
#define MR_DEVICE_KIND_H

#include "daemon/device/device.h"

enum { MR_DEVICE_KINDS_MAX = 8 };

typedef struct mr_device_kind {
    const char *name; /* neither cpu nor cuda:N */
    /* As mr_device_create. */
    mr_status (*create)(const mr_device_options *options, mr_device **out_device);
} mr_device_kind;

/* Adds a kind, which must stay as long as the process; at most MR_DEVICE_KINDS_MAX, before main. */
void mr_device_kind_register(const mr_device_kind *kind);

#define MR_DEVICE_KIND_REGISTER(kind)                                                              \
    __attribute__((constructor)) static void kind##_register(void) {                              \
        mr_device_kind_register(&kind);                                                            \
    }

#endif
