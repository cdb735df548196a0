/* SPDX-License-Identifier: Apache-2.0 */
/* stages.h: the stages of a node: for each its device, its ward, its process and what it last said
 * of itself; and the command line that starts it.
 * Owner: node. Plain data; the functions are pure.
 * Not here: what happens to them (node.c). */
#ifndef MR_NODE_STAGES_H
#define MR_NODE_STAGES_H

#include <sys/types.h>

#include "daemon/node/child.h"
#include "daemon/node/devices.h"
#include "daemon/node/node.h"
#include "daemon/node/notice.h"
#include "daemon/node/ward.h"

typedef struct mr_node_stage {
    mr_node_device device;
    mr_ward ward;
    pid_t process; /* 0: none */
    mr_notice said;
    char listen[MR_NOTICE_ADDRESS_BYTES];
    char advertise[MR_NOTICE_ADDRESS_BYTES]; /* "": none */
    char status_listen[MR_NOTICE_ADDRESS_BYTES];
    char threads[12];
    char drain[12];
} mr_node_stage;

typedef struct mr_node_stages {
    size_t count;
    mr_node_stage items[MR_NODE_STAGES_MAX];
} mr_node_stages;

/* The command line of one stage; texts are borrowed from options and stage. */
typedef struct mr_stage_command {
    const char *arguments[MR_CHILD_ARGUMENTS_MAX]; /* NULL at the end */
} mr_stage_command;

/* HOST:PORT with the port's n-th successor; port 0 stays. INVALID_ARGUMENT: not HOST:PORT, or past
 * port 65535; option is named. */
MR_MUST_CHECK mr_status mr_node_address_nth(const char *option, const char *address, size_t n,
                                            char out_address[MR_NOTICE_ADDRESS_BYTES]);
/* One stage a device, none started. */
MR_MUST_CHECK mr_status mr_node_stages_make(const mr_node_options *options,
                                            const mr_node_devices *devices, int64_t now_ms,
                                            mr_node_stages *out_stages);
/* How the stage's process is called. */
mr_stage_command mr_node_stage_command(const mr_node_options *options, const mr_node_stage *stage);

/* How many are in this state. */
size_t mr_node_stages_count(const mr_node_stages *stages, mr_ward_state state);
/* One line for people: "2 of 3 stages ready; cuda:1 waits 8 s after exit code 70". */
void mr_node_stages_describe(const mr_node_stages *stages, int64_t now_ms, char *out_text,
                             size_t bytes);
/* Why a stage is not ready: "waits 8 s after exit code 70". */
void mr_node_stage_describe(const mr_node_stage *stage, int64_t now_ms, char *out_text,
                            size_t bytes);

#endif
