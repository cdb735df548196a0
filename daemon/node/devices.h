/* SPDX-License-Identifier: Apache-2.0 */
/* devices.h: which devices a node gives a stage to: what --devices says, or all that are found.
 *   auto         every CUDA card; without one, the processors as one CPU device
 *   cpu:N        N CPU devices that share the processors
 *   LIST         as written, parted by commas: cuda:0,cuda:2,cpu
 * Owner: node. Limits: MR_NODE_STAGES_MAX.
 * Not here: what a device can do (device/). */
#ifndef MR_NODE_DEVICES_H
#define MR_NODE_DEVICES_H

#include <stddef.h>

#include "daemon/base/limits.h"
#include "daemon/base/status.h"

enum { MR_NODE_DEVICE_BYTES = 16 };

typedef struct mr_node_device {
    char kind[MR_NODE_DEVICE_BYTES]; /* "cpu", "cuda:3": a stage's --device */
    char name[MR_NODE_DEVICE_BYTES]; /* of its own on this node: "cpu:0", "cuda:3" */
    unsigned threads;                /* of a CPU device; 0 for a card */
} mr_node_device;

typedef struct mr_node_devices {
    size_t count;
    mr_node_device items[MR_NODE_STAGES_MAX];
} mr_node_devices;

/* Pure. cards: CUDA cards found (auto). processors: to be shared by the CPU devices, each of which
 * gets at least one thread. threads: of each CPU device; 0: its share. INVALID_ARGUMENT names the
 * word of text. */
MR_MUST_CHECK mr_status mr_node_devices_choose(const char *text, unsigned cards,
                                               unsigned processors, unsigned threads,
                                               mr_node_devices *out_devices);
/* How many CUDA cards there are: 0 where this build has no CUDA library. Asked in a process of its
 * own, because a sick driver may hang: before any thread is started. The reason for finding none,
 * or "", goes to out_reason. Waits at most MR_NODE_PROBE_TIMEOUT_MS. */
unsigned mr_node_devices_count_cards(char out_reason[MR_STATUS_TEXT_BYTES]);

#endif
